//! Endpoints of trusted sources: from where at an address its registrations came. Pure: time is passed in.
//!
//! Whoever forges a customer's address seldom knows the port its phone sends from, and hardly ever stands at the same
//! distance, which the hop limit of a packet tells (Jin, Wang, Shin: "Hop-Count Filtering", CCS 2003).

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    net::IpAddr,
    time::Duration,
};

use super::Target;

/// What a packet shows of its sender besides the address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Endpoint {
    /// The address; of an IPv6 source all of it.
    pub address: IpAddr,
    /// IP protocol number, 17 or 6.
    pub protocol: u8,
    /// Source port.
    pub port: u16,
    /// IPv4 time to live or IPv6 hop limit on arrival.
    pub hops: u8,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            6 => "tcp",
            17 => "udp",
            _ => "other",
        };
        let Self {
            address, port, hops, ..
        } = self;
        match address {
            IpAddr::V4(v4) => write!(f, "{protocol} {v4}:{port} hops {hops}"),
            IpAddr::V6(v6) => write!(f, "{protocol} [{v6}]:{port} hops {hops}"),
        }
    }
}

/// What follows from confirming an endpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// Whether it is worth a write: it is new, or its end moved by more than a tenth of what is left.
    pub write: bool,
    /// Who had to make room, with their sources: those confirmed longest ago.
    pub evicted: Vec<(Target, Endpoint)>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    until: Duration,
    /// The end that was last written to kernel and store.
    written: Duration,
    confirmed: Duration,
}

/// A bounded table of endpoints by source.
#[derive(Clone, Debug)]
pub struct Endpoints {
    entries: BTreeMap<(Target, Endpoint), Entry>,
    sources: BTreeMap<Target, usize>,
    ends: BTreeSet<(Duration, Target, Endpoint)>,
    /// By the time they were last confirmed.
    order: BTreeSet<(Duration, Target, Endpoint)>,
    max: usize,
    per_source: usize,
}

impl Endpoints {
    /// Room for `max`, and `per_source` of one source, at least one each.
    #[must_use]
    pub fn new(max: usize, per_source: usize) -> Self {
        Self {
            entries: BTreeMap::new(),
            sources: BTreeMap::new(),
            ends: BTreeSet::new(),
            order: BTreeSet::new(),
            max: max.max(1),
            per_source: per_source.max(1),
        }
    }

    /// Takes note of an endpoint that is its source's own until `until`.
    pub fn confirm(
        &mut self,
        target: Target,
        endpoint: Endpoint,
        until: Duration,
        now: Duration,
    ) -> Confirmed {
        let written = self.remove(target, endpoint).map(|old| old.written);
        // Those who renew early and often must not cost a write each time.
        let write = written
            .is_none_or(|written| until.abs_diff(written).saturating_mul(10) > until.saturating_sub(now));
        let mut evicted = Vec::new();
        if self
            .sources
            .get(&target)
            .is_some_and(|count| *count >= self.per_source)
            && let Some(oldest) = self.oldest_of(target)
        {
            self.remove(target, oldest);
            evicted.push((target, oldest));
        }
        while self.entries.len() >= self.max
            && let Some((_, target, endpoint)) = self.order.first().copied()
        {
            self.remove(target, endpoint);
            evicted.push((target, endpoint));
        }
        let entry = Entry {
            until,
            written: if write { until } else { written.unwrap_or(until) },
            confirmed: now,
        };
        self.entries.insert((target, endpoint), entry);
        *self.sources.entry(target).or_default() += 1;
        self.ends.insert((until, target, endpoint));
        self.order.insert((now, target, endpoint));
        Confirmed { write, evicted }
    }

    fn remove(&mut self, target: Target, endpoint: Endpoint) -> Option<Entry> {
        let entry = self.entries.remove(&(target, endpoint))?;
        self.ends.remove(&(entry.until, target, endpoint));
        self.order.remove(&(entry.confirmed, target, endpoint));
        if let Some(count) = self.sources.get_mut(&target) {
            *count -= 1;
            if *count == 0 {
                self.sources.remove(&target);
            }
        }
        Some(entry)
    }

    fn oldest_of(&self, target: Target) -> Option<Endpoint> {
        self.entries_of(target)
            .min_by_key(|(endpoint, entry)| (entry.confirmed, *endpoint))
            .map(|(endpoint, _)| endpoint)
    }

    fn entries_of(&self, target: Target) -> impl Iterator<Item = (Endpoint, &Entry)> {
        let first = Endpoint {
            address: IpAddr::from([0, 0, 0, 0]),
            protocol: 0,
            port: 0,
            hops: 0,
        };
        self.entries
            .range((target, first)..)
            .take_while(move |((of, _), _)| *of == target)
            .map(|((_, endpoint), entry)| (*endpoint, entry))
    }

    /// Forgets a source; returns its endpoints.
    pub fn forget(&mut self, target: Target) -> Vec<Endpoint> {
        let all: Vec<Endpoint> = self.of(target).map(|(endpoint, _)| endpoint).collect();
        for endpoint in &all {
            self.remove(target, *endpoint);
        }
        all
    }

