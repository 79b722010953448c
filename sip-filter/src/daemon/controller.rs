//! The one place where ban list, kernel tables and store are kept the same.
//!
//! Synchronous: it is called under a lock, by the API's threads and by the event loop. The order is always list,
//! kernel tables, store: what is decided is enforced at once, and if a table refuses, everything is taken back before
//! anybody knows. The store is written by its own thread; an operator's request is answered only once its [`Receipt`](crate::bans::Receipt)
//! says so, and taken back if it says no.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use tokio::sync::broadcast;

use super::{
    error::{ControlError, chain},
    journal::Journal,
    judge::Judge,
    known::KnownState,
    pending::Pending,
    plane::Plane,
    settle::Unsettled,
    talkers::Talkers,
    trend::Trend,
    verify::Verifier,
};
use crate::{
    bans::{BanList, BootId, Change, Clock, EndedBy, Entry, Loaded, Origin, Policy, Scope, Target, Writer},
    conditions::{self, Conditions},
    config::Config,
    dataplane::{Counters, ImageError, KernelBan},
    detect::Rule,
};

/// The kernel keeps the end of a ban less exactly than we do.
const DEADLINE_TOLERANCE: Duration = Duration::from_secs(5);

/// Counts since the start, for metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Bans made, by origin and rule.
    pub added: BTreeMap<(Origin, Option<Rule>), u64>,
    /// Bans that ended, by how.
    pub ended: HashMap<EndedBy, u64>,
    /// Decisions of rules that were not carried out: allow-listed, own address, too wide, no room.
    pub refused: u64,
    /// Decisions that were not enforced, by rule: of shadow rules, and while simulating.
    pub would_ban: BTreeMap<Rule, u64>,
    /// Alarms, by rule.
    pub alarms: BTreeMap<Rule, u64>,
    /// Times the kernel did not take a trusted source.
    pub trust_refused: u64,
}

/// See the module.
pub struct Controller {
    pub(super) config: Config,
    /// The mode the configuration asked for when it was last read; a command may have changed it since.
    pub(super) loaded_simulate: bool,
    pub(super) list: BanList,
    pub(super) policy: Policy,
    pub(super) known: KnownState,
    pub(super) unsettled: Unsettled,
    pub(super) planes: Vec<Box<dyn Plane>>,
    pub(super) journal: Arc<Journal>,
    pub(super) totals: Totals,
    pub(super) writer: Writer,
    pub(super) boot_id: BootId,
    /// Changes of bans that wait to be saved.
    pub(super) pending: Pending,
    /// Bans with hits that are not saved yet.
    pub(super) touched: HashSet<Target>,
    /// Whom an operator let go: the engine is to forget them.
    pub(super) forgiven: Vec<Target>,
    /// Whom we do not trust though the engine does: it is to end that.
    pub(super) distrusted: Vec<Target>,
    /// Whose ban a rule decided and no table took: the engine is to know.
    pub(super) unenforced: Vec<Target>,
    /// When a rule's decision that was not carried out, or a class over its limit, was last reported of a target.
    pub(super) reported: HashMap<(Target, &'static str), Duration>,
    /// Start of the current minute of reports of floods, and how many there were in it.
    pub(super) floods: (Duration, u32),
    /// Clients that capture dropped frames.
    pub(super) captures: usize,
    /// Writing back failed: tables may differ from the list.
    pub(super) dirty: bool,
    /// What was counted on interfaces that are gone, should they come back.
    pub(super) bases: HashMap<String, Counters>,
    /// Interfaces that are to be filtered and are not, and why.
    pub(super) absent: BTreeMap<String, String>,
    /// A reload changed which are to be filtered.
    pub(super) interfaces_changed: bool,
    /// What is wrong.
    pub(super) conditions: Conditions,
    /// What became wrong or right, for the journal.
    pub(super) changes: broadcast::Receiver<conditions::Change>,
    pub(super) judge: Judge,
    /// Who sends how much.
    pub(super) talkers: Arc<Mutex<Talkers>>,
    /// The traffic of the last minutes.
    pub(super) trend: Trend,
    pub(super) verifier: Verifier,
    /// Data planes whose hits were fetched in this second.
    pub(super) harvested: usize,
    /// Bans that ended in this second.
    pub(super) ended: usize,
}

impl std::fmt::Debug for Controller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Controller")
            .field("bans", &self.list.len())
            .field("planes", &self.planes.len())
            .finish_non_exhaustive()
    }
}

