use std::time::Duration;

use super::super::bench::{Bench, target};
use crate::{
    bans::StoreError,
    config::Config,
    daemon::{BanOrder, Filter, Length},
};

/// Several wait for the disk with the same target, and hear in any order that it can't be written.
#[test]
fn of_changes_that_are_refused_together_none_is_left() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut bench = Bench::new(Config::default());
        let mut tries: Vec<_> = [3_600, 7_200, 600]
            .map(|seconds| {
                let order = BanOrder {
                    targets: vec![target("192.0.2.1")],
                    ..Bench::order(Length::For(Duration::from_secs(seconds)))
                };
                Some(bench.controller.ban(&order, bench.clock).unwrap())
            })
            .into();
        assert_eq!(bench.in_kernel(), ["192.0.2.1"]);
        let error = StoreError::Failed {
            path: "the store".to_owned(),
            reason: "its disk hangs".to_owned(),
        };
        for index in order {
            let done = tries[index].take().unwrap();
            bench.controller.undo(done.undo, &error, bench.clock);
        }
        assert_eq!(bench.in_kernel(), [""; 0], "{order:?}");
        assert!(bench.controller.list(&Filter::default(), bench.clock).is_empty());
    }
}

#[test]
fn what_is_saved_later_holds_although_an_earlier_change_was_refused() {
    for saved_first in [true, false] {
        let mut bench = Bench::new(Config::default());
        let mut ban = |seconds| {
            let order = BanOrder {
                targets: vec![target("192.0.2.1")],
                ..Bench::order(Length::For(Duration::from_secs(seconds)))
            };
            bench.controller.ban(&order, bench.clock).unwrap()
        };
        let (refused, saved) = (ban(3_600), ban(7_200));
        let error = StoreError::Failed {
            path: "the store".to_owned(),
            reason: "its disk is full".to_owned(),
        };
        if saved_first {
            bench.settle(saved);
            bench.controller.undo(refused.undo, &error, bench.clock);
        } else {
            bench.controller.undo(refused.undo, &error, bench.clock);
            bench.settle(saved);
        }
        let ban = bench.controller.list(&Filter::default(), bench.clock).remove(0);
        let left = ban.expires.unwrap().duration_since(bench.clock.wall).unwrap();
        assert!(left > Duration::from_secs(7_000), "{left:?}");
    }
}

#[test]
fn a_refused_short_ban_that_has_ended_does_not_end_what_it_replaced() {
    let mut bench = Bench::new(Config::default());
    bench
        .ban(&["192.0.2.1"], Length::For(Duration::from_secs(3_600)))
        .unwrap();
    let order = BanOrder {
        targets: vec![target("192.0.2.1")],
        ..Bench::order(Length::For(Duration::from_secs(3)))
    };
    let short = bench.controller.ban(&order, bench.clock).unwrap();
    bench.clock.boot += Duration::from_secs(15);
    bench.clock.wall += Duration::from_secs(15);
    bench.controller.expire(bench.clock);
    assert_eq!(bench.in_kernel(), [""; 0]);
    let error = StoreError::Failed {
        path: "the store".to_owned(),
        reason: "its disk hangs".to_owned(),
    };
    bench.controller.undo(short.undo, &error, bench.clock);
    assert_eq!(bench.in_kernel(), ["192.0.2.1"]);
    assert_eq!(bench.controller.list(&Filter::default(), bench.clock).len(), 1);
}
