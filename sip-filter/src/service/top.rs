//! The answer to `GET /v1/top`.

use std::{collections::BTreeMap, time::SystemTime};

use crate::{
    api::types::{BanEntry, SchemaVersion, Top, TopSource, Traffic, seconds_until},
    daemon::{Busy, Overview},
};

pub(super) fn overview(overview: Overview) -> Top {
    let now = SystemTime::now();
    let newest = overview.newest.iter().map(|ban| BanEntry {
        evidence: None,
        ..BanEntry::new(ban, now)
    });
    Top {
        schema_version: SchemaVersion,
        newest_bans: newest.collect(),
        sources: overview.busy.into_iter().map(|busy| source(busy, now)).collect(),
        traffic: Traffic {
            classes: by_name(overview.series.classes),
            counters: by_name(overview.series.counters),
            would_drop: by_name(overview.series.would_drop),
        },
    }
}

fn by_name(series: BTreeMap<&'static str, Vec<u32>>) -> BTreeMap<String, Vec<u32>> {
    let named = series.into_iter();
    named.map(|(name, series)| (name.to_owned(), series)).collect()
}

fn source(busy: Busy, now: SystemTime) -> TopSource {
    let ban = busy.ban.as_ref();
    TopSource {
        target: busy.target,
        packets_per_second: busy.packets,
        dropped_per_second: busy.dropped,
        class: busy.class.map(|class| class.name().to_owned()),
        hits: ban.map_or(0, |ban| ban.hits),
        last_hit: ban.and_then(|ban| ban.last_hit),
        banned: ban.is_some() && !busy.allowed,
        banned_by: ban.map(|ban| ban.target).filter(|by| *by != busy.target),
        expires_in_seconds: ban.and_then(|ban| ban.expires).map(|end| seconds_until(end, now)),
        allowed: busy.allowed,
        trusted: busy.trusted,
        proven: busy.proven,
        rule: ban.and_then(|ban| ban.rule).map(|rule| rule.name().to_owned()),
        reason: ban.map(|ban| ban.reason.clone()).unwrap_or_default(),
    }
}
