use super::*;
use crate::{
    bans::Target,
    conditions::Condition,
    daemon::{
        Length,
        bench::{Bench, target},
    },
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Bench {
    /// Lets so many seconds pass, with a look each.
    fn seconds(&mut self, seconds: u64, mut each: impl FnMut(&mut Self)) {
        for _ in 0..seconds {
            self.clock = self.clock.after(s(1));
            each(self);
            self.controller.judge(self.clock);
        }
    }

    fn wrong(&self) -> Vec<String> {
        let current = self.controller.conditions().current();
        let name = |condition: &Condition| format!("{} {}", condition.name.name(), condition.subject);
        current
            .iter()
            .map(name)
            .map(|name| name.trim().to_owned())
            .collect()
    }
}

fn settled(config: Config) -> Bench {
    // The fakes run in generic mode, which is as wished here.
    let mut bench = Bench::new(Config {
        xdp_mode: AttachMode::Generic,
        ..config
    });
    bench.controller.judge(bench.clock);
    assert!(bench.wrong().is_empty(), "{:?}", bench.wrong());
    bench
}

#[test]
fn a_flood_is_one_while_it_lasts_and_a_minute_longer() {
    let mut bench = settled(Config::default());
    let drop_packets = |bench: &mut Bench, packets| bench.planes[0].state().dropped += packets;
    bench.seconds(3, |bench| drop_packets(bench, 20_000));
    bench.seconds(5, |_| {});
    assert!(
        bench.wrong().is_empty(),
        "a burst is no flood: {:?}",
        bench.wrong()
    );
    bench.seconds(40, |_| {});
    bench.seconds(12, |bench| drop_packets(bench, 1_500));
    assert_eq!(bench.wrong(), ["flood-ongoing"]);
    let text = &bench.controller.conditions().current()[0].text;
    assert!(text.contains("packets a second are dropped"), "{text}");
    bench.seconds(55, |bench| drop_packets(bench, 10));
    assert_eq!(bench.wrong(), ["flood-ongoing"]);
    bench.seconds(20, |bench| drop_packets(bench, 10));
    assert!(bench.wrong().is_empty());
    // Both are in the journal.
    let journal = bench.controller.journal().recent(2);
    let kinds: Vec<_> = journal.iter().map(|event| event.kind.name()).collect();
    assert_eq!(kinds, ["condition-raised", "condition-cleared"]);
}

#[test]
fn counters_that_start_anew_are_no_flood() {
    let mut seen = VecDeque::new();
    assert_eq!(window(&mut seen, s(10), 5_000_000, s(1)), None);
    assert_eq!(window(&mut seen, s(10), 5_000_100, s(2)), Some((100, 1.0)));
    assert_eq!(window(&mut seen, s(10), 7, s(3)), None);
    assert_eq!(window(&mut seen, s(10), 17, s(4)), Some((10, 1.0)));
    for second in 5..40 {
        window(&mut seen, s(10), 17 + second, s(second));
    }
    assert!(seen.len() <= 12, "bounded: {}", seen.len());
    assert_eq!(window(&mut seen, s(10), 57, s(40)), Some((10, 10.0)));
}

#[test]
fn many_bans_by_rules_are_suspect_and_bans_by_hand_are_not() {
    let mut config = Config::default();
    config.conditions.mass_ban = 3;
    config.conditions.mass_ban_window = s(60);
    let mut bench = settled(config);
    bench
        .ban(
            &["192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"],
            Length::Configured,
        )
        .unwrap();
    bench.seconds(2, |_| {});
    assert!(bench.wrong().is_empty());
    for last in 1..=3 {
        bench.decide(&format!("198.51.100.{last}"), false);
    }
    bench.seconds(1, |_| {});
    assert_eq!(bench.wrong(), ["mass-ban"]);
    bench.seconds(62, |_| {});
    assert!(bench.wrong().is_empty(), "{:?}", bench.wrong());
}

#[test]
fn simulating_for_too_long_is_told() {
    let mut config = Config {
        simulate: true,
        ..Config::default()
    };
    config.conditions.simulate_max = s(100);
    let mut bench = settled(config);
    bench.seconds(99, |_| {});
    assert!(bench.wrong().is_empty());
    bench.seconds(2, |_| {});
    assert_eq!(bench.wrong(), ["simulate-too-long"]);
    bench.controller.set_simulate(false, bench.clock).unwrap();
    bench.seconds(1, |_| {});
    assert!(bench.wrong().is_empty());
}

#[test]
fn a_table_that_is_nearly_full_is_told_before_it_refuses() {
    let mut bench = settled(Config::default());
    bench.planes[1].state().room = Some(10);
    let targets: Vec<Target> = (1..=9).map(|last| target(&format!("192.0.2.{last}"))).collect();
    for target in &targets[..8] {
        bench.ban(&[&target.to_string()], Length::Configured).unwrap();
    }
    bench.seconds(1, |_| {});
    assert!(bench.wrong().is_empty());
    bench.ban(&[&targets[8].to_string()], Length::Configured).unwrap();
    bench.seconds(1, |_| {});
    assert_eq!(bench.wrong(), ["map-nearly-full fake1/ban4"]);
}

#[test]
fn lost_events_are_told_until_a_minute_after_the_last() {
    let mut bench = settled(Config::default());
    bench.seconds(5, |_| {});
    bench.planes[1].state().events_lost += 7;
    bench.seconds(1, |_| {});
    assert_eq!(bench.wrong(), ["events-lost fake1"]);
    let current = bench.controller.conditions().current();
    assert!(current[0].text.contains("7 events were lost"), "{current:?}");
    bench.seconds(58, |_| {});
    assert_eq!(bench.wrong(), ["events-lost fake1"]);
    bench.seconds(3, |_| {});
    assert!(bench.wrong().is_empty(), "{:?}", bench.wrong());
}

#[test]
fn what_earlier_runs_lost_is_old_news() {
    let mut bench = Bench::new(Config {
        xdp_mode: AttachMode::Generic,
        ..Config::default()
    });
    bench.planes[0].state().events_lost = 1_000;
    bench.seconds(3, |_| {});
    assert!(bench.wrong().is_empty(), "{:?}", bench.wrong());
}

#[test]
fn what_is_missing_around_the_program_is_told_while_it_is() {
    let mut bench = settled(Config::default());
    bench.planes[0].state().tended = Tended {
        answers: Some("answers that left fake0 were not seen".to_owned()),
        unpinned: Some("no BPF file system".to_owned()),
    };
    bench.seconds(1, |_| {});
    assert_eq!(bench.wrong(), ["answers-unseen fake0", "not-pinned fake0"]);
    bench.planes[0].state().tended = Tended::default();
    bench.seconds(1, |_| {});
    assert!(bench.wrong().is_empty(), "{:?}", bench.wrong());
}

#[test]
fn generic_mode_is_told_unless_it_is_as_configured() {
    let mut bench = Bench::new(Config::default());
    bench.seconds(1, |_| {});
    assert_eq!(bench.wrong(), ["generic-mode fake0", "generic-mode fake1"]);
}
