//! Bans, trust and networks: one writer, readers on other CPUs.

use std::fmt::Debug;

use loom::{sync::atomic::Ordering, thread};
use sip_filter_common::table::{
    BanTable, Fate, HostLine,
    ban::{Layout, V4, V6Host, V6Prefix, Value, lookup},
    network::{Effect, Net4, Net6},
};

use super::words::{SEED, Shared, empty, every_order};

/// Where a key lies when nothing else is in a table.
fn first<T: Layout>(buckets: usize, key: T::Key, value: T::Value) -> u32 {
    let lines = empty(buckets);
    BanTable::<T, _>::new(lines.as_slice(), SEED)
        .insert(key, value)
        .expect("an empty table has room");
    lookup::<T, _>(&lines.as_slice(), SEED, key)
        .expect("just inserted")
        .bucket
}

/// Keys whose first bucket it is.
fn at<T: Layout>(
    bucket: u32,
    buckets: usize,
    key: fn(u64) -> T::Key,
    value: T::Value,
) -> impl Iterator<Item = T::Key> {
    (1..)
        .map(key)
        .filter(move |key| first::<T>(buckets, *key, value) == bucket)
}

fn look<T: Layout>(table: &Shared, key: T::Key) -> T::Value {
    lookup::<T, _>(table, SEED, key).map_or(T::Value::NONE, |found| found.value)
}

/// One key makes room for another in the same slot. Whoever reads meanwhile finds each with its own value or not at
/// all, and nothing under a key made of both.
fn a_slot_changes_hands<T>(
    key: fn(u64) -> T::Key,
    mixed: fn(T::Key, T::Key) -> T::Key,
    value: fn(u64) -> T::Value,
    load: Ordering,
) where
    T: Layout + 'static,
    T::Key: Debug + PartialEq + Send + Sync + 'static,
    T::Value: Debug + Send + Sync + PartialEq + 'static,
{
    let [one, two, three] = [1, 2, 3].map(value);
    let mut keys = at::<T>(0, 2, key, one);
    let (old, new) = (keys.next().expect("endless"), keys.next().expect("endless"));
    let lines = empty(2);
    BanTable::<T, _>::new(lines.as_slice(), SEED)
        .insert(old, one)
        .expect("room");
    let lines: &'static [HostLine] = lines.leak();
    // Readers only load, so one at a time shows all that they can see.
    for looked_for in [old, mixed(old, new), new] {
        every_order(3, move || {
            let table = Shared::with_loads(lines, load);
            let mut writer = BanTable::<T, _>::new(table.clone(), SEED);
            let reader = {
                let table = table.clone();
                thread::spawn(move || {
                    let found = look::<T>(&table, looked_for);
                    let is_its_own = if looked_for == new {
                        found == two || found == three
                    } else {
                        looked_for == old && found == one
                    };
                    assert!(is_its_own || !found.exists(), "{looked_for:?} has {found:?}");
                })
            };
            writer.remove(old).expect("it is there");
            writer.insert(new, two).expect("there is room");
            // Somebody changes their mind about how long.
            writer.insert(new, three).expect("it is there");
            reader.join().expect("no assertion failed");
            assert_eq!(
                (look::<T>(&table, old).exists(), look::<T>(&table, new)),
                (false, three)
            );
        });
    }
}

fn fate(number: u64) -> Fate {
    Fate::new(Some(number << 32), number.is_multiple_of(2))
}

fn effect(number: u64) -> Effect {
    Effect::new(fate(number), fate(number + 1), number.is_multiple_of(2))
}

#[test]
fn an_ipv4_entry_is_published_by_one_store() {
    a_slot_changes_hands::<V4>(|n| n as u32, |_, new| new + 1_000, fate, Ordering::Acquire);
}

#[test]
fn a_longer_key_never_has_anothers_fate() {
    a_slot_changes_hands::<V6Prefix>(|n| n << 16, |_, new| new + 1, fate, Ordering::Acquire);
    a_slot_changes_hands::<V6Host>(|n| [n, !n], |old, new| [new[0], old[1]], fate, Ordering::Acquire);
    a_slot_changes_hands::<V6Host>(|n| [n, !n], |old, new| [old[0], new[1]], fate, Ordering::Acquire);
}

