//! Ban tables: exact keys, two candidate buckets, entries that are never absent while they exist.
//!
//! # Publication
//! The controller is the only writer of entries. Readers look at an entry's first bucket, then at its second. An
//! entry is only ever moved from its first bucket to its second, and the copy is written before the original is
//! cleared: a reader that no longer finds the original comes to the copy next. So readers need no version and no
//! retry, and no reader misses an entry that is there.
//!
//! An IPv4 entry is one word and appears by one store. Longer keys are written while the entry's fate is still zero
//! (absent), the fate last; a reader checks the key again after reading the fate, so that it never takes the fate
//! of an entry that was replaced meanwhile.

use core::marker::PhantomData;

use super::{
    Line, Memory, candidates, hash, hits,
    summary::{self, Mark},
};
pub use super::{
    fate::{Fate, Value},
    layout::{Layout, V4, V6Host, V6Prefix},
    summary::summary_words,
};

/// The word of the hit counters.
const HITS: usize = super::WORDS - 1;
/// The bit of that word which no counter uses: some entry whose first bucket this is went, now or once, to its second.
/// Without it a look-up ends after one bucket, a cache line. It is set before such an entry can be found, and stays until
/// the table is made anew: to keep it costs a look that may be in vain, to take it away too early a ban.
const SPILLED: u64 = 1 << 63;

/// An entry found by [`lookup`].
#[derive(Clone, Copy)]
pub struct Found<L, V> {
    line: L,
    /// Its bucket.
    pub bucket: u32,
    /// Its place in it.
    pub slot: usize,
    /// What the entry says.
    pub value: V,
}

impl<L: Line, V> Found<L, V> {
    /// Counts one packet this entry stopped. `random` is uniform.
    #[inline(always)]
    pub fn hit(self, random: u32) {
        count_hit(self.line, self.slot, random);
    }
}

/// Counts one packet that the entry in a slot stopped. Under a race with another CPU or with the controller taking the
/// counter, a second try is made and then the hit is forgone: the counters by reason stay exact, only the hits of one
/// entry are short by one.
#[inline(always)]
pub(super) fn count_hit<L: Line>(line: L, slot: usize, random: u32) {
    let mut tries = 0;
    while tries < 2 {
        let word = line.load(HITS);
        let Some(new) = hits::bump(word, slot, random) else {
            return;
        };
        if line.compare_exchange(HITS, word, new) {
            return;
        }
        tries += 1;
    }
}

/// Slot and fate of `key` in a bucket.
#[inline(always)]
fn probe_line<T: Layout, L: Line>(line: L, key: T::Key) -> Option<(usize, T::Value)> {
    let mut slot = 0;
    while slot < T::SLOTS {
        let fate = T::probe(line, slot, key);
        if fate.exists() {
            return Some((slot, fate));
        }
        slot += 1;
    }
    None
}

/// Looks `key` up: the summary, if there is one, then one or two buckets.
#[inline(always)]
pub fn lookup<T: Layout, M: Memory + ?Sized>(
    memory: &M,
    seed: [u64; 2],
    key: T::Key,
) -> Option<Found<M::Line<'_>, T::Value>> {
    let (a, b) = T::words(key);
    let hash = hash(seed, a, b);
    if Mark::of(hash, memory.mask()).is_clear(memory) {
        return None;
    }
    find::<T, M>(memory, hash, key)
}

/// Looks for `key` in the table itself.
#[inline(always)]
fn find<T: Layout, M: Memory + ?Sized>(
    memory: &M,
    hash: u64,
    key: T::Key,
) -> Option<Found<M::Line<'_>, T::Value>> {
    let (first, second) = candidates(hash, memory.mask());
    let mut bucket = first;
    let mut line = memory.line(first)?;
    let mut hit = probe_line::<T, _>(line, key);
    if hit.is_none() {
        if line.load(HITS) & SPILLED == 0 {
            return None;
        }
        bucket = second;
        line = memory.line(second)?;
        hit = probe_line::<T, _>(line, key);
    }
    let (slot, fate) = hit?;
    Some(Found {
        line,
        bucket,
        slot: memory.forget(slot as u64) as usize,
        value: T::Value::from_number(memory.forget(fate.number())),
    })
}

/// There is no room for another entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// Buckets examined for a chain of moves before a table counts as full.
const SEARCH: usize = 512;

/// The writing side of a ban table. There must be at most one for a memory at a time.
#[derive(Debug)]
pub struct BanTable<T, M> {
    memory: M,
    seed: [u64; 2],
    entries: usize,
    /// Those among them that stop everything.
    all: usize,
    layout: PhantomData<T>,
}

impl<T: Layout, M: Memory> BanTable<T, M> {
    /// Takes over a memory and counts what is in it.
    pub fn new(memory: M, seed: [u64; 2]) -> Self {
        let mut table = Self {
            memory,
            seed,
            entries: 0,
            all: 0,
            layout: PhantomData,
        };
        table.recount();
        table
    }

