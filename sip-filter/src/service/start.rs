//! `sip-filter run`: from the configuration to a running daemon, and back.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use super::{
    adapter::{Adapter, mode},
    detector::SharedEngine,
    interfaces,
    numbers::Numbers,
};
use crate::{
    alarms,
    api::{
        access::{Access, AccessError},
        server,
        socket::{self, SocketError},
    },
    conditions::{Condition, Kind},
    config::{Config, MissingInterface, Source, is_pattern, matches},
    daemon::{
        ControlHandle, Daemon, Ending, Interfaces as _, LiveInterfaces, LivePlane, Plane, StartError,
        watchdog,
    },
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

async fn serve(source: Source, mut config: Config) -> Result<(), RunError> {
    config.interfaces = interfaces::resolve(&config.interfaces).map_err(RunError::Routes)?;
    if config.interfaces.is_empty() {
        return Err(RunError::NoInterface);
    }
    // Whatever can fail goes first; what changes something comes last.
    let access = Access::new(config.admin_group.as_deref())?;
    let (listener, _socket) = socket::bind(&config.socket, config.socket_group.as_deref())?;
    let planes = prepare(&source, &config)?;
    // After the interfaces: that another daemon filters there says more than that its port is taken.
    let endpoint = match config.metrics.listen {
        Some(address) => Some(Server::bind(address).await?),
        None => None,
    };
    let engine = SharedEngine::new(config.detect.clone(), config.ipv6_source_prefix);
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
    let handle = daemon.handle().clone();
    daemon.spawn(write_textfile(numbers, shutdown.clone()));
    daemon.spawn(tell_systemd(handle.clone(), shutdown.clone()));
    handle.notifier().ready();
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "ready");
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
            mode: mode(config.simulate),
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
    let mut planes = Vec::new();
    for name in missing.chain(there) {
        match LivePlane::prepare(name, config) {
            Ok(plane) => planes.push(plane),
            // It was there a moment ago: it is waited for like any other.
            Err(error) if error.is_absence() && !must => {
                tracing::warn!(interface = name, error = %error, "going on without it");
            }
            Err(source) => {
                return Err(RunError::Interface {
                    interface: name.clone(),
                    source,
                });
            }
        }
    }
    Ok(planes)
}

