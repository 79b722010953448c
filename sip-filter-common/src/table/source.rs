//! Source table: limiter state of every (source, class) seen lately, four to a bucket, shared by all CPUs.
//!
//! A bucket holds four keys and four GCRA states. On a miss the entry whose state lies furthest back is replaced by
//! compare-and-swap: it has been quiet longest, and losing it only gives it a full burst again, which it had
//! already. A flooder's state lies ahead of time, so a flood of sources with one packet each cannot push it out.
//!
//! While one CPU has swapped in a new source's state and not yet its key, another does not find the source and may give it
//! a second slot. Until the first key stands, the source can have its burst on each CPU; never is a packet refused for it.

use super::{Line, Memory, hash};
use crate::{
    abi::Limit,
    limiter::{Admission, admit},
    sip::Class,
};

const SLOTS: usize = 4;
/// Attempts at a compare-and-swap another CPU keeps winning. Each lost attempt means another packet of the same
/// source was just judged; after this many the packet is let through uncounted rather than dropped on doubt.
const TRIES: usize = 4;

/// Identity of a source and class in the table; never zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SourceKey(u64);

impl SourceKey {
    /// An IPv4 source, host order; exact.
    #[inline(always)]
    #[must_use]
    pub const fn v4(address: u32, class: Class) -> Self {
        Self((address as u64) << 8 | (class as u64) << 1 | 1)
    }

    /// An IPv6 source, its upper 64 bits already cut to the counted prefix. Hashed to 63 bits; that two
    /// sources share a limit has a chance of 2⁻⁶³ a pair, and nobody without the seed can bring it about.
    #[inline(always)]
    #[must_use]
    pub const fn v6(seed: [u64; 2], prefix: u64, class: Class) -> Self {
        Self(hash(seed, prefix, class as u64) | 1 << 63)
    }

    /// Another key for the same source if `stray` is 1, the same if it is 0. The bit is free in the key of an IPv4
    /// source, and as good as any other in a hash.
    #[inline(always)]
    #[must_use]
    pub const fn apart(self, stray: u64) -> Self {
        Self(self.0 ^ (stray & 1) << 4)
    }

    /// Where it lies: a seeded hash, whose lowest bits are the bucket. Other tables of sources go by other bits of it.
    #[inline(always)]
    #[must_use]
    pub const fn place(self, seed: [u64; 2]) -> u64 {
        hash(seed, self.0, 3)
    }

    /// As a number, to key other tables with.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }
}

/// How a packet fares by the limit of its source, as a number the verifier need not follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judged(u64);

impl Judged {
    /// Over the limit.
    pub const OVER: Self = Self(0);
    /// Within the limit, of a source the table knew.
    pub const RETURNING: Self = Self(Self::WITHIN_BIT);
    /// Within the limit, of a source the table did not know. It does from now on.
    pub const FRESH: Self = Self(Self::WITHIN_BIT | Self::FRESH_BIT);
    const WITHIN_BIT: u64 = 1;
    const FRESH_BIT: u64 = 2;

    /// From [`Self::number`]; other bits do not count.
    #[inline(always)]
    #[must_use]
    pub const fn from_number(number: u64) -> Self {
        Self(number & (Self::WITHIN_BIT | Self::FRESH_BIT))
    }

    /// As a number.
    #[inline(always)]
    #[must_use]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// Whether the packet is within the limit.
    #[inline(always)]
    #[must_use]
    pub const fn within(self) -> bool {
        self.0 & Self::WITHIN_BIT != 0
    }

    /// Whether the table did not know the source.
    #[inline(always)]
    #[must_use]
    pub const fn is_fresh(self) -> bool {
        self.0 & Self::FRESH_BIT != 0
    }
}

/// Judges one packet of `key`, which lies at `place` ([`SourceKey::place`]), at boot time `now` (nanoseconds).
#[inline(always)]
pub fn admitted<M: Memory + ?Sized>(
    memory: &M,
    place: u64,
    key: SourceKey,
    limit: Limit,
    now: u64,
) -> Judged {
    let index = place as u32 & memory.mask();
    let Some(line) = memory.line(index) else {
        return Judged::RETURNING;
    };
    let mut slot = find(line, key);
    if slot == SLOTS {
        let oldest = memory.forget(oldest(line) as u64) as usize & (SLOTS - 1);
        if replace(line, oldest, key, limit, now) {
            return Judged::FRESH;
        }
        // Another CPU was faster; perhaps with this very source.
        slot = find(line, key);
    }
    let slot = memory.forget(slot as u64) as usize;
    if slot >= SLOTS {
        return Judged::FRESH;
    }
    if judge(line, slot & (SLOTS - 1), limit, now) {
        Judged::RETURNING
    } else {
        Judged::OVER
    }
}

/// Reads the bucket at `place`, so that it is in the cache by the time it is asked for.
#[inline(always)]
pub fn touch<M: Memory + ?Sized>(memory: &M, place: u64) {
    if let Some(line) = memory.line(place as u32 & memory.mask()) {
        line.load(0);
    }
}

/// The slot that holds `key`, [`SLOTS`] if none does.
#[inline(always)]
fn find<L: Line>(line: L, key: SourceKey) -> usize {
    let mut slot = 0;
    while slot < SLOTS {
        if line.load(slot) == key.0 {
            return slot;
        }
        slot += 1;
    }
    SLOTS
}

