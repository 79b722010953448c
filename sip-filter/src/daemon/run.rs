//! Start, the regular work, signals, and the ordered stop.

use std::{
    sync::{Arc, Mutex, PoisonError, mpsc as std_mpsc},
    thread,
    time::Duration,
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::MissedTickBehavior,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    ControlError, ControlHandle, Controller, Detector, Interfaces, PacketEvent, Plane, chain,
    interfaces::{Keeper, attend},
    journal::{JournalEvent, JournalKind},
    own_addresses,
    regular::{self, EACH_MINUTE, EACH_SECOND},
    watch::watch,
};
use crate::{
    bans::{BootId, Clock, Store, StoreError, Writer},
    config::{Config, MissingInterface, OnStop, Source},
    privileges::{self, PrivilegeError},
};

/// Batches of events that may wait for the engine. More wait in the kernel's ring buffer.
const BATCHES: usize = 64;

/// Seconds between looks at the addresses of this host.
const OWN_EVERY: u64 = 10;

/// Seconds between saving hits and other tidying.
const TIDY_EVERY: u64 = 60;

/// How long tasks may take to stop.
const FAREWELL: Duration = Duration::from_secs(10);

/// The daemon cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The addresses of this host are not known; without them it could be banned from itself.
    #[error("cannot list the addresses of this host")]
    Own(#[source] std::io::Error),
    /// A data plane does not take the ban list or cannot be attached.
    #[error(transparent)]
    Plane(#[from] ControlError),
    /// Capabilities were not given up.
    #[error(transparent)]
    Privileges(#[from] PrivilegeError),
    /// The system is out of threads or signal handlers.
    #[error("cannot start")]
    System(#[from] std::io::Error),
}

/// Why a daemon ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Ending {
    /// It was told to.
    #[default]
    Asked,
    /// An interface was made anew, and this process cannot attach any more.
    StartAgain {
        /// Its name.
        interface: String,
    },
}

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    handle: ControlHandle,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    watcher: thread::JoinHandle<()>,
    ending: Arc<Mutex<Ending>>,
}

impl Daemon {
    /// Restores the state, fills the tables of all planes, attaches them, and starts detection. Must be called within
    /// a tokio runtime. It stops when `shutdown` is cancelled, see [`Daemon::stopped`].
    ///
    /// `planes` are those of the interfaces that are there; those that come later are made by `interfaces`.
    ///
    /// Services (API, metrics) are started by the caller with [`Daemon::handle`] and [`Daemon::spawn`].
    ///
    /// # Errors
    /// [`StartError`]; what was attached anew is taken off again then.
    pub fn start(
        source: Source,
        config: Config,
        planes: Vec<Box<dyn Plane>>,
        interfaces: Box<dyn Interfaces>,
        mut detector: Box<dyn Detector>,
        shutdown: CancellationToken,
    ) -> Result<Self, StartError> {
        let clock = Clock::now();
        let boot_id = BootId::current();
        let store = Store::open(&config.state_dir)?;
        let loaded = store.load(clock, &boot_id)?;
        if loaded.unreadable > 0 {
            tracing::warn!(
                count = loaded.unreadable,
                "records of the store are of a newer version; they are kept, but not in force"
            );
        }
        let prefix6 = config.ipv6_source_prefix;
        let mut controller = Controller::new(config, loaded, Writer::start(store)?, boot_id, clock);
        controller.set_own(own_addresses().map_err(StartError::Own)?);
        detector.set_wall(clock.boot, clock.wall);
        for (target, count, ended) in controller.bans().offences() {
            detector.restore_offences(target, count, ended);
        }
        for (target, account, until) in controller.trusted() {
            detector.restore_trust(target, account, until);
        }
        for (target, by, until) in controller.proven() {
            detector.restore_proof(target, by, until);
        }

        let (sink, events) = mpsc::channel(BATCHES);
        match attach(&mut controller, planes, &sink, clock) {
            Ok(()) => {}
            Err(error) => {
                controller.give_up();
                return Err(error);
            }
        }
        let (instruct, instructions) = std_mpsc::channel();
        let mut handle = ControlHandle::new(controller, source, instruct);
        let alive = Arc::new(());
        handle.watch_detector(Arc::downgrade(&alive));
        let runtime = tokio::runtime::Handle::current();
        let started = signals(handle.clone(), shutdown.clone()).and_then(|signals| {
            let watch = watch(
                handle.clone(),
                detector,
                events,
                instructions,
                prefix6,
                shutdown.clone(),
            );
            let thread = thread::Builder::new().name("detect".to_owned());
            let detect = move || {
                let _alive = alive;
                privileges::enter_thread();
                runtime.block_on(watch);
            };
            Ok((signals, thread.spawn(detect)?))
        });
        let (signals, watcher) = match started {
            Ok(started) => started,
            Err(error) => {
                handle.with(|controller, _| controller.give_up());
                return Err(error.into());
            }
        };
        let ending: Arc<Mutex<Ending>> = Arc::default();
        let mut keeper = Keeper::new(interfaces, sink, start_again(&ending, &shutdown));
        // What is missing is known from the first answer on.
        keeper.look(&handle);
        if let Err(error) = privileges::give_up() {
            handle.with(|controller, _| controller.give_up());
            return Err(error.into());
        }
        let tasks = TaskTracker::new();
        tasks.spawn(regular_work(handle.clone(), shutdown.clone()));
        tasks.spawn(signals);
        tasks.spawn(attend(keeper, handle.clone(), shutdown.clone()));
        Ok(Self {
            handle,
            shutdown,
            tasks,
            watcher,
            ending,
        })
    }

    /// For API and metrics.
    #[must_use]
    pub fn handle(&self) -> &ControlHandle {
        &self.handle
    }

    /// Cancelled when the daemon stops.
    #[must_use]
    pub fn shutdown(&self) -> &CancellationToken {
        &self.shutdown
    }

    /// Runs a service that ends when [`Daemon::shutdown`] is cancelled; the stop waits for it.
    pub fn spawn(&self, service: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(service);
    }

    /// Runs until told to stop; then stops in order: services, detection, the last numbers and changes to the store,
    /// and, if so configured, the kernel program.
    pub async fn stopped(self) -> Ending {
        self.shutdown.cancelled().await;
        self.handle.notifier().stopping();
        self.tasks.close();
        if tokio::time::timeout(FAREWELL, self.tasks.wait()).await.is_err() {
            tracing::warn!("some tasks do not stop; going on without them");
        }
        let (handle, watcher) = (self.handle, self.watcher);
        let last = tokio::task::spawn_blocking(move || {
            // A panic of the watcher was reported as such.
            let _ = watcher.join();
            handle.with(|controller, clock| {
                controller.harvest_hits(clock);
                controller.tidy(clock);
                if controller.config().on_stop == OnStop::Detach {
                    for plane in controller.planes_mut() {
                        if let Err(error) = plane.detach() {
                            tracing::error!(interface = plane.name(), error = chain(&error), "cannot detach");
                        }
                    }
                }
                // The writer is dropped here, not with the last of the handles: what it has queued is on the disk
                // before the process ends.
                controller.close();
            });
        });
        if let Err(error) = last.await {
            tracing::error!(%error, "the stop was not orderly");
        }
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut *ending)
    }
}

