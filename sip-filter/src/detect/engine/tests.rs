use std::net::Ipv4Addr;

use proptest::prelude::*;
use sip_filter_common::abi::EventKind;

use super::*;

const FLOODS: [(Class, Rule, u64); 8] = [
    (Class::Register, Rule::FloodRegister, 500),
    (Class::Invite, Rule::FloodInvite, 1500),
    (Class::Options, Rule::FloodOptions, 500),
    (Class::Subscribe, Rule::FloodOther, 5000),
    (Class::OtherRequest, Rule::FloodOther, 5000),
    (Class::Response, Rule::FloodOther, 5000),
    (Class::KeepAlive, Rule::FloodOther, 5000),
    (Class::Garbage, Rule::FloodOther, 5000),
];

const SCANNER: &[u8] = b"OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n";

fn ms(millis: u64) -> Duration {
    Duration::from_millis(1_700_000_000_000 + millis)
}

fn source(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + number))
}

fn packet(time: Duration, source: IpAddr, class: Class) -> Observation<'static> {
    Observation {
        time,
        source,
        source_port: 5060,
        destination: source,
        destination_port: 5060,
        protocol: 17,
        class,
        kind: EventKind::Snapshot,
        count: 1,
        payload: b"",
    }
}

fn engine() -> Engine {
    Engine::new(DetectConfig::default(), 64)
}

fn decisions(conclusions: Vec<Conclusion>) -> Vec<Decision> {
    let decision = |conclusion| match conclusion {
        Conclusion::Ban(decision) => Some(decision),
        _ => None,
    };
    conclusions.into_iter().filter_map(decision).collect()
}

impl Engine {
    fn see(&mut self, observation: Observation<'_>) -> Vec<Decision> {
        let mut conclusions = Vec::new();
        self.observe(&observation, &mut conclusions);
        decisions(conclusions)
    }
}

#[test]
fn rules_are_numbered_as_listed() {
    for (index, rule) in Rule::ALL.into_iter().enumerate() {
        assert_eq!(rule as usize, index);
    }
}

#[test]
fn one_below_the_threshold_does_nothing_and_the_threshold_decides() {
    for (class, rule, threshold) in FLOODS {
        let mut engine = engine();
        // Spread over nine seconds, which any ten-second window holds.
        let time = |number: u64| ms(number * 9_000 / threshold);
        for number in 1..threshold {
            assert_eq!(
                engine.see(packet(time(number), source(1), class)),
                [],
                "{rule} {number}"
            );
        }
        let decisions = engine.see(packet(time(threshold), source(1), class));
        let [decision] = &decisions[..] else {
            panic!("{rule}: {decisions:?}");
        };
        assert_eq!(decision.rule, rule);
        assert_eq!(decision.target.to_string(), "10.0.0.1");
        assert_eq!(
            (decision.evidence.count, decision.evidence.threshold),
            (threshold, threshold)
        );
        assert_eq!(decision.evidence.window_seconds, 10);
        assert_eq!(decision.ban_for, Duration::from_secs(60));
        assert_eq!((decision.earlier_offences, decision.shadow), (0, false));
        assert_eq!(
            decision.evidence.last_seen,
            SystemTime::UNIX_EPOCH + time(threshold)
        );
        assert_eq!(decision.evidence.first_seen, SystemTime::UNIX_EPOCH + time(1));
    }
}

#[test]
fn the_window_forgets() {
    for (class, rule, threshold) in FLOODS {
        let mut engine = engine();
        let many = |time, count| Observation {
            count,
            ..packet(time, source(1), class)
        };
        assert_eq!(engine.see(many(ms(0), threshold as u32 - 1)), []);
        assert_eq!(engine.see(many(ms(10_000), threshold as u32 - 1)), [], "{rule}");
        assert_eq!(
            engine.see(packet(ms(10_001), source(1), class)).len(),
            1,
            "{rule}"
        );
    }
}

#[test]
fn what_one_observation_stands_for_counts() {
    let mut engine = engine();
    let mut seen = packet(ms(0), source(1), Class::Register);
    seen.count = 250;
    assert_eq!(engine.see(seen), []);
    seen.kind = EventKind::OverLimit;
    seen.count = 249;
    assert_eq!(engine.see(seen), []);
    // A count of nothing is one packet all the same.
    seen.count = 0;
    assert_eq!(engine.see(seen).len(), 1);
}

#[test]
fn classes_and_sources_do_not_add_up() {
    let mut engine = engine();
    for number in 0..499 {
        for class in [Class::Register, Class::Options, Class::Invite, Class::Garbage] {
            for from in 1..4 {
                assert_eq!(engine.see(packet(ms(number), source(from), class)), []);
            }
        }
    }
}

