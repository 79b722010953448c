//! Hit counters that fit seven to a word.
//!
//! A counter has nine bits: five of exponent, four of mantissa. It counts exactly up to 31; above, it is raised by
//! one step of 2ⁿ with probability 2⁻ⁿ (R. Morris, "Counting large numbers of events in small registers",
//! CACM 21(10), 1978), so its expectation stays exact and a flood rarely writes to the line it shares with other
//! CPUs. The controller takes the counters every second, so floods average out: one reading has a standard
//! deviation of about 18 %, the sum of a minute of them 2 %.

const MANTISSA_BITS: u32 = 4;
const MANTISSA: u64 = (1 << MANTISSA_BITS) - 1;
/// Bits of one counter.
const WIDTH: u32 = 9;
const MAX: u64 = (1 << WIDTH) - 1;

/// Counters in a word.
pub(super) const PER_WORD: usize = (u64::BITS / WIDTH) as usize;
/// All bits the counters use.
pub(super) const ALL: u64 = (1 << (PER_WORD as u32 * WIDTH)) - 1;

#[inline(always)]
const fn shift(slot: usize) -> u32 {
    (slot as u32 * WIDTH) & 63
}

/// What the counter of `slot` stands for.
#[inline(always)]
pub(super) const fn get(word: u64, slot: usize) -> u64 {
    let code = (word >> shift(slot)) & MAX;
    let exponent = code >> MANTISSA_BITS;
    let mantissa = code & MANTISSA;
    if exponent == 0 {
        mantissa
    } else {
        (mantissa + MANTISSA + 1) << (exponent - 1)
    }
}

/// The word after one more hit of `slot`, or `None` if this hit changes nothing. `random` is uniform.
#[inline(always)]
pub(super) const fn bump(word: u64, slot: usize, random: u32) -> Option<u64> {
    let code = (word >> shift(slot)) & MAX;
    if code == MAX {
        return None;
    }
    let exponent = code >> MANTISSA_BITS;
    let skip = if exponent > 1 {
        (1u64 << ((exponent - 1) & 31)) - 1
    } else {
        0
    };
    if random as u64 & skip != 0 {
        return None;
    }
    Some(word + (1 << shift(slot)))
}

/// The word with the counter of `slot` at zero.
pub(super) const fn cleared(word: u64, slot: usize) -> u64 {
    word & !(MAX << shift(slot))
}

/// The word with the counter of `slot` set to the code of another counter.
pub(super) const fn with_code(word: u64, slot: usize, code: u64) -> u64 {
    cleared(word, slot) | (code << shift(slot))
}

/// The raw code of `slot`.
pub(super) const fn code(word: u64, slot: usize) -> u64 {
    (word >> shift(slot)) & MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exact_to_31_and_unbiased_above() {
        let mut random = 0x1234_5678_9abc_def1_u64;
        let mut next = || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            (random >> 16) as u32
        };
        for slot in 0..PER_WORD {
            let mut word = 0;
            for expected in 1..=31 {
                word = bump(word, slot, next()).unwrap();
                assert_eq!(get(word, slot), expected);
            }
            assert_eq!(word & !(MAX << shift(slot)), 0, "neighbours untouched");
        }
        // Arithmetic, and much of it: nothing for Miri.
        let (runs, hits) = if cfg!(miri) { return } else { (300, 20_000) };
        let mut sum = 0;
        for _ in 0..runs {
            let mut word = 0;
            for _ in 0..hits {
                word = bump(word, 3, next()).unwrap_or(word);
            }
            sum += get(word, 3);
        }
        let mean = sum as f64 / f64::from(runs);
        let error = mean / f64::from(hits) - 1.0;
        assert!(error.abs() < 0.05, "biased by {error}");
    }

    #[test]
    fn a_full_counter_stays_and_never_spills() {
        let mut word = u64::MAX >> 1;
        assert_eq!(bump(word, 6, 0), None);
        word = cleared(word, 2);
        assert_eq!(get(word, 2), 0);
        assert_eq!(code(with_code(word, 2, 77), 2), 77);
        assert_eq!(code(with_code(word, 2, 77), 1), MAX);
    }
}
