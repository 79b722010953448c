//! The regular work, in pieces: bans that end, hits, what is to be saved.
//!
//! Whoever has a ban to make waits for the lock. So nothing here holds it for longer than a few hundred entries take,
//! however long the list is, and between two pieces whoever waits goes first ([`ControlHandle::in_turn`]). A piece leaves
//! list, tables and store as consistent as any other operation does.

use std::{collections::HashSet, hash::Hash, sync::PoisonError};

use super::{
    ControlHandle,
    controller::Controller,
    decisions::REPORT_EVERY,
    error::chain,
    journal::{JournalEvent, JournalKind},
    operations::LOGGED_ONE_BY_ONE,
};
use crate::bans::{Batch, Change, Clock};

/// Most entries that a piece writes, to the tables or as JSON for the store: about 5 µs each.
pub(super) const WRITES: usize = 128;

/// Most entries that a piece only looks up: about 0.5 µs each, caches cold. One more part of the list at most.
pub(super) const READS: usize = 512;

/// A piece of work; returns whether there is more of the same.
pub(super) type Piece = fn(&mut Controller, Clock) -> bool;

/// What is to be done each second, in this order.
pub(super) const EACH_SECOND: [Piece; 10] = [
    |controller, clock| {
        controller.settle(clock);
        false
    },
    Controller::expire_some,
    Controller::harvest_some_hits,
    |controller, clock| {
        controller.sample_traffic(clock);
        false
    },
    Controller::save_some_known,
    |controller, clock| {
        controller.save_all_if_lost(clock);
        false
    },
    |controller, _| {
        controller.begin_verify();
        false
    },
    Controller::verify_some,
    |controller, clock| {
        controller.judge(clock);
        false
    },
    |controller, clock| {
        controller.note_ended(clock);
        false
    },
];

/// What is to be done each minute besides.
pub(super) const EACH_MINUTE: [Piece; 3] = [
    Controller::save_some_hits,
    Controller::forget_some_history,
    |controller, clock| {
        controller.tidy_up(clock);
        false
    },
];

/// Does all of it, piece by piece.
pub(super) fn work(handle: &ControlHandle, pieces: &[Piece]) {
    for piece in pieces {
        while handle.in_turn(piece) {}
    }
}

/// Takes up to [`WRITES`] elements out of a set.
pub(super) fn take_some<T: Copy + Eq + Hash>(set: &mut HashSet<T>) -> Vec<T> {
    let some: Vec<T> = set.iter().take(WRITES).copied().collect();
    if some.len() == set.len() {
        // With the room it had: it may have been large once, and to walk it would cost as much each time.
        *set = HashSet::new();
    } else {
        for element in &some {
            set.remove(element);
        }
    }
    some
}

impl Controller {
    /// Collects all bans, registrations and proofs that have ended.
    pub fn expire(&mut self, clock: Clock) {
        while self.expire_some(clock) {}
        self.note_ended(clock);
    }

    /// Collects a few of them; whether there are more. The kernel has stopped to heed them by itself.
    pub(super) fn expire_some(&mut self, clock: Clock) -> bool {
        let more_known = self.expire_known(clock);
        let changes = self.list.expire_some(clock, WRITES);
        if changes.is_empty() {
            return more_known;
        }
        self.ended += changes.len();
        for change in &changes {
            self.count_change(change);
            for plane in &mut self.planes {
                if let Err(error) = plane.image().remove(change.target) {
                    // It is not enforced any more and only takes up room.
                    self.dirty = true;
                    tracing::warn!(error = chain(&error), target = %change.target, "an ended ban could not be removed");
                }
            }
            self.tell_ended(change, clock);
        }
        let more = more_known || changes.len() == WRITES;
        self.save(&changes, clock).detach();
        more
    }

    fn tell_ended(&self, change: &Change, clock: Clock) {
        let event = JournalEvent {
            target: Some(change.target),
            origin: change.past.as_ref().map(|past| past.origin.clone()),
            rule: change.past.as_ref().and_then(|past| past.rule),
            ..JournalEvent::new(
                clock.wall,
                JournalKind::BanExpired,
                format!("the ban of {} has ended", change.target),
            )
        };
        if self.ended > LOGGED_ONE_BY_ONE {
            self.journal.record_silently(event);
        } else {
            self.journal.record(event);
        }
    }

    /// Says how many bans have ended, if they were too many to log each.
    pub(super) fn note_ended(&mut self, _: Clock) {
        let count = std::mem::take(&mut self.ended);
        if count > LOGGED_ONE_BY_ONE {
            tracing::info!(count, "bans have ended");
        }
    }

    /// Fetches how many packets each ban stopped since the last time.
    pub fn harvest_hits(&mut self, clock: Clock) {
        while self.harvest_some_hits(clock) {}
    }

    /// Fetches a part of them; whether there is more.
    pub(super) fn harvest_some_hits(&mut self, clock: Clock) -> bool {
        let Some(plane) = self.planes.get_mut(self.harvested) else {
            self.harvested = 0;
            return false;
        };
        let (list, touched) = (&mut self.list, &mut self.touched);
        let mut talkers = self.talkers.lock().unwrap_or_else(PoisonError::into_inner);
        let more = plane.image().take_some_hits(&mut |target, packets| {
            if packets > 0 && list.add_hits(target, packets, clock) {
                touched.insert(target);
                talkers.stopped(target, packets, clock.boot);
            }
        });
        self.harvested += usize::from(!more);
        true
    }

    /// Saves hits, forgets old history, and repairs what could not be written before.
    pub fn tidy(&mut self, clock: Clock) {
        for piece in EACH_MINUTE {
            while piece(self, clock) {}
        }
        self.save_known(clock);
    }

    /// Queues a few bans with new hits for the store; whether there are more.
    fn save_some_hits(&mut self, clock: Clock) -> bool {
        let mut batch = Batch::default();
        for target in take_some(&mut self.touched) {
            if let Some(entry) = self.list.get(target) {
                batch.put_ban(entry, clock, &self.boot_id);
            }
        }
        self.writer.submit(batch).detach();
        !self.touched.is_empty()
    }

    /// Forgets some of the history that is too old or too much; whether there is more.
    fn forget_some_history(&mut self, clock: Clock) -> bool {
        // A clock that is years ahead would forget all of it.
        if self.clock_is_unsettled() {
            return false;
        }
        let Some(forgotten) = self.list.history_mut().purge(clock.wall, WRITES) else {
            return false;
        };
        let mut batch = Batch::default();
        for target in forgotten {
            batch.put_history(target, std::iter::empty());
        }
        self.writer.submit(batch).detach();
        true
    }

    fn tidy_up(&mut self, clock: Clock) {
        self.reported
            .retain(|_, then| clock.boot.saturating_sub(*then) < REPORT_EVERY);
        self.repair(clock);
    }
}

#[cfg(test)]
#[path = "regular_tests.rs"]
mod tests;
