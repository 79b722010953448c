//! What is going on: sources by rate, the newest bans, and the traffic of the last minutes.

use std::{cmp::Reverse, collections::HashSet};

use sip_filter_common::sip::Class;

use super::{ControlHandle, Controller, Series, talkers::Rate};
use crate::bans::{Ban, Clock, Entry, Target};

/// A source that sends, or a ban that has stopped something.
#[derive(Clone, Debug, PartialEq)]
pub struct Busy {
    /// Who.
    pub target: Target,
    /// Packets per second, over some seconds; see `daemon::talkers` for what is counted.
    pub packets: f64,
    /// Of these, what was over a limit or stopped by a ban.
    pub dropped: f64,
    /// The class it sends most of.
    pub class: Option<Class>,
    /// The most specific ban it lies in.
    pub ban: Option<Ban>,
    /// Whether the allow-list exempts it.
    pub allowed: bool,
    /// Whether a registration of it is in force.
    pub trusted: bool,
    /// Whether it has shown that its address is its own.
    pub proven: bool,
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Overview {
    /// By rate, then by packets the ban has stopped.
    pub busy: Vec<Busy>,
    /// The newest bans, newest first.
    pub newest: Vec<Ban>,
    /// The traffic.
    pub series: Series,
}

impl ControlHandle {
    /// At most `limit` sources and bans, and the traffic of the latest `seconds`.
    #[must_use]
    pub fn overview(&self, limit: usize, seconds: usize) -> Overview {
        self.with(|controller, clock| controller.overview(limit, seconds, clock))
    }
}

impl Controller {
    /// Looks at each ban once, and copies those to be shown only: the lock is held for long otherwise.
    fn overview(&self, limit: usize, seconds: usize, clock: Clock) -> Overview {
        let rates = self.talkers().rates(limit, clock.boot);
        let bans = || self.list.iter().filter(|entry| !entry.over(clock));
        let hit = bans().filter(|entry| entry.ban.hits > 0);
        let mut hit: Vec<&Entry> = first(hit.collect(), limit, |entry| {
            (Reverse(entry.ban.hits), entry.ban.target)
        });
        let newest = first(bans().collect(), limit, |entry| {
            (Reverse(entry.ban.created), entry.ban.target)
        });
        let rated: HashSet<Target> = rates.iter().map(|rate| rate.target).collect();
        hit.retain(|entry| !rated.contains(&entry.ban.target));
        let quiet = hit.into_iter().map(|entry| Rate {
            target: entry.ban.target,
            packets: 0.0,
            dropped: 0.0,
            class: None,
        });
        let all = rates.into_iter().chain(quiet).take(limit);
        Overview {
            busy: all.map(|rate| self.busy(rate, clock)).collect(),
            newest: newest.into_iter().map(|entry| entry.at(clock)).collect(),
            series: self.trend.latest(seconds),
        }
    }

    fn busy(&self, rate: Rate, clock: Clock) -> Busy {
        let ip = rate.target.net().addr();
        let exact = self.list.get(rate.target);
        let mut bans = exact.into_iter().chain(self.list.covering(rate.target));
        let (trust, proof) = self.known(ip, clock);
        Busy {
            target: rate.target,
            packets: rate.packets,
            dropped: rate.dropped,
            class: rate.class,
            ban: bans.find(|entry| !entry.over(clock)).map(|entry| entry.at(clock)),
            allowed: self.policy.allowed_by(rate.target).is_some(),
            trusted: trust.is_some(),
            proven: proof.is_some(),
        }
    }
}

/// The `limit` least by `key`, in order, without sorting all.
fn first<K: Ord>(mut entries: Vec<&Entry>, limit: usize, key: impl Fn(&Entry) -> K) -> Vec<&Entry> {
    if limit == 0 {
        return Vec::new();
    }
    if entries.len() > limit {
        entries.select_nth_unstable_by_key(limit - 1, |entry| key(entry));
        entries.truncate(limit);
    }
    entries.sort_unstable_by_key(|entry| key(entry));
    entries
}