impl Controller {
    /// A controller with what the store holds, and no data plane yet.
    #[must_use]
    pub fn new(config: Config, loaded: Loaded, writer: Writer, boot_id: BootId, clock: Clock) -> Self {
        let mut policy = Policy::new(&config);
        for (target, entry) in loaded.allowed {
            policy.allow(target, entry);
        }
        let mut list = BanList::default();
        for (target, past) in loaded.history {
            list.history_mut().restore(target, past);
        }
        for entry in loaded.bans {
            list.restore(entry);
        }
        let unsettled = Unsettled::new(loaded.unsettled, &list, clock);
        let known = KnownState::new(&config, loaded.trust, loaded.proof, clock);
        let conditions = Conditions::default();
        let (_, changes) = conditions.follow();
        let mut controller = Self {
            known,
            unsettled,
            loaded_simulate: config.simulate,
            config,
            list,
            policy,
            planes: Vec::new(),
            journal: Arc::default(),
            totals: Totals::default(),
            writer,
            boot_id,
            pending: Pending::default(),
            touched: HashSet::new(),
            forgiven: Vec::new(),
            distrusted: Vec::new(),
            unenforced: Vec::new(),
            reported: HashMap::new(),
            floods: (Duration::ZERO, 0),
            captures: 0,
            dirty: false,
            bases: HashMap::new(),
            absent: BTreeMap::new(),
            interfaces_changed: false,
            conditions,
            changes,
            judge: Judge::default(),
            talkers: Arc::default(),
            trend: Trend::default(),
            verifier: Verifier::default(),
            harvested: 0,
            ended: 0,
        };
        controller.expire(clock);
        controller
    }

    /// Adds a data plane: fills its tables, and only then attaches its program.
    ///
    /// # Errors
    /// If its tables cannot take the list, or it cannot be attached; it is not added then.
    pub fn add_plane(&mut self, mut plane: Box<dyn Plane>, clock: Clock) -> Result<(), ControlError> {
        plane
            .configure(&self.config, self.captures > 0)
            .map_err(|source| ControlError::Configure {
                interface: plane.name().to_owned(),
                source,
            })?;
        plane.image().set_allowed(&self.policy.kernel_networks())?;
        let begun = Instant::now();
        fill(plane.as_mut(), &self.list, clock)?;
        let microseconds = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        tracing::debug!(
            interface = plane.name(),
            bans = self.list.len(),
            microseconds,
            "the tables hold the ban list"
        );
        self.fill_trust(plane.image(), clock);
        plane.attach().map_err(|source| ControlError::Attach {
            interface: plane.name().to_owned(),
            source,
        })?;
        self.planes.push(plane);
        Ok(())
    }

    /// Takes every data plane that was attached anew off again, after a start that failed.
    pub(super) fn give_up(&mut self) {
        for plane in &mut self.planes {
            plane.give_up();
        }
    }

    /// Takes over the addresses of this host; kernel tables follow if they changed. Bans that exist stay: the kernel
    /// program exempts own addresses.
    pub fn set_own(&mut self, addresses: Vec<IpAddr>) {
        if self.policy.set_own(addresses)
            && let Err(error) = self.write_allowed()
        {
            self.dirty = true;
            tracing::error!(
                error = chain(&error),
                "the kernel tables do not know the new addresses of this host"
            );
        }
    }

    /// Compares every table with the list and repairs what differs; returns how many entries did.
    ///
    /// # Errors
    /// If a table refuses.
    pub fn reconcile(&mut self, clock: Clock) -> Result<usize, ControlError> {
        self.write_allowed()?;
        let mut repaired = 0;
        let mut planes = std::mem::take(&mut self.planes);
        let mut outcome = Ok(());
        for plane in &mut planes {
            match fill(plane.as_mut(), &self.list, clock) {
                Ok(written) => repaired += written,
                Err(error) => outcome = outcome.and(Err(error)),
            }
            self.fill_trust(plane.image(), clock);
        }
        self.planes = planes;
        outcome?;
        self.dirty = false;
        Ok(repaired)
    }

    /// Repairs tables after a failure to write back, if there was one.
    pub(super) fn repair(&mut self, clock: Clock) {
        if !self.dirty {
            return;
        }
        match self.reconcile(clock) {
            Ok(repaired) => tracing::info!(repaired, "the kernel tables agree with the ban list again"),
            Err(error) => tracing::debug!(
                error = chain(&error),
                "the kernel tables still differ from the ban list"
            ),
        }
    }

