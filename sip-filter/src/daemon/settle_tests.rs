//! Reboots with a wall clock that is right, years behind, and years ahead.

use super::*;
use crate::{
    bans::{BootId, Store, Writer},
    config::Config,
    daemon::{
        Length,
        bench::{Bench, target},
        fake::Fake,
    },
};

const YEAR: Duration = Duration::from_secs(365 * 86_400);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Bans for an hour and without end; then the machine is off for ten minutes and starts with this clock.
fn rebooted(wall: impl Fn(SystemTime) -> SystemTime) -> (Controller, Clock, tempfile::TempDir) {
    let mut bench = Bench::new(Config::default());
    bench.ban(&["192.0.2.1"], Length::For(s(3_600))).unwrap();
    bench.ban(&["192.0.2.2"], Length::Permanent).unwrap();
    bench.ban(&["192.0.2.3"], Length::For(s(300))).unwrap();
    let off = bench.clock.wall + s(600);
    let (handle, dir) = bench.into_handle();
    drop(handle);
    let clock = Clock {
        wall: wall(off),
        boot: s(20),
    };
    let boot = BootId::new("another");
    let store = Store::open(dir.path()).unwrap();
    let loaded = store.load(clock, &boot).unwrap();
    let writer = Writer::start(store).unwrap();
    let mut controller = Controller::new(Config::default(), loaded, writer, boot, clock);
    controller
        .add_plane(Fake::default().named("fake0"), clock)
        .unwrap();
    (controller, clock, dir)
}

/// What is left of the bans, in seconds.
fn left(controller: &mut Controller, clock: Clock) -> Vec<(String, Option<u64>)> {
    controller.settle(clock);
    controller.expire(clock);
    let mut bans: Vec<_> = controller
        .bans()
        .iter()
        .map(|entry| {
            let left = entry
                .deadline
                .map(|end| (end - clock.boot).as_secs_f64().round() as u64);
            (entry.ban.target.to_string(), left)
        })
        .collect();
    bans.sort();
    bans
}

fn expected(first: Option<u64>, third: Option<u64>) -> Vec<(String, Option<u64>)> {
    let first = first.map(|left| ("192.0.2.1".to_owned(), Some(left)));
    let third = third.map(|left| ("192.0.2.3".to_owned(), Some(left)));
    let permanent = ("192.0.2.2".to_owned(), None);
    first.into_iter().chain([permanent]).chain(third).collect()
}

#[test]
fn a_right_clock_counts_after_a_while() {
    let (mut controller, clock, _dir) = rebooted(|off| off);
    assert_eq!(left(&mut controller, clock), expected(Some(3_600), Some(300)));
    let later = clock.after(s(299));
    assert_eq!(left(&mut controller, later), expected(Some(3_301), Some(1)));
    // It was off for ten minutes and is on for ten.
    let later = clock.after(s(600));
    assert_eq!(left(&mut controller, later), expected(Some(2_400), None));
    assert!(!controller.clock_is_unsettled());
}

#[test]
fn no_ban_becomes_permanent_by_a_clock_that_is_years_behind() {
    let (mut controller, clock, dir) = rebooted(|off| off - 30 * YEAR);
    assert_eq!(left(&mut controller, clock), expected(Some(3_600), Some(300)));
    let right = |after| {
        let mut right = clock.after(after);
        right.wall += 30 * YEAR;
        right
    };
    // Set after a minute.
    assert_eq!(left(&mut controller, right(s(60))), expected(Some(2_940), None));
    // That is settled, and saved: a restart with a wrong clock changes nothing.
    drop(controller);
    let store = Store::open(dir.path()).unwrap();
    let loaded = store.load(clock.after(s(100)), &BootId::new("another")).unwrap();
    assert!(loaded.unsettled.is_empty());

    // Never set.
    let (mut controller, clock, _dir) = rebooted(|off| off - 30 * YEAR);
    assert_eq!(
        left(&mut controller, clock.after(s(700))),
        expected(Some(2_900), None)
    );
    assert_eq!(left(&mut controller, clock.after(s(3_601))), expected(None, None));
}

#[test]
fn no_ban_vanishes_by_a_clock_that_is_years_ahead_until_it_is_set() {
    let (mut controller, clock, _dir) = rebooted(|off| off + 30 * YEAR);
    assert_eq!(left(&mut controller, clock), expected(Some(3_600), Some(300)));
    controller.tidy(clock);
    let mut right = clock.after(s(120));
    right.wall -= 30 * YEAR;
    assert_eq!(left(&mut controller, right), expected(Some(2_880), None));
    // What an operator has changed meanwhile is his.
    let (mut controller, clock, _dir) = rebooted(|off| off + 30 * YEAR);
    let order = crate::daemon::BanOrder {
        targets: vec![target("192.0.2.3")],
        ..Bench::order(Length::For(s(7_200)))
    };
    let done = controller.ban(&order, clock).unwrap();
    done.receipt.wait().unwrap();
    let late = clock.after(s(600));
    // If it is not set at all, it is believed in the end.
    assert_eq!(left(&mut controller, late), expected(None, Some(6_600)));
}
