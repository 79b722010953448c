use std::{
    collections::{HashMap, HashSet},
    sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    thread,
    vec::Vec,
};

use proptest::prelude::*;

use super::*;
use crate::abi::EXPIRY_SHIFT;
use crate::table::{Forget, HostLine};

const SEED: [u64; 2] = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];

/// Buckets of a table of some size; Miri takes its time with each.
const MANY: usize = if cfg!(miri) { 1 << 3 } else { 1 << 14 };

fn memory(buckets: usize) -> Vec<HostLine> {
    (0..buckets).map(|_| HostLine::default()).collect()
}

/// A table with a summary.
struct Summed {
    lines: Vec<HostLine>,
    summary: Vec<AtomicU64>,
}

fn summary(buckets: u32) -> Vec<AtomicU64> {
    (0..summary_words(buckets)).map(|_| AtomicU64::new(0)).collect()
}

impl Summed {
    fn new(buckets: usize) -> Self {
        Self {
            lines: memory(buckets),
            summary: summary(buckets as u32),
        }
    }
}

impl Forget for Summed {}

impl Memory for Summed {
    type Line<'a> = &'a HostLine;

    fn mask(&self) -> u32 {
        self.lines.as_slice().mask()
    }

    fn line(&self, index: u32) -> Option<&HostLine> {
        self.lines.get(index as usize)
    }

    fn summary(&self, index: u32) -> Option<u64> {
        Some(self.summary.get(index as usize)?.load(Ordering::Acquire))
    }

    fn set_summary(&self, index: u32, word: u64) {
        self.summary[index as usize].store(word, Ordering::Release);
    }
}

#[test]
fn a_summary_tells_what_is_not_there_and_forgets_what_is_gone() {
    let table_of = Summed::new(64);
    let mut table = BanTable::<V4, _>::new(&table_of, SEED);
    let fate = Fate::new(None, false);
    let marked = || {
        let bits = |word: &AtomicU64| word.load(Ordering::Relaxed).count_ones();
        table_of.summary.iter().map(bits).sum::<u32>()
    };
    for key in 0..60 {
        table.insert(key, fate).unwrap();
    }
    let many = marked();
    assert!((40..=60).contains(&many), "60 entries leave {many} of 1,024 bits");
    let wrong = (1_000..2_000)
        .filter(|key| {
            let hash = table.hash(*key);
            !Mark::of(hash, 63).is_clear(&table_of)
        })
        .count();
    assert!(wrong < 120, "{wrong} of 1,000 others are not told apart");
    for key in 0..59 {
        table.remove(key).unwrap();
    }
    assert_eq!((marked(), table.get(59)), (1, fate));
    table.remove(59).unwrap();
    assert_eq!(marked(), 0);
}

#[test]
fn a_summary_that_was_lost_is_made_again() {
    let memory = Summed::new(8);
    let mut table = BanTable::<V4, _>::new(&memory, SEED);
    let fate = Fate::new(None, true);
    for key in 0..20 {
        table.insert(key, fate).unwrap();
    }
    let lose = || {
        for word in &memory.summary {
            word.store(0, Ordering::Relaxed);
        }
    };
    lose();
    assert_eq!(table.get(7), Fate::NONE, "as packets see it");
    table.insert(7, fate).unwrap();
    assert_eq!((table.get(7), table.len()), (fate, 20), "and it is there once");
    lose();
    table.recount();
    assert!((0..20).all(|key| table.get(key) == fate));
}

#[test]
fn fate_keeps_scope_and_end() {
    let unit = 1 << EXPIRY_SHIFT;
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

fn fills_to_85_percent<T: Layout<Value = Fate>>(buckets: usize, key: impl Fn(u64) -> T::Key)
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
    fills_to_85_percent::<V4>(MANY, |n| (n as u32).wrapping_mul(2_654_435_761));
    // neighbouring addresses are as good as random ones
    fills_to_85_percent::<V4>(MANY, |n| 0x0a00_0000 + n as u32);
}

#[test]
fn ipv6_prefixes_fill_to_85_percent() {
    fills_to_85_percent::<V6Prefix>(MANY, |n| 0x2001_0db8_0000_0000 + n);
}

#[test]
#[cfg_attr(miri, ignore = "every refusal has searched for long")]
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
    let lines = memory(if cfg!(miri) { 4 } else { 64 });
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

