//! The controller with fake data planes and a real store.

use super::*;
use crate::{
    bans::{Outcome, StoreError},
    daemon::{
        Applied, BanOrder, Filter, ImportBan, ImportOptions, Length, Unban,
        bench::{Bench, import, target},
        error::ErrorCode,
        journal::JournalKind,
    },
};

#[test]
fn a_ban_is_in_list_kernel_and_store_and_survives_a_crash() {
    let mut bench = Bench::new(Config::default());
    let outcomes = bench
        .ban(&["192.0.2.1", "198.51.100.0/24"], Length::Configured)
        .unwrap();
    assert_eq!(outcomes, [Outcome::Added; 2]);
    assert_eq!(bench.in_kernel(), ["192.0.2.1", "198.51.100.0/24"]);
    let expires = bench.clock.boot + Duration::from_secs(3_600);
    assert_eq!(
        bench.planes[0].state().bans[&target("192.0.2.1")],
        KernelBan {
            scope: Scope::Sip,
            expires: Some(expires)
        }
    );
    let mut bench = bench.restart(Duration::from_secs(60));
    assert_eq!(bench.in_kernel(), ["192.0.2.1", "198.51.100.0/24"]);
    assert_eq!(
        bench.planes[0].state().bans[&target("192.0.2.1")].expires,
        Some(expires)
    );

    let done = bench
        .controller
        .unban(
            &Unban::Targets(vec![target("192.0.2.1"), target("192.0.2.2")]),
            bench.clock,
        )
        .unwrap();
    let done = bench.settle(done);
    let removed: Vec<_> = done.iter().map(|done| done.removed).collect();
    assert_eq!(removed, [true, false]);
    assert_eq!(bench.in_kernel(), ["198.51.100.0/24"]);
    assert_eq!(bench.controller.take_forgiven(), [target("192.0.2.1")]);
    let bench = bench.restart(Duration::ZERO);
    assert_eq!(bench.in_kernel(), ["198.51.100.0/24"]);
    let checked = bench.controller.check("192.0.2.1".parse().unwrap(), bench.clock);
    assert!(!checked.banned);
    assert_eq!(checked.history[0].1.ended_by, EndedBy::Unbanned);
}

#[test]
fn when_one_table_is_full_nothing_changes_anywhere() {
    let mut bench = Bench::new(Config::default());
    bench
        .ban(&["192.0.2.1"], Length::For(Duration::from_secs(60)))
        .unwrap();
    let before = bench.planes[0].state().bans.clone();
    // The second plane has room for one more, the order is for three and changes one that exists.
    bench.planes[1].state().room = Some(2);
    let error = bench
        .ban(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], Length::Permanent)
        .unwrap_err();
    assert_eq!((error.code(), error.code().exit()), (ErrorCode::Full, 5));
    assert!(error.to_string().contains("`tables.ban4`"), "{error}");
    assert_eq!(bench.listed(), ["192.0.2.1"]);
    assert_eq!(bench.in_kernel(), ["192.0.2.1"]);
    assert_eq!(bench.planes[0].state().bans, before);
    assert_eq!(bench.planes[1].state().bans, before);

    let entries = (2..20).map(|host| import(&format!("192.0.2.{host}"))).collect();
    let error = bench
        .controller
        .import(entries, ImportOptions::default(), bench.clock)
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::Full);
    assert_eq!(bench.in_kernel(), ["192.0.2.1"]);
    assert_eq!(bench.decide("192.0.2.2", false), Applied::Banned);
    assert_eq!(bench.decide("192.0.2.3", false), Applied::Failed);
    assert_eq!(bench.listed(), ["192.0.2.1", "192.0.2.2"]);
    assert_eq!(bench.in_kernel(), ["192.0.2.1", "192.0.2.2"]);
    assert!(bench.controller.agrees());
    assert_eq!(bench.restart(Duration::ZERO).listed(), ["192.0.2.1", "192.0.2.2"]);
}

