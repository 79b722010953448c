//! Asks the kernel whether it does what the ban list says: of each ban a moment after it was made, of all bans again and
//! again, and by looking at who gets through.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    controller::{Controller, kernel, same},
    error::chain,
    plane::Plane,
    regular::READS,
};
use crate::{
    bans::{Change, Clock, Entry, Target},
    conditions::Kind,
    dataplane::{Cursor, KernelBan, TableFill},
};

/// Bans that are looked at one by one; of more at once, the round comes to them.
const AT_ONCE: usize = 10_000;

/// Bans compared in a second of the round: a million take less than a minute.
const SLICE: usize = 20_000;

/// Time between the beginnings of two rounds at least.
const ROUND: Duration = Duration::from_secs(10);

/// How long after it was noticed something counts as wrong.
const HOLD: Duration = Duration::from_secs(300);

/// A packet that passed may have been on its way when its source was banned.
const ON_ITS_WAY: Duration = Duration::from_secs(2);

/// What is remembered from look to look.
#[derive(Debug, Default)]
pub(super) struct Verifier {
    /// Banned since the last look.
    new: Vec<Target>,
    /// Parts of the list that were looked at in this round.
    at: usize,
    /// Bans that may still be compared in this second.
    left: usize,
    /// The look for what is in the tables and not on the list, which ends a round.
    strays: Option<Strays>,
    /// Boot time at which the round began.
    began: Option<Duration>,
    /// Something differed in this round.
    differed: bool,
    /// Counts for metrics.
    counts: VerifyCounts,
}

/// A look through the tables, part by part.
#[derive(Debug, Default)]
struct Strays {
    /// Data planes that are done.
    plane: usize,
    from: Cursor,
    /// Entries counted so far.
    there: usize,
    /// Whether each entry is looked up: that takes long, so it is done if there is reason to.
    look_up: bool,
    /// A ban differed from its entry in this round.
    differed: bool,
    /// What was removed: how many, and the first.
    removed: Option<(usize, Target)>,
}

/// Counts since the start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VerifyCounts {
    /// Bans asked of the kernel just after they were made.
    pub asked: u64,
    /// Times a source that should be stopped was not.
    pub passed: u64,
    /// Entries by which tables and list differed, by interface.
    pub drift: BTreeMap<String, u64>,
}

impl Controller {
    /// What came of it so far.
    #[must_use]
    pub fn verified(&self) -> &VerifyCounts {
        &self.verifier.counts
    }

    /// These are in force, as far as the tables said.
    pub(super) fn note_enforced(&mut self, changes: &[Change]) {
        let room = AT_ONCE.saturating_sub(self.verifier.new.len());
        let made = changes.iter().filter(|change| change.after.is_some());
        self.verifier
            .new
            .extend(made.map(|change| change.target).take(room));
    }

    /// To be called each second.
    pub fn verify(&mut self, clock: Clock) {
        self.begin_verify();
        while self.verify_some(clock) {}
    }

    /// Another second has begun.
    pub(super) fn begin_verify(&mut self) {
        self.verifier.left = SLICE;
    }

    /// Compares a few entries; whether there are more to compare in this second.
    pub(super) fn verify_some(&mut self, clock: Clock) -> bool {
        if !self.verifier.new.is_empty() {
            self.verify_new(clock);
            return true;
        }
        if let Some(strays) = self.verifier.strays.take() {
            self.verifier.strays = self.remove_strays(strays, clock);
            return self.verifier.strays.is_some();
        }
        self.go_round(clock)
    }

    fn verify_new(&mut self, clock: Clock) {
        let rest = self.verifier.new.len().saturating_sub(READS);
        let new = self.verifier.new.split_off(rest);
        let entries = new.iter().filter_map(|target| self.list.get(*target));
        let wanted: Vec<_> = entries
            .filter(|entry| !entry.over(clock))
            .map(of_kernel)
            .collect();
        self.verifier.counts.asked += wanted.len() as u64;
        for (interface, lost) in self.compare(&wanted) {
            self.verifier.counts.passed += lost.len() as u64;
            self.note_passes(
                &interface,
                lost[0],
                "its kernel tables do not have the ban",
                clock,
            );
        }
    }

    /// The next part of the round; whether there is more to do in this second.
    fn go_round(&mut self, clock: Clock) -> bool {
        let fresh = self.verifier.at == 0;
        let recently = |began: Duration| clock.boot.saturating_sub(began) < ROUND;
        if self.verifier.left == 0 || fresh && self.verifier.began.is_some_and(recently) {
            return false;
        }
        if fresh {
            self.verifier.began = Some(clock.boot);
        }
        let mut part = Vec::new();
        let mut is_last = false;
        while part.len() < READS && !is_last {
            match self.list.part(self.verifier.at) {
                Some(entries) => part.extend(entries.filter(|entry| !entry.over(clock)).map(of_kernel)),
                None => is_last = true,
            }
            self.verifier.at += 1;
        }
        self.verifier.left = self.verifier.left.saturating_sub(part.len());
        for (interface, lost) in self.compare(&part) {
            let text = format!(
                "{} bans, such as that of {}, were not in the kernel tables of {interface}; they are again",
                lost.len(),
                lost[0]
            );
            self.note_drift(&interface, lost.len(), text, clock);
        }
        if is_last {
            self.verifier.at = 0;
            self.verifier.strays = Some(Strays {
                differed: std::mem::take(&mut self.verifier.differed),
                ..Strays::default()
            });
        }
        true
    }

