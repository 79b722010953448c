//! The attackers: real programs, each from an address of its own, that don't give up when they are banned.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::Result;
use xtask::lab::{
    Process, Site, Topology,
    scanners::Scan,
    sipp::{Flood, Pace, Sipp},
};

use super::verdict::AttackerRecord;

/// How long an attacker goes on after its ban, to show that nothing arrives any more. Shorter than the shortest
/// ban there is.
pub(crate) const PERSISTENCE: Duration = Duration::from_secs(10);
/// When the attacks end in any case, on the demonstration's clock.
pub(crate) const DEADLINE: Duration = Duration::from_secs(40);

const SECOND: Duration = Duration::from_secs(1);

/// What an attacker does.
#[derive(Debug)]
enum Attack {
    Scan(Scan),
    Flood(Flood, u32),
}

#[derive(Debug)]
enum Running {
    Scan(Process),
    Flood(Sipp),
}

impl Running {
    fn process(&mut self) -> &mut Process {
        match self {
            Self::Scan(process) => process,
            Self::Flood(sipp) => &mut sipp.process,
        }
    }
}

/// One attacker.
#[derive(Debug)]
pub(crate) struct Attacker {
    host: u8,
    attack: Attack,
    starts: Duration,
    running: Option<Running>,
    runs: u32,
    banned: Option<Duration>,
    pub(crate) finished: bool,
    pub(crate) record: AttackerRecord,
}

/// Last parts of the attackers' addresses.
pub(crate) const HOSTS: [u8; 5] = [21, 22, 23, 24, 25];

/// All attackers; they begin one after the other. The account `user` is the one whose password is tried, and
/// `server` answers at IPv4 and IPv6 addresses.
pub(crate) fn all(user: &str) -> Vec<Attacker> {
    let server = Site::server_v4().ip();
    let scans = [
        (
            "svmap",
            Scan::Map {
                targets: Site::server_range(),
            },
        ),
        (
            "svwar",
            Scan::War {
                server,
                extensions: "980-1999".to_owned(),
            },
        ),
        (
            "svcrack",
            Scan::Crack {
                server,
                user: user.to_owned(),
                passwords: "1000-9999".to_owned(),
            },
        ),
    ]
    .map(|(name, scan)| (name, Attack::Scan(scan)));
    let floods = [
        ("REGISTER flood", Attack::Flood(Flood::Register, 1000)),
        ("INVITE flood", Attack::Flood(Flood::Invite, 500)),
    ];
    let attacks = scans.into_iter().chain(floods);
    attacks
        .zip(HOSTS)
        .zip(0..)
        .map(|(((name, attack), host), number)| {
            // One of them comes by IPv6.
            let v6 = matches!(attack, Attack::Flood(Flood::Invite, _));
            let address = if v6 {
                Topology::attacker_v6(host)
            } else {
                Topology::attacker_v4(host)
            };
            Attacker {
                host,
                attack,
                starts: SECOND * (4 + 2 * number),
                running: None,
                runs: 0,
                banned: None,
                finished: false,
                record: AttackerRecord {
                    name,
                    address,
                    samples: Vec::new(),
                    ban: None,
                    loot: Vec::new(),
                },
            }
        })
        .collect()
}

impl Attacker {
    pub(crate) fn address(&self) -> IpAddr {
        self.record.address
    }

    /// Whether it has begun and not ended.
    pub(crate) fn is_active(&self) -> bool {
        self.runs > 0 && !self.finished
    }

    /// Starts, repeats or ends the attack as the time demands. True if it has begun just now.
    pub(crate) fn tick(&mut self, now: Duration, site: &Site) -> Result<bool> {
        if self.finished || now < self.starts {
            return Ok(false);
        }
        if self.record.ban.is_some() && self.banned.is_none() {
            self.banned = Some(now);
        }
        if now >= DEADLINE || self.banned.is_some_and(|banned| now >= banned + PERSISTENCE) {
            self.end();
            self.finished = true;
            return Ok(false);
        }
        let idle = match &mut self.running {
            Some(running) => running.process().status()?.is_some(),
            None => true,
        };
        if idle {
            self.end();
            self.runs += 1;
            self.running = Some(self.start(site, DEADLINE - now)?);
        }
        Ok(idle && self.runs == 1)
    }

    /// Ends what runs and notes what it found.
    pub(crate) fn end(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.process().stop();
            for item in loot(&running.process().log()) {
                if !self.record.loot.contains(&item) {
                    self.record.loot.push(item);
                }
            }
        }
    }

    fn start(&self, site: &Site, limit: Duration) -> Result<Running> {
        let netns = site.topology.attacker(self.host)?;
        let name = format!("{}-{}", self.record.name.replace(' ', "-"), self.runs);
        Ok(match &self.attack {
            Attack::Scan(scan) => Running::Scan(scan.start(netns, &site.dir, &name, limit)?),
            Attack::Flood(flood, rate) => {
                let count = *rate * u32::try_from(limit.as_secs())?.max(1);
                let pace = Pace {
                    rate: *rate,
                    every: SECOND,
                    count,
                    limit,
                };
                let from = SocketAddr::new(self.address(), 5060);
                let server = Site::server_for(self.address());
                Running::Flood(Sipp::flood(netns, &site.dir, &name, *flood, from, server, pace)?)
            }
        })
    }
}

/// The rows of the table that a SIPVicious tool ends with, first two columns.
fn loot(log: &str) -> Vec<String> {
    log.lines()
        .filter_map(|line| line.strip_prefix('|'))
        .filter(|row| !row.contains("Extension") && !row.contains("SIP Device"))
        .map(|row| {
            row.split('|')
                .take(2)
                .map(str::trim)
                .collect::<Vec<_>>()
                .join(" ")
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loot_is_read_from_the_final_table() {
        let log = "WARNING:root:found nothing\n+-----------+----------+\n| Extension | Password |\n\
                   +===========+==========+\n| 1001      | 2500     |\n+-----------+----------+\n";
        assert_eq!(loot(log), ["1001 2500"]);
        assert!(loot("").is_empty());
    }
}