    /// Brings changes of the list to every table, or undoes them everywhere, the list included.
    pub(super) fn enforce(&mut self, changes: &[Change]) -> Result<(), ImageError> {
        let mut written: Vec<(usize, &Change)> = Vec::new();
        let mut outcome = Ok(());
        'planes: for (index, plane) in self.planes.iter_mut().enumerate() {
            for change in changes {
                if let Err(error) = write(plane.as_mut(), change.target, change.after.as_ref()) {
                    outcome = Err(error);
                    break 'planes;
                }
                written.push((index, change));
            }
        }
        if outcome.is_err() {
            for (index, change) in written.into_iter().rev() {
                let plane = self.planes[index].as_mut();
                if let Err(error) = write(plane, change.target, change.before.as_ref()) {
                    self.dirty = true;
                    tracing::error!(error = chain(&error), target = %change.target, "a ban could not be taken back");
                }
            }
            self.revert(changes);
        } else {
            self.note_enforced(changes);
        }
        outcome
    }

    fn revert(&mut self, changes: &[Change]) {
        for change in changes.iter().rev() {
            self.list.revert(change);
        }
    }

    /// Brings the allow-list to every table. Its entries only ever let more pass, so planes that have it already keep
    /// it when another refuses; the caller takes it back.
    pub(super) fn write_allowed(&mut self) -> Result<(), ImageError> {
        let networks = self.policy.kernel_networks();
        for plane in &mut self.planes {
            plane.image().set_allowed(&networks)?;
        }
        Ok(())
    }

    /// Puts a configuration in force on every data plane, or on none; with copies of dropped frames or without.
    pub(super) fn configure(&mut self, config: Config, captures: usize) -> Result<(), ControlError> {
        for index in 0..self.planes.len() {
            let Err(source) = self.planes[index].configure(&config, captures > 0) else {
                continue;
            };
            let interface = self.planes[index].name().to_owned();
            for plane in &mut self.planes[..index] {
                if let Err(error) = plane.configure(&self.config, self.captures > 0) {
                    tracing::error!(
                        interface = plane.name(),
                        error = chain(&error),
                        "the settings before could not be put back"
                    );
                }
            }
            return Err(ControlError::Configure { interface, source });
        }
        self.config = config;
        self.captures = captures;
        Ok(())
    }

    /// The configuration in force; `simulate` is the mode now.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The journal.
    #[must_use]
    pub fn journal(&self) -> &Arc<Journal> {
        &self.journal
    }

    /// The ban list.
    #[must_use]
    pub fn bans(&self) -> &BanList {
        &self.list
    }

    /// What is wrong; the set is shared.
    #[must_use]
    pub fn conditions(&self) -> &Conditions {
        &self.conditions
    }

    /// Counts since the start.
    #[must_use]
    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The data planes.
    #[must_use]
    pub fn planes(&self) -> &[Box<dyn Plane>] {
        &self.planes
    }

    /// The data planes.
    pub fn planes_mut(&mut self) -> &mut [Box<dyn Plane>] {
        &mut self.planes
    }

    /// Whether the kernel tables agree with the ban list, as far as is known.
    #[must_use]
    pub fn agrees(&self) -> bool {
        !self.dirty
    }

    /// Interfaces that are to be filtered and are not: their names, why, and what was counted there before.
    #[must_use]
    pub fn absent(&self) -> Vec<(String, String, Option<&Counters>)> {
        let absent = self.absent.iter();
        absent
            .map(|(name, why)| (name.clone(), why.clone(), self.bases.get(name)))
            .collect()
    }

    /// Number of bans by origin, scope and family (`ipv4`, `ipv6`), for metrics.
    #[must_use]
    pub fn counts(&self) -> HashMap<(Origin, Scope, &'static str), u64> {
        let counts = self.list.counts().iter();
        let family = |is_ipv4| if is_ipv4 { "ipv4" } else { "ipv6" };
        counts
            .filter(|(_, count)| **count > 0)
            .map(|((origin, scope, is_ipv4), count)| ((origin.clone(), *scope, family(*is_ipv4)), *count))
            .collect()
    }
}

/// Writes whatever a table does not have as the list does; returns how many entries.
fn fill(plane: &mut dyn Plane, list: &BanList, clock: Clock) -> Result<usize, ImageError> {
    let mut written = 0;
    let image = plane.image();
    // Part by part: the memory of all its entries, and then of all their buckets, is on its way at once.
    let (mut part, mut bans) = (0, Vec::new());
    while let Some(entries) = list.part(part) {
        bans.clear();
        bans.extend(
            entries
                .filter(|entry| !entry.over(clock))
                .map(|entry| (entry.ban.target, kernel(entry))),
        );
        image.fetch(&bans);
        for (target, wanted) in &bans {
            if !same(image.get(*target), *wanted) {
                image.put(*target, *wanted)?;
                written += 1;
            }
        }
        part += 1;
    }
    Ok(written)
}

/// Whether the kernel has a ban as the list has it.
pub(super) fn same(found: Option<KernelBan>, wanted: KernelBan) -> bool {
    found.is_some_and(|found| {
        found.scope == wanted.scope
            && match (found.expires, wanted.expires) {
                (None, None) => true,
                (Some(found), Some(wanted)) => found.abs_diff(wanted) <= DEADLINE_TOLERANCE,
                _ => false,
            }
    })
}

pub(super) fn kernel(entry: &Entry) -> KernelBan {
    KernelBan {
        scope: entry.ban.scope,
        expires: entry.deadline,
    }
}

fn write(plane: &mut dyn Plane, target: Target, entry: Option<&Entry>) -> Result<(), ImageError> {
    match entry {
        Some(entry) => plane.image().put(target, kernel(entry)),
        None => plane.image().remove(target),
    }
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
