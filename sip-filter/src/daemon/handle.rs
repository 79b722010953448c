//! The controller as everything else gets at it: shared, under one lock, each operation acknowledged once saved.

use std::{
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::broadcast;

use super::{
    BanDone, BanOrder, Checked, ControlError, Controller, Done, Filter, Held, ImportBan, ImportOptions,
    Imported, Notifier, Unban, UnbanDone, chain,
    decisions::Reloaded,
    drops::Drops,
    heap,
    journal::{Journal, JournalEvent, JournalKind},
    operations::Found,
    talkers::Talkers,
    watch::Instruction,
};
use crate::{
    bans::{Allowed, Ban, Clock, Target},
    conditions::{Conditions, Kind},
    config::{Config, Source},
    logging,
    service::resolve,
};

/// Cheap to clone. Its methods block, for as long as the disk takes when they change something: call them on blocking
/// threads.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    controller: Arc<Mutex<Controller>>,
    journal: Arc<Journal>,
    conditions: Conditions,
    pub(super) talkers: Arc<Mutex<Talkers>>,
    notifier: Arc<Notifier>,
    /// There as long as the thread of detection.
    detector: Weak<()>,
    source: Source,
    engine: mpsc::Sender<Instruction>,
    pub(super) drops: Drops,
    started: Instant,
    reload_failed: Arc<AtomicBool>,
    /// Threads that wait for the lock and are not to wait for regular work.
    waiting: Arc<AtomicUsize>,
}

/// How long regular work stands back for others at most, so that it is done at last.
const STAND_BACK: Duration = Duration::from_millis(20);

impl ControlHandle {
    /// Shares a controller; `engine` takes instructions for the detection engine.
    pub(super) fn new(controller: Controller, source: Source, engine: mpsc::Sender<Instruction>) -> Self {
        Self {
            journal: Arc::clone(controller.journal()),
            conditions: controller.conditions().clone(),
            talkers: Arc::clone(&controller.talkers),
            controller: Arc::new(Mutex::new(controller)),
            notifier: Arc::new(Notifier::from_environment()),
            detector: Weak::new(),
            source,
            engine,
            drops: Drops::default(),
            started: Instant::now(),
            reload_failed: Arc::default(),
            waiting: Arc::default(),
        }
    }

    /// Has [`Self::detects`] look at this.
    pub(super) fn watch_detector(&mut self, detector: Weak<()>) {
        self.detector = detector;
    }

    /// Whether detection runs: its thread has not ended.
    #[must_use]
    pub fn detects(&self) -> bool {
        self.detector.strong_count() > 0
    }

    /// What systemd is told.
    #[must_use]
    pub fn notifier(&self) -> &Notifier {
        &self.notifier
    }

    /// Runs `work` under the lock. Keep it short: decisions wait for it.
    pub fn with<T>(&self, work: impl FnOnce(&mut Controller, Clock) -> T) -> T {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let mut controller = self.lock();
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        work(&mut controller, Clock::now())
    }

    /// Runs a piece of regular work under the lock, once nobody else waits for it: who lets go of a lock and takes it
    /// again at once is always faster than those it wakes.
    pub(super) fn in_turn<T>(&self, work: impl FnOnce(&mut Controller, Clock) -> T) -> T {
        let begun = Instant::now();
        while self.waiting.load(Ordering::Relaxed) > 0 && begun.elapsed() < STAND_BACK {
            thread::sleep(Duration::from_micros(20));
        }
        work(&mut self.lock(), Clock::now())
    }

    fn lock(&self) -> MutexGuard<'_, Controller> {
        // A panic while it was held is a bug and was reported; the filter goes on protecting.
        self.controller.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries out an operation and waits, without the lock, until it is saved; if it cannot be, takes it back.
    fn commit<T>(
        &self,
        work: impl FnOnce(&mut Controller, Clock) -> Result<Done<T>, ControlError>,
    ) -> Result<T, ControlError> {
        let done = self.with(work)?;
        match done.receipt.wait() {
            Ok(()) => {
                self.with(|controller, clock| controller.acknowledge(&done.undo, done.news, clock));
                Ok(done.value)
            }
            Err(error) => {
                self.with(|controller, clock| controller.undo(done.undo, &error, clock));
                Err(ControlError::NotSaved(error))
            }
        }
    }