#[inline(always)]
fn judge<L: Line>(line: L, slot: usize, limit: Limit, now: u64) -> bool {
    let mut tries = 0;
    while tries < TRIES {
        let state = line.load(SLOTS + slot);
        let Admission::Admit(new) = admit(limit, state, now) else {
            return false;
        };
        if line.compare_exchange(SLOTS + slot, state, new) {
            return true;
        }
        tries += 1;
    }
    true
}

/// The slot whose state lies furthest back.
#[inline(always)]
fn oldest<L: Line>(line: L) -> usize {
    let mut oldest = 0;
    let mut oldest_state = line.load(SLOTS);
    let mut slot = 1;
    while slot < SLOTS {
        let state = line.load(SLOTS + slot);
        if state < oldest_state {
            (oldest, oldest_state) = (slot, state);
        }
        slot += 1;
    }
    oldest
}

/// Puts `key` in the place of another entry. Returns `false` if another CPU changed that entry first.
#[inline(always)]
fn replace<L: Line>(line: L, slot: usize, key: SourceKey, limit: Limit, now: u64) -> bool {
    let old_key = line.load(slot);
    let state = line.load(SLOTS + slot);
    // The state goes first: an entry that was active since is left alone, and between the two swaps the old source
    // is at worst charged for one packet.
    line.compare_exchange(SLOTS + slot, state, now.wrapping_add(limit.interval))
        && line.compare_exchange(slot, old_key, key.0)
}

#[cfg(test)]
mod tests {
    use core::sync::atomic::AtomicU64;
    use std::{sync::atomic::Ordering, thread, vec::Vec};

    use super::*;
    use crate::table::HostLine;

    const SECOND: u64 = 1_000_000_000;
    const SEED: [u64; 2] = [7, 11];

    fn memory(buckets: usize) -> Vec<HostLine> {
        (0..buckets).map(|_| HostLine::default()).collect()
    }

    #[test]
    fn a_source_is_fresh_once_and_strays_count_apart() {
        let memory = memory(4);
        let limit = Limit::new(10, SECOND, 2);
        let key = SourceKey::v4(0xc000_0201, Class::Invite);
        let judge = |key: SourceKey| admitted(&memory[..], key.place(SEED), key, limit, SECOND);
        assert_eq!(judge(key), Judged::FRESH);
        assert_eq!(judge(key), Judged::RETURNING);
        assert_eq!(judge(key), Judged::OVER);
        assert!(!Judged::OVER.within() && !Judged::RETURNING.is_fresh());
        assert_eq!(key.apart(0), key);
        assert_eq!(judge(key.apart(1)), Judged::FRESH);
        // The bit is free: no source and class has the key of another's strays.
        for class in Class::ALL {
            let other = SourceKey::v4(0xc000_0201, class);
            assert!(
                Class::ALL
                    .iter()
                    .all(|class| SourceKey::v4(0xc000_0201, *class) != other.apart(1))
            );
        }
    }

    #[test]
    fn classes_and_sources_have_limits_of_their_own() {
        let lines = memory(64);
        let memory = lines.as_slice();
        let limit = Limit::new(1, SECOND, 3);
        for address in 0..20 {
            for class in Class::ALL {
                let key = SourceKey::v4(address, class);
                let passed = (0..10)
                    .filter(|_| admitted(&memory, key.place(SEED), key, limit, SECOND).within())
                    .count();
                assert_eq!(passed, 3, "{address} {class:?}");
            }
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
    fn a_flood_of_new_sources_does_not_free_a_flooder() {
        let lines = memory(16);
        let memory = lines.as_slice();
        let limit = Limit::new(10, SECOND, 20);
        let flooder = SourceKey::v4(0x0a00_0001, Class::Register);
        let mut now = SECOND;
        let mut passed = 0;
        for round in 0..100_000_u32 {
            now += 100_000; // 10,000 rounds a second
            if admitted(&memory, flooder.place(SEED), flooder, limit, now).within() {
                passed += 1;
            }
            let other = SourceKey::v4(0xc000_0000 + round, Class::Register);
            let _ = admitted(&memory, other.place(SEED), other, limit, now);
        }
        assert!(
            (100..=122).contains(&passed),
            "10 s at 10/s after a burst of 20, got {passed}"
        );
    }

    #[test]
    fn two_threads_do_not_overshoot() {
        let lines = memory(4);
        let admitted_total = AtomicU64::new(0);
        // Ten seconds, in as many steps as there is time for.
        let (rate, steps) = if cfg!(miri) { (10, 100) } else { (1_000, 200_000) };
        let limit = Limit::new(rate, SECOND, rate);
        let key = SourceKey::v4(1, Class::Invite);
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let memory = lines.as_slice();
                    for step in 0..steps {
                        if admitted(
                            &memory,
                            key.place(SEED),
                            key,
                            limit,
                            SECOND + step * (10 * SECOND / steps),
                        )
                        .within()
                        {
                            admitted_total.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                });
            }
        });
        let total = admitted_total.into_inner();
        // The rate for 10 s after as large a burst; the threads' clocks may drift apart, never the sum.
        let expected = 11 * rate;
        assert!(
            (expected - rate / 10..=expected + rate / 10 + 10).contains(&total),
            "{total}"
        );
    }
}
