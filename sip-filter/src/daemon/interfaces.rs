//! Interfaces come and go: each second, and whenever the kernel says that one has changed, those that are there are
//! compared with those that are to be filtered.

use std::{collections::HashMap, io, time::Duration};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{
    ControlHandle, LivePlane, PacketEvent, Plane,
    controller::Controller,
    error::{ControlError, chain},
};
use crate::{
    bans::Clock,
    conditions::Kind,
    config::{Config, is_pattern, matches},
    dataplane::{DataplaneError, LinkWatch},
    privileges,
};

/// An interface that does not take the filter is tried again after so long, then after twice as long, up to a minute.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);

/// Interfaces that are gone and whose counters are remembered.
const REMEMBERED: usize = 256;

/// The interfaces of a host, and how to filter on one. Tests have their own.
pub trait Interfaces: Send {
    /// Names and numbers of those that are there.
    ///
    /// # Errors
    /// If the system does not tell.
    fn present(&mut self) -> io::Result<Vec<(String, u32)>>;

    /// Loads the kernel program for one; nothing is attached yet.
    ///
    /// # Errors
    /// [`DataplaneError`]; what is attached to it still is.
    fn prepare(&mut self, name: &str, config: &Config) -> Result<Box<dyn Plane>, DataplaneError>;
}

/// Those of this host.
#[derive(Clone, Copy, Debug, Default)]
pub struct LiveInterfaces;

impl Interfaces for LiveInterfaces {
    fn present(&mut self) -> io::Result<Vec<(String, u32)>> {
        let names = nix::net::if_::if_nameindex()?;
        let named = names
            .iter()
            .map(|entry| (entry.name().to_string_lossy().into_owned(), entry.index()));
        Ok(named.collect())
    }

    fn prepare(&mut self, name: &str, config: &Config) -> Result<Box<dyn Plane>, DataplaneError> {
        LivePlane::prepare(name, config)
    }
}

/// Attaches the filter to interfaces that come, and lets go of those that went.
pub(super) struct Keeper {
    host: Box<dyn Interfaces>,
    sink: mpsc::Sender<Vec<PacketEvent>>,
    failed: HashMap<String, Failed>,
    /// The list of interfaces could not be had, which was reported.
    blind: bool,
    start_again: StartAgain,
}

/// Ends the daemon for the sake of an interface, to be started again with the capabilities that attaching takes; returns
/// whether there is somebody who starts it.
pub(super) type StartAgain = Box<dyn Fn(&str) -> bool + Send>;

struct Failed {
    index: u32,
    again: Duration,
    delay: Duration,
}

impl Keeper {
    pub(super) fn new(
        host: Box<dyn Interfaces>,
        sink: mpsc::Sender<Vec<PacketEvent>>,
        start_again: StartAgain,
    ) -> Self {
        Self {
            host,
            sink,
            failed: HashMap::new(),
            blind: false,
            start_again,
        }
    }

    /// One look. Blocks; must be called within a tokio runtime.
    pub(super) fn look(&mut self, handle: &ControlHandle) {
        let present = match self.host.present() {
            Ok(present) => present,
            Err(error) => {
                if !std::mem::replace(&mut self.blind, true) {
                    tracing::error!(%error, "the interfaces of this host cannot be listed: none that comes is filtered");
                }
                return;
            }
        };
        self.blind = false;
        let (wanted, config) = handle.with(|controller, _| {
            controller.let_go(&present);
            (controller.wanted(&present), controller.config().clone())
        });
        self.failed
            .retain(|name, failed| wanted.contains(&(name.clone(), failed.index)));
        if wanted.is_empty() {
            return;
        }
        for (name, index) in wanted {
            if !privileges::may_attach() {
                self.out_of_reach(&name, handle);
                continue;
            }
            self.attach(&name, index, &config, handle);
        }
        handle.with(|controller, _| controller.note_missing(&present));
    }

