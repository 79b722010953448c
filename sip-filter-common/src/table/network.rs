//! Banned and allowed networks in flat tables: one entry a network and, for each block of addresses, the lengths of the
//! networks in it, so that the longest match costs one look for each length there is nearby, whatever the number of
//! networks.

use super::{
    Line, Memory,
    ban::{Fate, Layout, Value, lookup},
    hash,
};

/// What a network's entry says: the merged effect of every ban and allowance on a network around it, so that the longest
/// match answers for all of them. One word, so that it changes by one store; zero means there is no entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect(u64);

impl Effect {
    /// In the lower half, where the scope of a ban of SIP alone would stand.
    const ALLOWED: u64 = 2;

    /// The longest-lasting ban of SIP, that of all traffic, and whether the source is allow-listed.
    #[must_use]
    pub const fn new(sip: Fate, all: Fate, allowed: bool) -> Self {
        let sip = sip.0 as u64 & !Self::ALLOWED;
        Self((all.0 as u64) << 32 | sip | if allowed { Self::ALLOWED } else { 0 })
    }

    /// The longest-lasting ban of SIP.
    #[inline(always)]
    #[must_use]
    pub const fn sip(self) -> Fate {
        let fate = (self.0 & !Self::ALLOWED) as u32;
        // Without the lowest bit there is none.
        Fate(if fate & 1 == 0 { 0 } else { fate })
    }

    /// The longest-lasting ban of all traffic.
    #[inline(always)]
    #[must_use]
    pub const fn all(self) -> Fate {
        Fate((self.0 >> 32) as u32)
    }

    /// Whether the source is allow-listed.
    #[inline(always)]
    #[must_use]
    pub const fn allowed(self) -> bool {
        self.0 & Self::ALLOWED != 0
    }
}

impl Value for Effect {
    const NONE: Self = Self(0);

    #[inline(always)]
    fn exists(self) -> bool {
        self.0 != 0
    }

    fn stops_all(self) -> bool {
        self.all().exists()
    }

    #[inline(always)]
    fn number(self) -> u64 {
        self.0
    }

    #[inline(always)]
    fn from_number(number: u64) -> Self {
        Self(number)
    }
}

/// IPv4 networks: address and length in one word, three entries a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Net4;

impl Net4 {
    /// The key of the network of `length` bits, 0 to 32, around an address.
    #[inline(always)]
    #[must_use]
    pub const fn key(address: u32, length: u32) -> u64 {
        let mask = (u64::MAX << (32u32.wrapping_sub(length) & 63)) as u32;
        ((address & mask) as u64) << 8 | length as u64
    }
}

impl Layout for Net4 {
    type Key = u64;
    type Value = Effect;
    const SLOTS: usize = 3;

    #[inline(always)]
    fn words(key: u64) -> (u64, u64) {
        (key, 6)
    }

    #[inline(always)]
    fn read<L: Line>(line: L, slot: usize) -> (u64, Effect) {
        (line.load(slot), Effect(line.load(3 + slot)))
    }

    #[inline(always)]
    fn probe<L: Line>(line: L, slot: usize, key: u64) -> Effect {
        if line.load(slot) != key {
            return Effect::NONE;
        }
        let effect = Effect(line.load(3 + slot));
        if line.load(slot) == key {
            effect
        } else {
            Effect::NONE
        }
    }

    fn write<L: Line>(line: L, slot: usize, key: u64, effect: Effect) {
        line.store(slot, key);
        line.store(3 + slot, effect.0);
    }

    fn clear<L: Line>(line: L, slot: usize) {
        line.store(3 + slot, 0);
    }
}

/// IPv6 networks of up to 64 bits: upper half of the address and length, two entries a bucket.
#[derive(Clone, Copy, Debug)]
pub struct Net6;

impl Net6 {
    /// The key of the network of `length` bits, 0 to 64, around the upper half of an address.
    #[inline(always)]
    #[must_use]
    pub const fn key(high: u64, length: u32) -> [u64; 2] {
        let mask = if length == 0 {
            0
        } else {
            u64::MAX << (64u32.wrapping_sub(length) & 63)
        };
        [high & mask, length as u64]
    }
}

impl Layout for Net6 {
    type Key = [u64; 2];
    type Value = Effect;
    const SLOTS: usize = 2;

    #[inline(always)]
    fn words(key: [u64; 2]) -> (u64, u64) {
        (key[0], key[1] << 8 | 7)
    }

    #[inline(always)]
    fn read<L: Line>(line: L, slot: usize) -> ([u64; 2], Effect) {
        let key = [line.load(2 * slot), line.load(2 * slot + 1)];
        (key, Effect(line.load(4 + slot)))
    }

    #[inline(always)]
    fn probe<L: Line>(line: L, slot: usize, key: [u64; 2]) -> Effect {
        if line.load(2 * slot) != key[0] || line.load(2 * slot + 1) != key[1] {
            return Effect::NONE;
        }
        let effect = Effect(line.load(4 + slot));
        let unchanged = line.load(2 * slot) == key[0] && line.load(2 * slot + 1) == key[1];
        if unchanged { effect } else { Effect::NONE }
    }

