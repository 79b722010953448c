//! Networks many of whose sources were banned.

use std::time::Duration;

use ipnet::IpNet;

use super::{NetworkSettings, bounded::Bounded, config::MOST};
use crate::bans::Target;

/// Networks watched at the same time.
const WATCHED: usize = 4096;

/// Bans by network.
#[derive(Debug)]
pub(super) struct Networks {
    bans: Bounded<Target, Vec<(Target, Duration)>>,
    /// Networks that are banned, and until when.
    banned: Vec<(Target, Duration)>,
}

/// A network whose sources were banned often enough.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Crowd {
    pub(super) network: Target,
    pub(super) sources: u64,
    pub(super) first: Duration,
    pub(super) sample: Vec<String>,
}

impl Networks {
    pub(super) fn new() -> Self {
        Self {
            bans: Bounded::new(WATCHED),
            banned: Vec::new(),
        }
    }

    /// Notes a ban; the network if that makes too many of them.
    pub(super) fn note(
        &mut self,
        source: Target,
        now: Duration,
        settings: &NetworkSettings,
    ) -> Option<Crowd> {
        let network = network(source, settings)?;
        let old = |time: Duration| time.abs_diff(now) >= settings.window;
        let stale = |list: &Vec<(Target, Duration)>| list.iter().all(|(_, time)| old(*time));
        let list = self.bans.touch(network, stale, Vec::new);
        list.retain(|(target, time)| *target != source && !old(*time));
        if list.len() >= MOST {
            list.remove(0);
        }
        list.push((source, now));
        let crowd = Crowd {
            network,
            sources: list.len() as u64,
            first: list.iter().map(|(_, time)| *time).min().unwrap_or(now),
            sample: list
                .iter()
                .take(5)
                .map(|(target, _)| target.to_string())
                .collect(),
        };
        if crowd.sources > 1 {
            self.bans.protect(&network);
        }
        (crowd.sources >= settings.threshold).then_some(crowd)
    }

    /// Whether one more network may be banned.
    pub(super) fn has_room(&mut self, now: Duration, settings: &NetworkSettings) -> bool {
        self.banned.retain(|(_, until)| now < *until);
        self.banned.len() < settings.max_networks as usize
    }

    /// Notes that a network is banned.
    pub(super) fn banned(&mut self, network: Target, until: Duration) {
        self.banned.push((network, until));
        self.bans.remove(&network);
    }

    pub(super) fn forget(&mut self, target: Target) {
        self.bans.remove(&target);
        self.banned.retain(|(network, _)| *network != target);
    }
}

fn network(source: Target, settings: &NetworkSettings) -> Option<Target> {
    let prefix = match source.net() {
        IpNet::V4(_) => settings.prefix4,
        IpNet::V6(_) => settings.prefix6,
    };
    let network = IpNet::new(source.net().addr(), prefix).ok()?;
    Some(Target::network(network))
}
