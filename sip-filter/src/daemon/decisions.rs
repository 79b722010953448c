//! What happens by itself: decisions of rules, and what is reported of floods.

use std::{
    sync::{MutexGuard, PoisonError},
    time::Duration,
};

use sip_filter_common::sip::Class;

use super::{
    controller::Controller,
    error::{ControlError, chain},
    journal::{JournalEvent, JournalKind},
    talkers::Talkers,
};
use crate::{
    bans::{Change, Clock, NewBan, Origin, Outcome, Refusal, Target},
    config::Config,
    dataplane::ImageError,
    detect::{Decision, Rule},
};

/// A rule's decision on a target that is not carried out is reported once in this time: an allow-listed customer in
/// a loop would else fill the journal.
pub(super) const REPORT_EVERY: Duration = Duration::from_secs(60);

/// Decisions whose last report is remembered.
const REPORTS: usize = 10_000;

/// Sources over a limit reported in that time. A big flood has many, and the counters tell its size.
const FLOODS: u32 = 50;

/// What became of a [`Decision`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Banned, or the ban now ends later. In force.
    Banned,
    /// There is a ban that lasts longer.
    Unchanged,
    /// The rule only reports.
    Shadow,
    /// Not done, to keep somebody from being locked out.
    Refused,
    /// Not done: a table has no room, or the kernel refused.
    Failed,
}

/// What a reload did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reloaded {
    /// Dotted keys whose new value is in force.
    pub changed: Vec<String>,
    /// Keys, or groups of keys, whose new value takes effect at the next start.
    pub needs_restart: Vec<&'static str>,
}

impl Controller {
    /// Carries out what a rule decided. In force on return; it is saved a moment later.
    pub fn apply(&mut self, decision: &Decision, clock: Clock) -> Applied {
        let target = decision.target;
        let evidence = &decision.evidence;
        let reason = format!(
            "{} in {} s, threshold {}",
            evidence.count, evidence.window_seconds, evidence.threshold
        );
        // Before shadow rules report: what would be refused is nothing they would ban.
        if let Err(refusal) = self.permit(decision) {
            self.totals.refused += 1;
            self.report(
                decision,
                JournalKind::Refused,
                format!("not banned: {refusal} ({reason})"),
                clock,
            );
            return Applied::Refused;
        }
        if decision.shadow {
            *self.totals.would_ban.entry(decision.rule).or_default() += 1;
            let message = format!("would ban {target} (shadow rule): {reason}");
            self.report(decision, JournalKind::WouldBan, message, clock);
            return Applied::Shadow;
        }
        if decision.sliding
            && let Some(slid) = self.list.slide(target, decision.rule, decision.ban_for, clock)
        {
            let Some(change) = slid else {
                return Applied::Unchanged;
            };
            if let Err(error) = self.enforce(std::slice::from_ref(&change)) {
                return self.not_enforced(decision, &error, clock);
            }
            // It moves as often as the source sends: saved with the hits, not each time.
            self.touched.insert(target);
            self.note_extension(&change, clock);
            return Applied::Banned;
        }
        let (outcome, change) = self.list.ban(
            NewBan {
                target,
                origin: Origin::Detector,
                rule: Some(decision.rule),
                reason,
                scope: decision.scope,
                lifetime: Some(decision.ban_for),
                created: None,
                evidence: Some(Box::new(evidence.clone())),
            },
            clock,
        );
        let Some(change) = change else {
            debug_assert_eq!(outcome, Outcome::Unchanged);
            return Applied::Unchanged;
        };
        if let Err(error) = self.enforce(std::slice::from_ref(&change)) {
            return self.not_enforced(decision, &error, clock);
        }
        if self.config.simulate {
            *self.totals.would_ban.entry(decision.rule).or_default() += 1;
        }
        if outcome == Outcome::Extended {
            self.note_extension(&change, clock);
        } else {
            self.note_ban(&change, clock);
        }
        self.save(std::slice::from_ref(&change), clock).detach();
        Applied::Banned
    }

    /// Whether a rule's decision may be carried out. Rules never force anything.
    fn permit(&self, decision: &Decision) -> Result<(), Refusal> {
        let target = decision.target;
        self.policy.permit(target, false)?;
        if decision.rule.by_volume()
            && let Some(trust) = self.known.trust.get(target)
        {
            return Err(Refusal::Trusted {
                target,
                account: trust.value.clone(),
                rule: decision.rule,
            });
        }
        if decision.rule != Rule::NetworkAggregate {
            return Ok(());
        }
        let trusted = || self.known.trust.within(target).next().map(|(inside, _)| inside);
        let inside = match self.policy.allowed_within(target) {
            Some(inside) => Some((inside, "allow-listed")),
            None => trusted().map(|inside| (inside, "trusted")),
        };
        inside.map_or(Ok(()), |(inside, standing)| {
            Err(Refusal::Contains {
                target,
                inside,
                standing,
            })
        })
    }

    fn not_enforced(&mut self, decision: &Decision, error: &ImageError, clock: Clock) -> Applied {
        self.totals.refused += 1;
        self.unenforced.push(decision.target);
        let message = format!("{} is not banned: {}", decision.target, chain(error));
        self.report(decision, JournalKind::Refused, message, clock);
        Applied::Failed
    }

