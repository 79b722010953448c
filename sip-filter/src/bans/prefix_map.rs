//! A map from addresses and networks that also finds what covers an address.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
};

use ipnet::IpNet;
use sip_filter_common::table::hash;

use super::Target;

/// Parts of a map that has entries.
const PARTS: usize = 1_024;

/// Hash maps of all targets, beside the number of them at each prefix length: a covering look-up asks once per
/// length that occurs. With the few lengths of a ban list that is quicker, and much smaller, than a trie.
///
/// A target's hash says in which of many maps it is. So one can go through all of them part by part while others change
/// the map in between, and meet each target that is there all the time exactly once; and what moves its entries because
/// it grows is one of these maps, not all.
#[derive(Clone, Debug)]
pub struct PrefixMap<V> {
    /// None until there is an entry.
    parts: Vec<HashMap<Target, V>>,
    entries: usize,
    seed: [u64; 2],
    lengths4: [u32; 33],
    lengths6: [u32; 129],
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        // Nobody outside can aim at a part.
        let random = RandomState::new();
        Self {
            parts: Vec::new(),
            entries: 0,
            seed: [random.hash_one(0), random.hash_one(1)],
            lengths4: [0; 33],
            lengths6: [0; 129],
        }
    }
}

impl<V> PrefixMap<V> {
    fn length(&mut self, target: Target) -> &mut u32 {
        let length = usize::from(target.net().prefix_len());
        match target.net() {
            IpNet::V4(_) => &mut self.lengths4[length],
            IpNet::V6(_) => &mut self.lengths6[length],
        }
    }

    /// In which part a target is, if it is there.
    fn part_of(&self, target: Target) -> usize {
        let net = target.net();
        let address = match net {
            IpNet::V4(net) => u128::from(u32::from(net.addr())),
            IpNet::V6(net) => u128::from(net.addr()),
        };
        let low = address as u64 ^ u64::from(net.prefix_len()) << 56;
        hash(self.seed, (address >> 64) as u64, low) as usize % PARTS
    }

    /// Inserts or replaces.
    pub fn insert(&mut self, target: Target, value: V) -> Option<V> {
        if self.parts.is_empty() {
            self.parts.resize_with(PARTS, HashMap::new);
        }
        let part = self.part_of(target);
        let previous = self.parts.get_mut(part)?.insert(target, value);
        if previous.is_none() {
            self.entries += 1;
            *self.length(target) += 1;
        }
        previous
    }

    /// Removes exactly this target.
    pub fn remove(&mut self, target: Target) -> Option<V> {
        let part = self.part_of(target);
        let previous = self.parts.get_mut(part)?.remove(&target)?;
        self.entries -= 1;
        *self.length(target) -= 1;
        Some(previous)
    }

    /// Exactly this target.
    #[must_use]
    pub fn get(&self, target: Target) -> Option<&V> {
        self.parts.get(self.part_of(target))?.get(&target)
    }

    /// Exactly this target.
    pub fn get_mut(&mut self, target: Target) -> Option<&mut V> {
        let part = self.part_of(target);
        self.parts.get_mut(part)?.get_mut(&target)
    }

    /// Everything that covers the whole of `target`, itself included, the most specific first.
    pub fn covering(&self, target: Target) -> impl Iterator<Item = (Target, &V)> {
        let net = target.net();
        let lengths: &[u32] = match net {
            IpNet::V4(_) => &self.lengths4,
            IpNet::V6(_) => &self.lengths6,
        };
        (0..=net.prefix_len())
            .rev()
            .filter(|length| lengths[usize::from(*length)] > 0)
            .filter_map(move |length| {
                let wider = Target::network(IpNet::new(net.addr(), length).ok()?);
                Some((wider, self.get(wider)?))
            })
    }

    /// Everything within `net`, in no order. Looks at every entry unless `net` is one address.
    pub fn within(&self, net: Target) -> impl Iterator<Item = (Target, &V)> {
        self.iter()
            .filter(move |(target, _)| net.net().contains(&target.net()))
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Target, &V)> {
        let parts = self.parts.iter();
        parts.flat_map(|part| part.iter().map(|(target, value)| (*target, value)))
    }

    /// Those of one part, in no order; `None` behind the last.
    #[must_use]
    pub fn part(&self, part: usize) -> Option<impl ExactSizeIterator<Item = (Target, &V)>> {
        let part = self.parts.get(part)?;
        Some(part.iter().map(|(target, value)| (*target, value)))
    }

    /// All keys, in no order.
    pub fn keys(&self) -> impl Iterator<Item = &Target> {
        self.parts.iter().flat_map(HashMap::keys)
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, net::Ipv4Addr};

    use super::*;

    fn number(n: u32) -> Target {
        Target::address(Ipv4Addr::from(0x0b00_0000 | n).into())
    }

    #[test]
    fn parts_are_even_and_make_up_the_whole() {
        let mut map = PrefixMap::default();
        assert!(
            map.part(0).is_none() && map.get(number(1)).is_none(),
            "nothing costs nothing"
        );
        for n in 0..100_000 {
            assert_eq!(map.insert(number(n), n), None);
        }
        let sizes: Vec<usize> = (0..).map_while(|part| Some(map.part(part)?.len())).collect();
        assert_eq!(sizes.iter().sum::<usize>(), 100_000);
        // A hundred to a part; with chance alone, none of a thousand has twice as many.
        assert!(sizes.iter().all(|size| *size < 200), "{sizes:?}");
    }

    #[test]
    fn who_stays_is_met_exactly_once_whatever_else_comes_and_goes() {
        let mut map = PrefixMap::default();
        for n in 0..10_000 {
            map.insert(number(n), ());
        }
        let (mut met, mut part, mut next) = (Vec::new(), 0, 100_000);
        loop {
            let Some(entries) = map.part(part) else { break };
            met.extend(entries.map(|(target, ())| target));
            part += 1;
            // Every second goes, and many come, so that the maps grow.
            map.remove(number(u32::try_from(part).unwrap() * 2));
            for _ in 0..50 {
                map.insert(number(next), ());
                next += 1;
            }
        }
        let all: HashSet<Target> = met.iter().copied().collect();
        assert_eq!(all.len(), met.len(), "twice");
        let stayed = (0..10_000).filter(|n| n % 2 == 1);
        assert_eq!(stayed.filter(|n| !all.contains(&number(*n))).count(), 0, "missed");
    }
}
