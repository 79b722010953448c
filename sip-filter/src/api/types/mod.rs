//! Requests and answers, the same for server, client and `-o json`.
//!
//! Answers carry `schema_version`; fields may be added without raising it, so readers skip what they don't know.
//! Requests are strict: a misspelt field must not become a ban of another length. Times are RFC 3339, and numbers of
//! seconds end in `_seconds`. Origins and rules are text here, since newer daemons have more of them.

mod bans;
mod capture;
mod daemon;
mod top;

use std::time::SystemTime;

pub use bans::*;
pub use capture::*;
pub use daemon::*;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
pub use top::*;

/// `1`: the version of the JSON schema. Reading any other is an error that says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SchemaVersion;

impl SchemaVersion {
    /// The number.
    pub const NUMBER: u64 = 1;
}

impl Serialize for SchemaVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u64(Self::NUMBER)
    }
}

impl<'de> Deserialize<'de> for SchemaVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match u64::deserialize(deserializer)? {
            Self::NUMBER => Ok(Self),
            other => Err(serde::de::Error::custom(format_args!(
                "schema version {other}, and this is sip-filter {} which knows version {}",
                env!("CARGO_PKG_VERSION"),
                Self::NUMBER
            ))),
        }
    }
}

/// Times that may be missing, as RFC 3339 or `null`.
pub(crate) mod optional_time {
    use super::{Deserialize, Deserializer, Serialize, Serializer, SystemTime};

    #[derive(Serialize, Deserialize)]
    struct Time(#[serde(with = "crate::units::rfc3339")] SystemTime);

    #[expect(clippy::ref_option, reason = "serde hands over a reference to the field")]
    pub(crate) fn serialize<S: Serializer>(
        time: &Option<SystemTime>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        time.map(Time).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<SystemTime>, D::Error> {
        Ok(Option::<Time>::deserialize(deserializer)?.map(|Time(time)| time))
    }
}

/// Whether the filter drops or only counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Drop.
    Enforce,
    /// Decide and count, drop nothing.
    Simulate,
}

impl Mode {
    /// As in JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Simulate => "simulate",
        }
    }
}

/// Seconds from `now` to `end`, rounded up: a ban that still holds never shows 0.
#[must_use]
pub fn seconds_until(end: SystemTime, now: SystemTime) -> u64 {
    end.duration_since(now)
        .map_or(0, |rest| rest.as_secs() + u64::from(rest.subsec_nanos() > 0))
}

/// The name a unit-like enum has in JSON, so that there is one spelling and one place for it.
pub(crate) fn name_of<T: Serialize>(value: &T) -> String {
    match serde_json::to_value(value) {
        Ok(serde_json::Value::String(name)) => name,
        Ok(other) => other.to_string(),
        Err(_) => String::new(),
    }
}
