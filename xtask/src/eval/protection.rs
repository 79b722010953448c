//! What stands between the attackers and the server, in turn.

use std::{
    collections::BTreeMap,
    net::IpAddr,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use xtask::lab::{
    Process, Site,
    decisions::Decisions,
    kamailio::{Guard, PIKE_ALERT},
    workdir::path_str,
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
            Protection::Fail2ban => Running::Fail2ban(fail2ban(site, scenario.allowed())?),
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

/// Values as fail2ban comes with them: 5 failures in 600 s, ban of 600 s. It would look up its own host's name to
/// spare itself, for five seconds where no DNS answers, as in a namespace: hence no `ignoreself`.
const JAIL: &str = "[kamailio]
enabled = true
backend = auto
usedns = no
ignoreself = false
ignoreip = @ALLOWED@
logpath = @LOG@
filter = kamailio
maxretry = 5
findtime = 600
bantime = 600
banaction = nftables
action = nftables[type=multiport, name=kamailio, port=\"5060,5061\", protocol=\"udp,tcp\"]
";
const FILTER: &str = "[Definition]
failregex = authentication of .* failed from <HOST>$
            unknown user .* from <HOST>$
ignoreregex =
";
const SERVER: &str = "[DEFAULT]
loglevel = INFO
logtarget = STDOUT
syslogsocket = auto
socket = @DIR@/f2b.sock
pidfile = @DIR@/f2b.pid
dbfile = None
dbpurgeage = 1d
dbmaxmatches = 10

[Definition]
";

fn fail2ban(site: &Site, allowed: Option<IpAddr>) -> Result<Process> {
    let dir = site.dir.path().join("fail2ban");
    let own = path_str(&dir)?.to_owned();
    for sub in ["filter.d", "action.d"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    let log = path_str(site.kamailio.log_file())?;
    let allowed = allowed.map_or(String::new(), |address| address.to_string());
    site.dir
        .write("fail2ban/fail2ban.conf", &SERVER.replace("@DIR@", &own))?;
    site.dir.write(
        "fail2ban/jail.conf",
        &JAIL.replace("@LOG@", log).replace("@ALLOWED@", &allowed),
    )?;
    site.dir.write("fail2ban/filter.d/kamailio.conf", FILTER)?;
    let action = "action.d/nftables.conf";
    let original = Path::new("/etc/fail2ban").join(action);
    std::fs::copy(&original, dir.join(action)).with_context(|| format!("no {}", original.display()))?;
    let mut command = Command::new("fail2ban-server");
    command.args(["-f", "-c", &own, "start"]);
    let mut process = Process::spawn(&site.topology.edge, "fail2ban", site.dir.path(), command)?;
    process.wait_for_line("Jail 'kamailio' started", Duration::from_secs(15))?;
    Ok(process)
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
