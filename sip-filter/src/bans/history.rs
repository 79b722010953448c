//! What became of earlier bans: for the operator's judgement, and for rules that ban longer each time.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{Origin, Target};
use crate::detect::Rule;

/// Earlier bans kept of one target.
pub(super) const PER_TARGET: usize = 8;

/// Targets remembered; the one whose last ban ended longest ago makes room.
pub(super) const TARGETS: usize = 100_000;

/// How long an ended ban is remembered.
pub(super) const KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// How a ban ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndedBy {
    /// Its time was over.
    Expired,
    /// An operator lifted it.
    Unbanned,
    /// One of another origin took its place.
    Replaced,
}

/// A ban that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Past {
    /// Who banned.
    pub origin: Origin,
    /// The detection rule, if one decided.
    pub rule: Option<Rule>,
    /// Why.
    pub reason: String,
    /// When it was made.
    #[serde(with = "crate::units::rfc3339")]
    pub created: SystemTime,
    /// When it ended.
    #[serde(with = "crate::units::rfc3339")]
    pub ended: SystemTime,
    /// How.
    pub ended_by: EndedBy,
}

/// Bounded memory of earlier bans.
#[derive(Clone, Debug, Default)]
pub struct History {
    past: HashMap<Target, VecDeque<Past>>,
    /// By the end of the last ban, to find the oldest.
    by_age: BTreeSet<(SystemTime, Target)>,
    /// Made room, and still in the store.
    forgotten: Vec<Target>,
}

impl History {
    /// Earlier bans of exactly this target, oldest first.
    pub fn of(&self, target: Target) -> impl DoubleEndedIterator<Item = &Past> {
        self.past.get(&target).into_iter().flatten()
    }

    /// Remembers one.
    pub(super) fn push(&mut self, target: Target, past: Past) {
        let ended = past.ended;
        let entries = self.past.entry(target).or_default();
        if let Some(last) = entries.back() {
            self.by_age.remove(&(last.ended, target));
        }
        if entries.len() == PER_TARGET {
            entries.pop_front();
        }
        entries.push_back(past);
        self.by_age.insert((ended, target));
        while self.past.len() > TARGETS {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            self.past.remove(&oldest);
            self.forgotten.push(oldest);
        }
    }

    /// Takes back the last one, if it is `past`.
    pub(super) fn take_back(&mut self, target: Target, past: &Past) {
        let Some(entries) = self.past.get_mut(&target) else {
            return;
        };
        if entries.back() != Some(past) {
            return;
        }
        entries.pop_back();
        self.by_age.remove(&(past.ended, target));
        match entries.back() {
            Some(last) => drop(self.by_age.insert((last.ended, target))),
            None => drop(self.past.remove(&target)),
        }
    }

    /// Forgets targets whose last ban ended more than 90 days ago, and returns all that were forgotten since the last
    /// call, for whatever reason: they are still in the store.
    pub fn purge(&mut self, now: SystemTime) -> Vec<Target> {
        while let Some((ended, target)) = self.by_age.first().copied() {
            if now.duration_since(ended).is_ok_and(|age| age > KEPT) {
                self.by_age.pop_first();
                self.past.remove(&target);
                self.forgotten.push(target);
            } else {
                break;
            }
        }
        // One that was banned again since has a history again.
        let forgotten = std::mem::take(&mut self.forgotten);
        forgotten
            .into_iter()
            .filter(|target| !self.past.contains_key(target))
            .collect()
    }

    /// All targets with their earlier bans.
    pub fn iter(&self) -> impl Iterator<Item = (Target, &VecDeque<Past>)> {
        self.past.iter().map(|(target, past)| (*target, past))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn past(ended: u64) -> Past {
        Past {
            origin: Origin::Detector,
            rule: None,
            reason: String::new(),
            created: SystemTime::UNIX_EPOCH,
            ended: SystemTime::UNIX_EPOCH + Duration::from_secs(ended),
            ended_by: EndedBy::Expired,
        }
    }

    fn target(text: &str) -> Target {
        text.parse().unwrap()
    }

    #[test]
    fn a_target_keeps_its_latest() {
        let mut history = History::default();
        for ended in 0..20 {
            history.push(target("192.0.2.1"), past(ended));
        }
        let kept: Vec<_> = history.of(target("192.0.2.1")).cloned().collect();
        assert_eq!(kept, (12..20).map(past).collect::<Vec<_>>());
    }

    #[test]
    fn the_oldest_targets_are_forgotten() {
        let mut history = History::default();
        for index in 0..=TARGETS as u32 {
            let target = Target::address(std::net::Ipv4Addr::from(index).into());
            history.push(target, past(u64::from(index)));
        }
        assert_eq!(history.past.len(), TARGETS);
        assert_eq!(history.by_age.len(), TARGETS);
        assert_eq!(history.of(target("0.0.0.0")).count(), 0);
        assert_eq!(history.of(target("0.0.0.1")).count(), 1);
    }

    #[test]
    fn old_ones_are_purged_and_the_last_can_be_taken_back() {
        let mut history = History::default();
        history.push(target("192.0.2.1"), past(0));
        history.push(target("192.0.2.2"), past(1_000));
        history.push(target("192.0.2.2"), past(2_000));
        history.take_back(target("192.0.2.2"), &past(2_000));
        assert_eq!(history.of(target("192.0.2.2")).count(), 1);
        let now = SystemTime::UNIX_EPOCH + KEPT + Duration::from_secs(500);
        assert_eq!(history.purge(now), [target("192.0.2.1")]);
        assert_eq!(history.by_age.len(), 1);
    }
}
