//! A map from addresses and networks that also finds what covers an address.

use std::collections::{HashMap, hash_map};

use ipnet::IpNet;

use super::Target;

/// One hash map of all targets, beside the number of them at each prefix length: a covering look-up asks once per
/// length that occurs. With the few lengths of a ban list that is quicker, and much smaller, than a trie.
#[derive(Clone, Debug)]
pub struct PrefixMap<V> {
    entries: HashMap<Target, V>,
    lengths4: [u32; 33],
    lengths6: [u32; 129],
}

impl<V> Default for PrefixMap<V> {
    fn default() -> Self {
        Self {
            entries: HashMap::new(),
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

    /// Inserts or replaces.
    pub fn insert(&mut self, target: Target, value: V) -> Option<V> {
        let previous = self.entries.insert(target, value);
        if previous.is_none() {
            *self.length(target) += 1;
        }
        previous
    }

    /// Removes exactly this target.
    pub fn remove(&mut self, target: Target) -> Option<V> {
        let previous = self.entries.remove(&target);
        if previous.is_some() {
            *self.length(target) -= 1;
        }
        previous
    }

    /// Exactly this target.
    #[must_use]
    pub fn get(&self, target: Target) -> Option<&V> {
        self.entries.get(&target)
    }

    /// Exactly this target.
    pub fn get_mut(&mut self, target: Target) -> Option<&mut V> {
        self.entries.get_mut(&target)
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
                Some((wider, self.entries.get(&wider)?))
            })
    }

    /// Everything within `net`, in no order. Looks at every entry unless `net` is one address.
    pub fn within(&self, net: Target) -> impl Iterator<Item = (Target, &V)> {
        self.iter()
            .filter(move |(target, _)| net.net().contains(&target.net()))
    }

    /// All entries, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (Target, &V)> {
        self.entries.iter().map(|(target, value)| (*target, value))
    }

    /// All keys, in no order.
    pub fn keys(&self) -> hash_map::Keys<'_, Target, V> {
        self.entries.keys()
    }

    /// Number of entries.
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