#[test]
fn whoever_must_not_be_banned_is_not() {
    let mut config = Config::default();
    config.allow.networks = vec![target("198.51.100.0/24")];
    let mut bench = Bench::new(config);
    for (text, code) in [
        ("198.51.100.7", ErrorCode::Refused),
        ("203.0.113.1", ErrorCode::Refused),
        ("203.0.113.0/24", ErrorCode::Refused),
        ("10.0.0.0/8", ErrorCode::Refused),
    ] {
        // Refused as a whole, the harmless one included.
        let error = bench.ban(&["192.0.2.1", text], Length::Permanent).unwrap_err();
        assert_eq!(error.code(), code, "{text}");
        assert!(error.hint().is_some());
    }
    let error = bench
        .ban(&["192.0.2.1"], Length::For(Duration::ZERO))
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::Refused);
    let past = Length::Until(bench.clock.wall - Duration::from_secs(1));
    assert_eq!(
        bench.ban(&["192.0.2.1"], past).unwrap_err().code(),
        ErrorCode::Refused
    );
    assert_eq!(bench.decide("198.51.100.7", false), Applied::Refused);
    assert_eq!(bench.decide("198.51.100.7", false), Applied::Refused);
    assert_eq!(bench.decide("203.0.113.1", false), Applied::Refused);
    // A rule never forces anything: an own address in a network, as in an IPv6 /64, spares all of it.
    assert_eq!(bench.decide("203.0.113.0/24", false), Applied::Refused);
    assert!(bench.listed().is_empty());
    assert!(bench.in_kernel().is_empty());
    // Each is reported once, not each time.
    assert_eq!(bench.kinds(), [JournalKind::Refused; 3]);
    assert_eq!(bench.controller.totals().refused, 4);
    let mut allowed: Vec<_> = bench.planes[0]
        .state()
        .allowed
        .iter()
        .map(ToString::to_string)
        .collect();
    allowed.sort();
    assert_eq!(allowed, ["198.51.100.0/24", "203.0.113.1/32"]);
}

#[test]
fn allowing_exempts_at_once_and_survives_and_can_be_taken_back() {
    let mut bench = Bench::new(Config::default());
    bench.ban(&["192.0.2.7"], Length::Permanent).unwrap();
    let done = bench
        .controller
        .allow(&[target("192.0.2.0/24")], "office", bench.clock)
        .unwrap();
    let done = bench.settle(done);
    assert_eq!(done, [true]);
    let done = bench
        .controller
        .allow(&[target("192.0.2.0/24")], "office", bench.clock)
        .unwrap();
    assert_eq!(done.value, [false]);
    let checked = bench.controller.check("192.0.2.7".parse().unwrap(), bench.clock);
    assert_eq!((checked.banned, checked.bans.len()), (false, 1));
    assert_eq!(checked.allowed_by, Some(target("192.0.2.0/24")));

    let mut bench = bench.restart(Duration::ZERO);
    assert!(
        bench.planes[1]
            .state()
            .allowed
            .contains(&target("192.0.2.0/24").net())
    );
    assert_eq!(bench.controller.allowed()[0].1.comment, "office");
    bench.planes[1].state().room_allowed = Some(2);
    let error = bench
        .controller
        .allow(&[target("192.0.3.0/24")], "", bench.clock)
        .unwrap_err();
    assert_eq!(error.code(), ErrorCode::Full);
    assert_eq!(bench.planes[0].state().allowed.len(), 2);
    assert_eq!(bench.controller.allowed().len(), 1);
    let done = bench
        .controller
        .disallow(&[target("192.0.2.0/24")], bench.clock)
        .unwrap();
    bench.settle(done);
    assert!(bench.restart(Duration::ZERO).controller.allowed().is_empty());
}

#[test]
fn bans_end_and_are_remembered() {
    let mut bench = Bench::new(Config::default());
    assert_eq!(bench.decide("192.0.2.1", false), Applied::Banned);
    bench.clock = bench.clock.after(Duration::from_secs(299));
    bench.controller.expire(bench.clock);
    assert_eq!(bench.in_kernel(), ["192.0.2.1"]);
    bench.clock = bench.clock.after(Duration::from_secs(1));
    // Ended is ended, collected or not.
    assert!(bench.listed().is_empty());
    bench.controller.expire(bench.clock);
    assert!(bench.in_kernel().is_empty());
    assert_eq!(bench.kinds(), [JournalKind::BanAdded, JournalKind::BanExpired]);
    let bench = bench.restart(Duration::from_secs(60));
    let offences = bench.controller.bans().offences();
    assert_eq!(offences.len(), 1);
    assert_eq!((offences[0].0, offences[0].1), (target("192.0.2.1"), 1));
}

