//! Bans, the allow-list, imports.

use std::{net::IpAddr, time::SystemTime};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use super::{Mode, SchemaVersion, name_of, optional_time, seconds_until};
use crate::{
    api::Lifetime,
    bans::{Ban, Evidence, Scope, Target},
};

/// One ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanEntry {
    /// Who.
    pub target: Target,
    /// Who banned: `manual`, `import`, `detector`, …
    pub origin: String,
    /// The detection rule, if one decided.
    pub rule: Option<String>,
    /// Why, for people.
    pub reason: String,
    /// What is stopped.
    pub scope: Scope,
    /// When it was made.
    #[serde(with = "crate::units::rfc3339")]
    pub created: SystemTime,
    /// When it ends; `null` is permanent.
    #[serde(with = "optional_time", default)]
    pub expires: Option<SystemTime>,
    /// The same from the time of the answer, rounded up.
    pub expires_in_seconds: Option<u64>,
    /// Packets dropped by it.
    pub hits: u64,
    /// When the last one was dropped.
    #[serde(with = "optional_time", default)]
    pub last_hit: Option<SystemTime>,
    /// What the rule saw.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
}

impl BanEntry {
    /// From the ban list's entry, as of `now`.
    #[must_use]
    pub fn new(ban: &Ban, now: SystemTime) -> Self {
        Self {
            target: ban.target,
            origin: name_of(&ban.origin),
            rule: ban.rule.map(|rule| rule.name().to_owned()),
            reason: ban.reason.clone(),
            scope: ban.scope,
            created: ban.created,
            expires: ban.expires,
            expires_in_seconds: ban.expires.map(|end| seconds_until(end, now)),
            hits: ban.hits,
            last_hit: ban.last_hit,
            evidence: ban.evidence.as_deref().cloned(),
        }
    }
}

/// Which bans to list.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct BanFilter {
    /// Only those of this origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// Only those within this network.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub contained: Option<IpNet>,
    /// At most so many.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
}

/// Answer to `GET /v1/bans`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanList {
    /// 1.
    pub schema_version: SchemaVersion,
    /// The bans, by target.
    pub bans: Vec<BanEntry>,
}

/// A ban that has ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastBan {
    /// Who.
    pub target: Target,
    /// Who banned.
    pub origin: String,
    /// The detection rule, if one decided.
    pub rule: Option<String>,
    /// Why.
    pub reason: String,
    /// When it was made.
    #[serde(with = "crate::units::rfc3339")]
    pub created: SystemTime,
    /// When it ended.
    #[serde(with = "crate::units::rfc3339")]
    pub ended: SystemTime,
    /// How: `expired`, `unbanned`, `replaced`, …
    pub ended_by: String,
}

/// A registration in force: its source has raised limits, and is not banned by volume alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trust {
    /// The account that registered last.
    pub account: String,
    /// When it ends.
    #[serde(with = "crate::units::rfc3339")]
    pub until: SystemTime,
    /// The same from the time of the answer, rounded up.
    pub until_in_seconds: u64,
    /// From where it registered. Only what comes from there has the raised limits.
    #[serde(default)]
    pub endpoints: Vec<TrustedEndpoint>,
}

/// From where a trusted source registered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrustedEndpoint {
    /// Address.
    pub address: IpAddr,
    /// IP protocol number, 17 or 6.
    pub protocol: u8,
    /// Source port.
    pub port: u16,
    /// IPv4 time to live or IPv6 hop limit on arrival.
    pub hop_limit: u8,
}

/// How a source has shown that it receives what is sent to its address: it may be banned for longer than moments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proven {
    /// `nonce`, `registration` or `tcp`.
    pub by: String,
    /// Until when it is believed.
    #[serde(with = "crate::units::rfc3339")]
    pub until: SystemTime,
    /// The same from the time of the answer, rounded up.
    pub until_in_seconds: u64,
}

/// What a rule counts of a source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RuleCount {
    /// The rule.
    pub rule: String,
    /// What it has counted within its window, as of the source's last packet.
    pub count: u64,
    /// What would decide.
    pub threshold: u64,
    /// Its window.
    pub window_seconds: u64,
}

/// Answer to `GET /v1/bans/check?ip=`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// 1.
    pub schema_version: SchemaVersion,
    /// The address asked for.
    pub address: IpAddr,
    /// Whether a ban takes effect on it: there is one, and the allow-list does not exempt it.
    pub banned: bool,
    /// Bans it lies in, the most specific first, with evidence.
    pub bans: Vec<BanEntry>,
    /// The allow-list entry that exempts it.
    pub allowed_by: Option<Target>,
    /// The registration that makes its source trusted.
    #[serde(default)]
    pub trust: Option<Trust>,
    /// How its source is proven.
    #[serde(default)]
    pub proof: Option<Proven>,
    /// What the rules count of its source, where that is not zero.
    #[serde(default)]
    pub counters: Vec<RuleCount>,
    /// Earlier bans, newest first.
    pub history: Vec<PastBan>,
}

