//! A map of bounded size that a flood of new keys cannot wash out.

use std::{collections::HashMap, hash::Hash};

/// No entry.
const NONE: u32 = u32::MAX;

/// Index of the two lists.
const PROBATION: usize = 0;
const PROTECTED: usize = 1;

/// A map with room for a fixed number of entries, in two lists, each ordered by last use.
///
/// A new entry is on probation; what has shown to matter is moved to the protected list ([`Bounded::protect`]).
/// When the map is full, a new entry takes the place of
/// 1. the protected entry that was idle for longest, if the caller calls it stale, else
/// 2. the entry on probation that was idle for longest, else
/// 3. the protected entry that was idle for longest.
///
/// So a flood of sources seen once replaces itself. At most three quarters of the room are protected, so that a new
/// source always has a place in which to become known; beyond that, the protected entry that was idle for longest
/// goes back on probation. Every operation takes constant time.
#[derive(Debug)]
pub(super) struct Bounded<K, V> {
    capacity: usize,
    index: HashMap<K, u32>,
    nodes: Vec<Node<K, V>>,
    free: Vec<u32>,
    lists: [List; 2],
    evicted: u64,
}

#[derive(Debug)]
struct Node<K, V> {
    key: K,
    value: Option<V>,
    list: usize,
    newer: u32,
    older: u32,
}

#[derive(Clone, Copy, Debug)]
struct List {
    newest: u32,
    oldest: u32,
    length: usize,
}

impl List {
    const EMPTY: Self = Self {
        newest: NONE,
        oldest: NONE,
        length: 0,
    };
}