#[test]
fn a_network_never_has_anothers_effect() {
    a_slot_changes_hands::<Net4>(
        |n| Net4::key((n as u32) << 8, 24),
        |_, new| new + 1,
        effect,
        Ordering::Acquire,
    );
    a_slot_changes_hands::<Net6>(
        |n| Net6::key(n << 16, 48),
        |old, new| [old[0] ^ new[0], 48],
        effect,
        Ordering::Acquire,
    );
}

/// Where loads may pass each other, the key read last may be older than the fate. So the kernel program relies on its
/// processor not to reorder loads: x86. Were this to succeed, the models above would prove nothing.
#[test]
#[should_panic(expected = "has")]
fn plain_loads_of_a_weaker_processor_are_not_enough() {
    a_slot_changes_hands::<V6Prefix>(|n| n << 16, |_, new| new + 1, fate, Ordering::Relaxed);
}

/// An entry is moved to make room for another, while readers look for it and one of them counts a hit: they find it in
/// every order, with its own fate, and no hit takes the mark away that makes them look further.
fn an_entry_moves<T>(key: fn(u64) -> T::Key)
where
    T: Layout<Value = Fate> + 'static,
    T::Key: Debug + Send + Sync + 'static,
{
    const BUCKETS: usize = 4;
    let (lines, moved, new) = crowded::<T>(BUCKETS, key);
    let (own, others) = (fate(1), fate(2));
    every_order(2, move || {
        let table = Shared::summed(lines);
        let mut writer = BanTable::<T, _>::new(table.clone(), SEED);
        let readers = [0, 1].map(|which| {
            let table = table.clone();
            thread::spawn(move || match which {
                0 => {
                    let found =
                        lookup::<T, _>(&table, SEED, moved).expect("an entry that is there was missed");
                    assert_eq!(found.value, own, "another's fate");
                    found.hit(0);
                }
                _ => {
                    let found = look::<T>(&table, new);
                    assert!(found == others || !found.exists(), "{new:?} has {found:?}");
                    assert_eq!(look::<T>(&table, moved), own, "an entry that is there was missed");
                }
            })
        });
        writer.insert(new, others).expect("a move makes room");
        for reader in readers {
            reader.join().expect("no assertion failed");
        }
        assert_eq!((look::<T>(&table, moved), look::<T>(&table, new)), (own, others));
        let mut hits = 0;
        writer.take_hits(|_, count| hits += count);
        assert!(hits <= 1, "{hits} hits of one packet");
    });
}

