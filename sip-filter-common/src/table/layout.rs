//! How entries of the ban tables lie in a bucket.

use super::{
    Line,
    fate::{Fate, Value},
};

/// How keys and fates lie in a bucket. The last word always holds the hit counters.
pub trait Layout {
    /// Exact key.
    type Key: Copy + Eq;
    /// What is kept under it.
    type Value: Value;
    /// Entries in a bucket.
    const SLOTS: usize;
    /// Words to hash.
    fn words(key: Self::Key) -> (u64, u64);
    /// Key and fate in a slot; [`Value::NONE`] if it is free.
    fn read<L: Line>(line: L, slot: usize) -> (Self::Key, Self::Value);
    /// Fate of `key` if it is in this slot, else [`Value::NONE`].
    fn probe<L: Line>(line: L, slot: usize, key: Self::Key) -> Self::Value;
    /// Writes an entry into a free slot, or a new fate into the slot that holds this key.
    fn write<L: Line>(line: L, slot: usize, key: Self::Key, fate: Self::Value);
    /// Frees a slot.
    fn clear<L: Line>(line: L, slot: usize);
}

/// IPv4 addresses, host order: seven entries a bucket, one word each.
#[derive(Clone, Copy, Debug)]
pub struct V4;

impl Layout for V4 {
    type Key = u32;
    type Value = Fate;
    const SLOTS: usize = 7;

    #[inline(always)]
    fn words(key: u32) -> (u64, u64) {
        (key as u64, 0)
    }

    #[inline(always)]
    fn read<L: Line>(line: L, slot: usize) -> (u32, Fate) {
        let word = line.load(slot);
        ((word >> 32) as u32, Fate(word as u32))
    }

    #[inline(always)]
    fn probe<L: Line>(line: L, slot: usize, key: u32) -> Fate {
        // With the right key and a fate, what is left lies between 1 and 2³² − 1: one comparison for both.
        let fate = line.load(slot) ^ (key as u64) << 32;
        if fate.wrapping_sub(1) < u32::MAX as u64 {
            Fate(fate as u32)
        } else {
            Fate::NONE
        }
    }

    fn write<L: Line>(line: L, slot: usize, key: u32, fate: Fate) {
        line.store(slot, (key as u64) << 32 | fate.0 as u64);
    }

    fn clear<L: Line>(line: L, slot: usize) {
        line.store(slot, 0);
    }
}

/// IPv6 prefixes of one fixed length (/64 by default), as the upper 64 bits: three entries a bucket.
#[derive(Clone, Copy, Debug)]
pub struct V6Prefix;

impl Layout for V6Prefix {
    type Key = u64;
    type Value = Fate;
    const SLOTS: usize = 3;

    #[inline(always)]
    fn words(key: u64) -> (u64, u64) {
        (key, 1)
    }

    #[inline(always)]
    fn read<L: Line>(line: L, slot: usize) -> (u64, Fate) {
        (line.load(slot), Fate(line.load(3 + slot) as u32))
    }

    #[inline(always)]
    fn probe<L: Line>(line: L, slot: usize, key: u64) -> Fate {
        if line.load(slot) != key {
            return Fate::NONE;
        }
        let fate = Fate(line.load(3 + slot) as u32);
        if line.load(slot) == key { fate } else { Fate::NONE }
    }

    fn write<L: Line>(line: L, slot: usize, key: u64, fate: Fate) {
        line.store(slot, key);
        line.store(3 + slot, fate.0 as u64);
    }

    fn clear<L: Line>(line: L, slot: usize) {
        line.store(3 + slot, 0);
    }
}

/// Single IPv6 addresses, upper and lower 64 bits: two entries a bucket.
#[derive(Clone, Copy, Debug)]
pub struct V6Host;

impl Layout for V6Host {
    type Key = [u64; 2];
    type Value = Fate;
    const SLOTS: usize = 2;

    #[inline(always)]
    fn words(key: [u64; 2]) -> (u64, u64) {
        (key[0], key[1] ^ 2)
    }

    #[inline(always)]
    fn read<L: Line>(line: L, slot: usize) -> ([u64; 2], Fate) {
        (
            [line.load(2 * slot), line.load(2 * slot + 1)],
            Fate(line.load(4 + slot) as u32),
        )
    }

    #[inline(always)]
    fn probe<L: Line>(line: L, slot: usize, key: [u64; 2]) -> Fate {
        if line.load(2 * slot) != key[0] || line.load(2 * slot + 1) != key[1] {
            return Fate::NONE;
        }
        let fate = Fate(line.load(4 + slot) as u32);
        let unchanged = line.load(2 * slot) == key[0] && line.load(2 * slot + 1) == key[1];
        if unchanged { fate } else { Fate::NONE }
    }

    fn write<L: Line>(line: L, slot: usize, key: [u64; 2], fate: Fate) {
        line.store(2 * slot, key[0]);
        line.store(2 * slot + 1, key[1]);
        line.store(4 + slot, fate.0 as u64);
    }

    fn clear<L: Line>(line: L, slot: usize) {
        line.store(4 + slot, 0);
    }
}
