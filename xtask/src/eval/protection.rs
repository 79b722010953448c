//! What stands between the attackers and the server, in turn.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use xtask::lab::{
    Process, Site,
    decisions::Decisions,
    fail2ban,
    kamailio::{Guard, PIKE_ALERT},
};

use super::scenario::Scenario;
use crate::demo::filter::Filter;

/// A protection to judge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(super) enum Protection {
    /// The bare server
    None,
    /// This project
    SipFilter,
    /// Kamailio's pike, as in the configuration that Kamailio comes with
    Pike,
    /// fail2ban over Kamailio's log
    Fail2ban,
}

impl Protection {
    pub(super) const ALL: [Self; 4] = [Self::None, Self::SipFilter, Self::Pike, Self::Fail2ban];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::SipFilter => "sip-filter",
            Self::Pike => "pike",
            Self::Fail2ban => "fail2ban",
        }
    }

    /// What the server itself does.
    pub(super) fn guard(self) -> Guard {
        match self {
            Self::Pike => Guard::Stock,
            Self::None | Self::SipFilter | Self::Fail2ban => Guard::None,
        }
    }
}

/// A ban that was seen.
#[derive(Debug, Clone)]
pub(super) struct Ban {
    pub(super) rule: String,
    /// When it was first seen.
    pub(super) at: Instant,
    /// The longest time it was seen to have left.
    pub(super) left: Duration,
}

/// Everything that the protection ever banned.
pub(super) type Bans = BTreeMap<IpNet, Ban>;

/// A protection at work.
#[derive(Debug)]
pub(super) struct Guardian {
    kind: Running,
    pub(super) bans: Bans,
}

#[derive(Debug)]
enum Running {
    None,
    SipFilter(Box<Filter>),
    Pike,
    Fail2ban(Process),
}

impl Guardian {
    pub(super) fn start(
        protection: Protection,
        site: &Site,
        binary: Option<&Path>,
        scenario: &Scenario,
    ) -> Result<Self> {
        let kind = match protection {
            Protection::None => Running::None,
            Protection::SipFilter => {
                let binary = binary.context("sip-filter wasn't built")?.to_owned();
                let (edge, settings) = (&site.topology.edge, scenario.settings());
                Running::SipFilter(Box::new(Filter::start(edge, &site.dir, binary, &settings)?))
            }
            Protection::Pike => Running::Pike,
            Protection::Fail2ban => Running::Fail2ban(fail2ban::start(site, scenario.allowed())?),
        };
        Ok(Self {
            kind,
            bans: Bans::new(),
        })
    }

    /// Looks what is banned now. Bans that ended stay in the list.
    pub(super) fn look(&mut self, site: &Site) -> Result<()> {
        let now: Vec<(IpNet, String, Duration)> = match &mut self.kind {
            Running::None => Vec::new(),
            Running::SipFilter(filter) => {
                filter.check()?;
                let each = |listed: crate::demo::filter::Listed| {
                    (
                        listed.target,
                        listed.ban.rule,
                        listed.left.unwrap_or(Duration::MAX),
                    )
                };
                filter.bans()?.into_iter().map(each).collect()
            }
            Running::Pike => {
                let of_log = |address: IpAddr| (address.into(), "pike".to_owned(), Duration::from_secs(300));
                blocked_by_pike(&site.kamailio.log())
                    .into_iter()
                    .map(of_log)
                    .collect()
            }
            Running::Fail2ban(process) => {
                process.check()?;
                // The table comes with the first ban.
                let args = ["-j", "list", "table", "inet", "f2b-table"];
                let json = site.topology.edge.run("nft", &args).unwrap_or_default();
                let of_set = |address: IpAddr| {
                    (
                        address.into(),
                        "kamailio jail".to_owned(),
                        Duration::from_secs(600),
                    )
                };
                banned_by_fail2ban(&json).into_iter().map(of_set).collect()
            }
        };
        for (target, rule, left) in now {
            let at = Instant::now();
            let ban = self.bans.entry(target).or_insert_with(|| Ban { rule, at, left });
            ban.left = ban.left.max(left);
        }
        Ok(())
    }

    /// What its rules decided, if it tells.
    pub(super) fn decisions(&self) -> Result<Decisions> {
        match &self.kind {
            Running::SipFilter(filter) => filter.decisions(),
            Running::None | Running::Pike | Running::Fail2ban(_) => Ok(Decisions::new()),
        }
    }

    /// What it decides on a capture, if it can.
    pub(super) fn analyze(&self, capture: &Path) -> Result<Option<Decisions>> {
        match &self.kind {
            Running::SipFilter(filter) => filter.analyze(capture, &Site::server_addresses()).map(Some),
            Running::None | Running::Pike | Running::Fail2ban(_) => Ok(None),
        }
    }

    /// What it says of itself, for whoever wants to know why.
    pub(super) fn log(&self) -> String {
        match &self.kind {
            Running::None | Running::Pike => String::new(),
            Running::SipFilter(filter) => filter.log(),
            Running::Fail2ban(process) => process.log(),
        }
    }
}

/// The addresses in lines such as `… ALERT: pike blocking 192.0.2.1 (INVITE from …)`.
fn blocked_by_pike(log: &str) -> Vec<IpAddr> {
    log.lines()
        .filter_map(|line| line.split_once(PIKE_ALERT)?.1.split(' ').next()?.parse().ok())
        .collect()
}

/// The elements of all sets.
fn banned_by_fail2ban(json: &str) -> Vec<IpAddr> {
    let value: serde_json::Value = serde_json::from_str(json).unwrap_or_default();
    let objects = value["nftables"].as_array().cloned().unwrap_or_default();
    objects
        .iter()
        .filter_map(|object| object["set"]["elem"].as_array())
        .flatten()
        .filter_map(|element| element.as_str()?.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bans_of_others_are_read_from_their_words() {
        let log = " 2(77) ALERT: <script>: ALERT: pike blocking 203.0.113.21 (INVITE from sip:x@y)\n\
                   other\nALERT: pike blocking 2001:db8:bad::15 (REGISTER from sip:x)\n";
        assert_eq!(blocked_by_pike(log).len(), 2);
        let json = r#"{"nftables": [{"table": {}}, {"set": {"name": "a", "elem": ["203.0.113.21"]}},
            {"set": {"name": "b"}}]}"#;
        let expected: IpAddr = "203.0.113.21".parse().unwrap();
        assert_eq!(banned_by_fail2ban(json), [expected]);
        assert!(banned_by_fail2ban("").is_empty());
    }
}