/// With and without a summary.
fn behaves_like_a_map<T: Layout<Value = Fate>>(steps: &[Step], seed: [u64; 2], key: impl Fn(u32) -> T::Key) {
    let plain = memory(8);
    takes_steps::<T, _>(plain.as_slice(), steps, seed, &key);
    let summed = Summed::new(8);
    takes_steps::<T, _>(&summed, steps, seed, &key);
    // Where no entry went to another bucket, the summary says what is there and nothing else.
    let table = BanTable::<T, _>::new(&summed, seed);
    let mut marks = HashSet::new();
    table.for_each(|key, _| {
        let hash = table.hash(key);
        marks.insert((hash as u32 & 7, hash >> 60));
    });
    for (bucket, line) in (0..).zip(&summed.lines) {
        for tag in 0..16 {
            let is_clear = Mark::of(tag << 60 | u64::from(bucket), 7).is_clear(&&summed);
            let is_there = marks.contains(&(bucket, tag));
            assert!(!(is_there && is_clear), "an entry is hidden");
            assert!(
                is_there || is_clear || line.load(HITS) & SPILLED != 0,
                "a mark is left"
            );
        }
    }
}

fn takes_steps<T: Layout<Value = Fate>, M: Memory + Copy>(
    memory: M,
    steps: &[Step],
    seed: [u64; 2],
    key: impl Fn(u32) -> T::Key,
) {
    let mut table = BanTable::<T, _>::new(memory, seed);
    let mut model = HashMap::new();
    for step in steps {
        match *step {
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
    let reopened = BanTable::<T, _>::new(memory, seed);
    assert_eq!(reopened.len(), model.len());
    for (n, fate) in model {
        assert_eq!(reopened.get(key(n)), fate);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    #[cfg_attr(miri, ignore = "one thread, and more of it than Miri has time for")]
    fn ipv4_behaves_like_a_map(steps in steps(), seed: [u64; 2]) {
        behaves_like_a_map::<V4>(&steps, seed, |n| n);
    }

    #[test]
    #[cfg_attr(miri, ignore = "one thread, and more of it than Miri has time for")]
    fn ipv6_prefixes_behave_like_a_map(steps in steps(), seed: [u64; 2]) {
        behaves_like_a_map::<V6Prefix>(&steps, seed, |n| u64::from(n) << 20);
    }

    #[test]
    #[cfg_attr(miri, ignore = "one thread, and more of it than Miri has time for")]
    fn ipv6_hosts_behave_like_a_map(steps in steps(), seed: [u64; 2]) {
        behaves_like_a_map::<V6Host>(&steps, seed, |n| [u64::from(n / 7), u64::from(n % 7)]);
    }
}

/// A memory that, after every single store, asks for entries that must be there, the way a reader does whose two
/// looks may lie any time apart: once it did not find an entry in the first bucket, the second must have it at every
/// later moment.
struct Watched<'a, T: Layout<Value = Fate>> {
    lines: &'a [HostLine],
    summary: &'a [AtomicU64],
    residents: &'a [T::Key],
    missed_first: &'a [AtomicBool],
}

struct WatchedLine<'a, T: Layout<Value = Fate>>(&'a HostLine, &'a Watched<'a, T>);

impl<T: Layout<Value = Fate>> Clone for WatchedLine<'_, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T: Layout<Value = Fate>> Copy for WatchedLine<'_, T> {}

impl<T: Layout<Value = Fate>> Line for WatchedLine<'_, T> {
    fn load(self, word: usize) -> u64 {
        self.0.load(word)
    }

    fn store(self, word: usize, value: u64) {
        self.0.store(word, value);
        self.1.check();
    }

    fn compare_exchange(self, word: usize, old: u64, new: u64) -> bool {
        self.0.compare_exchange(word, old, new)
    }
}

impl<T: Layout<Value = Fate>> Forget for Watched<'_, T> {}

impl<T: Layout<Value = Fate>> Memory for Watched<'_, T> {
    type Line<'a>
        = WatchedLine<'a, T>
    where
        Self: 'a;

    fn mask(&self) -> u32 {
        self.lines.mask()
    }

    fn line(&self, index: u32) -> Option<WatchedLine<'_, T>> {
        Some(WatchedLine(self.lines.line(index)?, self))
    }

    fn summary(&self, index: u32) -> Option<u64> {
        Some(self.summary.get(index as usize)?.load(Ordering::Acquire))
    }

    fn set_summary(&self, index: u32, word: u64) {
        self.summary[index as usize].store(word, Ordering::Release);
        self.check();
    }
}