#[test]
fn ipv6_sources_count_by_prefix() {
    let mut engine = engine();
    let from = |low: u128| IpAddr::from((0x2001_0db8_0001_0002_u128 << 64 | low).to_be_bytes());
    for number in 1..500 {
        assert_eq!(
            engine.see(packet(ms(number), from(number.into()), Class::Register)),
            []
        );
    }
    let decisions = engine.see(packet(ms(500), from(500), Class::Register));
    assert_eq!(decisions[0].target.to_string(), "2001:db8:1:2::/64");
}

fn flood(engine: &mut Engine, time: Duration) -> Vec<Decision> {
    engine.see(Observation {
        count: 1_000,
        ..packet(time, source(1), Class::Register)
    })
}

#[test]
fn no_decision_while_the_ban_runs_and_a_longer_one_after() {
    let mut engine = engine();
    assert_eq!(flood(&mut engine, ms(0)).len(), 1);
    for time in (0..60_000).step_by(500) {
        assert_eq!(flood(&mut engine, ms(time)), []);
    }
    let second = flood(&mut engine, ms(60_000));
    assert_eq!(
        (second[0].earlier_offences, second[0].ban_for),
        (1, Duration::from_secs(120))
    );
    // Another rule of the same target waits as well.
    assert_eq!(
        engine.see(Observation {
            payload: SCANNER,
            ..packet(ms(60_001), source(1), Class::Options)
        }),
        []
    );
    let third = flood(&mut engine, ms(180_000));
    assert_eq!(
        (third[0].earlier_offences, third[0].ban_for),
        (2, Duration::from_secs(240))
    );
    let much_later = flood(&mut engine, ms(180_000 + 240_000 + 86_400_001));
    assert_eq!(
        (much_later[0].earlier_offences, much_later[0].ban_for),
        (0, Duration::from_secs(60))
    );
    assert_eq!(engine.stats().decisions[Rule::FloodRegister as usize], [4, 0]);
}

#[test]
fn offences_survive_a_restart_and_can_be_forgotten() {
    let mut engine = engine();
    let target: Target = "10.0.0.1".parse().unwrap();
    engine.restore_offences(
        target,
        3,
        SystemTime::UNIX_EPOCH + ms(0) - Duration::from_secs(3600),
    );
    assert_eq!(flood(&mut engine, ms(0))[0].earlier_offences, 3);
    engine.forget(target);
    assert_eq!(flood(&mut engine, ms(1))[0].earlier_offences, 0);
    engine.restore_offences(
        target,
        3,
        SystemTime::UNIX_EPOCH + ms(0) - Duration::from_secs(86_401),
    );
    assert_eq!(flood(&mut engine, ms(1))[0].earlier_offences, 0);
}

#[test]
fn a_scanner_is_known_by_its_first_request() {
    let mut engine = engine();
    let seen = Observation {
        payload: SCANNER,
        ..packet(ms(0), source(1), Class::Options)
    };
    // A relayed answer carries the name of whoever answered, not of who sent it.
    assert_eq!(
        engine.see(Observation {
            class: Class::Response,
            ..seen
        }),
        []
    );
    let decisions = engine.see(seen);
    assert_eq!(decisions.len(), 1);
    assert_eq!(decisions[0].rule, Rule::ScannerSignature);
    assert_eq!(
        decisions[0].evidence.sample,
        ["OPTIONS sip:100@192.0.2.1 SIP/2.0; User-Agent: friendly-scanner"]
    );
    assert_eq!(engine.see(seen), []);
}

#[test]
fn the_evidence_has_three_different_samples() {
    let mut engine = engine();
    let mut decisions = Vec::new();
    for number in 0..500 {
        let payload = format!("REGISTER sip:{} SIP/2.0\r\n\r\n", number / 2);
        engine.observe(
            &Observation {
                payload: payload.as_bytes(),
                ..packet(ms(number), source(1), Class::Register)
            },
            &mut decisions,
        );
    }
    let sample: Vec<&str> = decisions[0].evidence.sample.iter().map(String::as_str).collect();
    assert_eq!(
        sample,
        [
            "REGISTER sip:124 SIP/2.0",
            "REGISTER sip:125 SIP/2.0",
            "REGISTER sip:126 SIP/2.0"
        ]
    );
}

#[test]
fn a_rule_in_rehearsal_does_not_hide_an_enforced_one() {
    let mut config = DetectConfig::default();
    config.scanner_signature.shadow = true;
    let mut engine = Engine::new(config, 64);
    let seen = Observation {
        payload: SCANNER,
        count: 500,
        ..packet(ms(0), source(1), Class::Options)
    };
    let decisions = engine.see(seen);
    let told: Vec<_> = decisions
        .iter()
        .map(|decision| (decision.rule, decision.shadow))
        .collect();
    assert_eq!(
        told,
        [(Rule::ScannerSignature, true), (Rule::FloodOptions, false)]
    );
    assert_eq!(decisions[1].earlier_offences, 0);
    assert_eq!(engine.stats().decisions[Rule::ScannerSignature as usize], [0, 1]);
}

