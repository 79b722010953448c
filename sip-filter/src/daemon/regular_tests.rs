use std::{net::Ipv4Addr, time::Duration};

use super::*;
use crate::{
    config::Config,
    daemon::{Filter, ImportBan, ImportOptions, Length, bench::Bench, bench::import},
};

/// Many times what a piece may handle.
const MANY: u32 = 6_000;

/// What a piece handles at most, of two data planes: what it looks up, and one more part of the list.
const MOST: usize = 2 * (READS + 100);

fn address(n: u32) -> String {
    Ipv4Addr::from(0x0b00_0000 | n).to_string()
}

/// A list of many bans that end after 100 s.
fn bench() -> Bench {
    let mut bench = Bench::new(Config::default());
    let entries: Vec<ImportBan> = (0..MANY)
        .map(|n| ImportBan {
            length: Length::For(Duration::from_secs(100)),
            ..import(&address(n))
        })
        .collect();
    let options = ImportOptions::default();
    let done = bench.controller.import(entries, options, bench.clock).unwrap();
    done.receipt.wait().unwrap();
    bench
}

/// Runs a piece until there is no more; returns how many entries each call handled.
fn handled(bench: &mut Bench, piece: Piece) -> Vec<usize> {
    let mut calls = Vec::new();
    loop {
        let planes = bench.planes.clone();
        planes.iter().for_each(|plane| plane.state().handled = 0);
        let more = piece(&mut bench.controller, bench.clock);
        calls.push(planes.iter().map(|plane| plane.state().handled).sum());
        if !more {
            return calls;
        }
        assert!(calls.len() < 10_000, "it never ends");
    }
}

#[test]
fn no_piece_of_the_round_handles_more_than_its_share() {
    let mut bench = bench();
    bench.controller.begin_verify();
    let calls = handled(&mut bench, Controller::verify_some);
    assert!(calls.iter().all(|handled| *handled <= MOST), "{calls:?}");
    // Each ban was asked for when it was new and in the round, and counted by the look for strays, on both planes.
    assert_eq!(calls.iter().sum::<usize>(), 3 * 2 * MANY as usize);
    assert_eq!(bench.controller.verified().asked, u64::from(MANY));
    assert!(bench.controller.verified().drift.is_empty());
}

#[test]
fn hits_of_a_flood_from_many_banned_sources_come_in_pieces_and_are_all_there() {
    let mut bench = bench();
    for plane in &bench.planes {
        plane.state().hits = (0..MANY).map(|n| (address(n).parse().unwrap(), 3)).collect();
    }
    let calls = handled(&mut bench, Controller::harvest_some_hits);
    assert!(calls.iter().all(|handled| *handled <= MOST), "{calls:?}");
    let bans = bench.controller.list(&Filter::default(), bench.clock);
    assert!(bans.len() == MANY as usize && bans.iter().all(|ban| ban.hits == 6));
    // They are saved in pieces, too.
    let mut before = bench.controller.touched.len();
    assert_eq!(before, MANY as usize);
    while bench.controller.save_some_hits(bench.clock) {
        assert_eq!(bench.controller.touched.len(), before - WRITES);
        before -= WRITES;
    }
    let bench = bench.restart(Duration::ZERO);
    let bans = bench.controller.list(&Filter::default(), bench.clock);
    assert!(bans.iter().all(|ban| ban.hits == 6), "saved");
}

#[test]
fn bans_that_end_at_once_are_collected_in_pieces() {
    let mut bench = bench();
    bench.clock = bench.clock.after(Duration::from_secs(101));
    let calls = handled(&mut bench, Controller::expire_some);
    assert!(calls.iter().all(|handled| *handled <= 2 * WRITES), "{calls:?}");
    assert!(bench.in_kernel().is_empty() && bench.listed().is_empty());
    let silent = bench.controller.ended;
    assert_eq!(silent, MANY as usize, "told in one line");
    let bench = bench.restart(Duration::ZERO);
    assert!(bench.controller.bans().is_empty(), "saved");
    assert_eq!(bench.controller.bans().history().iter().count(), MANY as usize);
}

#[test]
fn what_is_taken_out_of_a_set_is_gone_and_no_more() {
    let mut set: HashSet<usize> = (0..300).collect();
    let mut taken = take_some(&mut set);
    assert_eq!((taken.len(), set.len()), (WRITES, 300 - WRITES));
    while !set.is_empty() {
        taken.extend(take_some(&mut set));
    }
    taken.sort_unstable();
    assert_eq!(taken, (0..300).collect::<Vec<_>>());
}
