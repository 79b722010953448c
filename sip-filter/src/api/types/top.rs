//! What is going on: sources by rate, the newest bans, the traffic of the last minutes.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{BanEntry, SchemaVersion, optional_time};
use crate::bans::Target;

/// A source that sends, or a ban that has stopped something.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TopSource {
    /// Who: an address, an IPv6 prefix, or a banned network.
    pub target: Target,
    /// Packets a second over the last seconds: requests, payload that is not SIP, what was over a limit and what a
    /// ban has stopped. Responses and keep-alives within their limits and allow-listed traffic are not counted.
    #[serde(default)]
    pub packets_per_second: f64,
    /// Of these, what was over a limit or stopped by a ban; in simulate mode, what would have been.
    #[serde(default)]
    pub dropped_per_second: f64,
    /// The class it sends most of; `null` for what a ban stops.
    #[serde(default)]
    pub class: Option<String>,
    /// Packets the ban has dropped.
    pub hits: u64,
    /// When the last one was dropped.
    #[serde(with = "optional_time", default)]
    pub last_hit: Option<SystemTime>,
    /// Whether a ban takes effect on it.
    pub banned: bool,
    /// The ban it lies in, if that is not its own.
    #[serde(default)]
    pub banned_by: Option<Target>,
    /// When the ban ends, from the time of the answer; `null` if it is permanent, or if there is none.
    #[serde(default)]
    pub expires_in_seconds: Option<u64>,
    /// Whether the allow-list exempts it.
    #[serde(default)]
    pub allowed: bool,
    /// Whether a registration of it is in force.
    #[serde(default)]
    pub trusted: bool,
    /// Whether it has shown that its address is its own.
    #[serde(default)]
    pub proven: bool,
    /// The detection rule, if one decided.
    pub rule: Option<String>,
    /// Why it is banned, for people.
    pub reason: String,
}

impl TopSource {
    /// What happens to its packets: `allowed`, `banned`, `limited` or `passes`.
    #[must_use]
    pub fn state(&self) -> &'static str {
        if self.allowed {
            "allowed"
        } else if self.banned {
            "banned"
        } else if self.dropped_per_second > 0.0 {
            "limited"
        } else {
            "passes"
        }
    }

    /// What is known in its favour: `trusted`, `proven` or nothing.
    #[must_use]
    pub fn standing(&self) -> &'static str {
        if self.trusted {
            "trusted"
        } else if self.proven {
            "proven"
        } else {
            ""
        }
    }
}

/// Packets of each of the last seconds, oldest first, by name. What was zero all the time is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// By class, those stopped by bans not counted.
    pub classes: BTreeMap<String, Vec<u32>>,
    /// By reason, enforced.
    pub counters: BTreeMap<String, Vec<u32>>,
    /// By reason, let pass in simulate mode.
    pub would_drop: BTreeMap<String, Vec<u32>>,
}

/// `GET /v1/top`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TopQuery {
    /// At most so many sources and bans.
    pub limit: usize,
    /// Seconds of traffic.
    pub seconds: usize,
}

impl Default for TopQuery {
    fn default() -> Self {
        Self {
            limit: 10,
            seconds: 0,
        }
    }
}

/// Answer to `GET /v1/top`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Top {
    /// 1.
    pub schema_version: SchemaVersion,
    /// By packets per second, then by hits, most first.
    pub sources: Vec<TopSource>,
    /// The newest bans, newest first, without evidence.
    #[serde(default)]
    pub newest_bans: Vec<BanEntry>,
    /// The traffic of as many seconds as were asked for.
    #[serde(default)]
    pub traffic: Traffic,
}

/// Answer to `GET /v1/access`, for a client that may change things; others get an error that says who may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// 1.
    pub schema_version: SchemaVersion,
    /// Whether the client may change things: `true`.
    pub may_change: bool,
}