    fn write<L: Line>(line: L, slot: usize, key: [u64; 2], effect: Effect) {
        line.store(2 * slot, key[0]);
        line.store(2 * slot + 1, key[1]);
        line.store(4 + slot, effect.0);
    }

    fn clear<L: Line>(line: L, slot: usize) {
        line.store(4 + slot, 0);
    }
}

/// Blocks of each family for which lengths are kept, as a power of two.
const BLOCK_BITS: u32 = 16;
/// Blocks of each family.
pub const BLOCKS: u32 = 1 << BLOCK_BITS;
/// Words of the table of [`Lengths`]: the blocks of IPv4, then those of IPv6.
pub const LENGTH_WORDS: u32 = 2 * BLOCKS;

/// The block of an IPv4 address: its /16.
#[inline(always)]
#[must_use]
pub const fn block4(address: u32) -> u32 {
    address >> (32 - BLOCK_BITS)
}

/// The block of an IPv6 address by its upper half: a seeded hash of its /32.
#[inline(always)]
#[must_use]
pub const fn block6(seed: [u64; 2], high: u64) -> u32 {
    BLOCKS + (hash(seed, high >> 32, 8) as u32 & (BLOCKS - 1))
}

/// The lengths of the networks in a block, longest first, a byte each: the length and one, or zero after the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lengths(pub u64);

impl Lengths {
    /// More lengths than fit, or such as the flat tables do not hold: the trie knows them all.
    pub const TRIE: Self = Self(u64::MAX);
    /// As many as fit.
    pub const MOST: usize = 8;

    /// From lengths, longest first.
    #[must_use]
    pub fn new(lengths: impl IntoIterator<Item = u8>) -> Self {
        let mut word = 0;
        for (count, length) in lengths.into_iter().enumerate() {
            if count == Self::MOST || length > 64 {
                return Self::TRIE;
            }
            word |= (length as u64 + 1) << (8 * count);
        }
        Self(word)
    }
}

/// An entry found by [`longest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Match {
    /// What it says.
    pub effect: Effect,
    /// Where it lies: see [`hit`].
    pub place: u64,
}

/// The longest match among networks of `lengths`, with the key that `key` makes of a length.
#[inline(always)]
pub fn longest<T: Layout<Value = Effect>, M: Memory + ?Sized>(
    memory: &M,
    seed: [u64; 2],
    lengths: Lengths,
    key: impl Fn(u32) -> T::Key,
) -> Match {
    let mut rest = lengths.0;
    let mut tries = 0;
    while tries < Lengths::MOST {
        let byte = rest as u32 & 0xff;
        if byte == 0 {
            break;
        }
        if let Some(found) = lookup::<T, M>(memory, seed, key(byte - 1)) {
            return Match {
                effect: found.value,
                place: (found.bucket as u64) << 2 | found.slot as u64 & 3,
            };
        }
        rest = memory.forget(rest >> 8);
        tries += 1;
    }
    Match::default()
}

/// Counts one packet that the entry at `place` stopped.
#[inline(always)]
pub fn hit<M: Memory + ?Sized>(memory: &M, place: u64, random: u32) {
    let index = (place >> 2) as u32 & memory.mask();
    if let Some(line) = memory.line(index) {
        super::ban::count_hit(line, place as usize & 3, random);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_effect_says_what_was_put_into_it() {
        let (sip, all) = (Fate::new(Some(5 << 28), false), Fate::new(None, true));
        for sip in [Fate::NONE, sip] {
            for all in [Fate::NONE, all] {
                for allowed in [false, true] {
                    let effect = Effect::new(sip, all, allowed);
                    assert_eq!(
                        (effect.sip(), effect.all(), effect.allowed()),
                        (sip, all, allowed)
                    );
                    assert_eq!(
                        effect.exists(),
                        sip.exists() || all.exists() || allowed,
                        "{effect:?}"
                    );
                    assert_eq!(effect.stops_all(), all.exists());
                }
            }
        }
    }

    #[test]
    fn lengths_fit_or_go_to_the_trie() {
        assert_eq!(Lengths::new([]), Lengths(0));
        assert_eq!(Lengths::new([32, 24, 0]), Lengths(0x01_19_21));
        assert_ne!(Lengths::new((20..28).rev()), Lengths::TRIE);
        assert_eq!(Lengths::new((20..29).rev()), Lengths::TRIE, "nine do not fit");
        assert_eq!(Lengths::new([65, 48]), Lengths::TRIE, "beyond half an address");
    }

    #[test]
    fn keys_of_a_network_are_those_of_every_address_in_it() {
        assert_eq!(Net4::key(0xc000_02ff, 24), Net4::key(0xc000_0200, 24));
        assert_ne!(Net4::key(0xc000_0200, 24), Net4::key(0xc000_0200, 25));
        assert_eq!(Net4::key(u32::MAX, 0), Net4::key(0, 0));
        assert_eq!(Net4::key(7, 32), 7 << 8 | 32);
        assert_eq!(Net6::key(u64::MAX, 0), [0, 0]);
        assert_eq!(Net6::key(u64::MAX, 64), [u64::MAX, 64]);
        assert_eq!(Net6::key(0x2001_0db8_0001_0002, 48), [0x2001_0db8_0001_0000, 48]);
    }
}