#[test]
fn what_ended_while_the_daemon_was_away_is_gone() {
    let mut bench = Bench::new(Config::default());
    bench
        .ban(&["192.0.2.1"], Length::For(Duration::from_secs(60)))
        .unwrap();
    bench.ban(&["192.0.2.2"], Length::Permanent).unwrap();
    let bench = bench.restart(Duration::from_secs(60));
    assert_eq!(bench.in_kernel(), ["192.0.2.2"]);
    let checked = bench.controller.check("192.0.2.1".parse().unwrap(), bench.clock);
    assert_eq!(checked.history[0].1.ended_by, EndedBy::Expired);
}

#[test]
fn shadow_rules_and_simulation_only_report() {
    let mut bench = Bench::new(Config::default());
    assert_eq!(bench.decide("192.0.2.1", true), Applied::Shadow);
    assert!(bench.in_kernel().is_empty());
    assert_eq!(bench.kinds(), [JournalKind::WouldBan]);

    assert!(!bench.controller.set_simulate(true, bench.clock).unwrap());
    assert!(
        bench
            .planes
            .iter()
            .all(|plane| plane.state().config.as_ref().unwrap().simulate)
    );
    // In the tables, so that the kernel program counts what it would drop.
    assert_eq!(bench.decide("192.0.2.2", false), Applied::Banned);
    assert_eq!(bench.in_kernel(), ["192.0.2.2"]);
    let last = bench.controller.journal.recent(1).remove(0);
    assert_eq!((last.kind, last.shadow), (JournalKind::WouldBan, true));
    assert!(last.evidence.is_some());
}

#[test]
fn a_mode_that_one_interface_refuses_is_changed_nowhere() {
    let mut bench = Bench::new(Config::default());
    bench.planes[1].state().refuse_config = true;
    let error = bench.controller.set_simulate(true, bench.clock).unwrap_err();
    assert_eq!(
        chain(&error),
        "cannot change the settings of fake1: cannot write the configuration of the kernel program: no"
    );
    assert!(!bench.planes[0].state().config.as_ref().unwrap().simulate);
    assert!(!bench.controller.config().simulate);
}

#[test]
fn hits_are_counted_and_saved() {
    let mut bench = Bench::new(Config::default());
    bench.ban(&["192.0.2.1"], Length::Permanent).unwrap();
    bench.planes[0].state().hits = vec![(target("192.0.2.1"), 40), (target("192.0.2.9"), 1)];
    bench.planes[1].state().hits = vec![(target("192.0.2.1"), 2)];
    bench.controller.harvest_hits(bench.clock);
    bench.controller.tidy(bench.clock);
    let bench = bench.restart(Duration::ZERO);
    let ban = bench.controller.list(&Filter::default(), bench.clock).remove(0);
    assert_eq!(ban.hits, 42);
    assert!(ban.last_hit.is_some());
}

#[test]
fn an_import_reports_and_an_export_comes_back_the_same() {
    let mut config = Config::default();
    config.allow.networks = vec![target("198.51.100.0/24")];
    let mut bench = Bench::new(config);
    bench.decide("192.0.2.1", false);
    let entries = vec![import("192.0.2.1"), import("198.51.100.1"), import("192.0.2.3")];
    let dry = ImportOptions {
        dry_run: true,
        ..ImportOptions::default()
    };
    let done = bench
        .controller
        .import(entries.clone(), dry, bench.clock)
        .unwrap();
    assert_eq!(
        (done.value.added, done.value.replaced, done.value.skipped.len()),
        (1, 1, 1)
    );
    assert_eq!(bench.in_kernel(), ["192.0.2.1"]);
    assert_eq!(
        bench
            .controller
            .check("192.0.2.1".parse().unwrap(), bench.clock)
            .history,
        []
    );

    let error = bench
        .controller
        .import(entries.clone(), ImportOptions::default(), bench.clock)
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("entry 2: 198.51.100.1 is allow-listed"),
        "{error}"
    );
    assert_eq!(bench.in_kernel(), ["192.0.2.1"]);

    let skip = ImportOptions {
        skip_refused: true,
        ..ImportOptions::default()
    };
    let done = bench.controller.import(entries, skip, bench.clock).unwrap();
    bench.settle(done);
    assert_eq!(bench.in_kernel(), ["192.0.2.1", "192.0.2.3"]);

    let export = bench.controller.list(&Filter::default(), bench.clock);
    let entries = export.iter().map(|ban| ImportBan {
        target: ban.target,
        length: ban.expires.map_or(Length::Permanent, Length::Until),
        reason: ban.reason.clone(),
        scope: ban.scope,
        origin: ban.origin.clone(),
        rule: ban.rule,
        created: Some(ban.created),
    });
    let mut other = Bench::new(Config::default());
    other.clock = bench.clock;
    let done = other
        .controller
        .import(entries.collect(), ImportOptions::default(), bench.clock)
        .unwrap();
    assert_eq!(done.value.added, 2);
    assert_eq!(other.controller.list(&Filter::default(), bench.clock), export);
}

