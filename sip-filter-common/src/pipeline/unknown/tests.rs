use core::cell::Cell;
use std::{boxed::Box, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::{
    abi::{EventHeader, Family},
    packet::{Ip, Packet},
    pipeline::{Budget, Lane, NetworkValue, Recent},
    table::{Forget, HostLine},
};

const SECOND: u64 = 1_000_000_000;
const CLASS: Class = Class::Register;

/// Nothing but the budget, as one of several CPUs sees it.
struct Shared {
    budget: &'static [HostLine],
    shares: Vec<Cell<u32>>,
    cpu: Cell<usize>,
    config: Config,
}

impl Shared {
    fn new(cpus: usize, whole: Limit, part: Limit) -> Self {
        Self {
            budget: Box::leak((0..4).map(|_| HostLine::default()).collect()),
            shares: (0..cpus).map(|_| Cell::new(0)).collect(),
            cpu: Cell::new(0),
            config: Config {
                seed: [1, 2],
                flags: 0,
                source_prefix6: 64,
                snapshot_bytes: 0,
                snapshots_per_source: 0,
                events_per_window: 0,
                responses_per_source: 0,
                drop_captures_per_window: 0,
                limits: [Limit::UNLIMITED; 2 * Class::COUNT],
                unknown_budget: [whole; Class::COUNT],
                fresh_budget: [part; Class::COUNT],
            },
        }
    }

    fn takes(&self, cpu: usize, fresh: bool, now: u64) -> bool {
        self.cpu.set(cpu % self.shares.len());
        within_unknown_budget(self, &self.config, (CLASS, fresh), now)
    }
}

impl Forget for Shared {}

impl Tables for Shared {
    type Memory = &'static [HostLine];

    fn config(&self) -> Option<&Config> {
        Some(&self.config)
    }

    fn unknown(&self) -> &&'static [HostLine] {
        &self.budget
    }

    fn share<R>(&self, _: Class, f: impl FnOnce(&mut u32) -> R) -> R {
        let share = &self.shares[self.cpu.get()];
        let mut value = share.get();
        let result = f(&mut value);
        share.set(value);
        result
    }

    fn now(&self) -> u64 {
        unreachable!()
    }

    fn random(&self) -> u32 {
        unreachable!()
    }

    fn ban4(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn ban6(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn ban6_host(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn sources(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn trust4(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn trust6(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn endpoints(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn nets4(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn nets6(&self) -> &&'static [HostLine] {
        unreachable!()
    }

    fn lengths(&self, _: u32) -> Option<u64> {
        unreachable!()
    }

    fn port_word(&self, _: u32) -> Option<u64> {
        unreachable!()
    }

    fn cover_word(&self, _: Family, _: u32) -> Option<u64> {
        unreachable!()
    }

    fn network(&self, _: Ip) -> Option<NetworkValue> {
        unreachable!()
    }

    fn network_hit(&self, _: Ip) {
        unreachable!()
    }

    fn recent<R>(&self, _: u32, _: impl FnOnce(&mut Recent) -> R) -> Option<R> {
        unreachable!()
    }

    fn budget<R>(&self, _: Lane, _: impl FnOnce(&mut Budget) -> R) -> R {
        unreachable!()
    }

    fn count_class(&self, _: Class) {
        unreachable!()
    }

    fn count_suppressed(&self) {
        unreachable!()
    }

    fn emit<P: Packet>(&self, _: &P, _: &EventHeader, _: usize) {
        unreachable!()
    }
}

/// The defaults of REGISTER: 200 a second, 2,000 at once; an eighth of both for fresh sources.
fn defaults(cpus: usize) -> Shared {
    Shared::new(cpus, Limit::new(200, SECOND, 2_000), Limit::new(25, SECOND, 250))
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
fn in_peace_no_first_packet_is_dropped() {
    let shared = defaults(2);
    // 150 new sources a second for five minutes.
    for n in 0..45_000 {
        assert!(
            shared.takes(n as usize, true, SECOND + n * SECOND / 150),
            "packet {n}"
        );
    }
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
fn thousands_that_register_at_once_all_come_in_by_their_retransmissions() {
    let shared = defaults(2);
    let (mut waiting, mut at_once) = (0, 0);
    for n in 0..2_200 {
        if shared.takes(n, true, SECOND) {
            at_once += 1;
        } else {
            waiting += 1;
        }
    }
    assert!(at_once >= 1_000, "half the burst at least: {at_once}");
    let sent_again = (0..waiting).filter(|n| shared.takes(*n, false, SECOND + SECOND / 2));
    assert!(
        sent_again.count() >= 2_000 - at_once,
        "the rest of the burst is theirs"
    );
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
fn a_flood_gets_its_part_and_who_returns_the_rest() {
    let shared = defaults(2);
    let (mut forged, mut returning) = ([0_u32; 2], 0);
    // 3,000 a second for a minute, with 100 a second who return, from the third second on.
    for n in 0..180_000_u64 {
        let now = SECOND + n * SECOND / 3_000;
        let late = usize::from(now > 30 * SECOND);
        forged[late] += u32::from(shared.takes(n as usize, true, now));
        if n % 30 == 0 && now > 3 * SECOND {
            assert!(
                shared.takes(n as usize / 30, false, now),
                "returning at packet {n}"
            );
            returning += 1;
        }
    }
    assert!(returning > 5_000);
    assert!((700..=800).contains(&forged[1]), "25 a second: {forged:?}");
    assert!(forged[0] <= 1_100 + 250 + 29 * 25 + 32, "{forged:?}");
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
fn when_the_flood_is_over_first_packets_are_admitted_again() {
    let shared = defaults(1);
    for n in 0..30_000 {
        let _ = shared.takes(0, true, SECOND + n * SECOND / 3_000);
    }
    let over = 11 * SECOND;
    let admitted = |from: u64| (0..300).filter(|_| shared.takes(0, true, from)).count();
    assert!(admitted(over + SECOND) <= 50);
    // The bucket fills in ten seconds.
    assert_eq!(admitted(over + 13 * SECOND), 300);
}

#[test]
#[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
fn a_part_of_one_makes_no_difference() {
    let shared = Shared::new(1, Limit::new(200, SECOND, 2_000), Limit::UNLIMITED);
    let admitted = (0..5_000).filter(|_| shared.takes(0, true, SECOND)).count();
    assert!((2_000..=2_016).contains(&admitted), "{admitted}");
}

proptest! {
    #[test]
    #[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
    fn no_mixture_gets_more_than_the_budget(
        rate in 1_u64..2_000, burst in 1_u64..500, part in 2_u64..20, cpus in 1_usize..5,
        steps in proptest::collection::vec((0_u64..20_000_000, any::<bool>(), 0_usize..5), 1..600),
    ) {
        let whole = Limit::new(rate, SECOND, burst);
        let fresh = Limit {
            interval: whole.interval * part,
            tolerance: whole.interval * part * (burst.div_ceil(part) - 1),
        };
        let shared = Shared::new(cpus, whole, fresh);
        let mut now = SECOND;
        let mut admitted = 0;
        for (gap, is_fresh, cpu) in steps {
            now += gap;
            admitted += u64::from(shared.takes(cpu, is_fresh, now));
        }
        let elapsed = now - SECOND;
        let most = burst + elapsed / whole.interval + 1 + u64::from(BATCH) * cpus as u64;
        prop_assert!(admitted <= most, "{admitted} of {most}");
    }
}
