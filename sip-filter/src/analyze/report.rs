//! What an analysis found, and its three forms: for people, for programs, for shell pipes.

use std::{collections::BTreeMap, fmt::Write as _, time::SystemTime};

use serde::Serialize;
use serde_json::{Map, Value, json};
use sip_filter_common::sip::Class;

use super::CaptureError;
use crate::{
    bans::{Evidence, Target},
    detect::{Alarm, Decision, Rule},
    layout::{table, wrapped},
    units,
};

/// Version of the JSON form.
pub const SCHEMA_VERSION: u32 = 1;

/// What an analysis found.
#[derive(Debug, Default)]
pub struct Report {
    /// Packets in the capture.
    pub packets: u64,
    /// Time of the first packet that was looked at.
    pub first_seen: Option<SystemTime>,
    /// Time of the last one.
    pub last_seen: Option<SystemTime>,
    /// Verdicts: packets by reason.
    pub reasons: BTreeMap<&'static str, u64>,
    /// Sources that sent anything to a protected port or were banned: those that were acted upon first.
    pub sources: Vec<SourceReport>,
    /// Packets of sources beyond the number that is listed.
    pub unlisted_packets: u64,
    /// Packets the capture has not whole. They may be judged wrongly.
    pub cut_packets: u64,
    /// Alarms: what somebody should know, although nobody is banned for it.
    pub alarms: Vec<AlarmReport>,
    /// Packets that the capturing host sent, which are not judged.
    pub skipped_outgoing: u64,
    /// Packets from an address that was named as one's own, which are not judged.
    pub skipped_own: u64,
    /// Packets skipped because their link layer is not known.
    pub skipped_link: u64,
    /// Bans that could not be made, and the like.
    pub notes: Vec<String>,
    /// Where the capture broke, if it did.
    pub error: Option<CaptureError>,
}

/// What one source did and what became of it.
#[derive(Clone, Debug)]
pub struct SourceReport {
    /// The source: an IPv4 address or an IPv6 network.
    pub source: Target,
    /// Packets to protected ports, and packets stopped by a ban.
    pub packets: u64,
    /// Packets by class, in the order of [`Class::ALL`], without those stopped by a ban.
    pub classes: [u64; Class::COUNT],
    /// Packets dropped by a limit.
    pub throttled: u64,
    /// Packets dropped by a ban.
    pub dropped_by_ban: u64,
    /// First packet.
    pub first_seen: Option<SystemTime>,
    /// Last packet.
    pub last_seen: Option<SystemTime>,
    /// Decisions of the rules.
    pub bans: Vec<BanReport>,
}

/// One decision of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct BanReport {
    /// When.
    #[serde(with = "units::rfc3339")]
    pub time: SystemTime,
    /// Which rule.
    pub rule: Rule,
    /// The rule only rehearses; nothing was stopped.
    pub shadow: bool,
    /// For how long.
    pub ban_for_seconds: u64,
    /// Earlier offences.
    pub earlier_offences: u32,
    /// What the rule saw.
    pub evidence: Evidence,
}

/// One alarm of a rule.
#[derive(Clone, Debug, Serialize)]
pub struct AlarmReport {
    /// When.
    #[serde(with = "units::rfc3339")]
    pub time: SystemTime,
    /// Which rule.
    pub rule: Rule,
    /// Whom it concerns, if it is a source.
    pub source: Option<Target>,
    /// Which account it concerns.
    pub account: Option<String>,
    /// The rule only rehearses.
    pub shadow: bool,
    /// One line for people.
    pub message: String,
    /// What the rule saw.
    pub evidence: Evidence,
}

impl AlarmReport {
    pub(super) fn new(time: SystemTime, alarm: Alarm) -> Self {
        Self {
            time,
            rule: alarm.rule,
            source: alarm.target,
            account: alarm.account,
            shadow: alarm.shadow,
            message: alarm.message,
            evidence: alarm.evidence,
        }
    }
}

impl BanReport {
    pub(super) fn new(time: SystemTime, decision: &Decision) -> Self {
        Self {
            time,
            rule: decision.rule,
            shadow: decision.shadow,
            ban_for_seconds: decision.ban_for.as_secs(),
            earlier_offences: decision.earlier_offences,
            evidence: decision.evidence.clone(),
        }
    }
}

impl SourceReport {
    pub(super) const fn new(source: Target) -> Self {
        Self {
            source,
            packets: 0,
            classes: [0; Class::COUNT],
            throttled: 0,
            dropped_by_ban: 0,
            first_seen: None,
            last_seen: None,
            bans: Vec::new(),
        }
    }

    fn classes(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Class::ALL.into_iter().map(Class::name).zip(self.classes)
    }

    fn json(&self) -> Value {
        let classes: Map<String, Value> = self
            .classes()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| (name.to_owned(), count.into()))
            .collect();
        json!({
            "source": self.source,
            "packets": self.packets,
            "classes": classes,
            "throttled": self.throttled,
            "dropped_by_ban": self.dropped_by_ban,
            "would_be_dropped": self.throttled + self.dropped_by_ban,
            "first_seen": self.first_seen.map(rfc3339),
            "last_seen": self.last_seen.map(rfc3339),
            "bans": self.bans,
        })
    }
}

impl Report {
    /// Packets that would be dropped.
    #[must_use]
    pub fn would_be_dropped(&self) -> u64 {
        let dropped = |(reason, count): (&&str, &u64)| reason.starts_with("drop-").then_some(*count);
        self.reasons.iter().filter_map(dropped).sum()
    }

