//! Asks the kernel whether it does what the ban list says: of each ban a moment after it was made, of all bans again and
//! again, and by looking at who gets through.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{
    controller::{Controller, kernel, same},
    error::chain,
    plane::Plane,
};
use crate::{
    bans::{Change, Clock, Entry, Target},
    conditions::Kind,
    dataplane::{KernelBan, TableFill},
};

/// Bans that are looked at one by one; of more at once, the round comes to them.
const AT_ONCE: usize = 10_000;

/// Bans compared in a second of the round: a million take less than a minute, and the lock is held a few milliseconds.
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
    /// Bans of the round that were looked at.
    at: usize,
    /// Boot time at which the round began.
    began: Option<Duration>,
    /// Something differed in this round.
    differed: bool,
    /// Counts for metrics.
    counts: VerifyCounts,
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
        let new: Vec<Target> = std::mem::take(&mut self.verifier.new);
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
        self.go_round(clock);
    }

    /// The next part of the round.
    fn go_round(&mut self, clock: Clock) {
        let fresh = self.verifier.at == 0;
        let recently = |began: Duration| clock.boot.saturating_sub(began) < ROUND;
        if fresh && self.verifier.began.is_some_and(recently) {
            return;
        }
        if fresh {
            self.verifier.began = Some(clock.boot);
        }
        let part = self.list.iter().skip(self.verifier.at).take(SLICE);
        let part: Vec<_> = part.filter(|entry| !entry.over(clock)).map(of_kernel).collect();
        self.verifier.at += SLICE;
        for (interface, lost) in self.compare(&part) {
            let text = format!(
                "{} bans, such as that of {}, were not in the kernel tables of {interface}; they are again",
                lost.len(),
                lost[0]
            );
            self.note_drift(&interface, lost.len(), text, clock);
        }
        if self.verifier.at >= self.list.len() {
            self.verifier.at = 0;
            self.remove_strays(clock);
        }
    }

    /// Finds entries that tables lack or have otherwise, by interface, and writes them anew.
    fn compare(&mut self, entries: &[(Target, KernelBan)]) -> Vec<(String, Vec<Target>)> {
        let mut differing = Vec::new();
        for plane in &mut self.planes {
            let image = plane.image();
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

    /// Removes what is in the tables and not on the list: it would stop somebody whom nobody banned.
    fn remove_strays(&mut self, clock: Clock) {
        let mut found = Vec::new();
        let differed = std::mem::take(&mut self.verifier.differed);
        for plane in &mut self.planes {
            let mut strays = Vec::new();
            let list = &self.list;
            // Looking up every entry takes long, so it is done if there is reason to.
            let (mut there, image) = (0, plane.image());
            image.for_each_exact(&mut |_, _| there += 1);
            let exact = |table: &&TableFill| table.name.starts_with("ban");
            let counted: usize = image.fill().iter().filter(exact).map(|table| table.entries).sum();
            if there == counted && !differed {
                continue;
            }
            image.for_each_exact(&mut |target, ban| {
                let in_force = ban.expires.is_none_or(|end| end > clock.boot);
                if in_force && list.get(target).is_none() {
                    strays.push(target);
                }
            });
            let Some(first) = strays.first().copied() else {
                continue;
            };
            found.push((plane.name().to_owned(), strays.len(), first));
            remove(plane.as_mut(), &strays);
        }
        for (interface, count, first) in found {
            let text = format!(
                "the kernel tables of {interface} had {count} bans, such as of {first}, that nobody made; they were removed"
            );
            self.note_drift(&interface, count, text, clock);
        }
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
    plane.image().recount();
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
