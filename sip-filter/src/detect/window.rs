//! Counting over a sliding window.

use std::time::Duration;

/// Parts a window is counted in.
pub(super) const PARTS: usize = 10;

/// Packets of one kind from one source over a sliding window.
///
/// The window is a ring of [`PARTS`] parts. The sum covers the part in progress and the nine before it, so between
/// nine and ten tenths of the window and never more: nobody is judged by a packet older than the window, and a
/// threshold is noticed at most one tenth of a window late.
///
/// Time need not be monotonic. A packet that is late by less than the window counts in the part it belongs to; one
/// that is later means that the clock was set back (or another capture begins), and counting starts afresh.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    /// Number of the newest part since the clock's zero.
    newest: u64,
    /// Packets by part number modulo [`PARTS`].
    parts: [u32; PARTS],
    /// First packet since the window was last empty.
    first: Duration,
    /// What was sent, for the evidence.
    pub(super) samples: Vec<String>,
}

impl Window {
    /// Counts `count` packets at `time` and returns the packets in the window.
    pub(super) fn add(&mut self, time: Duration, length: Duration, count: u32) -> u64 {
        let part = part_number(time, length);
        if part > self.newest {
            let stale = usize::try_from(part - self.newest).map_or(PARTS, |ahead| ahead.min(PARTS));
            for offset in 0..stale {
                self.parts[slot(part.wrapping_sub(offset as u64))] = 0;
            }
            self.newest = part;
        } else if self.newest - part >= PARTS as u64 {
            self.parts = [0; PARTS];
            self.newest = part;
        }
        if self.parts.iter().all(|count| *count == 0) {
            self.first = time;
            self.samples.clear();
        }
        self.first = self.first.min(time);
        let counted = &mut self.parts[slot(part)];
        *counted = counted.saturating_add(count);
        self.total()
    }

    /// Packets in the window.
    pub(super) fn total(&self) -> u64 {
        self.parts.iter().map(|count| u64::from(*count)).sum()
    }

    /// Time of the first packet in the window; to a tenth of the window while older ones have left it.
    pub(super) fn first_seen(&self, length: Duration) -> Duration {
        let oldest = (0..PARTS as u64)
            .rev()
            .filter_map(|age| self.newest.checked_sub(age))
            .find(|part| self.parts[slot(*part)] != 0)
            .unwrap_or(self.newest);
        let begin = u128::from(oldest) * u128::from(part_length(length));
        self.first
            .max(u64::try_from(begin).map_or(Duration::MAX, Duration::from_nanos))
    }

    /// Forgets all packets.
    pub(super) fn clear(&mut self) {
        self.parts = [0; PARTS];
        self.samples = Vec::new();
    }
}

const fn slot(part: u64) -> usize {
    (part % PARTS as u64) as usize
}

fn part_length(window: Duration) -> u64 {
    u64::try_from(window.as_nanos() / PARTS as u128).map_or(u64::MAX, |length| length.max(1))
}

fn part_number(time: Duration, window: Duration) -> u64 {
    u64::try_from(time.as_nanos() / u128::from(part_length(window))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEN: Duration = Duration::from_secs(10);

    fn at(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn packets_leave_the_window_part_by_part() {
        let mut window = Window::default();
        assert_eq!(window.add(at(100_000), TEN, 3), 3);
        assert_eq!(window.add(at(100_999), TEN, 1), 4);
        assert_eq!(window.add(at(105_000), TEN, 2), 6);
        assert_eq!(window.first_seen(TEN), at(100_000));
        assert_eq!(window.add(at(109_999), TEN, 1), 7);
        assert_eq!(window.add(at(110_000), TEN, 1), 4);
        assert_eq!(window.first_seen(TEN), at(105_000));
        assert_eq!(window.add(at(130_000), TEN, 1), 1);
        assert_eq!(window.first_seen(TEN), at(130_000));
    }

    #[test]
    fn late_packets_count_where_they_belong_and_a_reset_clock_starts_afresh() {
        let mut window = Window::default();
        window.add(at(100_000), TEN, 1);
        assert_eq!(window.add(at(95_000), TEN, 1), 2);
        assert_eq!(window.first_seen(TEN), at(95_000));
        assert_eq!(window.add(at(104_000), TEN, 1), 3);
        assert_eq!(window.add(at(105_000), TEN, 1), 3);
        assert_eq!(window.add(at(1_000), TEN, 1), 1);
        assert_eq!(window.first_seen(TEN), at(1_000));
    }

    #[test]
    fn extremes() {
        let mut window = Window::default();
        for length in [Duration::ZERO, Duration::from_nanos(1), TEN, Duration::MAX] {
            for time in [Duration::MAX, Duration::ZERO, at(u64::MAX)] {
                window.add(time, length, u32::MAX);
                window.add(time, length, u32::MAX);
                let _ = window.first_seen(length);
            }
        }
    }

    proptest! {
        /// Against a list of all packets: at most what the window holds, at least what nine tenths of it hold.
        #[test]
        fn between_nine_tenths_and_the_whole(steps in prop::collection::vec((0u64..4_000, 1u32..5), 1..60)) {
            let mut window = Window::default();
            let mut log: Vec<(u64, u32)> = Vec::new();
            let mut now = 50_000;
            for (step, count) in steps {
                now += step;
                log.push((now, count));
                let total = window.add(at(now), TEN, count);
                let within = |millis: u64| -> u64 {
                    log.iter().filter(|(time, _)| now - time < millis).map(|(_, count)| u64::from(*count)).sum()
                };
                prop_assert!((within(9_000)..=within(10_000)).contains(&total));
                prop_assert!(window.first_seen(TEN) <= at(now) && window.first_seen(TEN) + TEN >= at(now));
            }
        }
    }
}
