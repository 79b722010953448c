//! `sip-filter run`: from the configuration to a running daemon, and back.

use std::{io, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{adapter::Adapter, detector::SharedEngine, interfaces, manager, numbers::Numbers};
use crate::{
    alarms,
    api::{
        access::{Access, AccessError},
        server,
        socket::{self, SocketError},
    },
    config::{Config, MissingInterface, Source, is_pattern, matches},
    daemon::{ControlHandle, Daemon, Ending, Interfaces as _, LiveInterfaces, LivePlane, Plane, StartError},
    dataplane::DataplaneError,
    metrics::{self, Server, ServerError, Textfile},
    privileges,
};

/// The daemon did not start, or wants to be started again.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Nothing to protect.
    #[error(
        "there is no interface to filter on: `interfaces` is empty, or \"auto\" and there is no default route; set it in \
         the configuration, such as `interfaces = [\"eth0\"]`, or name one with `--interface eth0`"
    )]
    NoInterface,
    /// The routes, for "auto".
    #[error("cannot read the routes of this host to find its interfaces")]
    Routes(#[source] io::Error),
    /// An interface was made anew, and the capabilities to attach to it were given up.
    #[error(
        "{interface} was made anew and is not filtered; attaching takes a new start, or `privileges = \"keep\"`"
    )]
    StartAgain {
        /// The interface.
        interface: String,
    },
    /// The control socket.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// The groups of the control socket.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// An interface.
    #[error("cannot filter on {interface}")]
    Interface {
        /// Which.
        interface: String,
        /// Why.
        #[source]
        source: DataplaneError,
    },
    /// State or system.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The metrics endpoint.
    #[error(transparent)]
    Metrics(#[from] ServerError),
    /// No runtime.
    #[error("cannot start")]
    System(#[from] io::Error),
}

/// Runs the daemon until it is told to stop.
///
/// # Errors
/// [`RunError`]; nothing was changed then: an earlier filter on the interfaces is as it was.
pub fn run(source: Source, config: Config) -> Result<(), RunError> {
    privileges::plan(config.privileges);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .on_thread_start(privileges::enter_thread)
        .build()?;
    // On this thread, which alone may attach.
    runtime.block_on(serve(source, config))
}

async fn serve(source: Source, config: Config) -> Result<(), RunError> {
    let names = interfaces::resolve(&config.interfaces).map_err(RunError::Routes)?;
    if names.is_empty() {
        return Err(RunError::NoInterface);
    }
    // Whatever can fail goes first; what changes something comes last.
    let access = Access::new(config.admin_group.as_deref())?;
    let (listener, _socket) = socket::bind(&config.socket, config.socket_group.as_deref())?;
    let endpoint = match config.metrics.listen {
        Some(address) => Some(Server::bind(address).await?),
        None => None,
    };
    let planes = prepare(&source, &config)?;
    let engine = SharedEngine::new(config.detect.clone(), config.ipv6_source_prefix);
    let metrics = config.metrics.clone();
    let shutdown = CancellationToken::new();
    let daemon = Daemon::start(
        source,
        config,
        planes,
        Box::new(LiveInterfaces),
        Box::new(engine.clone()),
        shutdown.clone(),
    )?;

    let numbers = Numbers {
        handle: daemon.handle().clone(),
        engine: engine.clone(),
        alarms: alarms::Counts::default(),
    };
    daemon.spawn(alarms::run(
        numbers.handle.conditions().clone(),
        alarm_settings(numbers.handle.clone()),
        numbers.alarms.clone(),
        shutdown.clone(),
    ));
    let adapter = Adapter {
        handle: daemon.handle().clone(),
        engine,
        numbers: numbers.clone(),
    };
    daemon.spawn(server::serve(
        listener,
        Arc::new(adapter),
        access,
        shutdown.clone(),
    ));
    if let Some(endpoint) = endpoint {
        let numbers = numbers.clone();
        let provider = move || take(numbers.clone());
        daemon.spawn(endpoint.run(provider, shutdown.clone()));
    }
    if let Some(directory) = &metrics.textfile {
        let file = Textfile::new(directory);
        daemon.spawn(write_textfile(
            file,
            metrics.textfile_interval,
            numbers,
            shutdown.clone(),
        ));
    }
    daemon.spawn(manager::watchdog(daemon.handle().clone(), shutdown.clone()));
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
    manager::ready();
    shutdown.cancelled().await;
    manager::stopping();
    let ending = daemon.stopped().await;
    tracing::info!("stopped");
    match ending {
        Ending::Asked => Ok(()),
        Ending::StartAgain { interface } => Err(RunError::StartAgain { interface }),
    }
}

/// What the alarms go by at any moment.
fn alarm_settings(handle: ControlHandle) -> impl Fn() -> alarms::Settings + Send {
    move || {
        let config = handle.config();
        alarms::Settings {
            alarms: config.alarms,
            mode: if config.simulate {
                alarms::Mode::Simulate
            } else {
                alarms::Mode::Enforce
            },
        }
    }
}

/// Loads the program for every interface that is there; those that are not come later, unless they must be there now.
fn prepare(source: &Source, config: &Config) -> Result<Vec<Box<dyn Plane>>, RunError> {
    let present = LiveInterfaces.present()?;
    let is_there = |name: &str| present.iter().any(|(present, _)| present == name);
    let must = config.missing_interface == MissingInterface::Fail || !source.overrides.interfaces.is_empty();
    // An error names them all; without it, one that waits is a condition.
    let missing = config
        .interfaces
        .iter()
        .filter(|name| must && !is_pattern(name) && !is_there(name));
    let there = present
        .iter()
        .map(|(name, _)| name)
        .filter(|name| matches(&config.interfaces, name));
    missing
        .chain(there)
        .map(|name| {
            LivePlane::prepare(name, config).map_err(|source| RunError::Interface {
                interface: name.clone(),
                source,
            })
        })
        .collect()
}

/// Takes a snapshot on a blocking thread, since it waits for the controller.
async fn take(numbers: Numbers) -> metrics::Snapshot {
    let task = tokio::task::spawn_blocking(move || numbers.snapshot());
    match task.await {
        Ok(snapshot) => snapshot,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Writes the text file again and again; removes it on a clean stop, so that no old numbers stay behind.
async fn write_textfile(file: Textfile, interval: Duration, numbers: Numbers, shutdown: CancellationToken) {
    let mut file = file;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            _ = ticks.tick() => {}
        }
        let numbers = numbers.clone();
        let written = tokio::task::spawn_blocking(move || {
            match metrics::render(&numbers.snapshot()) {
                Ok(text) => file.update(&text),
                Err(error) => tracing::error!(%error, "cannot write the metrics"),
            }
            file
        });
        file = match written.await {
            Ok(file) => file,
            Err(error) => {
                tracing::error!(%error, "the metrics text file is not written any more");
                return;
            }
        };
    }
    if let Err(error) = file.remove() {
        tracing::warn!(%error, "the metrics text file stays behind");
    }
}