    /// This process has given up what attaching takes.
    fn out_of_reach(&self, name: &str, handle: &ControlHandle) {
        if (self.start_again)(name) {
            return;
        }
        let text = format!(
            "nothing is filtered on {name}: the daemon has given up the capabilities that attaching takes (`privileges`); \
             restart it"
        );
        handle.with(|controller, _| controller.note_absent(name, Some(text.clone())));
        handle.conditions().raise(Kind::Detached, name, text);
    }

    fn attach(&mut self, name: &str, index: u32, config: &Config, handle: &ControlHandle) {
        let now = Clock::now().boot;
        if self.failed.get(name).is_some_and(|failed| now < failed.again) {
            return;
        }
        // Loading takes long, so it is done without the lock.
        let attached = self
            .host
            .prepare(name, config)
            .map_err(|source| ControlError::Attach {
                interface: name.to_owned(),
                source,
            })
            .and_then(|plane| handle.with(|controller, clock| controller.join(plane, &self.sink, clock)));
        let (conditions, absent) = (handle.conditions(), |text: Option<String>| {
            handle.with(|controller, _| controller.note_absent(name, text));
        });
        match attached {
            Ok(()) => {
                self.failed.remove(name);
                conditions.clear(Kind::Detached, name);
                absent(None);
            }
            Err(error) => {
                let before = self
                    .failed
                    .get(name)
                    .map_or(Duration::ZERO, |failed| failed.delay);
                let delay = (before * 2).clamp(RETRY, RETRY_MAX);
                let again = now + delay;
                self.failed
                    .insert(name.to_owned(), Failed { index, again, delay });
                let text = format!("nothing is filtered on {name}: {}", chain(&error));
                absent(Some(text.clone()));
                conditions.raise(Kind::Detached, name, text);
            }
        }
    }
}

/// Looks each second and at every change, until `shutdown`.
pub(super) async fn attend(mut keeper: Keeper, handle: ControlHandle, shutdown: CancellationToken) {
    let mut links = LinkWatch::open()
        .inspect_err(
            |error| tracing::warn!(%error, "changes of interfaces are noticed within a second, not at once"),
        )
        .ok();
    loop {
        let change = async {
            match &mut links {
                Some(watch) => watch.changed().await,
                None => std::future::pending().await,
            }
        };
        let lost = tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => None,
            changed = change => changed.err(),
        };
        if let Some(error) = lost {
            tracing::warn!(%error, "changes of interfaces are noticed within a second, not at once");
            links = None;
        }
        let handle = handle.clone();
        let look = tokio::task::spawn_blocking(move || {
            keeper.look(&handle);
            keeper
        });
        keeper = match look.await {
            Ok(keeper) => keeper,
            Err(error) => {
                tracing::error!(%error, "interfaces that come are not filtered any more; restart the daemon");
                return;
            }
        };
    }
}

impl Controller {
    /// Lets go of interfaces that are not there any more, or lost the filter, and follows those that were renamed.
    fn let_go(&mut self, present: &[(String, u32)]) {
        let unwanted = std::mem::take(&mut self.interfaces_changed);
        let mut kept = Vec::new();
        for mut plane in std::mem::take(&mut self.planes) {
            let name = plane.name().to_owned();
            let now = present.iter().find(|(_, index)| *index == plane.index());
            let why = match now {
                None => Some("the interface is gone"),
                Some((new, _)) => {
                    follow(plane.as_mut(), new);
                    if unwanted && !matches(&self.config.interfaces, plane.name()) {
                        Some("it is not among `interfaces` any more")
                    } else if plane.xdp_mode().is_none() {
                        Some("the filter was taken off the interface")
                    } else {
                        None
                    }
                }
            };
            match why {
                None => kept.push(plane),
                Some(why) => {
                    tracing::warn!(interface = name, "not filtering any more: {why}");
                    self.part(plane);
                }
            }
        }
        self.planes = kept;
        self.note_missing(present);
    }