    /// Like [`Self::commit`] for what lets packets pass: that holds even if it cannot be saved, because it is what helps a
    /// customer who is locked out. The store goes on trying.
    fn commit_in_any_case<T>(
        &self,
        what: &str,
        work: impl FnOnce(&mut Controller, Clock) -> Result<Done<T>, ControlError>,
    ) -> Result<Held<T>, ControlError> {
        let done = self.with(work)?;
        let unsaved = done.receipt.wait().err();
        self.with(|controller, clock| controller.acknowledge(&done.undo, done.news, clock));
        if let Some(error) = &unsaved {
            let message = format!(
                "{what} holds, but could not be saved and would not survive a restart: {}; saving is tried again",
                chain(&**error)
            );
            self.journal.record(JournalEvent::new(
                Clock::now().wall,
                JournalKind::Refused,
                message,
            ));
        }
        Ok(Held {
            value: done.value,
            unsaved,
        })
    }

    /// Has the engine end its trust where ours has ended.
    fn tell_distrusted(&self) {
        let distrusted = self.with(|controller, _| controller.take_distrusted());
        if !distrusted.is_empty() {
            // Without an engine there is nobody to tell.
            let _ = self.engine.send(Instruction::Distrust(distrusted));
        }
    }

    /// See [`Controller::ban`].
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn ban(&self, order: &BanOrder) -> Result<Vec<BanDone>, ControlError> {
        let done = self.commit(|controller, clock| controller.ban(order, clock));
        self.tell_distrusted();
        done
    }

