//! The whole scene: the topology with a working SIP service at its edge.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;

use super::{
    Kamailio, KamailioConfig, Topology, WorkDir,
    kamailio::Guard,
    sipp::{Phone, Sipp},
};

/// Host numbers of the server; the first is where phones register, the others are there to be scanned.
const SERVERS: [u8; 4] = [10, 11, 12, 13];
/// Where the called party listens, on the server's host and invisible to the network's attackers.
const ANSWER_PORT: u16 = 5080;

/// A SIP service with its network. The fields are in the order in which they must end.
#[derive(Debug)]
pub struct Site {
    /// The called party, one per address family.
    _answers: [Sipp; 2],
    /// The server.
    pub kamailio: Kamailio,
    /// Its network.
    pub topology: Topology,
    /// Configurations and logs.
    pub dir: WorkDir,
}

impl Site {
    /// Builds the network and starts the server; `limit` ends the called party in any case.
    ///
    /// # Errors
    /// If a program is missing or doesn't come up.
    pub fn start(
        role: &str,
        phones: &[u8],
        attackers: &[u8],
        users: &[Phone],
        limit: Duration,
    ) -> Result<Self> {
        Self::guarded(role, phones, attackers, users, limit, Guard::None)
    }

    /// The same with a server that defends itself.
    ///
    /// # Errors
    /// If a program is missing or doesn't come up.
    pub fn guarded(
        role: &str,
        phones: &[u8],
        attackers: &[u8],
        users: &[Phone],
        limit: Duration,
        guard: Guard,
    ) -> Result<Self> {
        let dir = WorkDir::new(role)?;
        let topology = Topology::new(&SERVERS, phones, attackers)?;
        let targets = [Self::server_v4(), Self::server_v6()].map(|ip| SocketAddr::new(ip.ip(), ANSWER_PORT));
        let [v4, v6] = targets;
        let answers = [
            Sipp::answer(&topology.edge, &dir, "answer-v4", v4, limit)?,
            Sipp::answer(&topology.edge, &dir, "answer-v6", v6, limit)?,
        ];
        let config = KamailioConfig {
            listen: Self::server_addresses(),
            realm: "sip.example.org".to_owned(),
            users: users
                .iter()
                .map(|phone| (phone.user.clone(), phone.password.clone()))
                .collect(),
            call_targets: targets.to_vec(),
            reveal_unknown_users: true,
            guard,
        };
        let kamailio = Kamailio::start(&topology.edge, &dir, &config)?;
        Ok(Self {
            _answers: answers,
            kamailio,
            topology,
            dir,
        })
    }

    /// Where phones with IPv4 register.
    #[must_use]
    pub fn server_v4() -> SocketAddr {
        SocketAddr::new(Topology::server_v4(SERVERS[0]), 5060)
    }

    /// Where phones with IPv6 register.
    #[must_use]
    pub fn server_v6() -> SocketAddr {
        SocketAddr::new(Topology::server_v6(SERVERS[0]), 5060)
    }

    /// Where a phone at `address` registers.
    #[must_use]
    pub fn server_for(address: IpAddr) -> SocketAddr {
        if address.is_ipv4() {
            Self::server_v4()
        } else {
            Self::server_v6()
        }
    }

    /// The IPv4 addresses that the server answers at, as a range that svmap understands.
    #[must_use]
    pub fn server_range() -> String {
        let [first, .., last] = SERVERS;
        format!("{}-{last}", Topology::server_v4(first))
    }

    /// All addresses that the server listens on.
    #[must_use]
    pub fn server_addresses() -> Vec<IpAddr> {
        SERVERS
            .map(Topology::server_v4)
            .into_iter()
            .chain([Self::server_v6().ip()])
            .collect()
    }
}
