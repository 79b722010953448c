//! How bans, allow-list entries and history look in the store: JSON, so that a record can be read by hand and a
//! newer version may add fields.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::{
    AllowOrigin, Allowed, Ban, Clock, Endpoint, Entry, Evidence, LoadedTrust, Origin, Past, Scope, Target,
};
use crate::detect::{Proof, Rule};

/// Identifies one run of the kernel: boot times of different runs have nothing to do with each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BootId(Arc<str>);

impl BootId {
    /// Any text.
    #[must_use]
    pub fn new(id: &str) -> Self {
        Self(id.into())
    }

    /// Of the running kernel. If it cannot be read, an id that fits no other is used, and bans go by wall clock.
    #[must_use]
    pub fn current() -> Self {
        match std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
            Ok(id) => Self::new(id.trim()),
            Err(error) => {
                tracing::warn!(%error, "cannot read the boot id: restored bans go by wall clock");
                Self::new(&format!("unknown-{:?}", SystemTime::now()))
            }
        }
    }
}

#[derive(Serialize, Deserialize)]
struct BanRecord {
    origin: Origin,
    #[serde(default)]
    rule: Option<Rule>,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    scope: Scope,
    created: Time,
    /// By wall clock: for another boot.
    expires: Option<Time>,
    /// By boot time, if it is the same boot still.
    #[serde(default)]
    deadline: Option<Deadline>,
    /// What was left when this was written. Records of versions before do not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
    #[serde(default)]
    hits: u64,
    #[serde(default)]
    last_hit: Option<Time>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    evidence: Option<Box<Evidence>>,
}

#[derive(Serialize, Deserialize)]
struct Deadline {
    boot_id: String,
    nanoseconds: u64,
}

#[derive(Serialize, Deserialize)]
struct AllowRecord {
    #[serde(default)]
    comment: String,
    created: Option<Time>,
}

#[derive(Serialize, Deserialize)]
struct TrustRecord {
    account: String,
    #[serde(flatten)]
    end: End,
    /// Versions before 0.2 did not have them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    endpoints: Vec<EndpointRecord>,
}

#[derive(Serialize, Deserialize)]
struct EndpointRecord {
    address: IpAddr,
    protocol: u8,
    port: u16,
    hops: u8,
    /// How much later or earlier than the trust it ends, in milliseconds.
    #[serde(default)]
    after_ms: i64,
}

#[derive(Serialize, Deserialize)]
struct ProofRecord {
    by: Proof,
    #[serde(flatten)]
    end: End,
}

/// When something ends.
#[derive(Serialize, Deserialize)]
struct End {
    /// By wall clock: for another boot.
    until: Time,
    /// By boot time, if it is the same boot still.
    #[serde(default)]
    deadline: Option<Deadline>,
    /// What was left when this was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    left_ms: Option<u64>,
}

impl End {
    fn new(until: Duration, clock: Clock, boot_id: &BootId) -> Self {
        Self {
            until: Time(clock.to_wall(until)),
            deadline: Deadline::new(until, boot_id),
            left_ms: Some(milliseconds(until.saturating_sub(clock.boot))),
        }
    }

    fn boot(self, clock: Clock, boot_id: &BootId) -> Duration {
        match self.deadline {
            Some(deadline) if deadline.boot_id == *boot_id.0 => Duration::from_nanos(deadline.nanoseconds),
            // A clock that is years behind must not make years of it.
            _ => clock.to_boot(self.until.0).min(latest(self.left_ms, clock)),
        }
    }
}

impl Deadline {
    /// `None` for one further ahead than 584 years of nanoseconds, which goes by wall clock.
    fn new(deadline: Duration, boot_id: &BootId) -> Option<Self> {
        Some(Self {
            boot_id: boot_id.0.to_string(),
            nanoseconds: u64::try_from(deadline.as_nanos()).ok()?,
        })
    }
}

fn milliseconds(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// The boot time at which something ends if the machine was not off at all.
fn latest(left_ms: Option<u64>, clock: Clock) -> Duration {
    let left = left_ms.map_or(Duration::MAX, Duration::from_millis);
    clock.boot.saturating_add(left)
}

#[derive(Clone, Copy, Serialize, Deserialize)]
struct Time(#[serde(with = "crate::units::rfc3339")] SystemTime);

/// Writes a record. Our own types always can be.
fn json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).unwrap_or_default()
}

/// Writes a ban.
#[must_use]
pub fn write_ban(entry: &Entry, clock: Clock, boot_id: &BootId) -> Vec<u8> {
    let ban = entry.at(clock);
    json(&BanRecord {
        origin: ban.origin,
        rule: ban.rule,
        reason: ban.reason,
        scope: ban.scope,
        created: Time(ban.created),
        expires: ban.expires.map(Time),
        deadline: entry
            .deadline
            .and_then(|deadline| Deadline::new(deadline, boot_id)),
        left_ms: entry
            .deadline
            .map(|deadline| milliseconds(deadline.saturating_sub(clock.boot))),
        hits: ban.hits,
        last_hit: ban.last_hit.map(Time),
        evidence: ban.evidence,
    })
}

