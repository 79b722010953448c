//! A table whose words are loom's.

use std::sync::atomic::Ordering as Host;

use loom::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use sip_filter_common::table::{Forget, HostLine, Line, Memory, WORDS};

/// The seed of all hashes.
pub(crate) const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// One bucket.
pub(crate) struct Bucket {
    words: [AtomicU64; WORDS],
    /// How loads see the words: as [`HostLine`] does, or as on a processor that reorders them.
    load: Ordering,
}

impl Line for &Bucket {
    fn load(self, word: usize) -> u64 {
        self.words[word].load(self.load)
    }

    fn store(self, word: usize, value: u64) {
        self.words[word].store(value, Ordering::Release);
    }

    fn compare_exchange(self, word: usize, old: u64, new: u64) -> bool {
        self.words[word]
            .compare_exchange(old, new, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
    }
}

/// A table that several threads share.
#[derive(Clone)]
pub(crate) struct Shared {
    buckets: Arc<Vec<Bucket>>,
    /// Of a table with a summary.
    summary: Option<Arc<AtomicU64>>,
}

impl Shared {
    /// With what a table in ordinary memory holds.
    pub(crate) fn copy(of: &[HostLine]) -> Self {
        Self::with_loads(of, Ordering::Acquire)
    }

    /// The same, with another order of loads.
    pub(crate) fn with_loads(of: &[HostLine], load: Ordering) -> Self {
        let bucket = |line: &HostLine| Bucket {
            words: std::array::from_fn(|word| AtomicU64::new(line[word].load(Host::Relaxed))),
            load,
        };
        Self {
            buckets: Arc::new(of.iter().map(bucket).collect()),
            summary: None,
        }
    }

    /// With a summary, in which whoever writes to the table marks what is there; it is one word, so the table has at most
    /// four buckets.
    pub(crate) fn summed(of: &[HostLine]) -> Self {
        Self {
            summary: Some(Arc::new(AtomicU64::new(0))),
            ..Self::copy(of)
        }
    }
}

impl Forget for Shared {}

impl Memory for Shared {
    type Line<'a> = &'a Bucket;

    fn mask(&self) -> u32 {
        self.buckets.len() as u32 - 1
    }

    fn line(&self, index: u32) -> Option<&Bucket> {
        self.buckets.get(index as usize)
    }

    fn summary(&self, index: u32) -> Option<u64> {
        assert_eq!(index, 0, "one word");
        Some(self.summary.as_ref()?.load(Ordering::Acquire))
    }

    fn set_summary(&self, _index: u32, word: u64) {
        if let Some(summary) = &self.summary {
            summary.store(word, Ordering::Release);
        }
    }
}

/// Empty buckets in ordinary memory.
pub(crate) fn empty(buckets: usize) -> Vec<HostLine> {
    (0..buckets).map(|_| HostLine::default()).collect()
}

/// Runs a model in every order with at most so many forced switches between threads: `LOOM_MAX_PREEMPTIONS`, or the
/// number given.
pub(crate) fn every_order(preemptions: usize, model: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.max_branches = 10_000;
    if builder.preemption_bound.is_none() {
        builder.preemption_bound = Some(preemptions);
    }
    builder.check(model);
}
