//! Exemptions and the mode: what lets packets pass.

use super::{
    controller::Controller,
    error::{ControlError, chain},
    journal::{JournalEvent, JournalKind},
    saving::{Done, News, Undo},
};
use crate::bans::{AllowOrigin, Allowed, Batch, Clock, Target};

impl Controller {
    /// The allow-list, by target.
    #[must_use]
    pub fn allowed(&self) -> Vec<(Target, Allowed)> {
        self.policy.entries()
    }

    /// Allows targets; tells for each whether that changed anything.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn allow(
        &mut self,
        targets: &[Target],
        comment: &str,
        clock: Clock,
    ) -> Result<Done<Vec<bool>>, ControlError> {
        if let Some(all) = targets.iter().find(|target| target.net().prefix_len() == 0) {
            return Err(ControlError::ExemptsAll(*all));
        }
        let new = targets.iter().map(|target| {
            let old = self.policy.operator_entry(*target);
            let changed = old.is_none_or(|old| old.comment != comment) && !self.policy.in_config(*target);
            let entry = Allowed {
                origin: AllowOrigin::Operator,
                comment: comment.to_owned(),
                created: old.and_then(|old| old.created).or(Some(clock.wall)),
            };
            (*target, changed.then_some(entry))
        });
        let new: Vec<_> = new.collect();
        let changed = new.iter().map(|(_, entry)| entry.is_some()).collect();
        let mut before = Vec::new();
        for (target, entry) in new {
            if let Some(entry) = entry {
                before.push((target, self.policy.allow(target, entry)));
            }
        }
        self.allow_list_changed(changed, before, "allow-listed", clock)
    }

    /// Takes targets from the allow-list; tells for each whether it was there.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn disallow(&mut self, targets: &[Target], clock: Clock) -> Result<Done<Vec<bool>>, ControlError> {
        if let Some(fixed) = targets.iter().find(|target| self.policy.in_config(**target)) {
            return Err(ControlError::FixedInConfig(*fixed));
        }
        let mut before = Vec::new();
        let mut changed = Vec::new();
        for target in targets {
            let old = self.policy.disallow(*target);
            changed.push(old.is_some());
            if old.is_some() {
                before.push((*target, old));
            }
        }
        self.allow_list_changed(changed, before, "took from the allow-list", clock)
    }

    fn allow_list_changed(
        &mut self,
        value: Vec<bool>,
        before: Vec<(Target, Option<Allowed>)>,
        what: &str,
        clock: Clock,
    ) -> Result<Done<Vec<bool>>, ControlError> {
        if before.is_empty() {
            return Ok(self.done(value, Vec::new(), News::default(), clock));
        }
        if let Err(error) = self.write_allowed() {
            for (target, entry) in before.into_iter().rev() {
                match entry {
                    Some(entry) => drop(self.policy.allow(target, entry)),
                    None => drop(self.policy.disallow(target)),
                }
            }
            if let Err(error) = self.write_allowed() {
                self.dirty = true;
                tracing::error!(error = chain(&error), "the allow-list could not be taken back");
            }
            return Err(error.into());
        }
        let (mut batch, mut news) = (Batch::default(), News::default());
        for (target, _) in &before {
            match self.policy.operator_entry(*target) {
                Some(entry) => batch.put_allowed(*target, entry),
                None => batch.remove_allowed(*target),
            }
            news.events.push(JournalEvent {
                target: Some(*target),
                ..JournalEvent::new(clock.wall, JournalKind::AllowChanged, format!("{what} {target}"))
            });
        }
        Ok(Done {
            value,
            receipt: self.writer.submit(batch),
            undo: Undo::Allowed(before),
            news,
        })
    }

    /// Switches between dropping and counting only; returns whether it simulated before.
    ///
    /// # Errors
    /// [`ControlError`] if an interface does not take it; the mode is then as before.
    pub fn set_simulate(&mut self, simulate: bool, clock: Clock) -> Result<bool, ControlError> {
        let previous = self.config.simulate;
        if previous == simulate {
            return Ok(previous);
        }
        let mut config = self.config.clone();
        config.simulate = simulate;
        self.configure(config, self.captures)?;
        let message = if simulate {
            "simulating: nothing is dropped any more".to_owned()
        } else {
            format!("enforcing: {} bans take effect", self.list.len())
        };
        self.journal
            .record(JournalEvent::new(clock.wall, JournalKind::ModeChanged, message));
        Ok(previous)
    }
}