/// Puts all planes in force and opens the streams of their events.
fn attach(
    controller: &mut Controller,
    planes: Vec<Box<dyn Plane>>,
    sink: &mpsc::Sender<Vec<PacketEvent>>,
    clock: Clock,
) -> Result<(), StartError> {
    let must = controller.config().missing_interface == MissingInterface::Fail;
    for plane in planes {
        let name = plane.name().to_owned();
        match controller.add_plane(plane, clock) {
            Ok(()) => {}
            // It was there a moment ago: it is waited for like any other.
            Err(ControlError::Attach { source, .. }) if source.is_absence() && !must => {
                tracing::warn!(interface = name, error = %source, "going on without it");
                continue;
            }
            Err(error) => return Err(error.into()),
        }
        tracing::info!(interface = name, bans = controller.bans().len(), "filtering");
    }
    for plane in controller.planes_mut() {
        let started = plane.start_events(sink.clone());
        started.map_err(|source| ControlError::Attach {
            interface: plane.name().to_owned(),
            source,
        })?;
    }
    Ok(())
}

/// What is to be done each second, on a blocking thread since it may wait for the lock.
async fn regular_work(handle: ControlHandle, shutdown: CancellationToken) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut losses = None;
    for second in 1_u64.. {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = seconds.tick() => {}
        }
        let handle = handle.clone();
        let mut known = losses;
        let work = tokio::task::spawn_blocking(move || {
            let own = second.is_multiple_of(OWN_EVERY).then(own_addresses);
            regular::work(&handle, &EACH_SECOND);
            match own {
                Some(Ok(own)) => handle.with(|controller, _| controller.set_own(own)),
                Some(Err(error)) => tracing::warn!(%error, "cannot list the addresses of this host"),
                None => {}
            }
            if known.is_none() || second.is_multiple_of(TIDY_EVERY) {
                known = handle.with(|controller, clock| Losses::look(known, controller, clock));
                regular::work(&handle, &EACH_MINUTE);
            }
            known
        });
        match work.await {
            Ok(known) => losses = known,
            Err(error) => tracing::error!(%error, "the regular work failed"),
        }
    }
}