    /// See [`Controller::unban`]. It holds even if it cannot be saved.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn unban(&self, which: &Unban) -> Result<Held<Vec<UnbanDone>>, ControlError> {
        let done =
            self.commit_in_any_case("lifting bans", |controller, clock| controller.unban(which, clock))?;
        let forgiven = self.with(|controller, _| controller.take_forgiven());
        // Without an engine there is nobody to forget.
        let _ = self.engine.send(Instruction::Forget(forgiven));
        Ok(done)
    }

    /// See [`Controller::import`].
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn import(&self, entries: Vec<ImportBan>, options: ImportOptions) -> Result<Imported, ControlError> {
        let count = entries.len();
        let done = self.commit(|controller, clock| controller.import(entries, options, clock));
        self.tell_distrusted();
        if count >= heap::MANY {
            heap::give_back();
        }
        done
    }

    /// See [`Controller::list`]; without a filter this is what an export holds.
    #[must_use]
    pub fn list(&self, filter: &Filter) -> Vec<Ban> {
        let mut found = Found::default();
        // Copies of a million bans take a second: others get at the list in between.
        for part in 0.. {
            if !self.with(|controller, clock| controller.list_part(part, filter, &mut found, clock)) {
                break;
            }
        }
        found.in_order(filter)
    }

    /// See [`Controller::check`].
    #[must_use]
    pub fn check(&self, ip: IpAddr) -> Checked {
        self.with(|controller, clock| controller.check(ip, clock))
    }

    /// See [`Controller::allowed`].
    #[must_use]
    pub fn allowed(&self) -> Vec<(Target, Allowed)> {
        self.with(|controller, _| controller.allowed())
    }

    /// See [`Controller::allow`]. It holds even if it cannot be saved.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn allow(&self, targets: &[Target], comment: &str) -> Result<Held<Vec<bool>>, ControlError> {
        self.commit_in_any_case("the change of the allow-list", |controller, clock| {
            controller.allow(targets, comment, clock)
        })
    }

    /// See [`Controller::disallow`].
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn disallow(&self, targets: &[Target]) -> Result<Vec<bool>, ControlError> {
        self.commit(|controller, clock| controller.disallow(targets, clock))
    }

    /// Whether the filter only counts.
    #[must_use]
    pub fn simulates(&self) -> bool {
        self.with(|controller, _| controller.config().simulate)
    }

    /// See [`Controller::set_simulate`].
    ///
    /// # Errors
    /// [`ControlError`]; the mode is as before.
    pub fn set_simulate(&self, simulate: bool) -> Result<bool, ControlError> {
        self.with(|controller, clock| controller.set_simulate(simulate, clock))
    }

    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Config {
        self.with(|controller, _| controller.config().clone())
    }

    /// Where it is read from.
    #[must_use]
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Reads the configuration again. A bad one leaves the old one in force.
    ///
    /// # Errors
    /// [`ControlError`]: what is wrong with it.
    pub fn reload(&self) -> Result<Reloaded, ControlError> {
        let reload = |config: Config| {
            if config.interfaces.is_empty() {
                return Err(ControlError::NoInterfaces);
            }
            let (detect, level) = (config.detect.clone(), config.log.level.clone());
            let reloaded = self.with(|controller, clock| controller.reload(config, clock))?;
            logging::set_level(&level);
            // Without an engine there is nobody to tell.
            let _ = self.engine.send(Instruction::Reload(Box::new(detect)));
            self.tell_distrusted();
            Ok(reloaded)
        };
        self.notifier.reloading();
        let load = || {
            let mut config = self.source.load()?;
            // Without a default route now, those of before stay.
            config.interfaces = match resolve(&config.interfaces) {
                Ok(names) if !names.is_empty() => names,
                _ => self.config().interfaces,
            };
            Ok::<_, ControlError>(config)
        };
        let result = load().and_then(reload);
        self.reload_failed.store(result.is_err(), Ordering::Relaxed);
        let rejected = result.as_ref().err().map(|error| {
            format!(
                "the configuration file cannot be used, an older one is in force: {}",
                chain(error)
            )
        });
        self.conditions.set(Kind::ConfigRejected, "", rejected);
        self.notifier.ready();
        if let Err(error) = &result {
            self.journal.record(JournalEvent::new(
                Clock::now().wall,
                JournalKind::ReloadFailed,
                format!(
                    "the new configuration is not used, the old one stays in force: {}",
                    chain(error)
                ),
            ));
        }
        result
    }

    /// Whether the configuration could be used the last time it was read.
    #[must_use]
    pub fn last_reload_succeeded(&self) -> bool {
        !self.reload_failed.load(Ordering::Relaxed)
    }

    /// What is wrong right now, and how to follow it.
    #[must_use]
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// The latest journal entries, oldest first.
    #[must_use]
    pub fn recent_events(&self, limit: usize) -> Vec<JournalEvent> {
        self.journal.recent(limit)
    }

    /// Journal entries from now on.
    #[must_use]
    pub fn follow_events(&self) -> broadcast::Receiver<JournalEvent> {
        self.journal.follow()
    }

    /// Since the start.
    #[must_use]
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::daemon::bench::Bench;

    #[test]
    fn regular_work_stands_back_for_who_waits_and_is_done_at_last() {
        let (handle, _dir) = Bench::new(Config::default()).into_handle();
        handle.waiting.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        assert_eq!(handle.in_turn(|_, _| 7), 7);
        assert!(begun.elapsed() >= STAND_BACK, "somebody waited");
    }

    #[test]
    fn who_waits_is_known_until_it_has_the_lock() {
        let (handle, _dir) = Bench::new(Config::default()).into_handle();
        let waiting = || handle.waiting.load(Ordering::Relaxed);
        thread::scope(|scope| {
            let other = handle.with(|_, _| {
                assert_eq!(waiting(), 0, "it has it");
                let other = scope.spawn(|| handle.with(|_, _| waiting()));
                let begun = Instant::now();
                while waiting() == 0 {
                    assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits");
                    thread::yield_now();
                }
                other
            });
            assert_eq!(other.join().unwrap(), 0);
        });
    }
}
