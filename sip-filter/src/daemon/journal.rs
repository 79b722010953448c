//! What happened, for people and followers: a bounded memory of decisions, never of packets.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use serde::{Deserialize, Serialize};
use tokio::sync::broadcast;

use crate::{
    bans::{Evidence, Origin, Target},
    detect::Rule,
};

/// Events remembered.
const REMEMBERED: usize = 1_000;

/// Events a follower may lag behind before it misses some, which it is told.
const LAG: usize = 1_024;

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum JournalKind {
    /// A target was banned, or its ban replaced.
    BanAdded,
    /// A ban now ends later.
    BanExtended,
    /// A ban was lifted.
    BanRemoved,
    /// A ban's time was over.
    BanExpired,
    /// A rule wanted to ban whom it must not, or there was no room.
    Refused,
    /// A rule would ban: it is a shadow rule, or the filter simulates.
    WouldBan,
    /// A source is over a limit of the kernel program, first reported.
    Flood,
    /// Between enforcing and simulating.
    ModeChanged,
    /// The configuration was read again.
    Reloaded,
    /// The configuration could not be used; the one before stays in force.
    ReloadFailed,
    /// The allow-list changed.
    AllowChanged,
    /// Events of the kernel program were lost or held back.
    EventsLost,
    /// A rule found something an operator should know, and stops nothing.
    Alarm,
    /// A source is not trusted any more because it was banned by hand.
    TrustRemoved,
    /// The kernel did not take a trusted source: it has the limits of a stranger.
    TrustRefused,
    /// Something became wrong, see [`crate::conditions`].
    ConditionRaised,
    /// It is not any more.
    ConditionCleared,
}

impl JournalKind {
    /// The name in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BanAdded => "ban-added",
            Self::BanExtended => "ban-extended",
            Self::BanRemoved => "ban-removed",
            Self::BanExpired => "ban-expired",
            Self::Refused => "refused",
            Self::WouldBan => "would-ban",
            Self::Flood => "flood",
            Self::ModeChanged => "mode-changed",
            Self::Reloaded => "reloaded",
            Self::ReloadFailed => "reload-failed",
            Self::AllowChanged => "allow-changed",
            Self::EventsLost => "events-lost",
            Self::Alarm => "alarm",
            Self::TrustRemoved => "trust-removed",
            Self::TrustRefused => "trust-refused",
            Self::ConditionRaised => "condition-raised",
            Self::ConditionCleared => "condition-cleared",
        }
    }
}

/// One entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEvent {
    /// 1.
    pub schema_version: u32,
    /// When.
    #[serde(with = "crate::units::rfc3339")]
    pub time: SystemTime,
    /// What.
    pub kind: JournalKind,
    /// Whom it concerns.
    pub target: Option<Target>,
    /// Who did it.
    pub origin: Option<Origin>,
    /// The detection rule.
    pub rule: Option<Rule>,
    /// The account, if the event concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// One sentence for people.
    pub message: String,
    /// Reported and not enforced.
    pub shadow: bool,
    /// What the rule saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

impl JournalEvent {
    /// An entry with all other fields empty.
    #[must_use]
    pub fn new(time: SystemTime, kind: JournalKind, message: impl Into<String>) -> Self {
        Self {
            schema_version: 1,
            time,
            kind,
            target: None,
            origin: None,
            rule: None,
            account: None,
            message: message.into(),
            shadow: false,
            evidence: None,
        }
    }
}

/// The memory and its followers.
#[derive(Debug)]
pub struct Journal {
    recent: Mutex<VecDeque<JournalEvent>>,
    followers: broadcast::Sender<JournalEvent>,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            recent: Mutex::default(),
            followers: broadcast::Sender::new(LAG),
        }
    }
}

impl Journal {
    /// Adds an entry, tells the followers, and writes one line of log.
    pub fn record(&self, event: JournalEvent) {
        let target = event.target.map(tracing::field::display);
        let rule = event.rule.map(Rule::name);
        let kind = event.kind.name();
        match event.kind {
            JournalKind::ReloadFailed => {
                tracing::error!(kind, "{}", event.message);
            }
            JournalKind::Refused
            | JournalKind::EventsLost
            | JournalKind::Alarm
            | JournalKind::TrustRefused => {
                tracing::warn!(kind, target, rule, shadow = event.shadow, "{}", event.message);
            }
            _ => tracing::info!(kind, target, rule, shadow = event.shadow, "{}", event.message),
        }
        self.record_silently(event);
    }

    /// Adds an entry without a line of log: for the many of one operation, which has a line of its own.
    pub fn record_silently(&self, event: JournalEvent) {
        // Sent under the lock, so that no follower can both miss it here and find it missing in `follow`.
        let mut recent = self.lock();
        if recent.len() == REMEMBERED {
            recent.pop_front();
        }
        recent.push_back(event.clone());
        // Nobody follows: nothing to do.
        let _ = self.followers.send(event);
    }

    /// The latest `limit` entries, oldest first.
    #[must_use]
    pub fn recent(&self, limit: usize) -> Vec<JournalEvent> {
        let recent = self.lock();
        let skipped = recent.len().saturating_sub(limit);
        recent.iter().skip(skipped).cloned().collect()
    }

    /// Entries from now on.
    pub fn follow(&self) -> broadcast::Receiver<JournalEvent> {
        self.followers.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, VecDeque<JournalEvent>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_followers_see_everything_from_then_on() {
        let journal = Journal::default();
        let event = |text: String| JournalEvent::new(SystemTime::UNIX_EPOCH, JournalKind::Flood, text);
        journal.record(event("before".to_owned()));
        let mut follower = journal.follow();
        for number in 0..REMEMBERED {
            journal.record(event(number.to_string()));
        }
        assert_eq!(journal.recent(usize::MAX).len(), REMEMBERED);
        assert_eq!(journal.recent(usize::MAX)[0].message, "0");
        assert_eq!(journal.recent(2)[1].message, (REMEMBERED - 1).to_string());
        assert_eq!(follower.try_recv().unwrap().message, "0");
    }

    #[test]
    fn names_are_those_of_the_json() {
        let event = JournalEvent::new(SystemTime::UNIX_EPOCH, JournalKind::WouldBan, "x");
        let json = serde_json::to_value(&event).unwrap();
        assert_eq!(json["kind"], JournalKind::WouldBan.name());
        assert_eq!(json["time"], "1970-01-01T00:00:00.000Z");
        assert_eq!(json["schema_version"], 1);
    }
}