    /// Finds entries that tables lack or have otherwise, by interface, and writes them anew.
    fn compare(&mut self, entries: &[(Target, KernelBan)]) -> Vec<(String, Vec<Target>)> {
        let mut differing = Vec::new();
        for plane in &mut self.planes {
            let image = plane.image();
            image.fetch(entries);
            let mut lost = Vec::new();
            for (target, wanted) in entries {
                if same(image.get(*target), *wanted) {
                    continue;
                }
                lost.push(*target);
                if let Err(error) = image.put(*target, *wanted) {
                    self.dirty = true;
                    tracing::error!(error = chain(&error), %target, "a ban could not be written again");
                }
            }
            if lost.is_empty() {
                continue;
            }
            self.verifier.differed = true;
            image.recount();
            differing.push((plane.name().to_owned(), lost));
        }
        differing
    }

    /// Removes what is in a part of the tables and not on the list: it would stop somebody whom nobody banned. Returns
    /// where to go on.
    fn remove_strays(&mut self, mut look: Strays, clock: Clock) -> Option<Strays> {
        let plane = self.planes.get_mut(look.plane)?;
        let (list, mut strays) = (&self.list, Vec::new());
        let next = plane.image().visit_exact(look.from, &mut |target, ban| {
            look.there += 1;
            let in_force = ban.expires.is_none_or(|end| end > clock.boot);
            if look.look_up && in_force && list.get(target).is_none() {
                strays.push(target);
            }
        });
        if let Some(first) = strays.first().copied() {
            remove(plane.as_mut(), &strays);
            let (before, of_all) = look.removed.unwrap_or((0, first));
            look.removed = Some((before + strays.len(), of_all));
        }
        if let Some(from) = next {
            return Some(Strays { from, ..look });
        }
        if !look.look_up {
            let exact = |table: &&TableFill| table.name.starts_with("ban");
            let tables = plane.image().fill();
            let counted: usize = tables.iter().filter(exact).map(|table| table.entries).sum();
            if look.there != counted || look.differed {
                // Should bans have come or gone while they were counted, this is in vain and does no harm.
                return Some(Strays {
                    from: Cursor::default(),
                    there: 0,
                    look_up: true,
                    ..look
                });
            }
        }
        let interface = plane.name().to_owned();
        if let Some((count, first)) = look.removed {
            plane.image().recount();
            let text = format!(
                "the kernel tables of {interface} had {count} bans, such as of {first}, that nobody made; they were removed"
            );
            self.note_drift(&interface, count, text, clock);
        }
        Some(Strays {
            plane: look.plane + 1,
            differed: look.differed,
            ..Strays::default()
        })
    }

    /// Packets that were let through: source, and boot time. They should not be of banned sources.
    pub(super) fn suspect(&mut self, passed: &[(IpAddr, Duration)], clock: Clock) {
        if self.config.simulate {
            return;
        }
        for (ip, time) in passed {
            let of_old = self.list.check(*ip).find(|entry| {
                let made = clock.to_boot(entry.ban.created);
                !entry.over(clock) && *time > made + ON_ITS_WAY
            });
            let Some(ban) = of_old.map(|entry| entry.ban.target) else {
                continue;
            };
            let target = Target::address(*ip);
            let exempt = || self.policy.is_own(*ip) || self.policy.allowed_by(target).is_some();
            if !exempt() {
                self.verifier.counts.passed += 1;
                // Its ban is compared next, and written again if that is what is missing.
                self.verifier.new.push(ban);
                self.note_passes("", target, "a packet of it was let through", clock);
            }
        }
    }

    fn note_passes(&self, interface: &str, target: Target, how: &str, clock: Clock) {
        let on = if interface.is_empty() {
            String::new()
        } else {
            format!(" on {interface}")
        };
        self.conditions.raise_until(
            Kind::BannedSourcePasses,
            interface,
            format!("{target} is banned and passes{on}: {how}"),
            clock.boot + HOLD,
        );
    }

    fn note_drift(&mut self, interface: &str, entries: usize, text: String, clock: Clock) {
        let drift = &mut self.verifier.counts.drift;
        *drift.entry(interface.to_owned()).or_default() += entries as u64;
        self.conditions
            .raise_until(Kind::Drift, interface, text, clock.boot + HOLD);
    }
}

fn of_kernel(entry: &Entry) -> (Target, KernelBan) {
    (entry.ban.target, kernel(entry))
}

fn remove(plane: &mut dyn Plane, strays: &[Target]) {
    for target in strays {
        if let Err(error) = plane.image().remove(*target) {
            tracing::error!(error = chain(&error), %target, "an entry that no ban knows could not be removed");
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