#[test]
fn reload_changes_thresholds_and_keeps_counts() {
    let mut engine = engine();
    let seen = Observation {
        count: 400,
        ..packet(ms(0), source(1), Class::Register)
    };
    assert_eq!(engine.see(seen), []);
    let mut config = DetectConfig::default();
    config.flood_register.threshold = 401;
    engine.reload(config.clone());
    assert_eq!(engine.see(packet(ms(1), source(1), Class::Register)).len(), 1);
    assert_eq!(
        engine.see(Observation {
            source: source(2),
            ..seen
        }),
        []
    );
    config.flood_register.window = Duration::from_secs(60);
    engine.reload(config.clone());
    assert_eq!(engine.see(packet(ms(1), source(2), Class::Register)), []);
    config.flood_register.enabled = false;
    engine.reload(config);
    assert_eq!(
        engine.see(Observation {
            source: source(3),
            count: 9_999,
            ..seen
        }),
        []
    );
}

#[test]
fn two_million_new_sources_do_not_hide_one_that_is_watched() {
    let mut engine = engine();
    let attacker = source(0);
    let mut decisions = Vec::new();
    for _ in 0..499 {
        engine.observe(&packet(ms(0), attacker, Class::Register), &mut decisions);
    }
    for number in 1..=2_000_000 {
        // All within the attacker's window.
        let time = ms(u64::from(number) / 250);
        engine.observe(&packet(time, source(number), Class::Register), &mut decisions);
    }
    assert_eq!(decisions, []);
    let stats = engine.stats();
    assert_eq!((stats.sources, stats.sources_evicted), (100_000, 1_900_001));
    engine.observe(&packet(ms(8_500), attacker, Class::Register), &mut decisions);
    assert_eq!(decisions.len(), 1);
    assert_eq!(super::tests::decisions(decisions)[0].evidence.count, 500);
}

#[test]
fn forged_scanners_do_not_hide_who_came_back() {
    let mut engine = engine();
    let mut decisions = Vec::new();
    flood(&mut engine, ms(0));
    flood(&mut engine, ms(60_000));
    for number in 1..=300_000 {
        let seen = Observation {
            payload: SCANNER,
            ..packet(
                ms(60_000 + u64::from(number) / 250),
                source(number + 10),
                Class::Options,
            )
        };
        engine.observe(&seen, &mut decisions);
        decisions.clear();
    }
    let stats = engine.stats();
    assert!(
        stats.sources <= 100_000 && stats.offenders <= 100_000,
        "{stats:?}"
    );
    assert_eq!(flood(&mut engine, ms(180_000))[0].earlier_offences, 2);
}

fn observation() -> impl Strategy<Value = (u64, u32, u8, u32)> {
    let step = prop_oneof![9 => 0u64..2_000, 1 => any::<u64>()];
    let count = prop_oneof![9 => 0u32..400, 1 => any::<u32>()];
    (step, 0u32..6, 0u8..8, count)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever comes, in whatever order of time: no panic, bounded memory, decisions only at a threshold, and none
    /// for a source while its ban runs.
    #[test]
    fn invariants(
        steps in prop::collection::vec((observation(), any::<bool>()), 0..200),
        max_sources in 1u32..5,
    ) {
        let config = DetectConfig { max_sources, ..DetectConfig::default() };
        let mut engine = Engine::new(config, 64);
        let mut now: u64 = 1_000_000;
        let mut bans: Vec<(Target, Duration, Duration)> = Vec::new();
        for ((step, from, class, count), back) in steps {
            now = if back { now.saturating_sub(step) } else { now.saturating_add(step) };
            let time = Duration::from_millis(now);
            let seen = Observation {
                count,
                payload: if count == 7 { SCANNER } else { b"\xff\0" },
                ..packet(time, source(from), Class::ALL[usize::from(class)])
            };
            for decision in engine.see(seen) {
                prop_assert!(decision.evidence.count >= decision.evidence.threshold);
                prop_assert!(decision.evidence.first_seen <= decision.evidence.last_seen);
                prop_assert!(decision.evidence.sample.len() <= 3);
                prop_assert!(decision.ban_for >= Duration::from_secs(60));
                if max_sources >= 4 && from < 4 {
                    let last = bans.iter().rev().find(|(target, ..)| *target == decision.target);
                    if let Some((_, begin, end)) = last {
                        prop_assert!(engine.stats().sources_evicted > 0 || !(*begin..*end).contains(&time));
                    }
                }
                bans.push((decision.target, time, time.saturating_add(decision.ban_for)));
            }
            prop_assert!(engine.stats().sources <= max_sources as usize);
            prop_assert!(engine.stats().offenders <= max_sources as usize);
        }
    }
}
