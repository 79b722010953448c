//! Summary of a ban table: for each bucket sixteen bits, of which four bits of each hash choose one.
//!
//! The bit is set before an entry whose first bucket this is can be found, and cleared when the last of them is gone. Who
//! finds it clear knows that there is no entry, from a word in memory that is a thirtieth of the table and stays in nearer
//! caches. The writer of the table is the only one of its summary.

use super::Memory;

/// The bit of one hash.
#[derive(Clone, Copy)]
pub(super) struct Mark {
    word: u32,
    bit: u32,
}

/// Bits of a bucket, as a power of two.
const BITS: u32 = 4;
/// Buckets of a word, as a power of two.
const BUCKETS: u32 = 2;

const _: () = assert!((1 << BITS << BUCKETS) == u64::BITS);

impl Mark {
    /// That of a hash in a table of `mask` + 1 buckets. In tables of up to 2²⁸ buckets the bits that choose tell neither
    /// bucket.
    #[inline(always)]
    pub(super) const fn of(hash: u64, mask: u32) -> Self {
        let bucket = hash as u32 & mask;
        Self {
            word: bucket >> BUCKETS,
            bit: shift(bucket) | tag(hash),
        }
    }

    /// Whether no entry of this hash is there. Without a summary, or where it can't be read, the table has to tell.
    #[inline(always)]
    pub(super) fn is_clear<M: Memory + ?Sized>(self, memory: &M) -> bool {
        memory
            .summary(self.word)
            .is_some_and(|word| word >> self.bit & 1 == 0)
    }

    /// Says that an entry of this hash may be there.
    pub(super) fn set<M: Memory + ?Sized>(self, memory: &M) {
        let Some(word) = memory.summary(self.word) else {
            return;
        };
        if word >> self.bit & 1 == 0 {
            memory.set_summary(self.word, word | 1 << self.bit);
        }
    }
}

#[inline(always)]
const fn tag(hash: u64) -> u32 {
    (hash >> (u64::BITS - BITS)) as u32
}

/// Where a bucket's bits begin in their word.
#[inline(always)]
const fn shift(bucket: u32) -> u32 {
    (bucket & ((1 << BUCKETS) - 1)) << BITS
}

/// Leaves the bits of these hashes to a bucket, and no other.
pub(super) fn replace<M: Memory + ?Sized>(memory: &M, bucket: u32, hashes: impl Iterator<Item = u64>) {
    let index = bucket >> BUCKETS;
    let Some(word) = memory.summary(index) else {
        return;
    };
    let all = ((1 << (1 << BITS)) - 1) << shift(bucket);
    let own = hashes.fold(0, |bits, hash| bits | 1 << (shift(bucket) | tag(hash)));
    if word & all != own {
        memory.set_summary(index, word & !all | own);
    }
}

/// Touches a bucket's word.
pub(super) fn fetch<M: Memory + ?Sized>(memory: &M, bucket: u32) {
    core::hint::black_box(memory.summary(bucket >> BUCKETS));
}

/// Words of the summary of a table of so many buckets.
#[must_use]
pub const fn summary_words(buckets: u32) -> u32 {
    buckets.div_ceil(1 << BUCKETS)
}