/// Reads the ban of a target. One of an earlier boot has all that was left of it when it was written, and comes with its
/// end by wall clock: that clock is not to be relied upon yet.
///
/// # Errors
/// If the record is none, or holds what this version does not know.
pub fn read_ban(
    target: Target,
    bytes: &[u8],
    clock: Clock,
    boot_id: &BootId,
) -> serde_json::Result<(Entry, Option<SystemTime>)> {
    let record: BanRecord = serde_json::from_slice(bytes)?;
    let (deadline, by_wall) = match (record.deadline, record.expires) {
        (Some(deadline), _) if deadline.boot_id == *boot_id.0 => {
            (Some(Duration::from_nanos(deadline.nanoseconds)), None)
        }
        (_, Some(Time(expires))) => {
            let all = || expires.duration_since(record.created.0).unwrap_or_default();
            let left = record.left_ms.unwrap_or_else(|| milliseconds(all()));
            (Some(latest(Some(left), clock)), Some(expires))
        }
        (_, None) => (None, None),
    };
    let entry = Entry {
        ban: Ban {
            target,
            origin: record.origin,
            rule: record.rule,
            reason: record.reason,
            scope: record.scope,
            created: record.created.0,
            expires: deadline.map(|deadline| clock.to_wall(deadline)),
            hits: record.hits,
            last_hit: record.last_hit.map(|time| time.0),
            evidence: record.evidence,
        },
        deadline,
    };
    Ok((entry, by_wall))
}

/// Writes an entry of the allow-list.
#[must_use]
pub fn write_allowed(entry: &Allowed) -> Vec<u8> {
    json(&AllowRecord {
        comment: entry.comment.clone(),
        created: entry.created.map(Time),
    })
}

/// Reads an entry of the allow-list.
///
/// # Errors
/// As [`read_ban`].
pub fn read_allowed(bytes: &[u8]) -> serde_json::Result<Allowed> {
    let record: AllowRecord = serde_json::from_slice(bytes)?;
    Ok(Allowed {
        origin: AllowOrigin::Operator,
        comment: record.comment,
        created: record.created.map(|time| time.0),
    })
}

/// Writes the history of a target.
#[must_use]
pub fn write_history<'a>(past: impl Iterator<Item = &'a Past>) -> Vec<u8> {
    json(&past.collect::<Vec<_>>())
}

/// Reads the history of a target.
///
/// # Errors
/// As [`read_ban`].
pub fn read_history(bytes: &[u8]) -> serde_json::Result<Vec<Past>> {
    serde_json::from_slice(bytes)
}

/// Writes that a source is trusted until a boot time, with its endpoints and their ends.
#[must_use]
pub fn write_trust(
    account: &str,
    until: Duration,
    endpoints: impl Iterator<Item = (Endpoint, Duration)>,
    clock: Clock,
    boot_id: &BootId,
) -> Vec<u8> {
    let milliseconds = |time: Duration| i64::try_from(milliseconds(time)).unwrap_or(i64::MAX);
    let endpoints = endpoints.map(|(endpoint, end)| EndpointRecord {
        address: endpoint.address,
        protocol: endpoint.protocol,
        port: endpoint.port,
        hops: endpoint.hops,
        after_ms: milliseconds(end).saturating_sub(milliseconds(until)),
    });
    json(&TrustRecord {
        account: account.to_owned(),
        end: End::new(until, clock, boot_id),
        endpoints: endpoints.collect(),
    })
}

/// Reads that a source is trusted.
///
/// # Errors
/// As [`read_ban`].
pub fn read_trust(
    target: Target,
    bytes: &[u8],
    clock: Clock,
    boot_id: &BootId,
) -> serde_json::Result<LoadedTrust> {
    let record: TrustRecord = serde_json::from_slice(bytes)?;
    let until = record.end.boot(clock, boot_id);
    let endpoints = record.endpoints.into_iter().map(|one| {
        let shift = Duration::from_millis(one.after_ms.unsigned_abs());
        let end = if one.after_ms < 0 {
            until.saturating_sub(shift)
        } else {
            until.saturating_add(shift)
        };
        let endpoint = Endpoint {
            address: one.address,
            protocol: one.protocol,
            port: one.port,
            hops: one.hops,
        };
        (endpoint, end)
    });
    Ok(LoadedTrust {
        target,
        account: record.account,
        until,
        endpoints: endpoints.collect(),
    })
}

/// Writes that a source owns its address, which is believed until a boot time.
#[must_use]
pub fn write_proof(by: Proof, until: Duration, clock: Clock, boot_id: &BootId) -> Vec<u8> {
    json(&ProofRecord {
        by,
        end: End::new(until, clock, boot_id),
    })
}

/// Reads that a source owns its address.
///
/// # Errors
/// As [`read_ban`].
pub fn read_proof(bytes: &[u8], clock: Clock, boot_id: &BootId) -> serde_json::Result<(Proof, Duration)> {
    let record: ProofRecord = serde_json::from_slice(bytes)?;
    Ok((record.by, record.end.boot(clock, boot_id)))
}
