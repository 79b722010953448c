//! Flat tables: an array of 64-byte buckets, one cache line each, so that a question costs one memory access.
//!
//! The same source serves the kernel program, which sees a bucket as a pointer into an array map, and the
//! controller, which sees the same memory through `mmap`. Access to single words goes through [`Line`]; every word
//! is read and written as a whole.
//!
//! * [`ban`]: bans. Never evict. The controller is the only writer of entries, so it needs no lock; the kernel only
//!   reads them and counts hits in a word of their own in the same line.
//! * [`network`]: banned and allowed networks, by the same rules.
//! * [`source`]: per-source limiter state. May evict; written by all CPUs.

pub mod ban;
mod fate;
mod hits;
mod layout;
pub mod network;
pub mod source;
mod summary;

pub use ban::{BanTable, Fate};

use crate::packet::Ip;

/// Words of a bucket.
pub const WORDS: usize = 8;

/// One bucket, a cache line of [`WORDS`] words, shared with other CPUs or with the kernel.
pub trait Line: Copy {
    /// Reads a word.
    fn load(self, word: usize) -> u64;
    /// Writes a word; everything written before is visible to whoever sees the new value.
    fn store(self, word: usize, value: u64);
    /// Replaces `old` by `new` and returns whether the word was `old`.
    fn compare_exchange(self, word: usize, old: u64, new: u64) -> bool;
}

/// Returns a value as it is. In the kernel program it goes through memory on the way, so that the verifier forgets
/// what it knows of it: paths that differ only in such values are then verified once instead of each to its end. A
/// forgotten value must be bounded again before it becomes an offset.
pub trait Forget {
    /// The same value.
    #[inline(always)]
    fn forget(&self, value: u64) -> u64 {
        value
    }
}

/// [`Forget`] where there is no verifier.
#[derive(Clone, Copy, Debug)]
pub struct Plain;

impl Forget for Plain {}

/// A power-of-two number of buckets.
pub trait Memory: Forget {
    /// The bucket type.
    type Line<'a>: Line
    where
        Self: 'a;
    /// Number of buckets less one.
    fn mask(&self) -> u32;
    /// The bucket at `index`, which is at most [`Self::mask`]; `None` if the map look-up failed.
    fn line(&self, index: u32) -> Option<Self::Line<'_>>;
    /// A word of the table's summary (see the module of that name); `None` if it has none.
    #[inline(always)]
    fn summary(&self, _index: u32) -> Option<u64> {
        None
    }
    /// Writes such a word; everything written before is visible to whoever sees the new value.
    #[inline(always)]
    fn set_summary(&self, _index: u32, _word: u64) {}
}

/// A bucket in ordinary memory.
#[cfg(not(target_arch = "bpf"))]
pub type HostLine = [core::sync::atomic::AtomicU64; WORDS];

#[cfg(not(target_arch = "bpf"))]
impl Line for &HostLine {
    #[inline]
    fn load(self, word: usize) -> u64 {
        self[word].load(core::sync::atomic::Ordering::Acquire)
    }

    #[inline]
    fn store(self, word: usize, value: u64) {
        self[word].store(value, core::sync::atomic::Ordering::Release);
    }

    #[inline]
    fn compare_exchange(self, word: usize, old: u64, new: u64) -> bool {
        use core::sync::atomic::Ordering::{AcqRel, Acquire};
        self[word].compare_exchange(old, new, AcqRel, Acquire).is_ok()
    }
}

#[cfg(not(target_arch = "bpf"))]
impl Forget for [HostLine] {}

#[cfg(not(target_arch = "bpf"))]
impl Memory for [HostLine] {
    type Line<'a> = &'a HostLine;

    /// # Panics
    /// If the slice is empty or longer than 2³² buckets.
    #[inline]
    fn mask(&self) -> u32 {
        u32::try_from(self.len() - 1).expect("a table has 1 to 2^32 buckets")
    }

    #[inline]
    fn line(&self, index: u32) -> Option<&HostLine> {
        self.get(index as usize)
    }
}

impl<M: Forget + ?Sized> Forget for &M {
    #[inline(always)]
    fn forget(&self, value: u64) -> u64 {
        M::forget(self, value)
    }
}

impl<M: Memory + ?Sized> Memory for &M {
    type Line<'a>
        = M::Line<'a>
    where
        Self: 'a;

    #[inline(always)]
    fn mask(&self) -> u32 {
        M::mask(self)
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<Self::Line<'_>> {
        M::line(self, index)
    }

    #[inline(always)]
    fn summary(&self, index: u32) -> Option<u64> {
        M::summary(self, index)
    }

    #[inline(always)]
    fn set_summary(&self, index: u32, word: u64) {
        M::set_summary(self, index, word);
    }
}

/// Seeded 64-bit hash of two words. Good enough to spread keys evenly; that nobody can aim at a bucket rests on the
/// seed being secret. Three multiplications, no memory access.
#[inline(always)]
#[must_use]
pub const fn hash(seed: [u64; 2], a: u64, b: u64) -> u64 {
    let mut h = (a ^ seed[0]).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    h ^= h >> 32;
    h = (h ^ b ^ seed[1]).wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^= h >> 32;
    h = h.wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^ (h >> 32)
}

/// Key of an endpoint, protocol number, port and hop limit at a source, in the table of endpoints of trusted sources.
/// Hashed to 64 bits: nobody without the seed can find another endpoint of the same key.
#[inline(always)]
#[must_use]
pub const fn endpoint_key(seed: [u64; 2], source: Ip, (protocol, port, hops): (u8, u16, u8)) -> u64 {
    let source = match source {
        Ip::V4(address) => address as u64,
        Ip::V6([high, low]) => hash(seed, high, low),
    };
    let place = (protocol as u64) << 24 | (port as u64) << 8 | hops as u64;
    hash(seed, source, 6 << 32 | place)
}

/// The two candidate buckets of a hash; they differ unless the table has a single bucket.
#[inline(always)]
pub(crate) const fn candidates(hash: u64, mask: u32) -> (u32, u32) {
    let first = hash as u32 & mask;
    let second = (hash >> 32) as u32 & mask;
    if first == second {
        (first, (second ^ 1) & mask)
    } else {
        (first, second)
    }
}