    /// Forgets what has ended, at most so much at once, and returns it.
    pub fn expire(&mut self, now: Duration, most: usize) -> Vec<(Target, Endpoint)> {
        let mut ended = Vec::new();
        while ended.len() < most
            && let Some((until, target, endpoint)) = self.ends.first().copied()
            && until <= now
        {
            self.remove(target, endpoint);
            ended.push((target, endpoint));
        }
        ended
    }

    /// Changes the room; returns who no longer has a place.
    pub fn set_max(&mut self, max: usize, per_source: usize) -> Vec<(Target, Endpoint)> {
        (self.max, self.per_source) = (max.max(1), per_source.max(1));
        let mut evicted = Vec::new();
        let crowded: Vec<Target> = self
            .sources
            .iter()
            .filter_map(|(target, count)| (*count > self.per_source).then_some(*target))
            .collect();
        for target in crowded {
            while self
                .sources
                .get(&target)
                .is_some_and(|count| *count > self.per_source)
                && let Some(oldest) = self.oldest_of(target)
            {
                self.remove(target, oldest);
                evicted.push((target, oldest));
            }
        }
        while self.entries.len() > self.max
            && let Some((_, target, endpoint)) = self.order.first().copied()
        {
            self.remove(target, endpoint);
            evicted.push((target, endpoint));
        }
        evicted
    }

    /// Endpoints of a source, and the boot time until which they are its own.
    pub fn of(&self, target: Target) -> impl Iterator<Item = (Endpoint, Duration)> {
        self.entries_of(target)
            .map(|(endpoint, entry)| (endpoint, entry.until))
    }

    /// All, and until when they are their sources' own.
    pub fn iter(&self) -> impl Iterator<Item = (Target, Endpoint, Duration)> {
        self.entries
            .iter()
            .map(|((target, endpoint), entry)| (*target, *endpoint, entry.until))
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
    use proptest::prelude::*;

    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn at(source: u8, port: u16) -> (Target, Endpoint) {
        let address = IpAddr::from([192, 0, 2, source]);
        let endpoint = Endpoint {
            address,
            protocol: 17,
            port,
            hops: 60,
        };
        (Target::address(address), endpoint)
    }

    fn confirm(endpoints: &mut Endpoints, source: u8, port: u16, until: u64, now: u64) -> Confirmed {
        let (target, endpoint) = at(source, port);
        endpoints.confirm(target, endpoint, s(until), s(now))
    }

    #[test]
    fn the_one_confirmed_longest_ago_makes_room() {
        let mut endpoints = Endpoints::new(4, 2);
        for (now, port) in [(1, 10), (2, 11), (3, 10)] {
            assert!(confirm(&mut endpoints, 1, port, 100, now).evicted.is_empty());
        }
        // Of its own source first.
        assert_eq!(confirm(&mut endpoints, 1, 12, 100, 4).evicted, [at(1, 11)]);
        for source in 2..4 {
            assert!(confirm(&mut endpoints, source, 10, 100, 5).evicted.is_empty());
        }
        assert_eq!(confirm(&mut endpoints, 4, 10, 50, 6).evicted, [at(1, 10)]);
        assert_eq!(endpoints.expire(s(50), 10), [at(4, 10)]);
        assert_eq!(endpoints.set_max(1, 1).len(), 2);
        assert_eq!(endpoints.forget(at(3, 0).0), [at(3, 10).1]);
        assert!(endpoints.is_empty());
    }

    #[test]
    fn only_a_tenth_of_its_life_is_worth_a_write() {
        let mut endpoints = Endpoints::new(4, 2);
        assert!(confirm(&mut endpoints, 1, 10, 3_600, 0).write);
        let writes = (1..=20).filter(|minute| {
            let now = 60 * minute;
            confirm(&mut endpoints, 1, 10, now + 3_600, now).write
        });
        assert_eq!(writes.collect::<Vec<_>>(), [7, 14]);
    }

    proptest! {
        #[test]
        fn it_never_outgrows_its_room_and_its_indices_agree(
            max in 1usize..8, per_source in 1usize..4,
            steps in prop::collection::vec((0u8..8, 0u8..5, 0u16..5, 0u64..60), 0..150),
        ) {
            let mut endpoints = Endpoints::new(max, per_source);
            for (what, source, port, time) in steps {
                let (target, endpoint) = at(source, port);
                match what {
                    0 => drop(endpoints.forget(target)),
                    1 => drop(endpoints.expire(s(time), usize::MAX)),
                    2 => drop(endpoints.set_max(max, per_source)),
                    _ => {
                        let confirmed = endpoints.confirm(target, endpoint, s(time + 10), s(time));
                        prop_assert!(!confirmed.evicted.contains(&(target, endpoint)));
                        prop_assert!(endpoints.of(target).any(|(own, _)| own == endpoint));
                    }
                }
                prop_assert!(endpoints.len() <= max);
                prop_assert!(endpoints.of(target).count() <= per_source);
                prop_assert_eq!(endpoints.ends.len(), endpoints.len());
                prop_assert_eq!(endpoints.order.len(), endpoints.len());
                prop_assert_eq!(endpoints.sources.values().sum::<usize>(), endpoints.len());
            }
        }
    }
}