    /// Counts the entries anew, and marks them in the summary, should somebody else have written to the memory.
    pub fn recount(&mut self) {
        let (mut entries, mut all) = (0, 0);
        self.for_each(|key, fate| {
            entries += 1;
            all += usize::from(fate.stops_all());
            self.mark(self.hash(key));
        });
        (self.entries, self.all) = (entries, all);
    }

    /// Entries in the table, expired ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries == 0
    }

    /// Whether one of them stops everything, not only SIP.
    #[must_use]
    pub fn stops_all(&self) -> bool {
        self.all > 0
    }

    /// Slots in the table. About 85 % of them can be filled.
    #[must_use]
    pub fn capacity(&self) -> usize {
        (self.memory.mask() as usize + 1) * T::SLOTS
    }

    /// Touches the bucket where `key` is looked for first. Of several, one after the other, the processor waits for the
    /// memory of all at once.
    pub fn fetch(&self, key: T::Key) {
        let first = self.buckets(key).0;
        if let Some(line) = self.memory.line(first) {
            core::hint::black_box(line.load(0));
        }
        summary::fetch(&self.memory, first);
    }

    /// The fate of `key`, [`Value::NONE`] if it has no entry.
    #[must_use]
    pub fn get(&self, key: T::Key) -> T::Value {
        lookup::<T, M>(&self.memory, self.seed, key).map_or(T::Value::NONE, |found| found.value)
    }

    /// Inserts an entry or gives it a new fate.
    ///
    /// # Errors
    /// [`Full`] if no slot can be freed; the table then holds what it held.
    pub fn insert(&mut self, key: T::Key, fate: T::Value) -> Result<(), Full> {
        let hash = self.hash(key);
        if let Some(found) = find::<T, M>(&self.memory, hash, key) {
            self.mark(hash);
            T::write(found.line, found.slot, key, fate);
            self.all = self.all + usize::from(fate.stops_all()) - usize::from(found.value.stops_all());
            return Ok(());
        }
        let (first, second) = self.buckets(key);
        let (index, slot) = self
            .free_slot(first)
            .or_else(|| self.free_slot(second))
            .or_else(|| self.make_room(first, second))
            .ok_or(Full)?;
        let line = self.memory.line(index).ok_or(Full)?;
        // A packet judged while the slot's last owner was removed may have left a hit behind.
        take_code(line, slot);
        if index != first {
            self.spill(first).ok_or(Full)?;
        }
        self.mark(hash);
        T::write(line, slot, key, fate);
        self.entries += 1;
        self.all += usize::from(fate.stops_all());
        Ok(())
    }

    /// Removes an entry and returns the hits it had not reported yet, `None` if there was no entry.
    pub fn remove(&mut self, key: T::Key) -> Option<u64> {
        let hash = self.hash(key);
        let found = find::<T, M>(&self.memory, hash, key)?;
        T::clear(found.line, found.slot);
        self.unmark(hash as u32 & self.memory.mask());
        self.entries = self.entries.saturating_sub(1);
        self.all = self.all.saturating_sub(usize::from(found.value.stops_all()));
        Some(take_code(found.line, found.slot).map_or(0, |code| hits::get(code, 0)))
    }

    /// Calls `report` for every entry with hits since the last call, and sets them to zero.
    pub fn take_hits(&mut self, report: impl FnMut(T::Key, u64)) {
        self.take_hits_in(0, u32::MAX, report);
    }

    /// The same for at most `most` buckets from `first` on; returns how many there were.
    pub fn take_hits_in(&mut self, first: u32, most: u32, mut report: impl FnMut(T::Key, u64)) -> u32 {
        let buckets = self.part(first, most);
        for index in first..first + buckets {
            let Some(line) = self.memory.line(index) else {
                continue;
            };
            if line.load(HITS) & !SPILLED == 0 {
                continue;
            }
            for slot in 0..T::SLOTS {
                let Some(code) = take_code(line, slot) else {
                    continue;
                };
                let (key, fate) = T::read(line, slot);
                if fate.exists() {
                    report(key, hits::get(code, 0));
                }
            }
        }
        buckets
    }

    /// Calls `visit` for every entry.
    pub fn for_each(&self, visit: impl FnMut(T::Key, T::Value)) {
        self.for_each_in(0, u32::MAX, visit);
    }

    /// Number of buckets from `first` on, at most `most`.
    fn part(&self, first: u32, most: u32) -> u32 {
        self.memory
            .mask()
            .saturating_add(1)
            .saturating_sub(first)
            .min(most)
    }

    /// The same for at most `most` buckets from `first` on; returns how many there were.
    pub fn for_each_in(&self, first: u32, most: u32, mut visit: impl FnMut(T::Key, T::Value)) -> u32 {
        let buckets = self.part(first, most);
        for index in first..first + buckets {
            let Some(line) = self.memory.line(index) else {
                continue;
            };
            for slot in 0..T::SLOTS {
                let (key, fate) = T::read(line, slot);
                if fate.exists() {
                    visit(key, fate);
                }
            }
        }
        buckets
    }

    fn hash(&self, key: T::Key) -> u64 {
        let (a, b) = T::words(key);
        hash(self.seed, a, b)
    }

    fn buckets(&self, key: T::Key) -> (u32, u32) {
        candidates(self.hash(key), self.memory.mask())
    }

    /// Says in the summary that an entry of this hash may be there.
    fn mark(&self, hash: u64) {
        Mark::of(hash, self.memory.mask()).set(&self.memory);
    }

    /// Leaves in the summary what is there of a bucket. Where an entry of its own went to another bucket, all stays as it
    /// is.
    fn unmark(&self, bucket: u32) {
        let Some(line) = self.memory.line(bucket) else {
            return;
        };
        if line.load(HITS) & SPILLED != 0 {
            return;
        }
        let own = (0..T::SLOTS)
            .map(|slot| T::read(line, slot))
            .filter(|(_, fate)| fate.exists())
            .map(|(key, _)| self.hash(key))
            .filter(|hash| *hash as u32 & self.memory.mask() == bucket);
        summary::replace(&self.memory, bucket, own);
    }

    fn free_slot(&self, index: u32) -> Option<(u32, usize)> {
        let line = self.memory.line(index)?;
        (0..T::SLOTS)
            .find(|slot| !T::read(line, *slot).1.exists())
            .map(|slot| (index, slot))
    }

    /// Frees a slot in one of two full buckets by moving entries from their first bucket to their second,
    /// breadth first, so that chains of moves are short.
    fn make_room(&mut self, first: u32, second: u32) -> Option<(u32, usize)> {
        // (bucket, where in this list the entry comes from, slot there)
        let mut search = [(0_u32, usize::MAX, 0_usize); SEARCH];
        search[0].0 = first;
        search[1].0 = second;
        let (mut head, mut tail) = (0, 2);
        while head < tail {
            let (bucket, _, _) = search[head];
            for slot in 0..T::SLOTS {
                let (key, _) = T::read(self.memory.line(bucket)?, slot);
                let (home, other) = self.buckets(key);
                if home != bucket || other == bucket {
                    continue;
                }
                if let Some((target, free)) = self.free_slot(other) {
                    return self.move_chain(&search, head, slot, (target, free));
                }
                if tail < SEARCH {
                    search[tail] = (other, head, slot);
                    tail += 1;
                }
            }
            head += 1;
        }
        None
    }

    /// Carries out the moves found by [`Self::make_room`], last first; returns the slot that becomes free in one
    /// of the two buckets the search began with.
    fn move_chain(
        &mut self,
        search: &[(u32, usize, usize); SEARCH],
        mut node: usize,
        mut slot: usize,
        mut free: (u32, usize),
    ) -> Option<(u32, usize)> {
        loop {
            let (bucket, parent, parent_slot) = search[node];
            self.move_entry((bucket, slot), free)?;
            free = (bucket, slot);
            if parent == usize::MAX {
                return Some(free);
            }
            (node, slot) = (parent, parent_slot);
        }
    }

    /// Says of a bucket that an entry of its own lies elsewhere.
    fn spill(&self, bucket: u32) -> Option<()> {
        let line = self.memory.line(bucket)?;
        loop {
            let word = line.load(HITS);
            if word & SPILLED != 0 || line.compare_exchange(HITS, word, word | SPILLED) {
                return Some(());
            }
        }
    }

    fn move_entry(&mut self, from: (u32, usize), to: (u32, usize)) -> Option<()> {
        let (source, target) = (self.memory.line(from.0)?, self.memory.line(to.0)?);
        let (key, fate) = T::read(source, from.1);
        // Where it lies now is its first bucket.
        self.spill(from.0)?;
        T::write(target, to.1, key, fate);
        T::clear(source, from.1);
        if let Some(code) = take_code(source, from.1) {
            give_code(target, to.1, code);
        }
        Some(())
    }
}

/// Reads and zeroes a hit counter; `None` if it was zero.
fn take_code<L: Line>(line: L, slot: usize) -> Option<u64> {
    loop {
        let word = line.load(HITS);
        let code = hits::code(word, slot);
        if code == 0 {
            return None;
        }
        if line.compare_exchange(HITS, word, hits::cleared(word, slot)) {
            return Some(code);
        }
    }
}

/// Sets the counter of an entry that was just moved; the few hits counted there since the move are given up.
fn give_code<L: Line>(line: L, slot: usize, code: u64) {
    loop {
        let word = line.load(HITS);
        if line.compare_exchange(HITS, word, hits::with_code(word, slot, code)) {
            return;
        }
    }
}

const _: () = {
    assert!(V4::SLOTS <= hits::PER_WORD && V4::SLOTS <= HITS);
    assert!(SPILLED > hits::ALL, "no counter uses the bit");
    assert!(V6Prefix::SLOTS * 2 <= HITS);
    assert!(V6Host::SLOTS * 3 <= HITS);
};

#[cfg(test)]
mod tests;
