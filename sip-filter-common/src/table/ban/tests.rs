use std::{
    collections::HashMap,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    vec::Vec,
};

use proptest::prelude::*;

use super::*;
use crate::table::HostLine;

const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

fn memory(buckets: usize) -> Vec<HostLine> {
    (0..buckets).map(|_| HostLine::default()).collect()
}

#[test]
fn fate_keeps_scope_and_end() {
    let unit = 1 << WINDOW_SHIFT;
    assert!(!Fate::NONE.in_force(0));
    assert!(Fate::new(None, false).in_force(u64::MAX));
    assert_eq!(Fate::new(None, true).expires(), None);
    assert!(Fate::new(None, true).all());
    let fate = Fate::new(Some(10 * unit - 5), false);
    assert!(!fate.all());
    assert!(fate.in_force(10 * unit - 6), "never ends early");
    assert!(!fate.in_force(10 * unit));
    assert!(
        !Fate::new(Some(0), false).in_force(unit),
        "an end in the past is not permanent"
    );
    assert_eq!(Fate::new(Some(u64::MAX), false).expires(), None);
}

fn fills_to_85_percent<T: Layout>(buckets: usize, key: impl Fn(u64) -> T::Key)
where
    T::Key: std::fmt::Debug,
{
    let lines = memory(buckets);
    let mut table = BanTable::<T, _>::new(lines.as_slice(), SEED);
    let wanted = table.capacity() * 85 / 100;
    for n in 0..wanted as u64 {
        table
            .insert(key(n), Fate::new(None, n % 2 == 0))
            .unwrap_or_else(|Full| panic!("full at {n} of {} slots", buckets * T::SLOTS));
    }
    assert_eq!(table.len(), wanted);
    for n in 0..wanted as u64 {
        assert_eq!(table.get(key(n)), Fate::new(None, n % 2 == 0), "{:?}", key(n));
    }
    assert_eq!(table.get(key(wanted as u64)), Fate::NONE);
}

#[test]
fn ipv4_fills_to_85_percent() {
    fills_to_85_percent::<V4>(1 << 14, |n| (n as u32).wrapping_mul(2_654_435_761));
    // neighbouring addresses are as good as random ones
    fills_to_85_percent::<V4>(1 << 14, |n| 0x0a00_0000 + n as u32);
}

#[test]
fn ipv6_prefixes_fill_to_85_percent() {
    fills_to_85_percent::<V6Prefix>(1 << 14, |n| 0x2001_0db8_0000_0000 + n);
}

#[test]
fn a_full_table_refuses_and_keeps_what_it_has() {
    let lines = memory(4);
    let mut table = BanTable::<V4, _>::new(lines.as_slice(), SEED);
    let mut held = Vec::new();
    let mut refused = 0;
    for n in 0..200 {
        match table.insert(n, Fate::new(None, false)) {
            Ok(()) => held.push(n),
            Err(Full) => refused += 1,
        }
    }
    assert!(refused > 0);
    assert_eq!(held.len(), table.len());
    assert!(held.iter().all(|n| table.get(*n).exists()));
}

#[test]
fn hits_survive_moves_and_are_taken_once() {
    let lines = memory(64);
    let memory = lines.as_slice();
    let mut table = BanTable::<V4, _>::new(memory, SEED);
    let fate = Fate::new(None, false);
    let wanted = table.capacity() * 80 / 100;
    for n in 0..wanted as u32 {
        table.insert(n, fate).unwrap();
        for _ in 0..=(n % 5) {
            lookup::<V4, _>(&memory, SEED, n).unwrap().hit(0);
        }
    }
    let mut seen = HashMap::new();
    table.take_hits(|key, hits| *seen.entry(key).or_insert(0) += hits);
    for n in 0..wanted as u32 {
        assert_eq!(seen.get(&n), Some(&u64::from(n % 5 + 1)), "{n}");
    }
    table.take_hits(|key, hits| panic!("{key} reported {hits} hits twice"));
    lookup::<V4, _>(&memory, SEED, 3).unwrap().hit(0);
    assert_eq!(table.remove(3), Some(1));
    assert_eq!(table.remove(3), None);
}

