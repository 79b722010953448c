//! A small internet: a server at the edge, phones and attackers, and a router between them.
//!
//! ```text
//!   phones ──── office0 ┐
//!                       ├ router ─ edge0 ── sip0 ─ edge
//! attacker 1 ┐          │
//! attacker 2 ┼─── wild0 ┘
//! attacker … ┘
//! ```
//!
//! Each attacker is a host of its own: not every program can be told which of several addresses to use.
//! Everything reaches the server through its one interface, [`EDGE_INTERFACE`], as on a real host.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use anyhow::{Context as _, Result};

use super::{Netns, netns};

/// The server's interface, the one to protect.
pub const EDGE_INTERFACE: &str = "sip0";

/// The server's IPv4 network; routers have `.1` in each.
const EDGE_V4: [u8; 3] = [192, 0, 2];
const PHONES_V4: [u8; 3] = [198, 51, 100];
const ATTACKERS_V4: [u8; 3] = [203, 0, 113];
/// The third group of the IPv6 networks, all inside 2001:db8::/32.
const EDGE_V6: u16 = 0xed9e;
const PHONES_V6: u16 = 0x0ffe;
const ATTACKERS_V6: u16 = 0x0bad;

/// The namespaces and their links; gone when dropped.
#[derive(Debug)]
pub struct Topology {
    /// The server's host.
    pub edge: Netns,
    /// Forwards between the others.
    pub router: Netns,
    /// Hosts the phones.
    pub phones: Netns,
    /// The attackers' hosts, by number.
    attackers: BTreeMap<u8, Netns>,
}

impl Topology {
    /// Builds the network. Hosts are numbers, the last part of an address; every host has an IPv4 and an IPv6
    /// address.
    ///
    /// # Errors
    /// If the kernel refuses something.
    pub fn new(servers: &[u8], phones: &[u8], attackers: &[u8]) -> Result<Self> {
        let mut topology = Self {
            edge: Netns::new("edge")?,
            router: Netns::new("router")?,
            phones: Netns::new("phones")?,
            attackers: BTreeMap::new(),
        };
        let Self {
            edge,
            router,
            phones: phones_ns,
            attackers: attackers_ns,
        } = &mut topology;
        router.forward()?;
        netns::connect((edge, EDGE_INTERFACE), (router, "edge0"))?;
        netns::connect((phones_ns, "eth0"), (router, "office0"))?;
        router.ip(&["link", "add", "wild0", "type", "bridge"])?;
        router.up("wild0")?;
        for (port, v4, v6) in [
            ("edge0", EDGE_V4, EDGE_V6),
            ("office0", PHONES_V4, PHONES_V6),
            ("wild0", ATTACKERS_V4, ATTACKERS_V6),
        ] {
            router.add_address(port, &with_prefix(address_v4(v4, 1)))?;
            router.add_address(port, &with_prefix(address_v6(v6, 1)))?;
        }
        configure(edge, EDGE_INTERFACE, EDGE_V4, EDGE_V6, servers)?;
        configure(phones_ns, "eth0", PHONES_V4, PHONES_V6, phones)?;
        for number in attackers {
            let netns = Netns::new(&format!("attacker{number}"))?;
            let port = format!("wild{number}");
            netns::connect((&netns, "eth0"), (router, &port))?;
            router.ip(&["link", "set", &port, "master", "wild0"])?;
            configure(&netns, "eth0", ATTACKERS_V4, ATTACKERS_V6, &[*number])?;
            attackers_ns.insert(*number, netns);
        }
        Ok(topology)
    }

    /// The host of an attacker.
    ///
    /// # Errors
    /// If there is none with that number.
    pub fn attacker(&self, number: u8) -> Result<&Netns> {
        self.attackers
            .get(&number)
            .with_context(|| format!("no attacker {number}"))
    }

    /// The IPv4 address of a server.
    #[must_use]
    pub fn server_v4(number: u8) -> IpAddr {
        address_v4(EDGE_V4, number)
    }

    /// The IPv6 address of a server.
    #[must_use]
    pub fn server_v6(number: u8) -> IpAddr {
        address_v6(EDGE_V6, number)
    }

    /// The IPv4 address of a phone.
    #[must_use]
    pub fn phone_v4(number: u8) -> IpAddr {
        address_v4(PHONES_V4, number)
    }

    /// The IPv6 address of a phone.
    #[must_use]
    pub fn phone_v6(number: u8) -> IpAddr {
        address_v6(PHONES_V6, number)
    }

    /// The IPv4 address of an attacker.
    #[must_use]
    pub fn attacker_v4(number: u8) -> IpAddr {
        address_v4(ATTACKERS_V4, number)
    }

    /// The IPv6 address of an attacker.
    #[must_use]
    pub fn attacker_v6(number: u8) -> IpAddr {
        address_v6(ATTACKERS_V6, number)
    }
}

/// Gives a host its addresses and its way to everybody else.
fn configure(host: &Netns, interface: &str, v4: [u8; 3], v6: u16, numbers: &[u8]) -> Result<()> {
    for number in numbers {
        host.add_address(interface, &with_prefix(address_v4(v4, *number)))?;
        host.add_address(interface, &with_prefix(address_v6(v6, *number)))?;
    }
    host.add_route("default", &address_v4(v4, 1).to_string())?;
    host.add_route("default", &address_v6(v6, 1).to_string())
}

fn address_v4([a, b, c]: [u8; 3], number: u8) -> IpAddr {
    Ipv4Addr::new(a, b, c, number).into()
}

fn address_v6(network: u16, number: u8) -> IpAddr {
    Ipv6Addr::new(0x2001, 0x0db8, network, 0, 0, 0, 0, number.into()).into()
}

fn with_prefix(address: IpAddr) -> String {
    format!("{address}/{}", if address.is_ipv4() { 24 } else { 64 })
}
