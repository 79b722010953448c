//! What is saved, and what becomes of an operation once it is, or if it cannot be.

use std::sync::Arc;

use super::{
    controller::Controller,
    error::chain,
    journal::{JournalEvent, JournalKind},
    pending::Waiting,
};
use crate::bans::{Allowed, Batch, Change, Clock, Receipt, StoreError, Target};

/// What an operation did to be undone, should it turn out that it cannot be saved.
#[derive(Debug)]
pub(super) enum Undo {
    /// Entries of the ban list.
    Bans(Waiting),
    /// Operator's entries of the allow-list as they were.
    Allowed(Vec<(Target, Option<Allowed>)>),
}

/// An operation that is in force, and is to be acknowledged once it is saved.
#[derive(Debug)]
#[must_use]
pub struct Done<T> {
    /// The answer.
    pub value: T,
    /// When it is saved.
    pub(super) receipt: Receipt,
    /// How to take it back.
    pub(super) undo: Undo,
    /// What is told of it once it is saved.
    pub(super) news: News,
}

/// What became of an operation that holds in any case.
#[derive(Clone, Debug)]
pub struct Held<T> {
    /// The answer.
    pub value: T,
    /// Why it is not saved and would not survive a restart, if it is not.
    pub unsaved: Option<Arc<StoreError>>,
}

/// What is told of an operation, and follows from it, once it holds: nobody is to hear of a ban that was refused.
#[derive(Debug, Default)]
pub(super) struct News {
    /// For the journal.
    pub(super) events: Vec<JournalEvent>,
    /// Too many for a line of log each; these are what they have in common.
    pub(super) in_one: Option<&'static str>,
    /// Who was banned, and is not trusted any more.
    pub(super) banned: Vec<Target>,
}

impl Controller {
    /// Queues changes for the store.
    pub(super) fn save(&mut self, changes: &[Change], clock: Clock) -> Receipt {
        let mut batch = Batch::default();
        for change in changes {
            match &change.after {
                Some(entry) => batch.put_ban(entry, clock, &self.boot_id),
                None => batch.remove_ban(change.target),
            }
            if change.past.is_some() {
                batch.put_history(change.target, self.list.history().of(change.target));
            }
            self.touched.remove(&change.target);
        }
        self.writer.submit(batch)
    }

    /// Makes known what is saved, or holds although it is not.
    pub(super) fn acknowledge(&mut self, undo: &Undo, news: News, clock: Clock) {
        if let Undo::Bans(waiting) = undo {
            self.pending.saved(waiting);
            for change in waiting.changes.iter() {
                self.count_change(change);
            }
        }
        if let Some(what) = news.in_one {
            tracing::info!(count = news.events.len(), "{what}");
        }
        for event in news.events {
            if news.in_one.is_some() {
                self.journal.record_silently(event);
            } else {
                self.journal.record(event);
            }
        }
        for target in news.banned {
            self.distrust_banned(target, clock);
        }
    }

    /// Takes back what could not be saved: of each target once no later change waits to be saved, and as far as nothing
    /// else happened to it since but that its ban ended.
    pub(super) fn undo(&mut self, undo: Undo, why: &StoreError, clock: Clock) {
        let message = match &undo {
            Undo::Bans(waiting) => format!("{} taken back: {}", changed(&waiting.changes), chain(why)),
            Undo::Allowed(entries) => {
                let first = entries.first().map(|(target, _)| target.to_string());
                let first = first.unwrap_or_default();
                format!(
                    "a change of the allow-list ({first}) was taken back: {}",
                    chain(why)
                )
            }
        };
        self.journal
            .record(JournalEvent::new(clock.wall, JournalKind::Refused, message));
        match undo {
            Undo::Bans(waiting) => {
                let back = self.take_back(&waiting, clock);
                if let Err(error) = self.enforce(&back) {
                    self.dirty = true;
                    tracing::error!(
                        error = chain(&error),
                        "bans that could not be saved could not be taken back either"
                    );
                    return;
                }
                // The store tries again until it works; then it must find this, not what was taken back.
                self.save(&back, clock).detach();
            }
            Undo::Allowed(entries) => {
                let mut batch = Batch::default();
                for (target, entry) in entries.into_iter().rev() {
                    match entry {
                        Some(entry) => {
                            batch.put_allowed(target, &entry);
                            self.policy.allow(target, entry);
                        }
                        None => {
                            batch.remove_allowed(target);
                            self.policy.disallow(target);
                        }
                    }
                }
                if let Err(error) = self.write_allowed() {
                    self.dirty = true;
                    tracing::error!(error = chain(&error), "the allow-list could not be taken back");
                }
                self.writer.submit(batch).detach();
            }
        }
    }

    /// Takes changes back in the list; returns what was done.
    fn take_back(&mut self, waiting: &Waiting, clock: Clock) -> Vec<Change> {
        let mut back = Vec::new();
        for change in self.pending.failed(waiting) {
            let now = self.list.get(change.target).map(|entry| entry.deadline);
            let then = change.after.as_ref().map(|entry| entry.deadline);
            // A short ban may have ended while the disk was waited for; what it had replaced holds all the same.
            let has_ended = now.is_none() && then.flatten().is_some_and(|end| end <= clock.boot);
            if now != then && !has_ended {
                continue;
            }
            self.list.revert(&change);
            back.push(Change {
                target: change.target,
                before: change.after,
                after: change.before,
                // The store's history is as it was, too.
                past: change.past,
            });
        }
        back
    }

    /// Gives the store all there is, if its file is gone. To be called each second.
    pub(super) fn save_all_if_lost(&mut self, clock: Clock) {
        if !self.writer.wants_all() {
            return;
        }
        let mut all = Batch::default();
        for entry in self.list.iter() {
            all.put_ban(entry, clock, &self.boot_id);
        }
        for (target, past) in self.list.history().iter() {
            all.put_history(target, past.iter());
        }
        for (target, entry) in self.policy.operator_entries() {
            all.put_allowed(target, entry);
        }
        self.put_known(&mut all, clock);
        tracing::warn!(
            bans = self.list.len(),
            "the store's file is gone: it is written anew"
        );
        self.writer.submit_all(all).detach();
    }

    /// Writes what is queued and closes the store: nothing is saved any more.
    pub(super) fn close(&mut self) {
        self.writer.close();
    }

    /// Why something that was decided is not saved; `None` if all is.
    #[must_use]
    pub fn unsaved(&self) -> Option<String> {
        self.writer.trouble().map(|error| chain(&*error))
    }
}

/// Changes as a sentence's beginning.
fn changed(changes: &[Change]) -> String {
    match changes {
        [one] if one.after.is_none() => format!("lifting the ban of {} was", one.target),
        [one] => format!("the ban of {} was", one.target),
        many => format!("{} changes of bans were", many.len()),
    }
}

#[cfg(test)]
#[path = "saving_tests.rs"]
mod tests;
