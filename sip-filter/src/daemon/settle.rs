//! The ends of bans from before a reboot, while the wall clock may be wrong.
//!
//! Boot time does not tell how long the machine was off; the wall clock does, unless it is wrong until it is set from the
//! network. So bans of an earlier boot last at first as if the machine had not been off. When the clock is set, or has
//! had time enough for that, it counts. However wrong it is, no ban ends later than it would have without the reboot.

use std::time::{Duration, SystemTime};

use super::controller::Controller;
use crate::bans::{Change, Clock, Target};

/// How long after the start the clock may take to be set.
const PATIENCE: Duration = Duration::from_secs(600);

/// A clock that moves by more at once was set.
const STEP: Duration = Duration::from_secs(2);

/// Bans whose ends are not settled.
#[derive(Debug)]
pub(super) struct Unsettled {
    /// Their ends by wall clock, and the ends they have for now.
    bans: Vec<(Target, SystemTime, Option<Duration>)>,
    /// The clocks at the start.
    start: Clock,
}

impl Unsettled {
    pub(super) fn new(bans: Vec<(Target, SystemTime)>, list: &crate::bans::BanList, start: Clock) -> Self {
        let now = |target| list.get(target).and_then(|entry| entry.deadline);
        let bans = bans.into_iter().map(|(target, end)| (target, end, now(target)));
        Self {
            bans: bans.collect(),
            start,
        }
    }

    /// Whether the clock was set since the start.
    fn clock_was_set(&self, now: Clock) -> bool {
        let expected = self.start.to_wall(now.boot);
        let off = now
            .wall
            .duration_since(expected)
            .unwrap_or_else(|behind| behind.duration());
        off > STEP
    }
}

impl Controller {
    /// Whether the wall clock may still be wrong.
    pub(super) fn clock_is_unsettled(&self) -> bool {
        !self.unsettled.bans.is_empty()
    }

    /// Lets the wall clock count for bans of an earlier boot, once it can be relied upon. To be called each second.
    pub(super) fn settle(&mut self, clock: Clock) {
        let unsettled = &mut self.unsettled;
        let over = clock.boot.saturating_sub(unsettled.start.boot) >= PATIENCE;
        if unsettled.bans.is_empty() || !(over || unsettled.clock_was_set(clock)) {
            return;
        }
        let bans = std::mem::take(&mut unsettled.bans);
        let changes: Vec<Change> = bans
            .into_iter()
            .filter_map(|(target, end, had)| {
                // Nothing else has happened to it.
                let had = had.filter(|_| self.list.get(target).is_some_and(|entry| entry.deadline == had))?;
                // Also those that keep theirs are saved, as of this boot.
                self.list.end_at(target, clock.to_boot(end).min(had), clock)
            })
            .collect();
        let ended = changes
            .iter()
            .filter(|change| change.after.as_ref().is_some_and(|entry| entry.over(clock)))
            .count();
        tracing::info!(
            bans = changes.len(),
            ended,
            "the wall clock counts from now on for bans from before the reboot"
        );
        if let Err(error) = self.enforce(&changes) {
            // They last longer, as they did until now.
            tracing::warn!(
                error = super::chain(&error),
                "bans from before the reboot keep their ends"
            );
            return;
        }
        self.save(&changes, clock).detach();
    }
}

#[cfg(test)]
#[path = "settle_tests.rs"]
mod tests;
