//! The daemon itself: state, events, configuration, health.

use std::{collections::BTreeMap, time::SystemTime};

use serde::{Deserialize, Serialize};

use super::{Mode, SchemaVersion};
use crate::{
    bans::{Evidence, Target},
    conditions::Condition,
    dataplane::XdpMode,
};

/// An interface the filter is to sit on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// How the program is attached; `null` if it is not.
    pub xdp_mode: Option<XdpMode>,
    /// Whether it is attached.
    pub attached: bool,
    /// Why it is not, such as that it waits for the interface to come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// How responses on their way out are seen, `tcx` or `clsact`; `null` if they are not.
    #[serde(default)]
    pub egress: Option<String>,
    /// Why responses are not seen: detection works on requests alone here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress_problem: Option<String>,
}

/// Packets decided on but not reported one by one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventCounts {
    /// Events that found the ring buffer full.
    pub lost: u64,
    /// Events held back by the global cap.
    pub suppressed: u64,
}

/// How full a table is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Table {
    /// Its name for people.
    pub name: String,
    /// Entries in use.
    pub entries: u64,
    /// Entries it can hold.
    pub capacity: u64,
}

/// What the daemon may do beyond what its user may.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rights {
    /// The user it runs as.
    pub user: String,
    /// Names of its capabilities, such as `CAP_BPF`.
    pub capabilities: Vec<String>,
    /// Whether no program it starts can have more.
    pub no_new_privileges: bool,
}

/// Answer to `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// 1.
    pub schema_version: SchemaVersion,
    /// Version of the daemon.
    pub version: String,
    /// Version of the kernel interface.
    pub abi_version: u32,
    /// Whether it drops.
    pub mode: Mode,
    /// Since the daemon started.
    pub uptime_seconds: u64,
    /// Where it sits.
    pub interfaces: Vec<Interface>,
    /// What it may do; absent if the kernel does not tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rights: Option<Rights>,
    /// Number of bans.
    pub bans: u64,
    /// Number of allow-list entries.
    pub allowed: u64,
    /// Sources with a registration in force.
    #[serde(default)]
    pub trusted: u64,
    /// Endpoints from which they registered.
    #[serde(default)]
    pub endpoints: u64,
    /// Sources that have proven to own their address.
    #[serde(default)]
    pub proven: u64,
    /// Packets by reason, enforced.
    pub counters: BTreeMap<String, u64>,
    /// Packets that simulate mode let pass, by the reason for which they would have been dropped.
    pub would_drop: BTreeMap<String, u64>,
    /// Bans that were decided and not enforced, by rule: those of shadow rules, and all in simulate mode.
    #[serde(default)]
    pub would_ban: BTreeMap<String, u64>,
    /// Packets to protected ports by class, those stopped by bans not counted.
    pub classes: BTreeMap<String, u64>,
    /// Losses of the event path.
    pub events: EventCounts,
    /// How full the tables are.
    pub tables: Vec<Table>,
}

/// Something that happened: one line of `GET /v1/events`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// 1.
    pub schema_version: SchemaVersion,
    /// When.
    #[serde(with = "crate::units::rfc3339")]
    pub time: SystemTime,
    /// What: `ban`, `unban`, `expire`, `throttle`, `alarm`, `mode`, `reload`, `missed`, …
    pub kind: String,
    /// Whom it concerns.
    pub target: Option<Target>,
    /// Who did it.
    pub origin: Option<String>,
    /// The detection rule.
    pub rule: Option<String>,
    /// The account, if the event concerns one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// One sentence for people.
    pub message: String,
    /// A decision that was reported and not enforced: shadow rule or simulate mode.
    pub shadow: bool,
    /// What the rule saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

impl Event {
    /// An event of this kind, other fields empty.
    #[must_use]
    pub fn new(time: SystemTime, kind: &str, message: impl Into<String>) -> Self {
        Self {
            schema_version: SchemaVersion,
            time,
            kind: kind.to_owned(),
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

/// `POST /v1/mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModeRequest {
    /// The mode to be in.
    pub mode: Mode,
}

/// Answer to `POST /v1/mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModeChange {
    /// 1.
    pub schema_version: SchemaVersion,
    /// The mode now.
    pub mode: Mode,
    /// The mode before.
    pub previous: Mode,
}

/// Answer to `GET /v1/config`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigText {
    /// 1.
    pub schema_version: SchemaVersion,
    /// The file it was read from; `null` if all values are defaults.
    pub path: Option<String>,
    /// The configuration in force, defaults included, as TOML.
    pub toml: String,
}

/// Answer to `POST /v1/config/reload`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// 1.
    pub schema_version: SchemaVersion,
    /// Keys whose new value is in force.
    pub changed: Vec<String>,
    /// Keys whose new value takes effect at the next start only.
    pub needs_restart: Vec<String>,
}

/// One thing that must hold for the filter to work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthCheck {
    /// Short, stable name.
    pub name: String,
    /// Whether it holds.
    pub ok: bool,
    /// What was found.
    pub message: String,
}

/// Answer to `GET /v1/health`; HTTP status 503 if not healthy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// 1.
    pub schema_version: SchemaVersion,
    /// Whether all checks hold.
    pub healthy: bool,
    /// The checks.
    pub checks: Vec<HealthCheck>,
    /// Everything that is wrong, also what is no fault of the filter, such as an attack.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}