    /// Remembers what was counted, and removes the pins.
    fn part(&mut self, mut plane: Box<dyn Plane>) {
        let name = plane.name().to_owned();
        if let Ok(counters) = plane.counters() {
            if self.bases.len() >= REMEMBERED {
                self.bases.clear();
            }
            self.bases.insert(name.clone(), counters);
        }
        if let Err(error) = plane.detach() {
            tracing::error!(
                interface = name,
                error = chain(&error),
                "the filter's pins stay behind"
            );
        }
    }

    /// Raises what is missing of the configuration. What has come is missing until it is filtered, or does not take the
    /// filter, which is told on its own.
    fn note_missing(&mut self, present: &[(String, u32)]) {
        let (planes, conditions) = (&self.planes, &self.conditions);
        conditions.retain(Kind::Detached, |subject| {
            present.iter().any(|(name, _)| name == subject)
                && !planes.iter().any(|plane| plane.name() == subject)
        });
        let mut missing = Vec::new();
        for name in &self.config.interfaces {
            let is_meant = |found: &str| matches(std::slice::from_ref(name), found);
            let filtered = planes.iter().any(|plane| is_meant(plane.name()));
            let mut here = present.iter().filter(|(found, _)| is_meant(found));
            let told = here
                .clone()
                .any(|(found, _)| conditions.is_raised(Kind::Detached, found));
            let coming = here.next().is_some() && !conditions.is_raised(Kind::InterfaceMissing, name);
            if filtered || told || coming {
                continue;
            }
            let text = if is_pattern(name) {
                format!("waits for an interface that matches `{name}`")
            } else {
                format!("waits for {name}, which is not there")
            };
            missing.push((name.clone(), text));
        }
        let is_missing = |subject: &str| missing.iter().any(|(name, _)| name == subject);
        conditions.retain(Kind::InterfaceMissing, is_missing);
        self.absent
            .retain(|name, _| is_missing(name) || conditions.is_raised(Kind::Detached, name));
        for (name, text) in missing {
            conditions.raise(Kind::InterfaceMissing, &name, text.clone());
            self.absent.insert(name, text);
        }
    }

    /// Those that are there, are to be filtered, and are not yet.
    fn wanted(&self, present: &[(String, u32)]) -> Vec<(String, u32)> {
        let filtered = |index: u32| self.planes.iter().any(|plane| plane.index() == index);
        let wanted = present
            .iter()
            .filter(|(name, index)| matches(&self.config.interfaces, name) && !filtered(*index));
        wanted.cloned().collect()
    }

    /// Fills the tables of an interface that came, attaches it, and listens to it.
    fn join(
        &mut self,
        mut plane: Box<dyn Plane>,
        sink: &mpsc::Sender<Vec<PacketEvent>>,
        clock: Clock,
    ) -> Result<(), ControlError> {
        let name = plane.name().to_owned();
        if let Some(base) = self.bases.get(&name) {
            plane.add_base(base);
        }
        self.add_plane(plane, clock)?;
        self.bases.remove(&name);
        let events = self
            .planes
            .last_mut()
            .map(|plane| plane.start_events(sink.clone()));
        if let Some(Err(source)) = events
            && let Some(mut plane) = self.planes.pop()
        {
            plane.give_up();
            return Err(ControlError::Attach {
                interface: name,
                source,
            });
        }
        tracing::info!(interface = name, bans = self.list.len(), "filtering");
        Ok(())
    }

    /// Why nothing is filtered on an interface, for `status`; `None`: it is.
    fn note_absent(&mut self, name: &str, why: Option<String>) {
        match why {
            Some(why) => drop(self.absent.insert(name.to_owned(), why)),
            None => drop(self.absent.remove(name)),
        }
    }
}

fn follow(plane: &mut dyn Plane, new: &str) {
    let old = plane.name().to_owned();
    if old == new {
        return;
    }
    match plane.rename(new) {
        Ok(()) => tracing::info!(
            interface = new,
            "{old} is called {new} now, and is filtered as before"
        ),
        Err(error) => tracing::warn!(
            interface = old,
            error = chain(&error),
            "{old} is called {new} now; its pins keep the old name"
        ),
    }
}

#[cfg(test)]
#[path = "interfaces_tests.rs"]
mod tests;