#[test]
fn what_cannot_be_saved_is_taken_back() {
    let mut bench = Bench::new(Config::default());
    bench.decide("192.0.2.1", false);
    let order = BanOrder {
        targets: vec![target("192.0.2.1"), target("192.0.2.2")],
        length: Length::Permanent,
        reason: String::new(),
        scope: Scope::All,
        force: false,
    };
    bench.controller.close();
    let done = bench.controller.ban(&order, bench.clock).unwrap();
    assert_eq!(bench.in_kernel(), ["192.0.2.1", "192.0.2.2"]);
    let error = done.receipt.wait().unwrap_err();
    assert!(matches!(*error, StoreError::Failed { .. }));
    bench.controller.undo(done.undo, &error, bench.clock);
    // Nobody has heard of a ban, only that there is none.
    assert_eq!(bench.kinds(), [JournalKind::BanAdded, JournalKind::Refused]);
    assert_eq!(bench.controller.totals().added.values().sum::<u64>(), 1);
    assert_eq!(bench.in_kernel(), ["192.0.2.1"]);
    let ban = bench.controller.list(&Filter::default(), bench.clock).remove(0);
    assert_eq!((ban.origin, ban.scope), (Origin::Detector, Scope::Sip));
    assert_eq!(
        bench.planes[0].state().bans[&target("192.0.2.1")].scope,
        Scope::Sip
    );
}

#[test]
fn a_ban_says_what_it_replaces() {
    let mut bench = Bench::new(Config::default());
    bench.ban(&["192.0.2.1"], Length::Permanent).unwrap();
    let order = BanOrder {
        targets: vec![target("192.0.2.1"), target("192.0.2.2")],
        ..Bench::order(Length::For(Duration::from_secs(60)))
    };
    let done = bench.controller.ban(&order, bench.clock).unwrap();
    let done = bench.settle(done);
    let before = done[0].before.as_ref().unwrap();
    assert_eq!((before.expires, before.scope), (None, Scope::Sip));
    assert_eq!(done[1].before, None);
}

#[test]
fn what_lets_packets_pass_holds_even_if_it_cannot_be_saved() {
    let mut bench = Bench::new(Config::default());
    bench
        .ban(&["192.0.2.1", "192.0.2.2"], Length::Configured)
        .unwrap();
    let plane = bench.planes[0].clone();
    bench.controller.close();
    let (handle, _dir) = bench.into_handle();
    let lifted = handle.unban(&Unban::Targets(vec![target("192.0.2.1")])).unwrap();
    assert!(lifted.value[0].removed && lifted.unsaved.is_some());
    let allowed = handle.allow(&[target("198.51.100.0/24")], "").unwrap();
    assert!(allowed.value == [true] && allowed.unsaved.is_some());
    assert_eq!(plane.state().bans.len(), 1, "the kernel knows");
    let exempt = target("198.51.100.0/24").net();
    assert!(plane.state().allowed.contains(&exempt));
    let events = handle.recent_events(10);
    let unsaved = events
        .iter()
        .filter(|event| event.message.contains("could not be saved"));
    assert_eq!(unsaved.count(), 2, "{events:?}");
    // What stops packets does not hold: who is banned by it must stay so.
    assert!(matches!(
        handle.disallow(&[target("198.51.100.0/24")]),
        Err(ControlError::NotSaved(_))
    ));
}

#[test]
fn everybody_cannot_be_exempted() {
    let mut bench = Bench::new(Config::default());
    for all in ["0.0.0.0/0", "::/0"] {
        let error = bench
            .controller
            .allow(&[target("192.0.2.1"), target(all)], "", bench.clock)
            .unwrap_err();
        assert!(error.to_string().contains(all), "{error}");
    }
    assert!(bench.controller.allowed().is_empty());
}

