//! The thread of one receiver: delivers, and tries again.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::{Duration, Instant},
};

use super::{
    alarm::Alarm,
    outbox::{Outbox, Woken},
    receivers::{DeliveryError, Receiver},
};
use crate::{
    conditions::{Conditions, Kind},
    daemon::chain,
};

/// First pause after a failure; it doubles up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Failures in a row that make a condition: a receiver may be restarted without anybody having to know.
const TOLERATED: u32 = 3;

/// A receiver that stays out of reach is logged once in this time.
const LOG_EVERY: Duration = Duration::from_secs(300);

/// What became of the alarms for one receiver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delivered {
    /// Alarms that it took.
    pub delivered: u64,
    /// Attempts that failed, and are made again.
    pub failed: u64,
    /// Alarms that it refused for good, or that found no room to wait.
    pub refused: u64,
    /// Alarms that wait.
    pub waiting: u64,
}

/// What became of the alarms, by receiver. All clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<&'static str, Delivered>>>);

impl Counts {
    /// By name of the receiver.
    #[must_use]
    pub fn get(&self) -> Vec<(&'static str, Delivered)> {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts
            .iter()
            .map(|(name, delivered)| (*name, *delivered))
            .collect()
    }

    fn change(&self, name: &'static str, change: impl FnOnce(&mut Delivered)) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        change(counts.entry(name).or_default());
    }
}

/// A receiver at work.
#[derive(Debug)]
pub(super) struct Worker {
    name: &'static str,
    counts: Counts,
    outbox: Arc<Outbox>,
    thread: thread::JoinHandle<()>,
}

impl Worker {
    /// Starts its thread.
    pub(super) fn start(
        receiver: Box<dyn Receiver>,
        counts: Counts,
        conditions: Conditions,
    ) -> io::Result<Self> {
        let outbox = Arc::new(Outbox::default());
        let name = receiver.name();
        counts.change(name, |_| {});
        let (its_outbox, its_counts) = (outbox.clone(), counts.clone());
        let thread = thread::Builder::new()
            .name(format!("alarm-{name}"))
            .spawn(move || deliver(receiver, &its_outbox, &its_counts, conditions))?;
        Ok(Self {
            name,
            counts,
            outbox,
            thread,
        })
    }

    /// Takes an alarm to deliver.
    pub(super) fn put(&self, alarm: Alarm) {
        let taken = self.outbox.put(alarm);
        self.counts.change(self.name, |count| {
            count.waiting = self.outbox.len() as u64;
            count.refused += u64::from(!taken);
        });
    }

    /// Takes the latest text of what is firing, see [`Outbox::renew`].
    pub(super) fn renew(&self, alarm: Alarm) {
        self.outbox.renew(alarm);
    }

    /// Ends it after one last attempt at what waits. Blocks for as long as that takes, which the receiver's time limit
    /// bounds.
    pub(super) fn stop(self) {
        self.outbox.close();
        if self.thread.join().is_err() {
            tracing::error!("a thread that delivers alarms has panicked; this is a bug in sip-filter");
        }
    }
}

fn deliver(mut receiver: Box<dyn Receiver>, outbox: &Outbox, counts: &Counts, conditions: Conditions) {
    let name = receiver.name();
    let mut trouble = Trouble::new(conditions);
    loop {
        let (alarms, again) = match outbox.wait(receiver.repeat()) {
            Woken::Work(alarms) => (alarms, false),
            Woken::Quiet(alarms) if alarms.is_empty() => continue,
            Woken::Quiet(alarms) => (alarms, true),
            Woken::Closed => return,
        };
        let result = receiver.deliver(&alarms);
        let taken = alarms.len() as u64;
        let pause = match result {
            Ok(()) => {
                counts.change(name, |count| count.delivered += if again { 0 } else { taken });
                trouble.over(name);
                None
            }
            Err(error) => Some(failed(name, &error, alarms, outbox, counts, &mut trouble)),
        };
        counts.change(name, |count| count.waiting = outbox.len() as u64);
        match pause {
            // The last attempt was made.
            Some(_) if outbox.is_closed() => return,
            Some(pause) => outbox.pause(pause),
            None => {}
        }
    }
}

/// Returns the pause to make.
fn failed(
    name: &'static str,
    error: &DeliveryError,
    alarms: Vec<Alarm>,
    outbox: &Outbox,
    counts: &Counts,
    trouble: &mut Trouble,
) -> Duration {
    let refused = if error.is_final() { alarms.len() as u64 } else { 0 };
    counts.change(name, |count| {
        count.failed += 1;
        count.refused += refused;
    });
    trouble.log(name, error);
    if !error.is_final() {
        outbox.put_back(alarms);
    }
    trouble.pause = (trouble.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
    trouble.pause
}

/// How a receiver has failed of late.
#[derive(Debug)]
struct Trouble {
    conditions: Conditions,
    in_a_row: u32,
    pause: Duration,
    logged: Option<Instant>,
    unlogged: u32,
}

impl Trouble {
    const fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            in_a_row: 0,
            pause: Duration::ZERO,
            logged: None,
            unlogged: 0,
        }
    }

    fn log(&mut self, receiver: &str, error: &DeliveryError) {
        self.in_a_row = self.in_a_row.saturating_add(1);
        if error.is_final() || self.in_a_row >= TOLERATED {
            let text = format!("alarms do not reach the receiver {receiver}: {}", chain(error));
            self.conditions.raise(Kind::AlarmsUndelivered, receiver, text);
        }
        if self.logged.is_some_and(|at| at.elapsed() < LOG_EVERY) {
            self.unlogged += 1;
            return;
        }
        self.logged = Some(Instant::now());
        let failures_before = std::mem::take(&mut self.unlogged);
        let next = if error.is_final() {
            "it is not tried again"
        } else {
            "it is tried again"
        };
        tracing::error!(
            receiver,
            failures_before,
            "cannot deliver alarms: {}; {next}",
            chain(error)
        );
    }

    fn over(&mut self, receiver: &str) {
        if !self.pause.is_zero() {
            tracing::info!(receiver, "alarms are delivered again");
        }
        self.conditions.clear(Kind::AlarmsUndelivered, receiver);
        *self = Self::new(self.conditions.clone());
    }
}

#[cfg(test)]
mod tests;