/// Takes a snapshot on a blocking thread, since it waits for the controller.
async fn take(numbers: Numbers) -> metrics::Snapshot {
    let task = tokio::task::spawn_blocking(move || numbers.snapshot());
    match task.await {
        Ok(snapshot) => snapshot,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Writes the text file again and again; removes it on a clean stop, or when it is to be elsewhere, so that no old numbers
/// stay behind.
async fn write_textfile(numbers: Numbers, shutdown: CancellationToken) {
    let mut file: Option<(PathBuf, Textfile)> = None;
    let mut pause = Duration::ZERO;
    loop {
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = tokio::time::sleep(pause) => {}
        }
        let numbers = numbers.clone();
        let written = tokio::task::spawn_blocking(move || {
            let settings = numbers.handle.config().metrics;
            let mut file = moved(file, settings.textfile);
            if let Some((_, file)) = &mut file {
                match metrics::render(&numbers.snapshot()) {
                    Ok(text) => file.update(&text),
                    Err(error) => tracing::error!(%error, "cannot write the metrics"),
                }
            }
            let problem = file.as_ref().and_then(|(_, file)| file.problem());
            let problem = problem.map(|problem| format!("node_exporter does not get numbers: {problem}"));
            numbers
                .handle
                .conditions()
                .set(Kind::TextfileFailing, "", problem);
            // A reload may turn it on.
            let pause = settings.textfile_interval.min(Duration::from_secs(5));
            (file.is_some(), file, pause, settings.textfile_interval)
        });
        match written.await {
            Ok((writes, kept, look, interval)) => {
                file = kept;
                pause = if writes { interval } else { look };
            }
            Err(error) => {
                tracing::error!(%error, "the metrics text file is not written any more");
                return;
            }
        }
    }
    moved(file, None);
}

/// The text file where it is to be; the one elsewhere is removed.
fn moved(file: Option<(PathBuf, Textfile)>, to: Option<PathBuf>) -> Option<(PathBuf, Textfile)> {
    match (file, to) {
        (Some((at, file)), Some(to)) if at == to => Some((at, file)),
        (file, to) => {
            if let Some((_, file)) = file
                && let Err(error) = file.remove()
            {
                tracing::warn!(%error, "the metrics text file stays behind");
            }
            to.map(|directory| (directory.clone(), Textfile::new(&directory)))
        }
    }
}

/// Tells systemd that all is well, as long as it is: the controller answers and detection runs. Else it is silent, and
/// systemd starts the daemon again; the filter in the kernel goes on meanwhile.
async fn tell_systemd(handle: ControlHandle, shutdown: CancellationToken) {
    const STATUS: Duration = Duration::from_secs(5);
    let pause = watchdog().map_or(STATUS, |limit| (limit / 3).min(STATUS));
    loop {
        let asked = handle.clone();
        let status = tokio::task::spawn_blocking(move || {
            asked.with(|controller, _| {
                let names = controller.planes().iter().map(|plane| plane.name().to_owned());
                (
                    controller.bans().len(),
                    controller.config().simulate,
                    names.collect::<Vec<_>>(),
                )
            })
        });
        match status.await {
            Ok((bans, simulate, names)) => {
                if handle.detects() {
                    handle.notifier().alive();
                }
                let wrong = handle.conditions().current();
                handle
                    .notifier()
                    .status(&status_line(bans, simulate, &names, &wrong));
            }
            Err(error) => tracing::error!(%error, "the controller does not answer"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// For `systemctl status`.
fn status_line(bans: usize, simulate: bool, names: &[String], wrong: &[Condition]) -> String {
    let verb = if simulate { "simulating" } else { "filtering" };
    let mut line = match names {
        [] => "filtering nowhere yet".to_owned(),
        some => format!("{verb} on {}", some.join(", ")),
    };
    let plural = if bans == 1 { "" } else { "s" };
    line.push_str(&format!("; {bans} ban{plural}"));
    for condition in wrong {
        line.push_str(&format!("; {}", condition.name.name()));
        if !condition.subject.is_empty() {
            line.push_str(&format!(" ({})", condition.subject));
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::Conditions;

    #[test]
    fn the_status_line_says_what_is_filtered_and_what_is_wrong() {
        let names = ["eth0".to_owned(), "eth1".to_owned()];
        assert_eq!(
            status_line(1, false, &names, &[]),
            "filtering on eth0, eth1; 1 ban"
        );
        let conditions = Conditions::default();
        conditions.raise(Kind::InterfaceMissing, "eth7", "x");
        conditions.raise(Kind::StoreFailing, "", "x");
        assert_eq!(
            status_line(0, true, &names[..1], &conditions.current()),
            "simulating on eth0; 0 bans; interface-missing (eth7); store-failing"
        );
        assert_eq!(status_line(2, false, &[], &[]), "filtering nowhere yet; 2 bans");
    }

    #[test]
    fn the_text_file_follows_the_configuration() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let there = |dir: &tempfile::TempDir| dir.path().join(metrics::FILE_NAME).exists();
        let mut file = moved(None, Some(one.path().to_owned()));
        file.as_mut().unwrap().1.update("# x\n");
        assert!(there(&one));
        let mut file = moved(file, Some(one.path().to_owned()));
        assert!(there(&one), "the same");
        file = moved(file, Some(two.path().to_owned()));
        assert!(!there(&one));
        file.as_mut().unwrap().1.update("# x\n");
        assert!(there(&two));
        assert!(moved(file, None).is_none());
        assert!(!there(&two));
    }
}
