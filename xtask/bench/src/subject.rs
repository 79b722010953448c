//! Who receives: sip-filter, what it is compared with, and the limit.

use std::{fmt::Write as _, fs, process::Command, time::Duration};

use anyhow::{Context as _, Result};
use serde_json::Value;
use tempfile::NamedTempFile;
use xtask::lab::{Process, WorkDir, command};

use super::{
    generator::{Traffic, source4},
    kernel::{Attached, Programs},
    plane::{Filling, Plane},
    rig::{Burst, RECEIVER, Rig, delivered},
};

/// What decides on the packets that arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program that counts and drops: the limit.
    Bare,
    /// The same after it has read one line of a table of a million bans: the limit of filters by source.
    Least,
    /// The same after it has changed one word of a source's line: the limit of limiters.
    LeastLimiter,
    /// sip-filter in the driver.
    SipFilter,
    /// sip-filter in the kernel's generic path.
    Generic,
    /// nftables, hook `ingress` of the family `netdev`, the earliest there is.
    NftablesIngress,
    /// nftables, hook `prerouting` before connection tracking.
    NftablesRaw,
    /// iptables with `string` and `hashlimit`, table `raw`.
    Iptables,
    /// xdp-filter of xdp-tools, in the driver.
    XdpFilter,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::Least => "least",
            Self::LeastLimiter => "least limiter",
            Self::SipFilter => "sip-filter",
            Self::Generic => "sip-filter generic",
            Self::NftablesIngress => "nftables ingress",
            Self::NftablesRaw => "nftables raw",
            Self::Iptables => "iptables",
            Self::XdpFilter => "xdp-filter",
        }
    }
}

/// One of them at work, on a rig of its own.
pub(super) struct Subject {
    pub(super) kind: Kind,
    pub(super) rig: Rig,
    /// Frames sent to it.
    pub(super) sent: u64,
    work: Work,
}

enum Work {
    /// A program that drops all that it counts.
    Bare(#[expect(dead_code, reason = "held for its drop")] Attached),
    Plane(
        Box<Plane>,
        #[expect(dead_code, reason = "held for its drop")] Attached,
    ),
    Nftables(&'static str),
    Iptables,
    XdpFilter(XdpFilter),
}

/// A process that holds a BPF file system of its own, since xdp-filter keeps its tables in a place of the machine.
struct XdpFilter {
    process: Process,
    _dir: WorkDir,
}

impl Subject {
    /// Sets it up with the bans, or the limits, of `filling`.
    ///
    /// # Errors
    /// If it can't be.
    pub(super) fn new(kind: Kind, programs: &Programs, filling: &Filling) -> Result<Self> {
        let rig = Rig::new()?;
        let plane = |generic| -> Result<Work> {
            let mut plane = Box::new(Plane::load(filling)?);
            let attached = rig.attach(&mut plane.handle, generic)?;
            Ok(Work::Plane(plane, attached))
        };
        let bare =
            |name| -> Result<Work> { Ok(Work::Bare(rig.attach(&mut programs.program(name)?, false)?)) };
        let work = match kind {
            Kind::Bare => bare("bare")?,
            Kind::Least => bare("least_ban")?,
            Kind::LeastLimiter => bare("least_limit")?,
            Kind::SipFilter => plane(false)?,
            Kind::Generic => plane(true)?,
            Kind::NftablesIngress => {
                let hook = format!("hook ingress device {RECEIVER} priority 0");
                nftables(&rig, "netdev", &hook, filling.bans)?;
                Work::Nftables("netdev")
            }
            Kind::NftablesRaw => {
                nftables(&rig, "ip", "hook prerouting priority raw", filling.bans)?;
                Work::Nftables("ip")
            }
            Kind::XdpFilter => Work::XdpFilter(XdpFilter::start(&rig, filling.bans)?),
            Kind::Iptables => {
                iptables(&rig)?;
                Work::Iptables
            }
        };
        Ok(Self {
            kind,
            rig,
            sent: 0,
            work,
        })
    }

    /// Sends a burst at it and makes sure that all of it was delivered.
    ///
    /// # Errors
    /// If not.
    pub(super) fn burst(
        &mut self,
        programs: &mut Programs,
        traffic: &Traffic,
        cpus: usize,
        frames: u32,
    ) -> Result<Burst> {
        // The program that only counts does so since the burst began.
        let before = match self.work {
            Work::Bare(_) => 0,
            _ => self.seen(programs)?,
        };
        let burst = self.rig.burst(programs, traffic, cpus, frames)?;
        delivered(burst.sent, || Ok(self.seen(programs)? - before))?;
        self.sent += burst.sent;
        if let Work::Plane(plane, _) = &mut self.work {
            plane.drain()?;
        }
        Ok(burst)
    }

    /// Packets that arrived so far.
    fn seen(&self, programs: &Programs) -> Result<u64> {
        match &self.work {
            Work::Bare(_) => Ok(programs.state()?.received),
            Work::Plane(plane, _) => plane.seen(),
            Work::Nftables(_) | Work::Iptables | Work::XdpFilter(_) => self.rig.arrived(),
        }
    }

    /// Packets dropped so far. Not for every burst: nft reads the whole set before it shows a counter.
    ///
    /// # Errors
    /// If it doesn't tell.
    pub(super) fn dropped(&self) -> Result<u64> {
        match &self.work {
            // It drops all that it counts.
            Work::Bare(_) => Ok(self.sent),
            Work::Plane(plane, _) => plane.dropped(),
            Work::Nftables(family) => {
                let args = ["-j", "list", "counters", "table", family, "bench"];
                let value: Value = serde_json::from_str(&self.rig.receiver.run("nft", &args)?)?;
                value["nftables"]
                    .as_array()
                    .into_iter()
                    .flatten()
                    .find_map(|object| object["counter"]["packets"].as_u64())
                    .context("nft shows no counter")
            }
            Work::XdpFilter(filter) => filter.dropped(),
            Work::Iptables => {
                let args = ["-t", "raw", "-nvxL", "PREROUTING"];
                let text = self.rig.receiver.run("iptables", &args)?;
                text.lines()
                    .find(|line| line.contains("DROP"))
                    .and_then(|line| line.split_whitespace().next()?.parse().ok())
                    .context("iptables shows no counter")
            }
        }
    }

    /// The data plane, if this is sip-filter.
    pub(super) fn plane(&mut self) -> Option<&mut Plane> {
        match &mut self.work {
            Work::Plane(plane, _) => Some(plane),
            _ => None,
        }
    }
}

impl XdpFilter {
    fn start(rig: &Rig, bans: u32) -> Result<Self> {
        let dir = WorkDir::new("xdp-filter")?;
        let mut script = format!(
            "set -e\nmount -t bpf bpf /sys/fs/bpf\nxdp-filter load {RECEIVER} -f ipv4 -p allow -m native\n"
        );
        for index in 0..bans {
            let _ = writeln!(script, "xdp-filter ip {} -m src", source4(index, 0));
        }
        script.push_str("echo ready\nexec sleep 3600\n");
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "sh", "-c", &script]);
        let mut process = Process::spawn(&rig.receiver, "xdp-filter", dir.path(), shell)?;
        process.wait_for_line("ready", Duration::from_secs(30))?;
        Ok(Self { process, _dir: dir })
    }