    /// As JSON, all sources.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "schema_version": SCHEMA_VERSION,
            "packets": self.packets,
            "first_seen": self.first_seen.map(rfc3339),
            "last_seen": self.last_seen.map(rfc3339),
            "would_be_dropped": self.would_be_dropped(),
            "reasons": self.reasons,
            "sources": self.sources.iter().map(SourceReport::json).collect::<Vec<_>>(),
            "alarms": self.alarms,
            "unlisted_packets": self.unlisted_packets,
            "cut_packets": self.cut_packets,
            "skipped": {
                "outgoing": self.skipped_outgoing,
                "own": self.skipped_own,
                "link": self.skipped_link,
            },
            "notes": self.notes,
            "error": self.error.as_ref().map(ToString::to_string),
        })
    }

    /// Tab-separated, one line a source: source, packets, packets of each class in the order of their numbers,
    /// throttled, dropped by ban, first and last seen, enforced bans, time and rule of the first of them.
    #[must_use]
    pub fn raw(&self) -> String {
        let mut text = String::new();
        for source in &self.sources {
            let enforced = || source.bans.iter().filter(|ban| !ban.shadow);
            let mut fields = vec![source.source.to_string(), source.packets.to_string()];
            fields.extend(source.classes.iter().map(ToString::to_string));
            fields.extend([
                source.throttled.to_string(),
                source.dropped_by_ban.to_string(),
                source.first_seen.map(rfc3339).unwrap_or_default(),
                source.last_seen.map(rfc3339).unwrap_or_default(),
                enforced().count().to_string(),
                enforced().next().map(|ban| rfc3339(ban.time)).unwrap_or_default(),
                enforced()
                    .next()
                    .map(|ban| ban.rule.to_string())
                    .unwrap_or_default(),
            ]);
            text.push_str(&fields.join("\t"));
            text.push('\n');
        }
        text
    }

    /// For people: totals, and the first `limit` sources. The error is not in it; it belongs on stderr.
    #[must_use]
    pub fn human(&self, limit: usize, width: Option<u16>) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _ = self.write_human(&mut text, limit, width);
        wrapped(&text, width)
    }

    fn write_human(&self, text: &mut String, limit: usize, width: Option<u16>) -> std::fmt::Result {
        let Self { packets, sources, .. } = self;
        let plural = if *packets == 1 { "" } else { "s" };
        write!(text, "{packets} packet{plural}")?;
        if let (Some(first), Some(last)) = (self.first_seen, self.last_seen) {
            write!(text, " from {} to {}", rfc3339(first), rfc3339(last))?;
        }
        let banned = sources
            .iter()
            .filter(|source| source.bans.iter().any(|ban| !ban.shadow))
            .count();
        writeln!(
            text,
            "\n{} would be dropped; {} of {} sources would be banned",
            self.would_be_dropped(),
            banned,
            sources.len()
        )?;
        for (count, what) in [
            (self.skipped_outgoing, "not judged: sent by the capturing host"),
            (self.skipped_own, "not judged: from addresses named as one's own"),
            (self.skipped_link, "skipped: link layer not supported"),
            (
                self.cut_packets,
                "captured only in part (use `tcpdump -s 0`); they may be judged wrongly",
            ),
            (self.unlisted_packets, "from sources beyond those listed"),
        ] {
            if count > 0 {
                writeln!(text, "{count} packets {what}")?;
            }
        }
        for alarm in &self.alarms {
            writeln!(
                text,
                "alarm at {} by {}: {}",
                rfc3339(alarm.time),
                alarm.rule,
                alarm.message
            )?;
        }
        for note in &self.notes {
            writeln!(text, "note: {note}")?;
        }
        if !sources.is_empty() {
            write!(text, "\n{}", source_table(sources.iter().take(limit), width))?;
        }
        if sources.len() > limit {
            writeln!(text, "… and {} more sources", sources.len() - limit)?;
        }
        for source in sources.iter().take(limit) {
            write_bans(text, source)?;
        }
        Ok(())
    }
}

fn source_table<'a>(sources: impl Iterator<Item = &'a SourceReport>, width: Option<u16>) -> String {
    let row = |source: &SourceReport| {
        let classes: Vec<String> = source
            .classes()
            .filter(|(_, count)| *count > 0)
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let first = source.bans.iter().find(|ban| !ban.shadow).or(source.bans.first());
        vec![
            source.source.to_string(),
            source.packets.to_string(),
            source.throttled.to_string(),
            (source.throttled + source.dropped_by_ban).to_string(),
            match first {
                None => "-".to_owned(),
                Some(ban) if ban.shadow => "(shadow)".to_owned(),
                Some(ban) => rfc3339(ban.time),
            },
            first.map_or_else(|| "-".to_owned(), |ban| ban.rule.to_string()),
            classes.join(", "),
        ]
    };
    table(
        &[
            "SOURCE",
            "PACKETS",
            "THROTTLED",
            "DROPPED",
            "BANNED",
            "RULE",
            "CLASSES",
        ],
        &sources.map(row).collect::<Vec<_>>(),
        width,
    )
}

fn write_bans(text: &mut String, source: &SourceReport) -> std::fmt::Result {
    for ban in &source.bans {
        let evidence = &ban.evidence;
        writeln!(
            text,
            "\n{} {} at {} by {} for {}: {} packets within {} s (threshold {})",
            source.source,
            if ban.shadow {
                "would be banned (shadow)"
            } else {
                "banned"
            },
            rfc3339(ban.time),
            ban.rule,
            units::format_duration(std::time::Duration::from_secs(ban.ban_for_seconds)),
            evidence.count,
            evidence.window_seconds,
            evidence.threshold,
        )?;
        for sample in &evidence.sample {
            writeln!(text, "    {sample}")?;
        }
    }
    Ok(())
}

fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_millis(units::within_rfc3339(time)).to_string()
}
