//! The task that follows the conditions.

use std::time::{Duration, Instant, SystemTime};

use tokio::sync::broadcast::{Receiver, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{
    alarm::Alarm,
    hold::Hold,
    receivers,
    worker::{Counts, Worker},
};
use crate::{
    api::types::Mode,
    conditions::{Change, Conditions, Kind},
    config,
};

/// How often it looks for what has become due, and for a changed configuration.
const TICK: Duration = Duration::from_secs(1);

/// What may change while it runs.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who is told, and when.
    pub alarms: config::Alarms,
    /// Whether the filter enforces.
    pub mode: Mode,
}

/// Reports conditions to the receivers, until `shutdown`. The `settings` are asked for each second, so that those of a
/// reload take effect.
pub async fn run(
    conditions: Conditions,
    settings: impl Fn() -> Settings + Send,
    counts: Counts,
    shutdown: CancellationToken,
) {
    let start = Instant::now();
    let (current, mut changes) = conditions.follow();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut desk = Desk::new(settings().alarms, counts, conditions.clone());
    desk.hold.is_now(current, start.elapsed(), SystemTime::now());
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            change = changes.recv() => desk.take(change, &conditions, &mut changes, start.elapsed()),
            _ = ticks.tick() => {
                let Settings { alarms, mode } = settings();
                desk.adopt(alarms).await;
                desk.report(start.elapsed(), mode, &conditions);
            }
        }
    }
    desk.close().await;
}

/// What the task knows.
struct Desk {
    config: config::Alarms,
    host: String,
    hold: Hold,
    workers: Vec<Worker>,
    counts: Counts,
    conditions: Conditions,
}

impl Desk {
    fn new(config: config::Alarms, counts: Counts, conditions: Conditions) -> Self {
        let mut desk = Self {
            host: String::new(),
            hold: Hold::new(config.hold_up, config.hold_down),
            workers: Vec::new(),
            counts,
            conditions,
            config,
        };
        desk.open();
        desk
    }

    /// Starts the receivers of the configuration.
    fn open(&mut self) {
        self.host = self.config.host.clone().unwrap_or_else(host_name);
        for receiver in receivers::configured(&self.config, &self.host) {
            let name = receiver.name();
            match Worker::start(receiver, self.counts.clone(), self.conditions.clone()) {
                Ok(worker) => self.workers.push(worker),
                Err(error) => {
                    tracing::error!(receiver = name, %error, "cannot start a thread: this receiver gets no alarms");
                }
            }
        }
    }

    /// Takes over a configuration that has changed: whatever holds is reported anew, to the new receivers.
    async fn adopt(&mut self, config: config::Alarms) {
        if config == self.config {
            return;
        }
        self.close().await;
        self.hold = Hold::new(config.hold_up, config.hold_down);
        self.config = config;
        self.open();
    }

    fn take(
        &mut self,
        change: Result<Change, RecvError>,
        conditions: &Conditions,
        changes: &mut Receiver<Change>,
        now: Duration,
    ) {
        let wall = SystemTime::now();
        match change {
            Ok(Change::Raised(condition)) => self.hold.raised(condition, now),
            Ok(Change::Cleared(condition)) => {
                self.hold.cleared(&(condition.name, condition.subject), now, wall);
            }
            // Too many at once, or the set is gone, which it is not as long as there is a daemon.
            Err(_) => {
                let (current, from_now_on) = conditions.follow();
                *changes = from_now_on;
                self.hold.is_now(current, now, wall);
            }
        }
    }

    fn report(&mut self, now: Duration, mode: Mode, conditions: &Conditions) {
        // Texts are renewed without a change being told.
        self.hold.is_now(conditions.current(), now, SystemTime::now());
        for report in self.hold.due(now) {
            let alarm = Alarm::new(report.condition, report.ended, &self.host, mode);
            self.workers.iter().for_each(|worker| worker.put(alarm.clone()));
        }
        for condition in self.hold.firing() {
            let alarm = Alarm::new(condition, None, &self.host, mode);
            self.workers.iter().for_each(|worker| worker.renew(alarm.clone()));
        }
    }

    async fn close(&mut self) {
        let workers = std::mem::take(&mut self.workers);
        let closed = tokio::task::spawn_blocking(move || workers.into_iter().for_each(Worker::stop));
        if let Err(error) = closed.await {
            tracing::error!(%error, "the receivers of alarms did not stop in order");
        }
        // Of receivers that are no more.
        self.conditions.retain(Kind::AlarmsUndelivered, |_| false);
    }
}

fn host_name() -> String {
    let name = nix::unistd::gethostname().ok();
    name.and_then(|name| name.into_string().ok()).unwrap_or_default()
}
