//! Rules that count packets.

use sip_filter_common::{abi::EventKind, sip::Class};

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

const HOUR: Duration = Duration::from_secs(3600);

/// One that looks at floods alone.
fn engine() -> Engine {
    let mut config = DetectConfig::default();
    config.garbage.enabled = false;
    config.proof_lifetime = 1_000 * HOUR;
    Engine::new(config, 64)
}

fn prove(engine: &mut Engine, number: u32) {
    let target = engine.target(source(number));
    engine.restore_proof(target, Proof::Nonce, ms(0) + 1_000 * HOUR);
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
        assert_eq!(decision.ban_for, Duration::from_secs(30));
        assert_eq!((decision.earlier_offences, decision.shadow), (0, false));
        assert_eq!((decision.proven, decision.sliding), (false, true));
        assert_eq!(
            decision.evidence.last_seen,
            SystemTime::UNIX_EPOCH + time(threshold)
        );
        assert_eq!(decision.evidence.first_seen, SystemTime::UNIX_EPOCH + time(1));
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
    prove(&mut engine, 1);
    let first = flood(&mut engine, ms(0));
    assert_eq!(
        (first[0].ban_for, first[0].proven, first[0].sliding),
        (HOUR, true, false)
    );
    for time in (0..3_600_000).step_by(60_000) {
        assert_eq!(flood(&mut engine, ms(time)), []);
    }
    let second = flood(&mut engine, ms(3_600_000));
    assert_eq!((second[0].earlier_offences, second[0].ban_for), (1, 2 * HOUR));
    // Another rule of the same target waits as well.
    assert_eq!(
        engine.see(Observation {
            payload: SCANNER,
            ..packet(ms(3_600_001), source(1), Class::Options)
        }),
        []
    );
    let third = flood(&mut engine, ms(3 * 3_600_000));
    assert_eq!((third[0].earlier_offences, third[0].ban_for), (2, 4 * HOUR));
    let much_later = flood(&mut engine, ms((3 + 4 + 24) * 3_600_000 + 1));
    assert_eq!((much_later[0].earlier_offences, much_later[0].ban_for), (0, HOUR));
    assert_eq!(engine.stats().decisions[Rule::FloodRegister as usize], [4, 0]);
}

#[test]
fn offences_survive_a_restart_and_can_be_forgotten() {
    let mut engine = engine();
    prove(&mut engine, 1);
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
    let decisions = super::decisions(decisions);
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
    assert_eq!(super::decisions(decisions)[0].evidence.count, 500);
}

#[test]
fn forged_scanners_do_not_hide_who_came_back() {
    let mut engine = engine();
    let mut decisions = Vec::new();
    prove(&mut engine, 1);
    flood(&mut engine, ms(0));
    flood(&mut engine, ms(3_600_000));
    for number in 1..=300_000 {
        let seen = Observation {
            payload: SCANNER,
            ..packet(
                ms(3_600_000 + u64::from(number) / 250),
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
    assert_eq!(flood(&mut engine, ms(3 * 3_600_000))[0].earlier_offences, 2);
}

#[test]
fn an_unproven_source_is_banned_for_moments_as_long_as_it_goes_on() {
    let mut engine = engine();
    assert_eq!(flood(&mut engine, ms(0)).len(), 1);
    // Its packets arrive again when the ban is over: a quarter of the threshold is enough then.
    for round in 1..100 {
        let seen = Observation {
            count: 124,
            ..packet(ms(round * 31_000), source(1), Class::Register)
        };
        assert_eq!(engine.see(seen), []);
        let again = engine.see(packet(ms(round * 31_000 + 1), source(1), Class::Register));
        assert_eq!(
            (again[0].ban_for, again[0].earlier_offences),
            (Duration::from_secs(30), 0)
        );
        assert!(again[0].sliding && !again[0].proven);
    }
    // Who stays away for a window and a ban begins anew.
    let seen = Observation {
        count: 499,
        ..packet(ms(100 * 31_000 + 60_000), source(1), Class::Register)
    };
    assert_eq!(engine.see(seen), []);
}

#[test]
fn a_registered_source_is_never_banned_for_volume() {
    let mut engine = Engine::new(DetectConfig::default(), 64);
    let target = engine.target(source(1));
    engine.restore_trust(target, "1001", ms(60_000));
    engine.restore_proof(target, Proof::Registration, ms(60_000));
    for class in Class::ALL {
        let seen = Observation {
            count: 100_000,
            ..packet(ms(0), source(1), class)
        };
        assert_eq!(engine.see(seen), [], "{class:?}");
        assert_eq!(
            engine.see(Observation {
                payload: SCANNER,
                ..seen
            }),
            [],
            "{class:?}"
        );
    }
    assert_eq!(flood(&mut engine, ms(60_000)).len(), 1);
}

#[test]
fn garbage_is_stopped_and_keep_alives_are_not() {
    let mut engine = Engine::new(DetectConfig::default(), 64);
    let wireguard = Observation {
        payload: b"\x04\0\0\0\x01\x02",
        ..packet(ms(0), source(1), Class::Garbage)
    };
    // One every five seconds, all day.
    for number in 0..17_280 {
        let time = ms(number * 5_000);
        assert_eq!(engine.see(Observation { time, ..wireguard }), []);
        assert_eq!(engine.see(packet(time, source(2), Class::KeepAlive)), []);
    }
    for number in 1..100 {
        assert_eq!(engine.see(packet(ms(number), source(3), Class::Garbage)), []);
    }
    let decisions = engine.see(packet(ms(54_000), source(3), Class::Garbage));
    assert_eq!(
        (decisions[0].rule, decisions[0].evidence.count),
        (Rule::Garbage, 100)
    );
    // TLS on a TCP port is none.
    for _ in 0..1_000 {
        let seen = Observation {
            protocol: 6,
            ..packet(ms(0), source(5), Class::Garbage)
        };
        assert_eq!(engine.see(seen), []);
    }
}
