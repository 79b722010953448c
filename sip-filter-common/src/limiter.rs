//! Token-bucket arithmetic in its virtual-scheduling form, the generic cell rate algorithm (ITU-T I.371 Annex A;
//! also J. Turner, "New directions in communications", 1986). One word of state: the theoretical arrival time.

use crate::abi::Limit;

/// Outcome for one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Within the limit; the new state to store.
    Admit(u64),
    /// Over the limit; the state stays.
    Over,
}

/// Judges a packet at `now` (nanoseconds) given the stored `state`.
///
/// A state in the past counts as idle: the source has its whole burst. A clock that goes back is tolerated: it
/// only delays the recovery of tokens.
#[inline(always)]
#[must_use]
pub const fn admit(limit: Limit, state: u64, now: u64) -> Admission {
    let base = if state > now { state } else { now };
    if base - now > limit.tolerance {
        return Admission::Over;
    }
    Admission::Admit(base.wrapping_add(limit.interval))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn run(limit: Limit, times: impl Iterator<Item = u64>) -> u64 {
        let mut state = 0;
        let mut admitted = 0;
        for now in times {
            if let Admission::Admit(new) = admit(limit, state, now) {
                state = new;
                admitted += 1;
            }
        }
        admitted
    }

    #[test]
    fn burst_is_exact() {
        let limit = Limit::new(10, 1_000_000_000, 25);
        assert_eq!(run(limit, core::iter::repeat_n(5_000, 100)), 25);
        assert_eq!(
            run(Limit::new(10, 1_000_000_000, 1), core::iter::repeat_n(5_000, 100)),
            1
        );
    }

    #[test]
    #[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
    fn sustained_rate_is_exact() {
        let limit = Limit::new(100, 1_000_000_000, 50);
        let second = 1_000_000_000;
        // 10,000 packets a second for 100 s from boot time 1 s on
        let admitted = run(limit, (0..1_000_000).map(|n| second + n * 100_000));
        assert!((10_049..=10_051).contains(&admitted), "{admitted}");
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "arithmetic, and more of it than Miri has time for")]
        fn never_more_than_burst_plus_rate(
            count in 1_u64..2_000, burst in 1_u64..500,
            gaps in proptest::collection::vec(0_u64..50_000_000, 1..400),
        ) {
            let limit = Limit::new(count, 1_000_000_000, burst);
            let mut now = 1_000_000_000;
            let start = now;
            let times: std::vec::Vec<u64> = gaps.iter().map(|gap| { now += gap; now }).collect();
            let elapsed = now - start;
            let admitted = run(limit, times.into_iter());
            prop_assert!(admitted <= burst + elapsed / limit.interval + 1);
        }
    }
}
