//! What tables hold under a key.

use crate::abi::EXPIRY_SHIFT;

/// Scope and end of a ban, in 32 bits; zero means there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(transparent)]
pub struct Fate(pub u32);

impl Fate {
    /// No ban.
    pub const NONE: Self = Self(0);
    const PRESENT: u32 = 1;
    const ALL: u32 = 2;
    const UNTIL_SHIFT: u32 = 2;
    /// Latest end that can be told from "permanent": 2³⁰ − 1 units of 268 ms after boot, about nine years.
    const UNTIL_MAX: u64 = (1 << 30) - 1;

    /// A ban that ends at boot time `expires` (nanoseconds), rounded up to a unit of 2²⁸ ns; `None` is permanent.
    /// With `all`, it stops everything from the source, not only SIP.
    #[must_use]
    pub const fn new(expires: Option<u64>, all: bool) -> Self {
        let until = match expires {
            None => 0,
            Some(time) => {
                let units = time.div_ceil(1 << EXPIRY_SHIFT);
                match units {
                    0 => 1,
                    Self::UNTIL_MAX.. => 0,
                    _ => units as u32,
                }
            }
        };
        Self(Self::PRESENT | if all { Self::ALL } else { 0 } | until << Self::UNTIL_SHIFT)
    }

    /// Whether there is an entry at all, in force or expired.
    #[inline(always)]
    #[must_use]
    pub const fn exists(self) -> bool {
        self.0 != 0
    }

    /// Whether the ban is in force at boot time `now` (nanoseconds).
    #[inline(always)]
    #[must_use]
    pub const fn in_force(self, now: u64) -> bool {
        let until = self.0 >> Self::UNTIL_SHIFT;
        self.exists() && (until == 0 || (now >> EXPIRY_SHIFT) < until as u64)
    }

    /// Whether it stops everything from the source.
    #[inline(always)]
    #[must_use]
    pub const fn all(self) -> bool {
        self.0 & Self::ALL != 0
    }

    /// Boot time of its end in nanoseconds, as rounded; `None` is permanent.
    #[must_use]
    pub const fn expires(self) -> Option<u64> {
        match self.0 >> Self::UNTIL_SHIFT {
            0 => None,
            until => Some((until as u64) << EXPIRY_SHIFT),
        }
    }
}

/// What a table holds under a key, in a word or less; made of zeros if it holds nothing.
pub trait Value: Copy + Eq {
    /// Nothing.
    const NONE: Self;
    /// Whether there is an entry at all.
    fn exists(self) -> bool;
    /// Whether it stops everything from the source.
    fn stops_all(self) -> bool;
    /// As a number.
    fn number(self) -> u64;
    /// From such a number.
    fn from_number(number: u64) -> Self;
}

impl Value for Fate {
    const NONE: Self = Self(0);

    #[inline(always)]
    fn exists(self) -> bool {
        self.0 != 0
    }

    fn stops_all(self) -> bool {
        self.all()
    }

    #[inline(always)]
    fn number(self) -> u64 {
        self.0 as u64
    }

    #[inline(always)]
    fn from_number(number: u64) -> Self {
        Self(number as u32)
    }
}