    fn dropped(&self) -> Result<u64> {
        let id = self.process.id().to_string();
        let status = command::run("nsenter", &["-t", &id, "-m", "-n", "xdp-filter", "status"])?;
        status
            .lines()
            .find(|line| line.contains("XDP_DROP"))
            .and_then(|line| {
                let count = line.split_whitespace().nth(1)?;
                count.replace(',', "").parse().ok()
            })
            .context("xdp-filter shows no count of drops")
    }
}

/// A set of the first `bans` sources, and a rule that counts and drops them.
fn nftables(rig: &Rig, family: &str, hook: &str, bans: u32) -> Result<()> {
    let file = NamedTempFile::new()?;
    let mut rules =
        format!("table {family} bench {{\n  counter dropped {{ }}\n  set banned {{\n    type ipv4_addr\n");
    rules.push_str("    elements = { ");
    for index in 0..bans {
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(rules, "{comma}{}", source4(index, 0));
    }
    let _ = write!(
        rules,
        " }}\n  }}\n  chain filter {{\n    type filter {hook}; policy accept;\n    \
         ip saddr @banned counter name dropped drop\n  }}\n}}\n"
    );
    fs::write(file.path(), rules)?;
    let path = file.path().to_str().context("a path that isn't UTF-8")?;
    rig.receiver.run("nft", &["-f", path])?;
    Ok(())
}

/// One REGISTER a minute from each source, as rules found in many guides have it.
fn iptables(rig: &Rig) -> Result<()> {
    let rule = "-t raw -A PREROUTING -p udp --dport 5060 -m string --string REGISTER --algo bm --to 128 \
                -m hashlimit --hashlimit-above 1/minute --hashlimit-burst 1 --hashlimit-mode srcip \
                --hashlimit-name bench --hashlimit-htable-size 65536 --hashlimit-htable-max 1048576 -j DROP";
    let words: Vec<&str> = rule.split_whitespace().collect();
    rig.receiver.run("iptables", &words)?;
    Ok(())
}
