//! The attackers. Each goes on until it is told to stop, banned or not.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use xtask::lab::{
    Netns, Process, Site, Topology,
    client::Client,
    interrupt,
    scanners::{Disguise, Scan},
    sipp::{self, Pace, Sipp},
    spoof::Forger,
    traffic::Burst,
    wait,
};

use super::{
    attack_tcp,
    customers::{self, rest},
};

/// The attackers' host; other addresses of it are theirs, too.
pub(super) const HOST: u8 = 21;
/// The first address of a distributed attack; the others follow.
const SWARM: u8 = 101;
/// The account whose password is tried.
pub(super) const VICTIM: &str = "1001";

/// What attackers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    /// svmap, on the four addresses of the server.
    Map,
    /// svwar on 1,020 extensions.
    War(Disguise),
    /// svcrack on an account.
    Crack(Disguise),
    /// Passwords from several addresses, one every so often from each.
    Guess { sources: u8, every: Duration },
    /// Requests at a rate, by SIPp.
    Flood(sipp::Flood, u32),
    /// Requests in somebody's name.
    Spoof {
        whose: Name,
        rate: u32,
        count: u64,
        /// Time to live or hop limit: whether the forger seems to stand as far away as whom he names.
        hops: u8,
    },
    /// Passwords over TCP, five a second: over one connection, or over a new one for each.
    GuessTcp { anew: bool },
    /// REGISTER requests at a rate, over a few TCP connections.
    FloodTcp(u32),
    /// INVITEs to numbers with all kinds of prefixes, two a second.
    DialPlan,
    /// Random bytes, 100 packets a second.
    Garbage,
}

/// In whose name packets are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Name {
    /// A registered customer.
    Customer,
    /// A registered customer whose address the operator has allow-listed.
    Allowed,
    /// An address that has nothing to do with it all.
    Stranger,
    /// Every packet in that of another address.
    Everybody,
}

/// The address that a flood in a stranger's name comes from.
pub(super) fn stranger(v6: bool) -> IpAddr {
    if v6 {
        Ipv6Addr::new(0x2001, 0xdb9, 0xffff, 0xffff, 0, 0, 0, 7).into()
    } else {
        Ipv4Addr::new(10, 255, 255, 7).into()
    }
}

impl Attack {
    /// Attacks until `stop`, and at most for `limit`.
    pub(super) fn play(self, site: &Site, v6: bool, limit: Duration, stop: &AtomicBool) -> Result<()> {
        let host = site.topology.attacker(HOST)?;
        let address = own(HOST, v6);
        let server = Site::server_for(address);
        match self {
            Self::Map => {
                // The tool takes no range of IPv6 addresses.
                let targets = if v6 {
                    server.ip().to_string()
                } else {
                    Site::server_range()
                };
                scan(site, &Scan::Map { targets }, Disguise::None, limit, stop)
            }
            Self::War(disguise) => {
                let extensions = "980-1999".to_owned();
                let server = server.ip();
                scan(site, &Scan::War { server, extensions }, disguise, limit, stop)
            }
            Self::Crack(disguise) => {
                let crack = Scan::Crack {
                    server: server.ip(),
                    user: VICTIM.to_owned(),
                    passwords: "1000-9999".to_owned(),
                };
                scan(site, &crack, disguise, limit, stop)
            }
            Self::Guess { sources, every } => guess(host, v6, sources, every, server, stop),
            Self::Flood(flood, rate) => {
                let pace = Pace {
                    rate,
                    every: Duration::from_secs(1),
                    count: rate * u32::try_from(limit.as_secs())?.max(1),
                    limit,
                };
                let from = SocketAddr::new(address, 5060);
                let mut sipp = Sipp::flood(host, &site.dir, "flood", flood, from, server, pace)?;
                supervise(&mut sipp.process, stop)
            }
            Self::Spoof {
                whose,
                rate,
                count,
                hops,
            } => {
                let burst = Burst {
                    count,
                    rate: Some(rate),
                    limit,
                };
                spoof(site, host, v6, (whose, hops), burst, stop)
            }
            Self::GuessTcp { anew } => {
                attack_tcp::guess(host, SocketAddr::new(address, 0), server, anew, stop)
            }
            Self::FloodTcp(rate) => attack_tcp::flood(host, SocketAddr::new(address, 0), server, rate, stop),
            Self::DialPlan => dial_plan(host, SocketAddr::new(address, 5060), server, stop),
            Self::Garbage => garbage(host, SocketAddr::new(address, 5060), server, stop),
        }
    }
}

