//! Random moments that can be had again.

use std::{
    hash::{BuildHasher as _, RandomState},
    time::Duration,
};

/// SplitMix64 (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// From the seed given by `--seed`, else from a new one; it is printed.
    pub(crate) fn seeded(of: &str) -> Self {
        let seed = super::setting("SEED", RandomState::new().hash_one(of));
        println!("{of}: `--seed {seed}`");
        Self(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    /// A moment of the time that something takes, or shortly after.
    pub(crate) fn within(&mut self, time: Duration) -> Duration {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap() * 11 / 10;
        Duration::from_nanos(self.below(nanoseconds.max(1)))
    }

    pub(crate) fn fork(&mut self) -> Self {
        Self(self.next())
    }
}
