//! The text as Prometheus reads it. A change here is a change of the interface.

use sip_filter_common::abi;

use super::*;
use crate::{
    alarms::Delivered,
    conditions::Kind,
    detect::EngineStats,
    metrics::{Bans, BansAdded, ConditionCount, TableUse},
};

fn counters() -> Counters {
    Counters {
        by_reason: [0; abi::COUNTER_WORDS],
        by_class: [0; Class::COUNT],
        events_lost: 0,
        events_suppressed: 0,
    }
}

/// A snapshot in which every number is different.
pub(in crate::metrics) fn snapshot() -> Snapshot {
    let mut counters = counters();
    for (number, reason) in Reason::ALL.iter().enumerate() {
        for family in [Family::V4, Family::V6] {
            if makes_sense(*reason, family) {
                let index = counter_index(*reason as u8, family, family == Family::V6);
                counters.by_reason[index] = (number * 10 + family as usize) as u64;
                counters.by_reason[index + 1] = (number * 1_000 + family as usize) as u64;
            }
        }
    }
    let not_ip = counter_index(Reason::PassNotIp as u8, Family::Other, false);
    counters.by_reason[not_ip] = 7;
    counters.by_reason[not_ip + 1] = 420;
    for (number, count) in counters.by_class.iter_mut().enumerate() {
        *count = number as u64 + 1;
    }
    counters.events_lost = 3;
    counters.events_suppressed = 4;
    let mut engine = EngineStats {
        observations: 1_000,
        sources: 12,
        max_sources: 100_000,
        sources_evicted: 5,
        offenders: 2,
        ..EngineStats::default()
    };
    engine.decisions[Rule::FloodInvite as usize] = [8, 9];
    Snapshot {
        self_tests: [31, 32],
        drift: vec![("eth0".to_owned(), 33)],
        conditions: Kind::ALL
            .map(|kind| ConditionCount {
                kind,
                current: u64::from(kind == Kind::Detached),
                raised: 2,
            })
            .to_vec(),
        version: "1.2.3",
        simulate: true,
        receivers: vec![(
            "webhook",
            Delivered {
                delivered: 3,
                failed: 2,
                refused: 1,
                waiting: 4,
            },
        )],
        reload_successful: true,
        interfaces: vec![Interface {
            name: "eth0".to_owned(),
            problem: None,
            attached: Some(XdpMode::Generic),
            egress: Egress::Clsact,
            counters: Box::new(counters),
            tables: vec![TableUse {
                name: "ban4",
                entries: 17,
                max_entries: 1_000_000,
            }],
        }],
        bans: vec![Bans {
            origin: "manual",
            scope: "sip",
            family: Family::V6,
            count: 6,
        }],
        bans_added: vec![
            BansAdded {
                origin: "detector",
                rule: Some(Rule::FloodRegister),
                count: 11,
            },
            BansAdded {
                origin: "manual",
                rule: None,
                count: 13,
            },
        ],
        bans_removed: vec![("expired", 14)],
        would_ban: Rule::ALL.map(|rule| (rule, rule as u64 + 700)).to_vec(),
        alarms: vec![(Rule::DistributedAuth, 15)],
        trusted: 16,
        endpoints: 17,
        proven: 18,
        trust_refused: 19,
        engine,
        thresholds: Rule::ALL.map(|rule| (rule, rule as u64 + 500)).to_vec(),
    }
}

#[test]
fn text() {
    insta::assert_snapshot!(render(&snapshot()).unwrap());
}

#[test]
fn every_metric_is_documented() {
    let page = include_str!("../../../docs/metrics.md");
    let text = render(&snapshot()).unwrap();
    let names = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let missing: Vec<_> = names
        .filter(|name| !page.contains(&format!("`{name}`")))
        .collect();
    assert!(missing.is_empty(), "not in docs/metrics.md: {missing:?}");
}

/// Sum of all samples whose line begins so.
fn sum(text: &str, begin: &str) -> u64 {
    text.lines()
        .filter(|line| line.starts_with(begin))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

#[test]
fn every_packet_is_in_exactly_one_sum() {
    let text = render(&snapshot()).unwrap();
    for unit in ["packets", "bytes"] {
        let of = |what: &str| sum(&text, &format!("sip_filter_{what}_{unit}_total{{"));
        assert!(of("processed") > 0);
        assert_eq!(
            of("processed"),
            of("passed") + of("dropped") + of("would_drop"),
            "{unit}"
        );
    }
}

#[test]
fn nothing_to_tell_is_told_all_the_same() {
    let empty = Snapshot {
        receivers: Vec::new(),
        self_tests: [0; 2],
        drift: Vec::new(),
        conditions: Vec::new(),
        version: "0",
        simulate: false,
        reload_successful: false,
        interfaces: Vec::new(),
        bans: Vec::new(),
        bans_added: Vec::new(),
        bans_removed: Vec::new(),
        would_ban: Vec::new(),
        alarms: Vec::new(),
        trusted: 0,
        endpoints: 0,
        proven: 0,
        trust_refused: 0,
        engine: EngineStats::default(),
        thresholds: Vec::new(),
    };
    let text = render(&empty).unwrap();
    assert!(
        text.contains("sip_filter_config_last_reload_successful 0\n"),
        "{text}"
    );
}

#[test]
fn series_exist_before_their_first_packet() {
    let mut snapshot = snapshot();
    *snapshot.interfaces[0].counters = counters();
    let text = render(&snapshot).unwrap();
    let line =
        "sip_filter_dropped_packets_total{interface=\"eth0\",ip_type=\"ipv4\",reason=\"drop-ban-address\"} 0";
    assert!(text.contains(line), "{text}");
}