/// See [`StartAgain`](super::interfaces::StartAgain).
fn start_again(
    ending: &Arc<Mutex<Ending>>,
    shutdown: &CancellationToken,
) -> Box<dyn Fn(&str) -> bool + Send> {
    let (ending, shutdown) = (Arc::clone(ending), shutdown.clone());
    Box::new(move |name| {
        // systemd sets it for all services; by hand, nobody would start the daemon again.
        if std::env::var_os("INVOCATION_ID").is_none() {
            return false;
        }
        let interface = name.to_owned();
        *ending.lock().unwrap_or_else(PoisonError::into_inner) = Ending::StartAgain { interface };
        shutdown.cancel();
        true
    })
}

/// Events of the kernel program that did not reach the engine.
#[derive(Clone, Copy, Debug, Default)]
struct Losses {
    lost: u64,
    suppressed: u64,
}

impl Losses {
    /// Reports what was lost since the last look; at the first, only looks: earlier runs have told of theirs.
    fn look(before: Option<Self>, controller: &Controller, clock: Clock) -> Option<Self> {
        let mut now = Self::default();
        for plane in controller.planes() {
            match plane.counters() {
                Ok(counters) => {
                    now.lost += counters.events_lost;
                    now.suppressed += counters.events_suppressed;
                }
                Err(error) => {
                    tracing::warn!(
                        interface = plane.name(),
                        error = chain(&error),
                        "cannot read the counters"
                    );
                    return before;
                }
            }
        }
        let Some(before) = before else {
            return Some(now);
        };
        let lost = now.lost.saturating_sub(before.lost);
        let suppressed = now.suppressed.saturating_sub(before.suppressed);
        if lost + suppressed > 0 {
            let message = format!(
                "detection missed {lost} events for want of room and {suppressed} over `events.per_window`; \
                 filtering is not affected"
            );
            controller
                .journal()
                .record(JournalEvent::new(clock.wall, JournalKind::EventsLost, message));
        }
        Some(now)
    }
}

/// SIGHUP reloads; SIGTERM and SIGINT stop.
fn signals(
    handle: ControlHandle,
    shutdown: CancellationToken,
) -> std::io::Result<impl Future<Output = ()> + Send + 'static> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = terminate.recv() => shutdown.cancel(),
                _ = interrupt.recv() => shutdown.cancel(),
                _ = hangup.recv() => {
                    let handle = handle.clone();
                    // The journal tells what came of it.
                    let _ = tokio::task::spawn_blocking(move || handle.reload()).await;
                }
            }
        }
    })
}

#[cfg(test)]
#[path = "run_tests.rs"]
mod tests;
