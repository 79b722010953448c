//! What is wrong right now: one set for the whole daemon, for `health`, for monitoring and for alarms.
//!
//! Whoever finds that something is wrong raises a condition; whoever finds that it is not any more clears it. A
//! condition is identified by its kind and its subject (an interface, a table), never by a source address: an attacker
//! must not be able to make many. Raising what is raised already only renews its text.

mod kind;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

pub use kind::{Kind, Severity};

/// Changes a follower may lag behind before it misses some, which it is told.
const LAG: usize = 256;

/// A condition that comes and goes is logged once in this time, with the number of times it came.
const LOG_EVERY: Duration = Duration::from_secs(60);

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Condition {
    /// What.
    pub name: Kind,
    /// What it concerns, such as an interface; empty for the daemon as a whole.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// Since when.
    #[serde(with = "crate::units::rfc3339")]
    pub since: SystemTime,
    /// One sentence for people: what was found.
    pub text: String,
    /// What to do about it.
    pub remedy: String,
}

/// A condition came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// It was not there before.
    Raised(Condition),
    /// It is over; as it was last.
    Cleared(Condition),
}

/// The set. Cheap to clone: all clones are the same set.
#[derive(Clone, Debug)]
pub struct Conditions(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    followers: broadcast::Sender<Change>,
}

type Key = (Kind, String);

#[derive(Debug, Default)]
struct State {
    current: BTreeMap<Key, Held>,
    raised: BTreeMap<Kind, u64>,
    logged: BTreeMap<Key, Logged>,
}

#[derive(Debug)]
struct Held {
    condition: Condition,
    /// Boot time at which it ends by itself, if it does.
    until: Option<Duration>,
}

/// When it was last logged, and how often it came since without being logged.
#[derive(Debug)]
struct Logged {
    at: SystemTime,
    unlogged: u32,
}

impl Default for Conditions {
    fn default() -> Self {
        Self(Arc::new(Shared {
            state: Mutex::default(),
            followers: broadcast::Sender::new(LAG),
        }))
    }
}

impl Conditions {
    /// Something is wrong until [`Self::clear`] is called.
    pub fn raise(&self, name: Kind, subject: &str, text: impl Into<String>) {
        self.put(name, subject, text.into(), None);
    }

    /// Something was wrong a moment ago, and is taken to be until this boot time, unless it is raised again: for what is
    /// noticed when it happens, and never noticed to be over. See [`Self::sweep`].
    pub fn raise_until(&self, name: Kind, subject: &str, text: impl Into<String>, until: Duration) {
        self.put(name, subject, text.into(), Some(until));
    }

    /// It is over.
    pub fn clear(&self, name: Kind, subject: &str) {
        self.remove(|key, _| key.0 == name && key.1 == subject);
    }

    /// Raises it with this text, or clears it.
    pub fn set(&self, name: Kind, subject: &str, text: Option<String>) {
        match text {
            Some(text) => self.raise(name, subject, text),
            None => self.clear(name, subject),
        }
    }

    /// Clears those of a kind whose subjects are not these any more.
    pub fn retain(&self, name: Kind, keep: impl Fn(&str) -> bool) {
        self.remove(|key, _| key.0 == name && !keep(&key.1));
    }

    /// Ends those whose time is over. To be called each second with the boot time.
    pub fn sweep(&self, now: Duration) {
        self.remove(|_, held| held.until.is_some_and(|until| until <= now));
    }

    /// Whether it is raised.
    #[must_use]
    pub fn is_raised(&self, name: Kind, subject: &str) -> bool {
        self.lock().current.contains_key(&(name, subject.to_owned()))
    }

    /// All that is wrong now, by kind and subject.
    #[must_use]
    pub fn current(&self) -> Vec<Condition> {
        let state = self.lock();
        state
            .current
            .values()
            .map(|held| held.condition.clone())
            .collect()
    }

    /// How often each kind was raised since the start.
    #[must_use]
    pub fn raised_total(&self) -> Vec<(Kind, u64)> {
        let state = self.lock();
        Kind::ALL
            .map(|kind| (kind, state.raised.get(&kind).copied().unwrap_or(0)))
            .to_vec()
    }

    /// All that is wrong now, and every change from then on.
    #[must_use]
    pub fn follow(&self) -> (Vec<Condition>, broadcast::Receiver<Change>) {
        let state = self.lock();
        // Changes are sent under the lock: none is both in the list and in the stream, or in neither.
        let changes = self.0.followers.subscribe();
        let current = state.current.values().map(|held| held.condition.clone());
        (current.collect(), changes)
    }

    fn put(&self, name: Kind, subject: &str, text: String, until: Option<Duration>) {
        let mut state = self.lock();
        let key = (name, subject.to_owned());
        if let Some(held) = state.current.get_mut(&key) {
            held.condition.text = text;
            held.until = until;
            return;
        }
        let condition = Condition {
            name,
            subject: subject.to_owned(),
            severity: name.severity(),
            since: SystemTime::now(),
            text,
            remedy: name.remedy().to_owned(),
        };
        *state.raised.entry(name).or_default() += 1;
        state.log(&key, &condition);
        let held = Held {
            condition: condition.clone(),
            until,
        };
        state.current.insert(key, held);
        self.send(Change::Raised(condition));
    }

    fn remove(&self, ended: impl Fn(&Key, &Held) -> bool) {
        let mut state = self.lock();
        let keys: Vec<Key> = state
            .current
            .iter()
            .filter(|(key, held)| ended(key, held))
            .map(|(key, _)| key.clone())
            .collect();
        for key in keys {
            if let Some(held) = state.current.remove(&key) {
                state.log_end(&key, &held.condition);
                self.send(Change::Cleared(held.condition));
            }
        }
    }

    fn send(&self, change: Change) {
        // Nobody follows: nothing to do.
        let _ = self.0.followers.send(change);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// One line when it comes; if it comes and goes, one a minute.
    fn log(&mut self, key: &Key, condition: &Condition) {
        if condition.name.is_logged_where_found() {
            return;
        }
        let now = condition.since;
        if let Some(logged) = self.logged.get_mut(key)
            && now.duration_since(logged.at).is_ok_and(|age| age < LOG_EVERY)
        {
            logged.unlogged += 1;
            return;
        }
        let before = self.logged.insert(key.clone(), Logged { at: now, unlogged: 0 });
        let repeated = before.map(|logged| logged.unlogged).filter(|times| *times > 0);
        let (condition_name, subject) = (condition.name.name(), &condition.subject);
        let subject = (!subject.is_empty()).then_some(subject);
        let (text, remedy) = (&condition.text, &condition.remedy);
        match condition.severity {
            Severity::Critical => {
                tracing::error!(condition = condition_name, subject, repeated, "{text}; {remedy}");
            }
            Severity::Warning => {
                tracing::warn!(condition = condition_name, subject, repeated, "{text}; {remedy}");
            }
        }
    }

    fn log_end(&self, key: &Key, condition: &Condition) {
        // What was not logged when it came is not when it goes.
        if self.logged.get(key).is_some_and(|logged| logged.unlogged == 0) {
            let subject = (!key.1.is_empty()).then_some(&key.1);
            tracing::info!(
                condition = condition.name.name(),
                subject,
                "over: {}",
                condition.text
            );
        }
    }
}