fn own(host: u8, v6: bool) -> IpAddr {
    if v6 {
        Topology::attacker_v6(host)
    } else {
        Topology::attacker_v4(host)
    }
}

/// Runs a tool again and again.
fn scan(site: &Site, scan: &Scan, disguise: Disguise, limit: Duration, stop: &AtomicBool) -> Result<()> {
    let host = site.topology.attacker(HOST)?;
    let start = Instant::now();
    let mut quick_ends = 0;
    for run in 1.. {
        let begun = Instant::now();
        let name = format!("scan-{run}");
        let mut process = scan.start_disguised(host, &site.dir, &name, limit, disguise)?;
        supervise(&mut process, stop)?;
        if stop.load(Ordering::Relaxed) || interrupt::requested() || start.elapsed() >= limit {
            break;
        }
        // A tool that can't be started isn't an attack.
        quick_ends = if begun.elapsed() < Duration::from_millis(100) {
            quick_ends + 1
        } else {
            0
        };
        ensure!(quick_ends < 5, "the scanner ends at once: {}", process.log());
    }
    Ok(())
}

/// Waits for the end of a program, or ends it when the time has come.
fn supervise(process: &mut Process, stop: &AtomicBool) -> Result<()> {
    while process.status()?.is_none() {
        if stop.load(Ordering::Relaxed) || interrupt::requested() {
            process.stop();
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn guess(
    host: &Netns,
    v6: bool,
    sources: u8,
    every: Duration,
    server: SocketAddr,
    stop: &AtomicBool,
) -> Result<()> {
    let mut clients = Vec::new();
    for number in 0..sources {
        let address = own(SWARM + number, v6);
        host.add_address("eth0", &format!("{address}/{}", if v6 { 64 } else { 24 }))?;
        // On a busy machine, an IPv6 address takes a moment until it can be used.
        let mut client = None;
        wait::until("a new address", Duration::from_secs(5), || {
            client = Client::new(host, SocketAddr::new(address, 5060), server, VICTIM).ok();
            Ok(client.is_some())
        })?;
        clients.extend(client.map(|client| client.agent("Z 5.6.1 v2.10.20.8").hasty()));
    }
    thread::scope(|scope| {
        let threads: Vec<_> = clients
            .into_iter()
            .zip(0u32..)
            .map(|(client, number)| {
                scope.spawn(move || -> Result<()> {
                    rest(every / u32::from(sources) * number, stop);
                    for round in 0.. {
                        if stop.load(Ordering::Relaxed) || interrupt::requested() {
                            break;
                        }
                        let begun = Instant::now();
                        client.register(&format!("secret{number}-{round}"))?;
                        rest(every.saturating_sub(begun.elapsed()), stop);
                    }
                    Ok(())
                })
            })
            .collect();
        threads.into_iter().try_for_each(super::joined)
    })
}

fn spoof(
    site: &Site,
    host: &Netns,
    v6: bool,
    (whose, hops): (Name, u8),
    burst: Burst,
    stop: &AtomicBool,
) -> Result<()> {
    let mut forger = Forger::new((host, "eth0"), (&site.topology.router, "wild0"))?.hops(hops);
    let fixed = match whose {
        Name::Customer | Name::Allowed => Some(customers::victim(v6)),
        Name::Stranger => Some(stranger(v6)),
        Name::Everybody => None,
    };
    let server = Site::server_for(own(HOST, v6));
    let stopped = || stop.load(Ordering::Relaxed);
    let sent = forger.send(server, burst, stopped, |number, payload| {
        let from = SocketAddr::new(fixed.unwrap_or_else(|| anybody(number, v6)), 5060);
        request(payload, number, from, server);
        from
    });
    ensure!(sent.packets > 0, "no forged packet could be sent");
    // The attack lasts as long as whoever asked for it wants to look.
    while !stopped() && !interrupt::requested() {
        thread::sleep(Duration::from_millis(20));
        if sent.elapsed < burst.limit {
            break;
        }
    }
    Ok(())
}

/// An address of its own for each number, in no order.
fn anybody(number: u64, v6: bool) -> IpAddr {
    let mixed = (number as u32).wrapping_mul(0x9e37_79b1);
    if v6 {
        let [a, b, c, d] = mixed.to_be_bytes().map(u16::from);
        Ipv6Addr::new(0x2001, 0xdb9, a << 8 | b, c << 8 | d, 0, 0, 0, 1).into()
    } else {
        // Odd multiples are a bijection of the low 24 bits.
        Ipv4Addr::from(0x0a00_0000 | (mixed & 0x00ff_ffff)).into()
    }
}

/// A request of one of three methods in the name of `from`.
fn request(payload: &mut Vec<u8>, number: u64, from: SocketAddr, server: SocketAddr) {
    let (method, target) = match number % 3 {
        0 => ("INVITE", "00972592000000@"),
        1 => ("REGISTER", ""),
        _ => ("OPTIONS", ""),
    };
    let text = format!(
        "{method} sip:{target}{server} SIP/2.0\r\nVia: SIP/2.0/UDP {from};branch=z9hG4bKs{number:x};rport\r\n\
         Max-Forwards: 70\r\nFrom: <sip:1001@{server}>;tag=s{number:x}\r\nTo: <sip:1001@{server}>\r\n\
         Call-ID: spoof-{number:x}\r\nCSeq: 1 {method}\r\nContact: <sip:1001@{from}>\r\n\
         Content-Length: 0\r\n\r\n"
    );
    payload.extend(text.as_bytes());
}

fn dial_plan(host: &Netns, local: SocketAddr, server: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let client = Client::new(host, local, server, "100")?
        .agent("Cisco-SIPGateway/IOS-12.x")
        .hasty();
    let prefixes = [
        "", "0", "00", "000", "9", "90", "900", "9011", "011", "810", "+", "0011", "1", "8", "99", "*9",
    ];
    for (round, prefix) in prefixes.iter().cycle().enumerate() {
        if stop.load(Ordering::Relaxed) || interrupt::requested() {
            break;
        }
        let begun = Instant::now();
        client.probe(&format!("{prefix}97259{:07}", 2_000_000 + round / prefixes.len()))?;
        rest(Duration::from_millis(500).saturating_sub(begun.elapsed()), stop);
    }
    Ok(())
}

fn garbage(host: &Netns, local: SocketAddr, server: SocketAddr, stop: &AtomicBool) -> Result<()> {
    let client = Client::new(host, local, server, "nobody")?;
    for number in 0.. {
        if stop.load(Ordering::Relaxed) || interrupt::requested() {
            break;
        }
        let packet: Vec<u8> = noise(number).take(40 + (number % 400) as usize).collect();
        client.send(&packet)?;
        rest(Duration::from_millis(10), stop);
    }
    Ok(())
}

/// Bytes without pattern, always the same for the same seed (xorshift).
pub(super) fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_is_somebody_else() {
        for v6 in [false, true] {
            let all: std::collections::HashSet<_> = (0..100_000).map(|number| anybody(number, v6)).collect();
            assert_eq!(all.len(), 100_000);
        }
    }
}
