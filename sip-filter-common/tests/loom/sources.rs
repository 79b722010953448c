//! Sources: two CPUs that judge, and replace, in one bucket.

use std::sync::atomic::Ordering as Host;

use loom::thread;
use sip_filter_common::{
    abi::Limit,
    sip::Class,
    table::{
        HostLine, Line as _, Memory as _,
        source::{Judged, SourceKey, admitted},
    },
};

use super::words::{SEED, Shared, empty, every_order};

const SECOND: u64 = 1_000_000_000;
const NOW: u64 = 1_000 * SECOND;
const SLOTS: usize = 4;

fn source(number: u32) -> SourceKey {
    SourceKey::v4(number, Class::Invite)
}

/// One packet a second, after a burst.
fn limit(burst: u32) -> Limit {
    Limit::new(1, SECOND, burst.into())
}

fn judge(table: &Shared, source: SourceKey, limit: Limit) -> Judged {
    admitted(table, source.place(SEED), source, limit, NOW)
}

/// A bucket with four sources, the first quiet for longest, with these states.
fn full(states: [u64; SLOTS]) -> &'static [HostLine] {
    let lines = empty(1);
    for (slot, state) in states.into_iter().enumerate() {
        lines[0][slot].store(source(slot as u32 + 1).number(), Host::Relaxed);
        lines[0][SLOTS + slot].store(state, Host::Relaxed);
    }
    lines.leak()
}

/// Sources that were quiet for long, the first for longest.
fn quiet() -> &'static [HostLine] {
    full([
        NOW - 90 * SECOND,
        NOW - 80 * SECOND,
        NOW - 70 * SECOND,
        NOW - 60 * SECOND,
    ])
}

/// Key and state of every slot.
fn entries(table: &Shared) -> Vec<(u64, u64)> {
    let line = table.line(0).expect("one bucket");
    (0..SLOTS)
        .map(|slot| (line.load(slot), line.load(SLOTS + slot)))
        .collect()
}

/// How many packets of `sources` are within the limit, when each list is what one CPU gets; then the table.
fn within(lines: &'static [HostLine], burst: u32, cpus: [&'static [u32]; 2]) -> (Vec<(u32, bool)>, Shared) {
    let table = Shared::copy(lines);
    let run = move |packets: &'static [u32], table: Shared| {
        let judged = |number: &u32| (*number, judge(&table, source(*number), limit(burst)).within());
        packets.iter().map(judged).collect::<Vec<_>>()
    };
    let other = {
        let table = table.clone();
        thread::spawn(move || run(cpus[1], table))
    };
    let mut all = run(cpus[0], table.clone());
    all.extend(other.join().expect("no assertion failed"));
    (all, table)
}

fn count(all: &[(u32, bool)], source: u32) -> usize {
    all.iter()
        .filter(|(number, within)| *number == source && *within)
        .count()
}

#[test]
fn no_update_of_a_known_source_is_lost() {
    for (burst, expected) in [(1, 1), (2, 2), (3, 3)] {
        every_order(3, move || {
            let (all, table) = within(quiet(), burst, [&[2, 2], &[2, 2]]);
            assert_eq!(count(&all, 2), expected, "a burst of {burst}");
            let state = entries(&table)[1].1;
            assert_eq!(
                state,
                NOW + expected as u64 * SECOND,
                "each packet within the limit was charged"
            );
        });
    }
}

/// Both CPUs see the same source for the first time. While one has set a slot's state and not yet its key, the other does
/// not find the source and gives it a second slot: until the first key stands, it has a burst on each CPU, and a CPU that
/// lost the race for a slot lets one packet through uncounted. No order gives it more, and once both are done there is one
/// count, and it is full.
#[test]
fn a_new_source_has_a_burst_on_each_cpu_at_most() {
    every_order(2, || {
        let (all, table) = within(quiet(), 2, [&[9, 9, 9], &[9, 9, 9]]);
        let passed = count(&all, 9);
        assert!(
            (2..=5).contains(&passed),
            "{passed} packets within bursts of 2 on 2 CPUs"
        );
        assert!(
            !judge(&table, source(9), limit(2)).within(),
            "it is known, and over its limit"
        );
    });
}

/// Two new sources want the place of the one that was quiet for longest.
#[test]
fn two_sources_that_replace_in_one_bucket_keep_to_themselves() {
    every_order(3, || {
        let (all, table) = within(quiet(), 2, [&[8], &[9]]);
        assert_eq!((count(&all, 8), count(&all, 9)), (1, 1));
        let entries = entries(&table);
        for new in [8, 9] {
            let own: Vec<_> = entries
                .iter()
                .filter(|(key, _)| *key == source(new).number())
                .collect();
            assert!(own.len() <= 1, "twice in the bucket");
            assert!(
                own.iter().all(|(_, state)| *state >= NOW + SECOND),
                "a packet was not charged"
            );
        }
        // At least one found a place, and whoever was quiet for a shorter time is still there.
        let new = entries
            .iter()
            .filter(|(key, _)| [8, 9].map(|new| source(new).number()).contains(key))
            .count();
        assert!((1..=2).contains(&new));
        assert_eq!(
            &entries[2..],
            &[
                (source(3).number(), NOW - 70 * SECOND),
                (source(4).number(), NOW - 60 * SECOND)
            ]
        );
    });
}

/// A source sends at the moment in which another takes its place: it passes, charged for one packet at worst, and the
/// new one's count is its own.
#[test]
fn a_source_that_is_replaced_is_charged_for_one_packet_at_worst() {
    every_order(3, || {
        let (all, table) = within(quiet(), 2, [&[1], &[9]]);
        assert_eq!((count(&all, 1), count(&all, 9)), (1, 1));
        for (key, state) in entries(&table) {
            let charged = key == source(1).number() || key == source(9).number();
            assert!(!charged || state >= NOW + SECOND, "a packet was not charged");
            assert!(state <= NOW + 2 * SECOND, "charged for more than there was");
        }
    });
}

/// A flooder that is over its limit stays so, whoever comes into its bucket meanwhile.
#[test]
fn a_flooder_cannot_be_pushed_out() {
    every_order(3, || {
        let ahead = NOW + 2 * SECOND;
        let lines = full([ahead, NOW - 3 * SECOND, NOW - 2 * SECOND, NOW - SECOND]);
        let (all, table) = within(lines, 2, [&[1, 1], &[8, 9]]);
        assert_eq!((count(&all, 1), count(&all, 8), count(&all, 9)), (0, 1, 1));
        assert_eq!(entries(&table)[0], (source(1).number(), ahead));
    });
}
