//! Whatever comes: no panic, and no more memory than configured.

use proptest::prelude::*;
use sip_filter_common::sip::Class;

use super::*;

const SCANNER: &[u8] = b"OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n";

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
                prop_assert!(decision.ban_for == Duration::from_secs(30) && !decision.proven);
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

/// Sources, accounts and challenges without end, most of them new: each kind of conversation in turn. Ten times as many
/// as there is room for; [`ten_million_sources_accounts_and_nonces`] has a hundred times more at the default sizes.
#[test]
fn a_flood_of_everything_fits_into_the_memory_configured() {
    const ROUNDS: u32 = 10_000;
    let mut site = Site::with(roomy(1_000));
    for number in 0..ROUNDS {
        site.now += Duration::from_micros(100);
        let from = source(number);
        let user = format!("{number}");
        match number % 4 {
            0 => site.register(from, &user, false),
            1 => site.register(from, &user, true),
            2 => site.dial(from, &user, 404),
            _ => {
                let asked = site.ask(source(1), "REGISTER", (&user, &user), Some(&user), "");
                site.answer(&asked, 401, "");
            }
        }
        site.said.clear();
    }
    // And packets without a word in them, to many times as many.
    let mut said = Vec::new();
    for number in 0..ROUNDS * 22 {
        site.now += Duration::from_micros(10);
        let class = Class::ALL[number as usize % 8];
        site.engine
            .observe(&packet(site.now, source(number), class), &mut said);
    }
    assert_bounded(&site.engine, 1_000);
}

/// Ten million new sources, each with an account, a challenge and refused credentials of its own, and each for a
/// moment in the books as proven: in the sizes of the default configuration.
///
/// The memory that the first million took is all that the rest may have.
#[test]
#[ignore = "takes minutes: cargo test --release -p sip-filter --lib ten_million -- --ignored --nocapture"]
fn ten_million_sources_accounts_and_nonces() {
    const ALL: u32 = 10_000_000;
    const FIRST: u32 = 1_000_000;
    let config = DetectConfig::default();
    let room = config.max_sources as usize;
    assert_eq!((config.max_accounts, config.max_transactions), (100_000, 100_000));
    let begin = std::time::Instant::now();
    let before = resident();
    let mut site = Site::with(config);
    let mut first = 0;
    for number in 0..ALL {
        site.now += Duration::from_micros(100);
        site.register(source(number), &format!("{number}"), number % 16 == 0);
        site.said.clear();
        if number + 1 == FIRST {
            first = resident();
        }
    }
    assert_bounded(&site.engine, room);
    let last = resident();
    println!(
        "{ALL} sources, accounts and nonces in {:.0} s; resident: {before} KiB before, {first} KiB after the first \
         million, {last} KiB at the end, {} KiB at most; {:?}",
        begin.elapsed().as_secs_f64(),
        memory("VmHWM:"),
        site.engine.stats()
    );
    assert!(before < first, "{before} {first}");
    assert!(
        (last - before) * 10 <= (first - before) * 12,
        "{before} {first} {last}"
    );
}

/// With room for `max` of everything.
fn roomy(max: u32) -> DetectConfig {
    DetectConfig {
        max_sources: max,
        max_accounts: max,
        max_transactions: max,
        ..DetectConfig::default()
    }
}

fn assert_bounded(engine: &Engine, room: usize) {
    let stats = engine.stats();
    for (entries, most) in [
        (stats.sources, room),
        (stats.scans, room / SCANS),
        (stats.offenders, room),
        (stats.proven, room),
        (stats.trusted, room),
        (stats.accounts, room),
        (stats.pending, room),
        (stats.nonces, room),
    ] {
        assert!(entries <= most, "{stats:?}");
    }
}

/// Memory of this process that is in use, in KiB.
fn resident() -> u64 {
    memory("VmRSS:")
}

fn memory(field: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// What a flood of forged requests must not wash out: proof, trust, and a guesser's count.
#[test]
fn a_flood_of_forged_requests_washes_nothing_out() {
    let mut site = Site::with(roomy(1_000));
    site.register(source(1), "1001", true);
    for _ in 0..4 {
        site.register(source(2), "1001", false);
    }
    site.said.clear();
    for number in 0..20_000_u32 {
        site.now += Duration::from_millis(1);
        let user = format!("{number}");
        let asked = site.ask(source(number + 10), "REGISTER", (&user, &user), Some(&user), "");
        site.challenge(&asked);
    }
    assert_eq!(site.bans(), []);
    let target = site.engine.target(source(1));
    let standing = site.engine.standing(target, site.now);
    assert!(standing.trusted_until.is_some() && standing.proven.is_some());
    site.register(source(2), "1001", false);
    assert_eq!(site.bans(), [(Rule::AuthFailure, 5, true)]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Conversations cut into pieces and put together again, at any time.
    #[test]
    fn no_conversation_is_too_strange(
        steps in prop::collection::vec((0u8..9, 0u32..4, 0u8..4, any::<prop::sample::Index>(), 0u64..90_000, any::<bool>()), 0..120),
        max in 1u32..6,
    ) {
        const STATUS: [u16; 9] = [100, 200, 401, 403, 404, 407, 486, 500, 699];
        let config = DetectConfig {
            max_sources: max,
            max_accounts: max,
            max_transactions: max,
            ..DetectConfig::default()
        };
        let mut site = Site::with(config);
        let mut asked = vec![site.begin(source(0), "0")];
        for (what, from, user, index, step, back) in steps {
            let step = Duration::from_millis(step);
            site.now = if back { site.now.saturating_sub(step * 100) } else { site.now + step };
            site.protocol = if step.as_millis().is_multiple_of(5) { 6 } else { 17 };
            let earlier = index.get(&asked).clone();
            let user = format!("{user}");
            let method = ["REGISTER", "INVITE", "OPTIONS", "BYE"][usize::from(what % 4)];
            match what {
                0..4 => asked.push(site.ask(source(from), method, (&user, &user), None, site::CONTACT)),
                4..6 => asked.push(site.ask(source(from), method, (&user, "100"), Some(&earlier.nonce), "")),
                6 => site.challenge(&earlier),
                _ => site.answer(&earlier, STATUS[index.index(9)], "Contact: <sip:a>\r\nExpires: 30\r\n"),
            }
            for ban in decisions(std::mem::take(&mut site.said)) {
                prop_assert!(ban.evidence.count >= ban.evidence.threshold, "{:?}", ban);
                prop_assert!(ban.evidence.first_seen <= ban.evidence.last_seen);
                prop_assert!(ban.proven || ban.ban_for <= Duration::from_secs(30));
                prop_assert!(ban.proven != ban.sliding);
            }
            let _ = site.engine.standing(site.engine.target(source(from)), site.now);
        }
    }
}