impl<K: Copy + Eq + Hash, V> Bounded<K, V> {
    /// Room for `capacity` entries, at least 1. Memory is taken as they come.
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.clamp(1, NONE as usize),
            index: HashMap::new(),
            nodes: Vec::new(),
            free: Vec::new(),
            lists: [List::EMPTY; 2],
            evicted: 0,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.index.len()
    }

    /// Entries that had to make room so far.
    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) fn get(&self, key: &K) -> Option<&V> {
        let node = self.nodes.get(*self.index.get(key)? as usize)?;
        node.value.as_ref()
    }

    pub(super) fn get_mut(&mut self, key: &K) -> Option<&mut V> {
        let node = self.nodes.get_mut(*self.index.get(key)? as usize)?;
        node.value.as_mut()
    }

    /// The value of `key`, made if absent, and now the one used last.
    pub(super) fn touch(&mut self, key: K, stale: impl Fn(&V) -> bool, make: impl FnOnce() -> V) -> &mut V {
        self.slot(key, stale).get_or_insert_with(make)
    }

    /// Sets the value of `key`, which is now the one used last.
    pub(super) fn put(&mut self, key: K, stale: impl Fn(&V) -> bool, value: V) {
        *self.slot(key, stale) = Some(value);
    }

    fn slot(&mut self, key: K, stale: impl Fn(&V) -> bool) -> &mut Option<V> {
        let place = match self.index.get(&key) {
            Some(&place) => {
                let list = self.node(place).list;
                self.unlink(place);
                self.push(place, list);
                place
            }
            None => {
                if self.index.len() >= self.capacity {
                    self.evict(stale);
                }
                let place = self.place(key);
                self.index.insert(key, place);
                self.push(place, PROBATION);
                place
            }
        };
        &mut self.nodes[place as usize].value
    }

    /// Moves `key` to the protected list.
    pub(super) fn protect(&mut self, key: &K) {
        let Some(&place) = self.index.get(key) else {
            return;
        };
        if self.node(place).list == PROTECTED {
            return;
        }
        self.unlink(place);
        self.push(place, PROTECTED);
        if self.lists[PROTECTED].length > (self.capacity * 3 / 4).max(1) {
            let oldest = self.lists[PROTECTED].oldest;
            self.unlink(oldest);
            self.push(oldest, PROBATION);
        }
    }

    pub(super) fn remove(&mut self, key: &K) -> Option<V> {
        let place = self.index.remove(key)?;
        self.unlink(place);
        self.free.push(place);
        self.nodes[place as usize].value.take()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.nodes
            .iter()
            .filter_map(|node| Some((&node.key, node.value.as_ref()?)))
    }

    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.nodes.iter_mut().filter_map(|node| node.value.as_mut())
    }

    /// Changes the room; what no longer fits is removed as by new entries.
    pub(super) fn set_capacity(&mut self, capacity: usize, stale: impl Fn(&V) -> bool) {
        self.capacity = capacity.clamp(1, NONE as usize);
        while self.index.len() > self.capacity {
            self.evict(&stale);
        }
    }

    fn evict(&mut self, stale: impl Fn(&V) -> bool) {
        let [probation, protected] = [self.lists[PROBATION].oldest, self.lists[PROTECTED].oldest];
        let is_stale = |place: u32| place != NONE && self.node(place).value.as_ref().is_some_and(&stale);
        let victim = if probation == NONE || is_stale(protected) {
            protected
        } else {
            probation
        };
        if victim != NONE {
            let key = self.node(victim).key;
            self.remove(&key);
            self.evicted += 1;
        }
    }

    fn node(&self, place: u32) -> &Node<K, V> {
        &self.nodes[place as usize]
    }

    /// A place for `key`, in no list yet.
    fn place(&mut self, key: K) -> u32 {
        if let Some(place) = self.free.pop() {
            self.nodes[place as usize].key = key;
            return place;
        }
        self.nodes.push(Node {
            key,
            value: None,
            list: PROBATION,
            newer: NONE,
            older: NONE,
        });
        // The capacity is below u32::MAX.
        (self.nodes.len() - 1) as u32
    }

    /// Takes an entry out of its list.
    fn unlink(&mut self, place: u32) {
        let Node {
            list, newer, older, ..
        } = *self.node(place);
        match self.nodes.get_mut(newer as usize) {
            Some(node) => node.older = older,
            None => self.lists[list].newest = older,
        }
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = newer,
            None => self.lists[list].oldest = newer,
        }
        self.lists[list].length -= 1;
    }

    /// Puts an entry at the new end of a list.
    fn push(&mut self, place: u32, list: usize) {
        let older = self.lists[list].newest;
        let node = &mut self.nodes[place as usize];
        node.list = list;
        node.newer = NONE;
        node.older = older;
        match self.nodes.get_mut(older as usize) {
            Some(node) => node.newer = place,
            None => self.lists[list].oldest = place,
        }
        self.lists[list].newest = place;
        self.lists[list].length += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_flood_of_new_keys_replaces_itself() {
        let mut map = Bounded::new(100);
        for key in 0..50 {
            map.touch(key, |_| false, || key);
            map.protect(&key);
        }
        for key in 1_000..11_000 {
            map.touch(key, |_| false, || key);
        }
        assert!((0..50).all(|key| map.get(&key) == Some(&key)));
        assert!((10_950..11_000).all(|key| map.get(&key).is_some()));
        assert_eq!((map.len(), map.nodes.len(), map.evicted()), (100, 100, 9_950));
    }

    #[test]
    fn stale_protected_entries_go_first_and_protection_is_bounded() {
        let mut map = Bounded::new(8);
        for key in 0..8 {
            map.touch(key, |_| false, || key);
            map.protect(&key);
        }
        // 6 of 8 are protected; 0 and 1 are back on probation.
        assert_eq!(map.lists.map(|list| list.length), [2, 6]);
        map.touch(8, |value| *value == 2, || 8);
        assert_eq!(map.get(&2), None);
        map.touch(9, |value| *value == 4, || 9);
        assert_eq!(map.get(&0), None);
        // Without anything on probation, the idlest of the protected goes.
        for key in [1, 8, 9] {
            map.remove(&key);
        }
        map.set_capacity(4, |_| false);
        assert_eq!(map.get(&3), None);
        assert!([4, 5, 6, 7].iter().all(|key| map.get(key).is_some()));
    }

    proptest! {
        #[test]
        fn lists_and_index_agree(
            capacity in 1usize..12,
            steps in prop::collection::vec((0u8..4, 0u16..24), 0..200),
        ) {
            let mut map = Bounded::new(capacity);
            for (what, key) in steps {
                match what {
                    0 => drop(map.remove(&key)),
                    1 => map.protect(&key),
                    _ => {
                        map.touch(key, |value| value % 3 == 0, || key);
                        prop_assert_eq!(map.get(&key), Some(&key));
                    }
                }
                prop_assert!(map.len() <= capacity && map.nodes.len() <= capacity);
                prop_assert_eq!(map.lists[0].length + map.lists[1].length, map.len());
                let mut walked = 0;
                for list in 0..2 {
                    let mut place = map.lists[list].oldest;
                    while place != NONE {
                        let node = map.node(place);
                        prop_assert_eq!(node.list, list);
                        prop_assert_eq!(map.index.get(&node.key), Some(&place));
                        prop_assert_eq!(node.value, Some(node.key));
                        walked += 1;
                        place = node.newer;
                    }
                }
                prop_assert_eq!(walked, map.len());
            }
        }
    }
}