#[test]
fn tables_that_differ_are_repaired() {
    let mut bench = Bench::new(Config::default());
    bench
        .ban(&["192.0.2.1", "192.0.2.2", "192.0.2.3"], Length::Configured)
        .unwrap();
    assert_eq!(bench.controller.reconcile(bench.clock).unwrap(), 0);
    {
        let mut state = bench.planes[0].state();
        state.bans.remove(&target("192.0.2.1"));
        state.bans.get_mut(&target("192.0.2.2")).unwrap().expires = None;
        // The kernel rounds.
        let end = &mut state.bans.get_mut(&target("192.0.2.3")).unwrap().expires;
        *end = end.map(|end| end + Duration::from_secs(1));
        state.allowed.clear();
    }
    assert_eq!(bench.controller.reconcile(bench.clock).unwrap(), 2);
    assert_eq!(bench.in_kernel(), ["192.0.2.1", "192.0.2.2", "192.0.2.3"]);
    assert_eq!(bench.planes[0].state().allowed.len(), 1);
}

#[test]
fn a_new_address_of_the_host_is_exempt() {
    let mut bench = Bench::new(Config::default());
    bench.ban(&["192.0.2.1"], Length::Permanent).unwrap();
    bench.controller.set_own(vec!["192.0.2.1".parse().unwrap()]);
    assert_eq!(
        bench.planes[1].state().allowed,
        [target("192.0.2.1").net()],
        "the kernel lets it pass"
    );
    assert!(
        !bench
            .controller
            .check("192.0.2.1".parse().unwrap(), bench.clock)
            .banned
    );
}

#[test]
fn a_reload_changes_what_it_can_and_names_the_rest() {
    let mut bench = Bench::new(Config::default());
    let text = "simulate = true\nallow.networks = [\"192.0.2.0/24\"]\ntables.ban4 = 5000\n";
    let new = Config::parse(text, "config.toml").unwrap();
    let reloaded = bench.controller.reload(new, bench.clock).unwrap();
    assert_eq!(reloaded.changed, ["allow.networks", "simulate"]);
    assert_eq!(reloaded.needs_restart, ["tables"]);
    assert!(bench.planes[0].state().config.as_ref().unwrap().simulate);
    assert_eq!(bench.planes[0].state().allowed.len(), 2);
    assert_eq!(
        bench.ban(&["192.0.2.1"], Length::Permanent).unwrap_err().code(),
        ErrorCode::Refused
    );

    bench.planes[1].state().refuse_config = true;
    assert!(bench.controller.reload(Config::default(), bench.clock).is_err());
    assert!(bench.controller.config().simulate);
    assert!(bench.planes.iter().all(|plane| plane.state().allowed.len() == 2));
    assert!(bench.planes[0].state().config.as_ref().unwrap().simulate);
}

#[test]
fn a_reload_for_something_else_keeps_the_mode_an_operator_chose() {
    let simulating = || Config {
        simulate: true,
        ..Config::default()
    };
    let mut bench = Bench::new(simulating());
    assert!(bench.controller.set_simulate(false, bench.clock).unwrap());
    bench.controller.reload(simulating(), bench.clock).unwrap();
    assert!(
        !bench.controller.config().simulate,
        "the file says what it said before"
    );
    bench.controller.reload(Config::default(), bench.clock).unwrap();
    assert!(!bench.controller.config().simulate);
    bench.controller.reload(simulating(), bench.clock).unwrap();
    assert!(bench.controller.config().simulate, "the file changed its mind");
}

#[test]
fn floods_are_reported_once_a_minute_and_not_endlessly() {
    use sip_filter_common::sip::Class;
    let mut bench = Bench::new(Config::default());
    let flood = |bench: &mut Bench, sources: u8| {
        for host in 0..sources {
            let source = target(&format!("192.0.2.{host}"));
            bench
                .controller
                .note_flood(source, Class::Invite, true, bench.clock);
        }
        bench.kinds().len()
    };
    assert_eq!(flood(&mut bench, 3), 3);
    assert_eq!(flood(&mut bench, 3), 3, "the same ones again");
    assert_eq!(flood(&mut bench, 200), 50, "too many to be told one by one");
    bench.clock = bench.clock.after(Duration::from_secs(61));
    assert_eq!(flood(&mut bench, 2), 52);
    assert_eq!(bench.kinds()[0], JournalKind::Flood);
}
