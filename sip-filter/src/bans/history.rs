//! What became of earlier bans: for the operator's judgement, and for rules that ban longer each time.

use std::{
    collections::{BTreeSet, VecDeque},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{Origin, PrefixMap, Target};
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
    past: PrefixMap<VecDeque<Past>>,
    /// By the end of the last ban, to find the oldest.
    by_age: BTreeSet<(SystemTime, Target)>,
    /// Made room, and still in the store.
    forgotten: Vec<Target>,
}

impl History {
    /// Earlier bans of exactly this target, oldest first.
    pub fn of(&self, target: Target) -> impl DoubleEndedIterator<Item = &Past> {
        self.past.get(target).into_iter().flatten()
    }

    /// Earlier bans of everything that covers `target`, newest first.
    #[must_use]
    pub fn covering(&self, target: Target) -> Vec<(Target, &Past)> {
        let all = self.past.covering(target);
        let mut found: Vec<_> = all
            .flat_map(|(of, past)| past.iter().map(move |past| (of, past)))
            .collect();
        found.sort_by_key(|(_, past)| std::cmp::Reverse(past.ended));
        found
    }

    /// Bans by rules that count against a target: those since an operator last let it go. With the end of the last.
    pub fn offences(&self) -> impl Iterator<Item = (Target, u32, SystemTime)> {
        self.past.iter().filter_map(|(target, past)| {
            let counting = past
                .iter()
                .rev()
                .take_while(|past| past.ended_by != EndedBy::Unbanned)
                .filter(|past| past.origin == Origin::Detector);
            let count = u32::try_from(counting.count()).unwrap_or(u32::MAX);
            (count > 0).then_some((target, count, past.back()?.ended))
        })
    }

    /// Puts back what the store remembers.
    pub fn restore(&mut self, target: Target, past: impl IntoIterator<Item = Past>) {
        for past in past {
            self.push(target, past);
        }
    }

    /// Remembers one.
    pub(super) fn push(&mut self, target: Target, past: Past) {
        let ended = past.ended;
        if let Some(entries) = self.past.get_mut(target) {
            if let Some(last) = entries.back() {
                self.by_age.remove(&(last.ended, target));
            }
            if entries.len() == PER_TARGET {
                entries.pop_front();
            }
            entries.push_back(past);
        } else {
            self.past.insert(target, VecDeque::from([past]));
        }
        self.by_age.insert((ended, target));
        while self.past.len() > TARGETS {
            let Some((_, oldest)) = self.by_age.pop_first() else {
                break;
            };
            self.past.remove(oldest);
            self.forgotten.push(oldest);
        }
    }

    /// Takes back the last one, if it is `past`.
    pub(super) fn take_back(&mut self, target: Target, past: &Past) {
        let Some(entries) = self.past.get_mut(target) else {
            return;
        };
        if entries.back() != Some(past) {
            return;
        }
        entries.pop_back();
        self.by_age.remove(&(past.ended, target));
        match entries.back() {
            Some(last) => drop(self.by_age.insert((last.ended, target))),
            None => drop(self.past.remove(target)),
        }
    }

    /// Forgets targets whose last ban ended more than 90 days ago, and returns those that were forgotten since the last
    /// call, for whatever reason: they are still in the store. At most so many at once; `None` when nothing is left.
    pub fn purge(&mut self, now: SystemTime, most: usize) -> Option<Vec<Target>> {
        while self.forgotten.len() < most
            && let Some((ended, target)) = self.by_age.first().copied()
            && now.duration_since(ended).is_ok_and(|age| age > KEPT)
        {
            self.by_age.pop_first();
            self.past.remove(target);
            self.forgotten.push(target);
        }
        if self.forgotten.is_empty() {
            return None;
        }
        let kept = self.forgotten.len().saturating_sub(most);
        let forgotten = self.forgotten.split_off(kept);
        // One that was banned again since has a history again.
        let gone = |target: &Target| self.past.get(*target).is_none();
        Some(forgotten.into_iter().filter(gone).collect())
    }

    /// All targets with their earlier bans.
    pub fn iter(&self) -> impl Iterator<Item = (Target, &VecDeque<Past>)> {
        self.past.iter()
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
    fn bans_by_rules_count_since_an_operator_let_go() {
        let mut history = History::default();
        for (ended, ended_by, origin) in [
            (1, EndedBy::Expired, Origin::Detector),
            (2, EndedBy::Unbanned, Origin::Detector),
            (3, EndedBy::Expired, Origin::Detector),
            (4, EndedBy::Expired, Origin::Manual),
            (5, EndedBy::Replaced, Origin::Detector),
        ] {
            let past = Past {
                ended_by,
                origin,
                ..past(ended)
            };
            history.push(target("192.0.2.1"), past);
        }
        let offences: Vec<_> = history.offences().collect();
        assert_eq!(offences, [(target("192.0.2.1"), 2, past(5).ended)]);
        let newest_first: Vec<_> = history
            .covering(target("192.0.2.1"))
            .iter()
            .map(|(_, past)| past.ended)
            .collect();
        assert!(newest_first.is_sorted_by_key(std::cmp::Reverse));
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
        assert_eq!(history.purge(now, 10).unwrap(), [target("192.0.2.1")]);
        assert!(history.purge(now, 10).is_none());
        assert_eq!(history.by_age.len(), 1);
    }
}
