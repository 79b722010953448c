//! What stands between flood and server.

use anyhow::{Context as _, Result};
use nix::net::if_::if_nametoindex;
use xtask::lab::{Netns, Process, Site, fail2ban, kamailio::Guard as Own, netns, offload, workdir::path_str};

use crate::{
    Session,
    kernel::{Attached, Programs},
    stage::{Daemon, INTERFACE},
};

/// A protection to compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protection {
    /// The reference: the flood meets a program that drops it at once. What is missing in the figures with it, the
    /// generator took.
    Drop,
    /// This project.
    SipFilter,
    /// nftables at the earliest hook it has, with a meter and a set of those who exceeded it.
    Nftables,
    /// Kamailio's pike, as in the configuration that Kamailio comes with.
    Pike,
    /// fail2ban over Kamailio's log; at one step only.
    Fail2ban,
    /// Nothing.
    None,
}

/// Router's end and server's end of the link on which the reference's flood comes.
const ASIDE: (&str, &str) = ("aside0", "aside1");

/// What an operator writes who wants netfilter to do it: more than 50 requests a second, and an address is dropped for
/// ten minutes. `ingress` is the hook before everything else, where dropping costs least.
const RULES: &str = "table netdev guard {
  set flooders { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 10m; }
  set rates { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 1m; }
  chain ingress {
    type filter hook ingress device \"sip0\" priority -500; policy accept;
    ip saddr @flooders drop
    udp dport 5060 update @rates { ip saddr limit rate over 50/second burst 200 packets } \
      add @flooders { ip saddr } drop
  }
}
";

impl Protection {
    pub(super) const ALL: [Self; 6] = [
        Self::Drop,
        Self::SipFilter,
        Self::Nftables,
        Self::Pike,
        Self::Fail2ban,
        Self::None,
    ];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Drop => "drop at once",
            Self::SipFilter => "sip-filter",
            Self::Nftables => "nftables",
            Self::Pike => "pike",
            Self::Fail2ban => "fail2ban",
            Self::None => "none",
        }
    }

    /// Whether a quick run has it.
    pub(super) const fn is_quick(self) -> bool {
        matches!(self, Self::Drop | Self::SipFilter | Self::Nftables)
    }

    /// Whether it is measured at a step.
    pub(super) fn plays(self, step: &str) -> bool {
        self != Self::Fail2ban || step == "25 k/s"
    }

    /// What the server itself does.
    pub(super) const fn own(self) -> Own {
        match self {
            Self::Pike => Own::Stock,
            _ => Own::None,
        }
    }
}

/// A protection at work.
pub(super) enum Guard {
    Nothing,
    Drop {
        _attached: Attached,
        _programs: Box<Programs>,
    },
    SipFilter(Daemon),
    Fail2ban {
        _process: Process,
    },
}

impl Guard {
    pub(super) fn start(protection: Protection, session: &Session, site: &Site) -> Result<Self> {
        let edge = &site.topology.edge;
        Ok(match protection {
            Protection::SipFilter => {
                let bpf = site.dir.mount_bpf()?;
                Self::SipFilter(Daemon::start(&session.binary, edge, &site.dir, &bpf, "")?)
            }
            Protection::Drop => {
                netns::connect((edge, ASIDE.1), (&site.topology.router, ASIDE.0))?;
                let programs = Programs::load(&session.programs)?;
                let mut bare = programs.program("bare")?;
                let attach = |bare: &mut crate::kernel::Program, edge: &Netns| -> Result<Attached> {
                    edge.enter(|| bare.attach(if_nametoindex(ASIDE.1)?, false))?
                };
                Self::Drop {
                    _attached: attach(&mut bare, edge)?,
                    _programs: Box::new(programs),
                }
            }
            Protection::Nftables => {
                offload(edge)?;
                let rules = site.dir.write("guard.nft", RULES)?;
                edge.run("nft", &["-f", path_str(&rules)?]).context("the rules")?;
                Self::Nothing
            }
            Protection::Fail2ban => {
                offload(edge)?;
                let process = fail2ban::start(site, None)?;
                Self::Fail2ban { _process: process }
            }
            Protection::Pike | Protection::None => {
                offload(edge)?;
                Self::Nothing
            }
        })
    }

    /// The router's interface from which the flood goes.
    pub(super) fn way(&self) -> &'static str {
        match self {
            Self::Drop { .. } => ASIDE.0,
            _ => "edge0",
        }
    }

    /// Fails if it has ended.
    pub(super) fn check(&self) -> Result<()> {
        if let Self::SipFilter(daemon) = self {
            daemon.get("/v1/status").context("sip-filter has ended")?;
        }
        Ok(())
    }
}

/// Without XDP on it, the server's interface needs this to take the generator's frames.
fn offload(edge: &Netns) -> Result<()> {
    edge.enter(|| offload::enable_gro(INTERFACE))?
}