/// `POST /v1/bans`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BanRequest {
    /// Whom.
    pub targets: Vec<Target>,
    /// How long; the configured time if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Lifetime>,
    /// Why, for people.
    #[serde(default)]
    pub reason: String,
    /// What to stop.
    #[serde(default)]
    pub scope: Scope,
    /// Ban a wide prefix all the same. Never overrides the allow-list.
    #[serde(default)]
    pub force: bool,
}

/// What became of one target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum BanOutcome {
    /// It was not banned before.
    Banned,
    /// It was, and its end, reason or scope changed.
    Replaced,
    /// It was, just so.
    Unchanged,
}

/// Result for one target of a ban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanResult {
    /// Who.
    pub target: Target,
    /// What became of it.
    pub outcome: BanOutcome,
    /// What is stopped.
    pub scope: Scope,
    /// When it ends.
    #[serde(with = "optional_time", default)]
    pub expires: Option<SystemTime>,
    /// The same from the time of the answer.
    pub expires_in_seconds: Option<u64>,
    /// The ban that was changed or replaced, as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<BanBefore>,
}

/// A ban that another took the place of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BanBefore {
    /// Who had banned.
    pub origin: String,
    /// What was stopped.
    pub scope: Scope,
    /// When it would have ended; `null` is permanent.
    #[serde(with = "optional_time", default)]
    pub expires: Option<SystemTime>,
    /// The same from the time of the answer.
    pub expires_in_seconds: Option<u64>,
}

/// Results per target, with the mode, since in simulate mode no ban takes effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targeted<T> {
    /// 1.
    pub schema_version: SchemaVersion,
    /// Whether the filter drops.
    pub mode: Mode,
    /// In the order of the request.
    pub results: Vec<T>,
    /// Why it is not saved and would not survive a restart. What lets packets pass holds all the same, and saving is
    /// tried again; anything else would have been refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_saved: Option<String>,
}

/// What became of each target of a change, and whether it is saved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcomes<T> {
    /// In the order of the request.
    pub results: Vec<T>,
    /// See [`Targeted::not_saved`].
    pub not_saved: Option<String>,
}

impl<T> From<Vec<T>> for Outcomes<T> {
    fn from(results: Vec<T>) -> Self {
        Self {
            results,
            not_saved: None,
        }
    }
}

/// `POST /v1/bans/remove`: exactly one of the three.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Unban {
    /// These.
    Targets(Vec<Target>),
    /// All of this origin.
    Origin(String),
    /// All, if true.
    All(bool),
}

/// Result for one target of an unban.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnbanResult {
    /// Who.
    pub target: Target,
    /// Whether there was a ban to lift.
    pub removed: bool,
    /// A wider ban in which the target still lies.
    pub still_banned_by: Option<Target>,
}

/// One entry of an import.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportEntry {
    /// Who.
    pub target: Target,
    /// How long; the configured time if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Lifetime>,
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// What to stop.
    #[serde(default)]
    pub scope: Scope,
    /// Who banned; `import` if missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The detection rule.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// When the ban was made; now if missing.
    #[serde(with = "optional_time", default, skip_serializing_if = "Option::is_none")]
    pub created: Option<SystemTime>,
}

/// `POST /v1/bans/import`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImportRequest {
    /// What to ban.
    pub entries: Vec<ImportEntry>,
    /// Report what would be done, including what would be refused, and change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Leave out what is refused instead of refusing all.
    #[serde(default)]
    pub skip_invalid: bool,
    /// Ban wide prefixes all the same.
    #[serde(default)]
    pub force: bool,
}

/// An entry an import left out, or would leave out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skipped {
    /// Position in the request, from 0.
    pub index: usize,
    /// Who.
    pub target: Target,
    /// Why it was left out.
    pub message: String,
}

/// What an import did, or with `dry_run` would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImportReport {
    /// 1.
    pub schema_version: SchemaVersion,
    /// New bans.
    pub added: u64,
    /// Bans that existed and changed.
    pub replaced: u64,
    /// Bans that existed just so.
    pub unchanged: u64,
    /// Entries left out.
    pub skipped: Vec<Skipped>,
}

/// One entry of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowEntry {
    /// Who.
    pub target: Target,
    /// Where it is from: `config`, `operator`, …
    pub origin: String,
    /// Why, for people.
    pub comment: String,
    /// When it was added; `null` if it is from the configuration.
    #[serde(with = "optional_time", default)]
    pub created: Option<SystemTime>,
}

/// Answer to `GET /v1/allow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowList {
    /// 1.
    pub schema_version: SchemaVersion,
    /// The entries, by target.
    pub allow: Vec<AllowEntry>,
}

/// `POST /v1/allow`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowAdd {
    /// Whom never to drop.
    pub targets: Vec<Target>,
    /// Why, for people.
    #[serde(default)]
    pub comment: String,
}

/// `POST /v1/allow/remove`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRemove {
    /// Whom to take from the list.
    pub targets: Vec<Target>,
}

/// Result for one target of a change of the allow-list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllowResult {
    /// Who.
    pub target: Target,
    /// Whether the list changed.
    pub changed: bool,
}
