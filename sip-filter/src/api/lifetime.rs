//! How long a ban is to last.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::units;

/// How long a ban is to last. In JSON a number of seconds, a duration such as `"1h30m"`, an RFC 3339 time, or
/// `"permanent"`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifetime {
    /// So long from when the daemon takes the request.
    For(Duration),
    /// Until this time: an export brought back keeps its ends.
    Until(SystemTime),
    /// Until somebody lifts it.
    Permanent,
}

impl Lifetime {
    /// The end of a ban made at `now`; `None` is permanent.
    #[must_use]
    pub fn expires(self, now: SystemTime) -> Option<SystemTime> {
        match self {
            // Whatever cannot be represented as a time never comes.
            Self::For(duration) => now.checked_add(duration),
            Self::Until(time) => Some(time),
            Self::Permanent => None,
        }
    }

    /// From what [`units::parse_duration`] returns.
    #[must_use]
    pub fn from_duration(duration: Option<Duration>) -> Self {
        duration.map_or(Self::Permanent, Self::For)
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::For(duration) => write!(f, "for {}", units::format_duration(*duration)),
            Self::Until(time) => write!(f, "until {}", humantime::format_rfc3339_seconds(*time)),
            Self::Permanent => f.write_str("permanently"),
        }
    }
}

impl Serialize for Lifetime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::For(duration) if duration.subsec_nanos() == 0 => {
                serializer.serialize_u64(duration.as_secs())
            }
            Self::For(duration) => serializer.serialize_str(&units::format_duration(*duration)),
            Self::Until(time) => serializer.collect_str(&humantime::format_rfc3339_millis(*time)),
            Self::Permanent => serializer.serialize_str("permanent"),
        }
    }
}

impl<'de> Deserialize<'de> for Lifetime {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;

        impl serde::de::Visitor<'_> for Visitor {
            type Value = Lifetime;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("seconds, a duration such as \"1h30m\", an RFC 3339 time, or \"permanent\"")
            }

            fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Lifetime, E> {
                self.visit_str(&seconds.to_string())
            }

            fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Lifetime, E> {
                self.visit_str(&seconds.to_string())
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Lifetime, E> {
                if let Ok(time) = humantime::parse_rfc3339(text) {
                    return Ok(Lifetime::Until(time));
                }
                units::parse_duration(text)
                    .map(Lifetime::from_duration)
                    .map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_notation_is_read_and_written() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        for (json, lifetime, written) in [
            ("3600", Lifetime::For(Duration::from_secs(3600)), "3600"),
            ("\"1h30m\"", Lifetime::For(Duration::from_secs(5400)), "5400"),
            ("\"permanent\"", Lifetime::Permanent, "\"permanent\""),
            (
                "\"2001-09-09T01:46:40Z\"",
                Lifetime::Until(time),
                "\"2001-09-09T01:46:40.000Z\"",
            ),
        ] {
            let read: Lifetime = serde_json::from_str(json).unwrap();
            assert_eq!(read, lifetime, "{json}");
            assert_eq!(serde_json::to_string(&read).unwrap(), written);
        }
        for bad in ["\"soon\"", "-5", "1.5", "{}", "null"] {
            assert!(serde_json::from_str::<Lifetime>(bad).is_err(), "{bad}");
        }
    }
}