    /// A ban that moves while its source goes on is told once a minute.
    fn note_extension(&mut self, change: &Change, clock: Clock) {
        if self.due((change.target, JournalKind::BanExtended.name()), clock) {
            self.note_ban(change, clock);
        }
    }

    /// Whether something is to be reported of a target: once in [`REPORT_EVERY`].
    fn due(&mut self, key: (Target, &'static str), clock: Clock) -> bool {
        let recent = |then: &Duration| clock.boot.saturating_sub(*then) < REPORT_EVERY;
        if self.reported.get(&key).is_some_and(recent) {
            return false;
        }
        if self.reported.len() >= REPORTS {
            self.reported.retain(|_, then| recent(then));
            if self.reported.len() >= REPORTS {
                self.reported.clear();
            }
        }
        self.reported.insert(key, clock.boot);
        true
    }

    fn report(&mut self, decision: &Decision, kind: JournalKind, message: String, clock: Clock) {
        if !self.due((decision.target, decision.rule.name()), clock) {
            return;
        }
        self.journal.record(JournalEvent {
            target: Some(decision.target),
            origin: Some(Origin::Detector),
            rule: Some(decision.rule),
            shadow: true,
            evidence: Some(decision.evidence.clone()),
            ..JournalEvent::new(clock.wall, kind, message)
        });
    }

    /// Reports that a source is over the limit of a class: once a minute, and of not too many sources.
    pub fn note_flood(&mut self, target: Target, class: Class, dropped: bool, clock: Clock) {
        let key = (target, class.name());
        let reported = self.reported.get(&key);
        if reported.is_some_and(|then| clock.boot.saturating_sub(*then) < REPORT_EVERY) {
            return;
        }
        if clock.boot.saturating_sub(self.floods.0) >= REPORT_EVERY {
            self.floods = (clock.boot, 0);
        }
        if self.floods.1 >= FLOODS {
            return;
        }
        self.floods.1 += 1;
        self.reported.insert(key, clock.boot);
        let verb = if dropped { "is dropped" } else { "would be dropped" };
        self.journal.record(JournalEvent {
            target: Some(target),
            shadow: !dropped,
            ..JournalEvent::new(
                clock.wall,
                JournalKind::Flood,
                format!("{target} is over limits.{}: what exceeds it {verb}", class.name()),
            )
        });
    }

    /// Remembers how much traffic there was. To be called each second.
    pub fn sample_traffic(&mut self, clock: Clock) {
        // One that cannot be read is reported by whoever looks for losses.
        let counters: Vec<_> = self
            .planes
            .iter()
            .filter_map(|plane| plane.counters().ok())
            .collect();
        self.trend.sample(counters.iter().map(AsRef::as_ref), clock.boot);
    }

    /// Who sends how much.
    pub(super) fn talkers(&self) -> MutexGuard<'_, Talkers> {
        self.talkers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Puts a new configuration in force, except for what needs a restart.
    ///
    /// # Errors
    /// [`ControlError`] if an interface does not take it; the configuration before is then in force.
    pub fn reload(&mut self, new: Config, clock: Clock) -> Result<Reloaded, ControlError> {
        let restart = self.config.restart_needed(&new);
        let wanted = new.simulate;
        let mut effective = self.config.reloaded(new);
        if wanted == self.loaded_simulate {
            // The file says what it said before; the mode an operator chose since stays.
            effective.simulate = self.config.simulate;
        }
        let (old_config, old_policy) = (self.config.clone(), self.policy.clone());
        self.policy.configure(&effective);
        let result: Result<(), ControlError> = self
            .write_allowed()
            .map_err(ImageError::into)
            .and_then(|()| self.configure(effective, self.captures));
        if let Err(error) = result {
            self.policy = old_policy;
            if let Err(error) = self.write_allowed() {
                self.dirty = true;
                tracing::error!(error = chain(&error), "the allow-list could not be put back");
            }
            return Err(error);
        }
        self.loaded_simulate = wanted;
        self.interfaces_changed |= old_config.interfaces != self.config.interfaces;
        if old_config.trust != self.config.trust {
            self.configure_known();
        }
        if old_config.simulate != self.config.simulate {
            let mode = if self.config.simulate {
                "simulating"
            } else {
                "enforcing"
            };
            self.journal
                .record(JournalEvent::new(clock.wall, JournalKind::ModeChanged, mode));
        }
        let message = if restart.is_empty() {
            "the configuration was read again".to_owned()
        } else {
            format!(
                "the configuration was read again; these take effect at the next start: {}",
                restart.join(", ")
            )
        };
        self.journal
            .record(JournalEvent::new(clock.wall, JournalKind::Reloaded, message));
        Ok(Reloaded {
            changed: old_config.differences(&self.config),
            needs_restart: restart,
        })
    }

    /// Whose ban was decided since the last call, and is not in force.
    pub(super) fn take_unenforced(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.unenforced)
    }

    /// Whom operators let go since the last call: the engine is to forget them.
    pub fn take_forgiven(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.forgiven)
    }
}
