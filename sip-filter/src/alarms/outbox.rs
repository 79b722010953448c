//! What one receiver has yet to be told: the latest state of each alarm.

use std::{
    collections::BTreeMap,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::alarm::{Alarm, Key, Status};

/// Alarms that wait at most. There is one for each kind and subject, so this is never reached unless something invents
/// subjects; then new ones are not taken.
const MOST: usize = 256;

#[derive(Debug, Default)]
pub(super) struct Outbox {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: BTreeMap<Key, Alarm>,
    /// All that is firing, for receivers that want to hear it again and again.
    firing: BTreeMap<Key, Alarm>,
    closed: bool,
}

/// Why [`Outbox::wait`] returned.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Woken {
    /// To deliver.
    Work(Vec<Alarm>),
    /// Nothing came in the time given; all that is firing.
    Quiet(Vec<Alarm>),
    /// No more will come, and all is delivered.
    Closed,
}

impl Outbox {
    /// Takes an alarm; an older state of it that still waits is forgotten. Tells whether there was room for it.
    pub(super) fn put(&self, alarm: Alarm) -> bool {
        let mut state = self.lock();
        let key = alarm.key();
        if state.waiting.len() >= MOST && !state.waiting.contains_key(&key) {
            return false;
        }
        match alarm.status {
            Status::Firing => state.firing.insert(key.clone(), alarm.clone()),
            Status::Resolved => state.firing.remove(&key),
        };
        state.waiting.insert(key, alarm);
        self.changed.notify_one();
        true
    }

    /// Takes the latest text of what is firing, to be told when it is told again.
    pub(super) fn renew(&self, alarm: Alarm) {
        let mut state = self.lock();
        if let Some(known) = state.firing.get_mut(&alarm.key()) {
            *known = alarm;
        }
    }

    /// Takes back what could not be delivered, unless there is something newer about it.
    pub(super) fn put_back(&self, alarms: Vec<Alarm>) {
        let mut state = self.lock();
        for alarm in alarms {
            state.waiting.entry(alarm.key()).or_insert(alarm);
        }
    }

    /// No more will come.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_one();
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Alarms that wait.
    pub(super) fn len(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Waits for work, at most for `quiet`.
    pub(super) fn wait(&self, quiet: Option<Duration>) -> Woken {
        let end = quiet.map(|quiet| Instant::now() + quiet);
        let mut state = self.lock();
        loop {
            if !state.waiting.is_empty() {
                return Woken::Work(std::mem::take(&mut state.waiting).into_values().collect());
            }
            if state.closed {
                return Woken::Closed;
            }
            let Some(end) = end else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Woken::Quiet(state.firing.values().cloned().collect());
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Waits for `time`, or until it is closed.
    pub(super) fn pause(&self, time: Duration) {
        let state = self.lock();
        let waited = self
            .changed
            .wait_timeout_while(state, time, |state| !state.closed);
        drop(waited.unwrap_or_else(PoisonError::into_inner));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