/// A table in which a key can only be inserted by moving an entry: the table, that entry, and the key.
fn crowded<T: Layout<Value = Fate>>(
    buckets: usize,
    key: fn(u64) -> T::Key,
) -> (&'static [HostLine], T::Key, T::Key) {
    for skip in 0.. {
        let lines = empty(buckets);
        let mut table = BanTable::<T, _>::new(lines.as_slice(), SEED);
        let mut keys = at::<T>(0, buckets, key, fate(1)).skip(skip);
        let residents: Vec<_> = keys.by_ref().take(T::SLOTS).collect();
        for key in &residents {
            table.insert(*key, fate(1)).expect("room");
        }
        let new = keys.next().expect("endless");
        // Where the new one would go next is full, too, with what is at home there.
        let other = {
            let probe = empty(buckets);
            let mut table = BanTable::<T, _>::new(probe.as_slice(), SEED);
            for key in &residents {
                table.insert(*key, fate(1)).expect("room");
            }
            table.insert(new, fate(2)).expect("room");
            lookup::<T, _>(&probe.as_slice(), SEED, new)
                .expect("just inserted")
                .bucket
        };
        for key in at::<T>(other, buckets, key, fate(1)).take(T::SLOTS) {
            table.insert(key, fate(1)).expect("room");
        }
        let copy = empty(buckets);
        for (to, from) in copy.iter().zip(&lines) {
            for (to, from) in to.iter().zip(from) {
                to.store(from.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        let mut trial = BanTable::<T, _>::new(copy.as_slice(), SEED);
        let home = |key: &T::Key| lookup::<T, _>(&copy.as_slice(), SEED, *key).map(|found| found.bucket);
        if trial.insert(new, fate(2)).is_ok()
            && let Some(moved) = residents.iter().find(|key| home(key) != Some(0))
        {
            let moved = *moved;
            return (lines.leak(), moved, new);
        }
    }
    unreachable!("some key can only be inserted by a move")
}

#[test]
fn readers_never_miss_an_entry_that_moves() {
    an_entry_moves::<V6Host>(|n| [n, !n]);
}

#[test]
fn readers_never_miss_an_ipv6_prefix_that_moves() {
    an_entry_moves::<V6Prefix>(|n| n << 16);
}

#[test]
fn readers_never_miss_an_ipv4_address_that_moves() {
    an_entry_moves::<V4>(|n| n as u32);
}

/// Others come and go in the bucket of an entry, and in the next bucket, whose marks lie in the same word of the summary:
/// nobody who looks for it meanwhile is told that it is not there.
#[test]
fn the_summary_hides_no_entry_that_is_there() {
    const BUCKETS: usize = 2;
    let key = |n| n as u32;
    let mut own = at::<V4>(0, BUCKETS, key, fate(1));
    let (resident, neighbour) = (own.next().expect("endless"), own.next().expect("endless"));
    let other = at::<V4>(1, BUCKETS, key, fate(1)).next().expect("endless");
    let lines = empty(BUCKETS);
    BanTable::<V4, _>::new(lines.as_slice(), SEED)
        .insert(resident, fate(1))
        .expect("room");
    let lines: &'static [HostLine] = lines.leak();
    every_order(3, move || {
        let table = Shared::summed(lines);
        let mut writer = BanTable::<V4, _>::new(table.clone(), SEED);
        let reader = {
            let table = table.clone();
            thread::spawn(move || {
                assert_eq!(
                    look::<V4>(&table, resident),
                    fate(1),
                    "an entry that is there was missed"
                );
                let found = look::<V4>(&table, neighbour);
                assert!(found == fate(2) || !found.exists(), "another's fate");
            })
        };
        for key in [neighbour, other] {
            writer.insert(key, fate(2)).expect("room");
            assert_eq!(
                look::<V4>(&table, key),
                fate(2),
                "who is told it is there finds it"
            );
            writer.remove(key).expect("it is there");
        }
        reader.join().expect("no assertion failed");
        assert_eq!(look::<V4>(&table, resident), fate(1));
    });
}

/// The limit of the protocol: a key that comes back to its slot after another was there, all within one look of a
/// reader, between two of its loads. A reader can then take the other's fate for its key's, for one packet. It takes four
/// changes of one slot within some nanoseconds; the controller makes each for a request or a decision of its own.
#[test]
#[should_panic(expected = "another's fate")]
fn a_key_that_comes_back_within_one_look_is_not_covered() {
    let mut keys = at::<V6Prefix>(0, 2, |n| n << 16, fate(1));
    let (old, new) = (keys.next().expect("endless"), keys.next().expect("endless"));
    let lines = empty(2);
    BanTable::<V6Prefix, _>::new(lines.as_slice(), SEED)
        .insert(old, fate(1))
        .expect("room");
    let lines: &'static [HostLine] = lines.leak();
    every_order(3, move || {
        let table = Shared::copy(lines);
        let mut writer = BanTable::<V6Prefix, _>::new(table.clone(), SEED);
        let reader = thread::spawn(move || {
            let found = look::<V6Prefix>(&table, old);
            assert!(
                found == fate(1) || found == fate(3) || !found.exists(),
                "another's fate"
            );
        });
        writer.remove(old).expect("it is there");
        writer.insert(new, fate(2)).expect("there is room");
        writer.remove(new).expect("it is there");
        writer.insert(old, fate(3)).expect("there is room");
        reader.join().unwrap();
    });
}