impl<T: Layout<Value = Fate>> Watched<'_, T> {
    fn check(&self) {
        for (n, (key, missed)) in self.residents.iter().zip(self.missed_first).enumerate() {
            let (a, b) = T::words(*key);
            let hash = hash(SEED, a, b);
            assert!(
                !Mark::of(hash, self.lines.mask()).is_clear(self),
                "resident {n} is not marked"
            );
            let (first, second) = candidates(hash, self.lines.mask());
            let sees = |index| probe_line::<T, _>(self.lines.line(index).unwrap(), *key).is_some();
            if !sees(first) {
                missed.store(true, Ordering::Relaxed);
            }
            assert!(
                !missed.load(Ordering::Relaxed) || sees(second),
                "a reader can miss resident {n}"
            );
        }
    }

    fn moved(&self) -> usize {
        self.missed_first
            .iter()
            .filter(|missed| missed.load(Ordering::Relaxed))
            .count()
    }
}

fn no_store_hides_an_entry<T: Layout<Value = Fate>>(key: impl Fn(u64) -> T::Key) {
    let (mut moved, rounds) = (0, 20);
    for round in 0..rounds {
        let summed = Summed::new(16);
        let capacity = 16 * T::SLOTS as u64;
        let resident = |n: u64| key(round * 1000 + n);
        let residents: Vec<T::Key> = (0..capacity / 3).map(resident).collect();
        let mut table = BanTable::<T, _>::new(&summed, SEED);
        for key in &residents {
            table.insert(*key, Fate::new(None, false)).unwrap();
        }
        let missed_first: Vec<AtomicBool> = residents.iter().map(|_| AtomicBool::new(false)).collect();
        let watched = Watched::<T> {
            lines: &summed.lines,
            summary: &summed.summary,
            residents: &residents,
            missed_first: &missed_first,
        };
        watched.check();
        let moved_before = watched.moved();
        let mut table = BanTable::<T, _>::new(&watched, SEED);
        for n in capacity..3 * capacity {
            let _ = table.insert(resident(n), Fate::new(Some(n << EXPIRY_SHIFT), true));
            if n.is_multiple_of(3) {
                table.remove(resident(n - capacity / 2));
            }
        }
        moved += watched.moved() - moved_before;
    }
    assert!(
        moved > rounds as usize,
        "the test must see moves of residents, saw {moved}"
    );
}

#[test]
#[cfg_attr(miri, ignore = "one thread, and more of it than Miri has time for")]
fn no_store_hides_an_entry_from_a_reader() {
    no_store_hides_an_entry::<V4>(|n| n as u32);
    no_store_hides_an_entry::<V6Prefix>(|n| n << 16);
    no_store_hides_an_entry::<V6Host>(|n| [n, !n]);
}

/// The same with real threads, where the memory model has its say: a writer fills one fresh table after another while
/// a reader looks for what is already in it.
#[test]
fn a_concurrent_reader_never_misses() {
    let (count, buckets) = if cfg!(miri) { (2, 8) } else { (400, 64) };
    let tables: Vec<Vec<HostLine>> = (0..count).map(|_| memory(buckets)).collect();
    let places = u32::try_from(buckets * V4::SLOTS).unwrap();
    let residents = places / 3;
    for lines in &tables {
        let mut table = BanTable::<V4, _>::new(lines.as_slice(), SEED);
        for n in 0..residents {
            table.insert(n, Fate::new(None, n % 2 == 0)).unwrap();
        }
    }
    let current = AtomicUsize::new(0);
    thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0_u64;
            loop {
                let table = current.load(Ordering::Relaxed);
                let Some(lines) = tables.get(table) else {
                    return looks;
                };
                for n in 0..residents {
                    let found = lookup::<V4, _>(&lines.as_slice(), SEED, n).map(|found| found.value);
                    assert_eq!(
                        found,
                        Some(Fate::new(None, n % 2 == 0)),
                        "resident {n} of table {table}"
                    );
                    looks += 1;
                }
            }
        });
        for lines in &tables {
            let mut table = BanTable::<V4, _>::new(lines.as_slice(), SEED);
            for n in residents..places {
                let _ = table.insert(n, Fate::new(Some(u64::from(n) << EXPIRY_SHIFT), true));
            }
            current.fetch_add(1, Ordering::Relaxed);
        }
        assert!(reader.join().unwrap() > 0);
    });
}
