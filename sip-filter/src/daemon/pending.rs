//! Changes of bans that are in force and not saved yet, by target: which of them are taken back, and in which order,
//! should they turn out not to be saved.
//!
//! Several operations may wait for the disk with changes of one target, and hear of its failure in any order. A change is
//! taken back only from the newest on: before, the list says what a later one made of it. Once a later one is saved, the
//! earlier ones are part of it.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::bans::{Change, Target};

/// Operations that wait, for each target from the oldest to the newest.
#[derive(Debug, Default)]
pub(super) struct Pending {
    of: HashMap<Target, Vec<Open>>,
    operations: u64,
}

#[derive(Debug)]
struct Open {
    operation: u64,
    changes: Arc<Vec<Change>>,
    index: usize,
    failed: bool,
}

/// The changes of an operation that waits.
#[derive(Clone, Debug)]
pub(super) struct Waiting {
    operation: u64,
    pub(super) changes: Arc<Vec<Change>>,
}

impl Waiting {
    fn targets(&self) -> HashSet<Target> {
        self.changes.iter().map(|change| change.target).collect()
    }
}

impl Pending {
    /// Notes changes that were made just now. [`Self::saved`] or [`Self::failed`] must follow.
    pub(super) fn open(&mut self, changes: Vec<Change>) -> Waiting {
        self.operations += 1;
        let waiting = Waiting {
            operation: self.operations,
            changes: Arc::new(changes),
        };
        for (index, change) in waiting.changes.iter().enumerate() {
            self.of.entry(change.target).or_default().push(Open {
                operation: waiting.operation,
                changes: Arc::clone(&waiting.changes),
                index,
                failed: false,
            });
        }
        waiting
    }

    /// They hold.
    pub(super) fn saved(&mut self, waiting: &Waiting) {
        for target in waiting.targets() {
            let Some(open) = self.of.get_mut(&target) else {
                continue;
            };
            if let Some(last) = open.iter().rposition(|one| one.operation == waiting.operation) {
                open.drain(..=last);
            }
            if open.is_empty() {
                self.of.remove(&target);
            }
        }
    }

    /// They do not hold. Returns what is to be taken back now, in this order: of each target, these and those that failed
    /// before, if no later one waits.
    pub(super) fn failed(&mut self, waiting: &Waiting) -> Vec<Change> {
        let mut back = Vec::new();
        for target in waiting.targets() {
            let Some(open) = self.of.get_mut(&target) else {
                continue;
            };
            for one in open.iter_mut().filter(|one| one.operation == waiting.operation) {
                one.failed = true;
            }
            while let Some(newest) = open.pop_if(|newest| newest.failed) {
                back.extend(newest.changes.get(newest.index).cloned());
            }
            if open.is_empty() {
                self.of.remove(&target);
            }
        }
        back
    }
}