#[derive(Clone, Debug)]
enum Step {
    Insert(u32, Option<u64>, bool),
    Remove(u32),
    Check(u32, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // few keys, so that they meet again; enough to fill eight buckets well
    let key = 0_u32..60;
    let step = prop_oneof![
        4 => (key.clone(), proptest::option::of(0_u64..1 << 40), any::<bool>())
            .prop_map(|(key, end, all)| Step::Insert(key, end, all)),
        2 => key.clone().prop_map(Step::Remove),
        2 => (key, 0_u64..1 << 40).prop_map(|(key, now)| Step::Check(key, now)),
    ];
    proptest::collection::vec(step, 1..400)
}

fn behaves_like_a_map<T: Layout>(steps: Vec<Step>, seed: [u64; 2], key: impl Fn(u32) -> T::Key) {
    let lines = memory(8);
    let mut table = BanTable::<T, _>::new(lines.as_slice(), seed);
    let mut model = HashMap::new();
    for step in steps {
        match step {
            Step::Insert(n, end, all) => match table.insert(key(n), Fate::new(end, all)) {
                Ok(()) => {
                    model.insert(n, Fate::new(end, all));
                }
                Err(Full) => assert!(
                    !model.contains_key(&n),
                    "an entry that exists can always be changed"
                ),
            },
            Step::Remove(n) => assert_eq!(table.remove(key(n)).is_some(), model.remove(&n).is_some()),
            Step::Check(n, now) => {
                let expected = model.get(&n).copied().unwrap_or_default();
                assert_eq!(table.get(key(n)), expected);
                assert_eq!(table.get(key(n)).in_force(now), expected.in_force(now));
            }
        }
        assert_eq!(table.len(), model.len());
    }
    let mut found = 0;
    table.for_each(|_, _| found += 1);
    assert_eq!(found, model.len());
    let reopened = BanTable::<T, _>::new(lines.as_slice(), seed);
    assert_eq!(reopened.len(), model.len());
    for (n, fate) in model {
        assert_eq!(reopened.get(key(n)), fate);
    }
}

proptest! {
    #[test]
    fn ipv4_behaves_like_a_map(steps in steps(), seed: [u64; 2]) {
        behaves_like_a_map::<V4>(steps, seed, |n| n);
    }

    #[test]
    fn ipv6_prefixes_behave_like_a_map(steps in steps(), seed: [u64; 2]) {
        behaves_like_a_map::<V6Prefix>(steps, seed, |n| u64::from(n) << 20);
    }

    #[test]
    fn ipv6_hosts_behave_like_a_map(steps in steps(), seed: [u64; 2]) {
        behaves_like_a_map::<V6Host>(steps, seed, |n| [u64::from(n / 7), u64::from(n % 7)]);
    }
}

/// One writer fills, empties and refills most of a table, so that entries move all the time, while a reader looks
/// for entries that are always there.
fn a_reader_never_misses<T: Layout>(key: impl Fn(u64) -> T::Key + Sync) {
    let lines = memory(256);
    let residents = 256 * T::SLOTS as u64 / 4;
    let guests = 256 * T::SLOTS as u64 * 6 / 10;
    let fate = |n: u64| Fate::new(Some((n % 1000 + 1) << WINDOW_SHIFT), n.is_multiple_of(2));
    let mut table = BanTable::<T, _>::new(lines.as_slice(), SEED);
    for n in 0..residents {
        table.insert(key(n), fate(n)).unwrap();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let memory = lines.as_slice();
            let mut looks = 0_u64;
            while !done.load(Ordering::Relaxed) {
                for n in 0..residents {
                    let found = lookup::<T, _>(&memory, SEED, key(n)).map(|found| found.fate);
                    assert_eq!(
                        found,
                        Some(fate(n)),
                        "resident {n} missed or mistaken after {looks} looks"
                    );
                    looks += 1;
                }
            }
            looks
        });
        for round in 0..60 {
            let base = residents + round * guests;
            for n in base..base + guests {
                let _ = table.insert(key(n), fate(n));
            }
            for n in base..base + guests {
                table.remove(key(n));
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(reader.join().unwrap() > residents);
    });
}

#[test]
fn a_concurrent_reader_never_misses_ipv4() {
    a_reader_never_misses::<V4>(|n| n as u32);
}

#[test]
fn a_concurrent_reader_never_misses_ipv6() {
    a_reader_never_misses::<V6Prefix>(|n| n << 16);
    a_reader_never_misses::<V6Host>(|n| [n, !n]);
}
