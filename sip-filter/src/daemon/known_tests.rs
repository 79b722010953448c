//! Trust and proof with fake data planes and a real store.

use proptest::prelude::*;

use super::*;
use crate::{
    daemon::{
        Applied, BanOrder, ImportOptions, Length,
        bench::{Bench, import, target},
        fake::Fake,
    },
    detect::Rule,
};

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn endpoint(text: &str, port: u16) -> Endpoint {
    Endpoint {
        address: target(text).net().addr(),
        protocol: 17,
        port,
        hops: 57,
    }
}

impl Bench {
    fn trust_for(&mut self, text: &str, account: &str, lasting: Duration) {
        let trusted = Trusted {
            time: self.clock.boot,
            target: target(text),
            account: account.to_owned(),
            until: self.clock.boot + lasting,
        };
        self.controller.conclude(Conclusion::Trusted(trusted), self.clock);
    }

    fn prove(&mut self, text: &str, by: Proof, lasting: Duration) {
        let proven = Proven {
            time: self.clock.boot,
            target: target(text),
            by,
            until: self.clock.boot + lasting,
        };
        self.controller.conclude(Conclusion::Proven(proven), self.clock);
    }

    fn at_home(&mut self, text: &str, port: u16, lasting: Duration) {
        let home = AtHome {
            time: self.clock.boot,
            target: target(text),
            endpoint: endpoint(text, port),
            until: self.clock.boot + lasting,
        };
        self.controller.conclude(Conclusion::AtHome(home), self.clock);
    }

    fn ports_in_kernel(&self) -> Vec<u16> {
        let endpoints = |plane: &Fake| plane.state().endpoints.clone();
        assert_eq!(endpoints(&self.planes[0]), endpoints(&self.planes[1]));
        endpoints(&self.planes[0]).keys().map(|one| one.port).collect()
    }

    fn trusted_in_kernel(&self) -> Vec<String> {
        let trusted = |plane: &Fake| plane.state().trust.clone();
        assert_eq!(trusted(&self.planes[0]), trusted(&self.planes[1]));
        trusted(&self.planes[0]).keys().map(ToString::to_string).collect()
    }

    fn trusted(&self) -> Vec<String> {
        let trusted = self.controller.trusted();
        trusted
            .map(|(target, account, _)| format!("{target} {account}"))
            .collect()
    }

    fn save(&mut self) {
        self.controller.save_known(self.clock);
    }

    fn later(&mut self, time: Duration) {
        self.clock = self.clock.after(time);
        self.controller.expire(self.clock);
    }

    fn last_message(&self) -> String {
        self.controller.journal.recent(1).remove(0).message
    }
}

#[test]
fn trust_is_in_the_kernel_at_once_and_ends_by_itself() {
    let mut bench = Bench::new(Config::default());
    bench.trust_for("192.0.2.1", "alice", s(60));
    bench.trust_for("2001:db8::/64", "bob", s(120));
    bench.prove("192.0.2.1", Proof::Nonce, s(60));
    assert_eq!(bench.trusted_in_kernel(), ["192.0.2.1", "2001:db8::/64"]);
    let until = bench.planes[0].state().trust[&target("192.0.2.1")];
    assert_eq!(until, bench.clock.boot + s(60));
    let checked = bench
        .controller
        .check("2001:db8::7".parse().unwrap(), bench.clock);
    assert_eq!(checked.trust.unwrap().account, "bob");
    assert_eq!(checked.proof, None);
    assert_eq!(bench.controller.known_counts(), (2, 1));

    bench.later(s(60));
    assert_eq!(bench.trusted_in_kernel(), ["2001:db8::/64"]);
    assert_eq!(bench.controller.known_counts(), (1, 0));
    bench
        .controller
        .conclude(Conclusion::Distrusted(target("2001:db8::/64")), bench.clock);
    assert!(bench.trusted_in_kernel().is_empty());
    assert!(bench.kinds().is_empty(), "customers come and go without a word");
}

