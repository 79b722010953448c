//! Sources of which something is known until a time: that they are trusted, or that they own their address. Pure:
//! time is passed in, nothing is read or written.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::Target;

/// What is known of one source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known<V> {
    /// What.
    pub value: V,
    /// Boot time at which it ends.
    pub until: Duration,
    /// The end that was last written to kernel and store.
    written: Duration,
}

/// What follows from learning something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Learnt {
    /// Whether it is worth a write: it is new, or its end moved by more than a tenth of what is left.
    pub write: bool,
    /// Whoever had to make room: those that end soonest, the new one itself if it is the one.
    pub evicted: Vec<Target>,
}

/// A bounded table of such sources.
#[derive(Clone, Debug)]
pub struct KnownSources<V> {
    entries: BTreeMap<Target, Known<V>>,
    ends: BTreeSet<(Duration, Target)>,
    max: usize,
}

impl<V> KnownSources<V> {
    /// Room for `max`, at least one.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            ends: BTreeSet::new(),
            max: max.max(1),
        }
    }

    /// Takes note of something that holds until `until`.
    pub fn learn(&mut self, target: Target, value: V, until: Duration, now: Duration) -> Learnt {
        let written = match self.entries.get(&target) {
            Some(old) => {
                self.ends.remove(&(old.until, target));
                Some(old.written)
            }
            None => None,
        };
        // Those who renew early and often must not cost a write each time.
        let write = written
            .is_none_or(|written| until.abs_diff(written).saturating_mul(10) > until.saturating_sub(now));
        let known = Known {
            value,
            until,
            written: if write { until } else { written.unwrap_or(until) },
        };
        self.entries.insert(target, known);
        self.ends.insert((until, target));
        let evicted = self.make_room();
        Learnt {
            write: write && !evicted.contains(&target),
            evicted,
        }
    }

    /// Changes the room; returns who no longer has a place.
    pub fn set_max(&mut self, max: usize) -> Vec<Target> {
        self.max = max.max(1);
        self.make_room()
    }

    fn make_room(&mut self) -> Vec<Target> {
        let mut evicted = Vec::new();
        while self.entries.len() > self.max
            && let Some((_, target)) = self.ends.pop_first()
        {
            self.entries.remove(&target);
            evicted.push(target);
        }
        evicted
    }

    /// Forgets a source.
    pub fn forget(&mut self, target: Target) -> Option<Known<V>> {
        let known = self.entries.remove(&target)?;
        self.ends.remove(&(known.until, target));
        Some(known)
    }

    /// Forgets what has ended, at most so much at once, and returns it.
    pub fn expire(&mut self, now: Duration, most: usize) -> Vec<Target> {
        let mut ended = Vec::new();
        while ended.len() < most
            && let Some((until, target)) = self.ends.first().copied()
            && until <= now
        {
            self.ends.pop_first();
            self.entries.remove(&target);
            ended.push(target);
        }
        ended
    }

    /// What is known of exactly this source.
    #[must_use]
    pub fn get(&self, target: Target) -> Option<&Known<V>> {
        self.entries.get(&target)
    }

    /// Sources that lie in `net`, itself included, by address.
    pub fn within(&self, net: Target) -> impl Iterator<Item = (Target, &Known<V>)> {
        // Networks are ordered by address, then from wide to narrow.
        self.entries
            .range(net..)
            .map(|(target, known)| (*target, known))
            .take_while(move |(target, _)| net.net().contains(&target.net()))
    }

    /// All, by address.
    pub fn iter(&self) -> impl Iterator<Item = (Target, &Known<V>)> {
        self.entries.iter().map(|(target, known)| (*target, known))
    }

    /// How many.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn host(number: u8) -> Target {
        format!("192.0.2.{number}").parse().unwrap()
    }

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn only_a_tenth_of_its_life_is_worth_a_write() {
        let mut known = KnownSources::new(10);
        assert!(known.learn(host(1), "a", s(3_600), s(0)).write);
        // A registration renewed each minute, always for an hour: every seventh.
        let writes = (1..=60).filter(|minute| {
            let now = s(60 * minute);
            known.learn(host(1), "a", now + s(3_600), now).write
        });
        assert_eq!(writes.collect::<Vec<_>>(), [7, 14, 21, 28, 35, 42, 49, 56]);
        assert_eq!(known.get(host(1)).unwrap().until, s(7_200));
        // Shorter counts, too.
        assert!(known.learn(host(1), "a", s(3_660), s(3_600)).write);
    }

    #[test]
    fn the_one_that_ends_soonest_makes_room() {
        let mut known = KnownSources::new(2);
        known.learn(host(1), (), s(30), s(0));
        known.learn(host(2), (), s(20), s(0));
        assert_eq!(known.learn(host(3), (), s(40), s(0)).evicted, [host(2)]);
        let itself = known.learn(host(4), (), s(10), s(0));
        assert_eq!((itself.write, itself.evicted), (false, vec![host(4)]));
        assert_eq!(known.set_max(1), [host(1)]);
        assert_eq!(known.len(), 1);
    }

    #[test]
    fn sources_are_found_by_network() {
        let mut known = KnownSources::new(10);
        for text in [
            "192.0.1.255",
            "192.0.2.0",
            "192.0.2.255",
            "192.0.3.0",
            "2001:db8::/64",
        ] {
            known.learn(text.parse().unwrap(), (), s(1), s(0));
        }
        let within = |net: &str| {
            let found = known.within(net.parse().unwrap());
            found.map(|(target, _)| target.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(within("192.0.2.0/24"), ["192.0.2.0", "192.0.2.255"]);
        assert_eq!(within("192.0.2.0"), ["192.0.2.0"]);
        assert_eq!(within("198.51.100.0/24"), [""; 0]);
        assert_eq!(within("2001:db8::/48"), ["2001:db8::/64"]);
        assert_eq!(within("2001:db8::/64"), ["2001:db8::/64"]);
    }

    proptest! {
        /// Against a plain map, whatever is done in whatever order, time going back included.
        #[test]
        fn as_a_plain_map_would(
            max in 1usize..6,
            steps in prop::collection::vec((0u8..10, 0u8..8, 0u64..100), 0..120),
        ) {
            let mut known = KnownSources::new(max);
            let mut model: HashMap<Target, Duration> = HashMap::new();
            for (what, number, time) in steps {
                let (target, time) = (host(number), s(time));
                match what {
                    0 => {
                        let gone = known.forget(target).map(|known| known.until);
                        prop_assert_eq!(gone, model.remove(&target));
                    }
                    1 => {
                        let ended = known.expire(time, usize::MAX);
                        for target in &ended {
                            prop_assert!(model.remove(target).unwrap() <= time);
                        }
                        prop_assert!(model.values().all(|until| *until > time));
                    }
                    _ => {
                        let learnt = known.learn(target, (), time, s(0));
                        let new = model.insert(target, time).is_none();
                        prop_assert!(learnt.evicted.len() <= 1);
                        for evicted in &learnt.evicted {
                            let until = model.remove(evicted).unwrap();
                            prop_assert!(model.values().all(|other| *other >= until));
                        }
                        prop_assert!(learnt.write || !new || learnt.evicted.contains(&target));
                    }
                }
                prop_assert!(known.len() <= max);
                prop_assert_eq!(known.ends.len(), known.len());
                let entries: HashMap<_, _> = known.iter().map(|(target, known)| (target, known.until)).collect();
                prop_assert_eq!(&entries, &model);
                for (target, known_) in known.iter() {
                    let off = known_.until.abs_diff(known_.written);
                    prop_assert!(off * 10 <= known_.until, "{target}: {off:?}");
                }
            }
        }
    }
}
