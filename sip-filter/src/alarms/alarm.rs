//! What a receiver is told.

use std::time::SystemTime;

use serde::Serialize;

use crate::{
    api::types::{Mode, optional_time},
    conditions::{Condition, Kind, Severity},
};

/// Version of the JSON form.
const SCHEMA_VERSION: u32 = 1;

/// Whether it still holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It holds.
    Firing,
    /// It is over.
    Resolved,
}

impl Status {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Resolved => "resolved",
        }
    }
}

/// A condition that lasted long enough to tell people, or that is over. The JSON form is what the hook gets.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Alarm {
    /// Version of this form.
    pub schema_version: u32,
    /// Whether it still holds.
    pub status: Status,
    /// What is wrong.
    pub name: Kind,
    /// What it concerns, such as an interface; empty for the daemon as a whole.
    pub subject: String,
    /// How bad it is.
    pub severity: Severity,
    /// The host whose filter it is.
    pub host: String,
    /// Whether that filter enforces.
    pub mode: Mode,
    /// Since when.
    #[serde(with = "crate::units::rfc3339")]
    pub starts_at: SystemTime,
    /// Until when, if it is over.
    #[serde(serialize_with = "optional_time::serialize")]
    pub ends_at: Option<SystemTime>,
    /// What was found, one sentence.
    pub summary: String,
    /// What to do about it, with the command that explains or undoes.
    pub remedy: String,
}

/// What makes two alarms the same one.
pub(super) type Key = (Kind, String);

impl Alarm {
    pub(super) fn new(condition: Condition, ended: Option<SystemTime>, host: &str, mode: Mode) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            status: if ended.is_some() {
                Status::Resolved
            } else {
                Status::Firing
            },
            name: condition.name,
            subject: condition.subject,
            severity: condition.severity,
            host: host.to_owned(),
            mode,
            starts_at: condition.since,
            ends_at: ended,
            summary: condition.text,
            remedy: condition.remedy,
        }
    }

    pub(super) fn key(&self) -> Key {
        (self.name, self.subject.clone())
    }
}