#[test]
fn what_is_known_lives_on_and_is_in_the_tables_before_the_program_is_attached() {
    let mut bench = Bench::new(Config::default());
    bench.trust_for("192.0.2.1", "alice", s(100));
    bench.trust_for("192.0.2.2", "bob", s(1_000));
    bench.trust_for("192.0.2.3", "carol", s(1_000));
    bench.prove("192.0.2.2", Proof::Registration, s(1_000));
    let end = bench.clock.boot + s(1_000);
    bench.save();
    bench
        .controller
        .conclude(Conclusion::Distrusted(target("192.0.2.3")), bench.clock);
    bench.save();

    let mut bench = bench.restart(s(200));
    assert_eq!(bench.trusted(), ["192.0.2.2 bob"]);
    assert_eq!(bench.planes[0].state().at_attach, (0, 1));
    assert_eq!(bench.planes[1].state().trust[&target("192.0.2.2")], end);
    let proven: Vec<_> = bench.controller.proven().collect();
    assert_eq!(proven, [(target("192.0.2.2"), Proof::Registration, end)]);
    // What had ended is taken out of the store.
    bench.save();
    assert_eq!(bench.controller.known.unsaved_trust.len(), 0);
    let bench = bench.restart(s(800));
    assert!(bench.trusted().is_empty());
}

#[test]
fn endpoints_live_and_end_with_the_trust_in_their_source() {
    let mut config = Config::default();
    config.trust.endpoints = 3;
    config.trust.endpoints_per_source = 2;
    let mut bench = Bench::new(config);
    bench.at_home("192.0.2.1", 1, s(60));
    assert_eq!(bench.ports_in_kernel(), [0; 0], "it is not trusted");
    bench.trust_for("192.0.2.1", "alice", s(600));
    bench.trust_for("192.0.2.2", "bob", s(600));
    for (port, lasting) in [(1, 600), (2, 60), (1, 600)] {
        bench.at_home("192.0.2.1", port, s(lasting));
        bench.clock = bench.clock.after(s(1));
    }
    assert_eq!(bench.ports_in_kernel(), [1, 2]);
    // The one confirmed longest ago makes room: of its source, then of all.
    bench.at_home("192.0.2.1", 3, s(60));
    assert_eq!(bench.ports_in_kernel(), [1, 3]);
    bench.at_home("192.0.2.2", 4, s(300));
    bench.clock = bench.clock.after(s(1));
    bench.at_home("192.0.2.2", 5, s(300));
    assert_eq!(bench.ports_in_kernel(), [3, 4, 5]);
    assert_eq!(bench.controller.endpoints(), 3);
    let checked = bench.controller.check("192.0.2.2".parse().unwrap(), bench.clock);
    let endpoints = checked.trust.unwrap().endpoints;
    assert_eq!(endpoints, [endpoint("192.0.2.2", 4), endpoint("192.0.2.2", 5)]);

    bench.save();
    let mut bench = bench.restart(s(1));
    assert_eq!(bench.ports_in_kernel(), [3, 4, 5], "a restart remembers");
    bench.later(s(60));
    assert_eq!(bench.ports_in_kernel(), [4, 5], "one has ended");
    bench
        .controller
        .conclude(Conclusion::Distrusted(target("192.0.2.2")), bench.clock);
    assert_eq!(bench.ports_in_kernel(), [0; 0]);
    bench.save();
    assert_eq!(bench.restart(s(1)).controller.endpoints(), 0);
}

#[test]
fn a_storm_of_registrations_is_few_writes() {
    let mut bench = Bench::new(Config::default());
    // 500 phones renew ten times within a second what lasts an hour.
    for _ in 0..10 {
        for host in 0..500 {
            bench.trust_for(&format!("192.0.{}.{}", host / 250, host % 250), "phone", s(3_600));
        }
        bench.clock = bench.clock.after(Duration::from_millis(100));
    }
    assert_eq!(bench.planes[0].state().trust_writes, 500);
    assert_eq!(bench.controller.known.unsaved_trust.len(), 500);
    bench.save();
    bench.trust_for("192.0.0.1", "phone", s(3_600));
    assert!(bench.controller.known.unsaved_trust.is_empty());
    assert_eq!(bench.restart(s(1)).trusted().len(), 500);
}

#[test]
fn a_full_kernel_table_is_told_and_does_no_harm() {
    let mut bench = Bench::new(Config::default());
    bench.planes[1].state().room_trust = Some(1);
    for host in 1..=5 {
        bench.trust_for(&format!("192.0.2.{host}"), "phone", s(600));
    }
    assert_eq!(bench.planes[0].state().trust.len(), 5);
    assert_eq!(bench.planes[1].state().trust.len(), 1);
    assert_eq!(bench.controller.totals().trust_refused, 4);
    assert_eq!(bench.kinds(), [JournalKind::TrustRefused], "once a minute");
    assert!(bench.last_message().contains("the trust table of fake0 is full"));
    // The rules know all the same, and a restart with a smaller table works.
    assert_eq!(bench.decide("192.0.2.5", false), Applied::Refused);
    bench.later(s(61));
    bench.trust_for("192.0.2.9", "phone", s(600));
    assert_eq!(bench.controller.totals().trust_refused, 5);
    let count = |kinds: &[JournalKind]| {
        let refused = kinds.iter().filter(|kind| **kind == JournalKind::TrustRefused);
        refused.count()
    };
    assert_eq!(count(&bench.kinds()), 2);
    assert!(bench.controller.agrees());
}

#[test]
fn the_table_is_bounded_and_follows_the_configuration() {
    let mut config = Config::default();
    config.trust.max = 3;
    let mut bench = Bench::new(config.clone());
    for host in 1..=5 {
        bench.trust_for(&format!("192.0.2.{host}"), "phone", s(100 - host));
    }
    assert_eq!(bench.trusted_in_kernel(), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    // The engine is told of each that has no place: else it would spare whom nobody else trusts.
    let told = |bench: &mut Bench| -> Vec<String> {
        let told = bench.controller.take_distrusted();
        told.iter().map(ToString::to_string).collect()
    };
    assert_eq!(told(&mut bench), ["192.0.2.4", "192.0.2.5"]);
    config.trust.max = 1;
    bench.controller.reload(config.clone(), bench.clock).unwrap();
    assert_eq!(bench.trusted_in_kernel(), ["192.0.2.1"]);
    assert_eq!(told(&mut bench), ["192.0.2.3", "192.0.2.2"]);
    config.trust.enabled = false;
    let reloaded = bench.controller.reload(config, bench.clock).unwrap();
    assert_eq!(reloaded.changed, ["trust.enabled"]);
    assert!(bench.trusted_in_kernel().is_empty());
    bench.trust_for("192.0.2.1", "phone", s(100));
    assert!(bench.trusted().is_empty());
    assert_eq!(bench.controller.take_distrusted(), [target("192.0.2.1"); 2]);
    bench.save();
    assert!(bench.restart(s(1)).trusted().is_empty());
}

#[test]
fn volume_never_bans_who_is_trusted_and_own_failures_do() {
    let mut bench = Bench::new(Config::default());
    bench.trust_for("192.0.2.1", "alice", s(600));
    assert_eq!(bench.decide("192.0.2.1", false), Applied::Refused);
    assert_eq!(bench.kinds(), [JournalKind::Refused]);
    assert!(
        bench
            .last_message()
            .contains("192.0.2.1 is trusted: alice is registered from it"),
        "{}",
        bench.last_message()
    );
    // Nor does a shadow rule pretend that it would.
    assert_eq!(bench.decide("192.0.2.1", true), Applied::Refused);
    assert!(bench.controller.totals().would_ban.is_empty());

    let mut failures = Bench::decision("192.0.2.1", false, bench.clock);
    failures.rule = Rule::AuthFailure;
    assert_eq!(bench.controller.apply(&failures, bench.clock), Applied::Banned);
    assert_eq!(bench.trusted(), ["192.0.2.1 alice"]);
    bench.later(s(601));
    assert_eq!(bench.decide("192.0.2.1", false), Applied::Banned);
}

#[test]
fn a_ban_by_hand_ends_trust_and_keeps_it_away() {
    let mut bench = Bench::new(Config::default());
    for (source, account) in [
        ("192.0.2.1", "alice"),
        ("192.0.2.200", "bob"),
        ("192.0.3.1", "carol"),
    ] {
        bench.trust_for(source, account, s(6_000));
    }
    bench.ban(&["192.0.2.0/24"], Length::Configured).unwrap();
    assert_eq!(bench.trusted_in_kernel(), ["192.0.3.1"]);
    assert_eq!(
        bench.controller.take_distrusted(),
        [target("192.0.2.1"), target("192.0.2.200")]
    );
    assert_eq!(
        bench.kinds(),
        [
            JournalKind::BanAdded,
            JournalKind::TrustRemoved,
            JournalKind::TrustRemoved
        ]
    );
    // As in simulate mode, where its registration comes through.
    bench.trust_for("192.0.2.1", "alice", s(6_000));
    assert_eq!(bench.trusted(), ["192.0.3.1 carol"]);
    assert_eq!(bench.controller.take_distrusted(), [target("192.0.2.1")]);
    bench.save();
    let mut bench = bench.restart(s(1));
    assert_eq!(bench.trusted(), ["192.0.3.1 carol"]);
    bench.later(s(3_600));
    bench.trust_for("192.0.2.1", "alice", s(600));
    assert_eq!(bench.trusted().len(), 2);

    // One that is refused takes nobody's trust, an import does.
    let order = BanOrder {
        targets: vec![target("192.0.3.1"), target("203.0.113.1")],
        ..Bench::order(Length::Permanent)
    };
    assert!(bench.controller.ban(&order, bench.clock).is_err());
    assert_eq!(bench.trusted().len(), 2);
    let done = bench
        .controller
        .import(vec![import("192.0.3.1")], ImportOptions::default(), bench.clock)
        .unwrap();
    bench.settle(done);
    assert_eq!(bench.trusted(), ["192.0.2.1 alice"]);
}

#[test]
fn a_network_is_not_banned_over_those_who_must_not_be() {
    let mut config = Config::default();
    config.allow.networks = vec![target("198.51.100.7")];
    let mut bench = Bench::new(config);
    bench.trust_for("192.0.2.200", "alice", s(6_000));
    bench.trust_for("2001:db8:0:7::/64", "bob", s(6_000));
    let aggregate = |bench: &mut Bench, net: &str| {
        let mut decision = Bench::decision(net, false, bench.clock);
        decision.rule = Rule::NetworkAggregate;
        bench.controller.apply(&decision, bench.clock)
    };
    for (net, why) in [
        ("198.51.100.0/24", "contains 198.51.100.7, which is allow-listed"),
        ("203.0.113.0/24", "contains 203.0.113.1, an address of this host"),
        ("192.0.2.0/24", "contains 192.0.2.200, which is trusted"),
        ("2001:db8::/48", "contains 2001:db8:0:7::/64, which is trusted"),
    ] {
        assert_eq!(aggregate(&mut bench, net), Applied::Refused, "{net}");
        assert!(bench.last_message().contains(why), "{}", bench.last_message());
    }
    assert_eq!(aggregate(&mut bench, "192.0.3.0/24"), Applied::Banned);
    assert_eq!(bench.in_kernel(), ["192.0.3.0/24"]);
}

#[test]
fn a_sliding_ban_moves_and_is_told_once_a_minute() {
    let mut bench = Bench::new(Config::default());
    let mut decision = Bench::decision("192.0.2.1", false, bench.clock);
    (decision.ban_for, decision.sliding) = (s(30), true);
    assert_eq!(bench.controller.apply(&decision, bench.clock), Applied::Banned);
    let first = bench.controller.list(&Default::default(), bench.clock).remove(0);
    decision.evidence.count = 9_999;
    for _ in 0..100 {
        bench.later(s(1));
        assert_eq!(bench.controller.apply(&decision, bench.clock), Applied::Banned);
    }
    let end = bench.planes[1].state().bans[&target("192.0.2.1")].expires;
    assert_eq!(end, Some(bench.clock.boot + s(30)));
    let slid = bench.controller.list(&Default::default(), bench.clock).remove(0);
    let moved = crate::bans::Ban {
        expires: slid.expires,
        ..first
    };
    assert_eq!(slid, moved, "only its end moves");
    assert_eq!(
        bench.kinds(),
        [
            JournalKind::BanAdded,
            JournalKind::BanExtended,
            JournalKind::BanExtended
        ]
    );
    assert_eq!(bench.controller.totals().added.values().sum::<u64>(), 1);
    // A shorter one changes nothing; another rule makes it its own.
    decision.ban_for = s(5);
    assert_eq!(bench.controller.apply(&decision, bench.clock), Applied::Unchanged);
    (decision.ban_for, decision.rule) = (s(3_600), Rule::AuthFailure);
    assert_eq!(bench.controller.apply(&decision, bench.clock), Applied::Banned);
    let ban = bench.controller.list(&Default::default(), bench.clock).remove(0);
    assert_eq!(ban.rule, Some(Rule::AuthFailure));
    // It is over when the source stops, and saved as it is.
    bench.controller.tidy(bench.clock);
    assert_eq!(bench.restart(s(3_599)).listed(), ["192.0.2.1"]);
}

#[test]
fn a_slid_ban_is_saved_with_its_new_end() {
    let mut bench = Bench::new(Config::default());
    let mut decision = Bench::decision("192.0.2.1", false, bench.clock);
    (decision.ban_for, decision.sliding) = (s(30), true);
    for _ in 0..2 {
        bench.controller.apply(&decision, bench.clock);
        bench.later(s(20));
    }
    bench.controller.tidy(bench.clock);
    let bench = bench.restart(s(9));
    assert_eq!(bench.in_kernel(), ["192.0.2.1"]);
    assert!(bench.restart(s(1)).in_kernel().is_empty());
}

#[test]
fn what_is_not_enforced_is_counted_by_rule() {
    let mut bench = Bench::new(Config::default());
    bench.decide("192.0.2.1", true);
    bench.decide("192.0.2.1", true);
    bench.controller.set_simulate(true, bench.clock).unwrap();
    let mut decision = Bench::decision("192.0.2.2", false, bench.clock);
    decision.rule = Rule::AccountScan;
    decision.sliding = true;
    bench.controller.apply(&decision, bench.clock);
    bench.later(s(10));
    bench.controller.apply(&decision, bench.clock);
    let would_ban: Vec<_> = bench.controller.totals().would_ban.clone().into_iter().collect();
    assert_eq!(would_ban, [(Rule::FloodInvite, 2), (Rule::AccountScan, 1)]);
}

#[test]
fn alarms_name_the_account_and_do_not_flood_the_journal() {
    let mut bench = Bench::new(Config::default());
    let alarm = Alarm {
        time: bench.clock.boot,
        rule: Rule::DistributedAuth,
        target: None,
        account: Some("alice".to_owned()),
        shadow: false,
        evidence: Bench::decision("192.0.2.1", false, bench.clock).evidence,
        message: "credentials of alice were refused to 40 sources".to_owned(),
    };
    for _ in 0..200 {
        bench
            .controller
            .conclude(Conclusion::Alarm(alarm.clone()), bench.clock);
    }
    assert_eq!(bench.controller.totals().alarms[&Rule::DistributedAuth], 200);
    assert_eq!(bench.kinds().len(), 50);
    let event = bench.controller.journal.recent(1).remove(0);
    assert_eq!(
        (event.kind, event.account.as_deref()),
        (JournalKind::Alarm, Some("alice"))
    );
    assert!(event.evidence.is_some());
    bench.later(s(60));
    bench.controller.conclude(Conclusion::Alarm(alarm), bench.clock);
    assert_eq!(bench.kinds().len(), 51);
    assert!(bench.in_kernel().is_empty());
}

#[test]
fn an_account_is_kept_short() {
    let mut bench = Bench::new(Config::default());
    bench.trust_for("192.0.2.1", &"\u{e9}".repeat(500), s(60));
    let account = bench.controller.trusted().next().unwrap().1.to_owned();
    assert_eq!(account, "\u{e9}".repeat(64));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens in whatever order: the kernel's table is the controller's, within bounds; nobody is trusted
    /// whom an operator has banned; and no volume rule's ban stands beside trust that came before it.
    #[test]
    fn kernel_and_controller_agree(
        steps in prop::collection::vec((0u8..7, 1u8..6, 1u64..200), 1..60),
    ) {
        let mut config = Config::default();
        config.trust.max = 3;
        let mut bench = Bench::new(config);
        for (what, host, seconds) in steps {
            let source = format!("192.0.2.{host}");
            match what {
                0..=2 => bench.trust_for(&source, "phone", s(seconds)),
                3 => bench.later(s(seconds)),
                4 => {
                    let was_trusted = bench.controller.known.trust.get(target(&source)).is_some();
                    let refused = bench.decide(&source, false) == Applied::Refused;
                    prop_assert_eq!(refused, was_trusted);
                }
                5 => bench.controller.conclude(Conclusion::Distrusted(target(&source)), bench.clock),
                _ => drop(bench.ban(&[&source], Length::For(s(seconds))).unwrap()),
            }
            let trusted: Vec<_> = bench.controller.trusted().map(|(target, ..)| target.to_string()).collect();
            prop_assert!(trusted.len() <= 3);
            prop_assert_eq!(&bench.trusted_in_kernel(), &trusted);
            for entry in bench.controller.list.iter() {
                let by_hand = entry.ban.origin == Origin::Manual;
                prop_assert!(!by_hand || !trusted.contains(&entry.ban.target.to_string()));
            }
        }
    }
}
