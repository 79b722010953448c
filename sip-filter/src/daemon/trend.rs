//! The counters of the last minutes, second by second.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use sip_filter_common::{
    abi::{Counters, Family, counter_index},
    sip::Class,
    verdict::Reason,
};

/// Seconds remembered.
const SECONDS: usize = 300;

const REASONS: usize = Reason::ALL.len();
const SERIES: usize = Class::COUNT + 2 * REASONS;

/// Packets of each series: first by class, then by reason, enforced, then by reason, simulated.
type Sums = [u64; SERIES];

/// Packets per second of the last five minutes; about 80 kB.
#[derive(Debug, Default)]
pub struct Trend {
    last: Option<(Duration, Box<Sums>)>,
    seconds: VecDeque<Box<[u32]>>,
}

/// Packets of each second, oldest first; what was zero all the time is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// By class, those stopped by bans not counted.
    pub classes: BTreeMap<&'static str, Vec<u32>>,
    /// By reason, enforced.
    pub counters: BTreeMap<&'static str, Vec<u32>>,
    /// By reason, let pass in simulate mode.
    pub would_drop: BTreeMap<&'static str, Vec<u32>>,
}

impl Trend {
    /// Takes the counters of all interfaces as they are at a boot time. To be called each second; if it is late, the
    /// mean stands for the seconds missed.
    pub fn sample<'a>(&mut self, interfaces: impl Iterator<Item = &'a Counters>, now: Duration) {
        let mut sums = Box::new([0; SERIES]);
        for counters in interfaces {
            add(&mut sums, counters);
        }
        if let Some((then, before)) = &self.last {
            let passed = now.saturating_sub(*then);
            let seconds = (passed.as_secs_f64().round() as usize).clamp(1, SECONDS);
            let mean = |(now, before): (&u64, &u64)| {
                // Fewer than before: an interface has gone.
                let packets = now.saturating_sub(*before) / seconds as u64;
                u32::try_from(packets).unwrap_or(u32::MAX)
            };
            let second: Box<[u32]> = sums.iter().zip(before.iter()).map(mean).collect();
            for _ in 0..seconds {
                self.seconds.push_back(second.clone());
            }
            let surplus = self.seconds.len().saturating_sub(SECONDS);
            self.seconds.drain(..surplus);
        }
        self.last = Some((now, sums));
    }

    /// The latest `seconds`, or as many as there are.
    #[must_use]
    pub fn latest(&self, seconds: usize) -> Series {
        let skip = self.seconds.len().saturating_sub(seconds);
        let series = |index: usize| -> Vec<u32> {
            let latest = self.seconds.iter().skip(skip);
            latest.map(|second| second[index]).collect()
        };
        let by_name = |first: usize, names: &mut dyn Iterator<Item = &'static str>| {
            names
                .enumerate()
                .map(|(number, name)| (name, series(first + number)))
                .filter(|(_, series)| series.iter().any(|packets| *packets > 0))
                .collect()
        };
        let reasons = || Reason::ALL.iter().map(|reason| reason.name());
        Series {
            classes: by_name(0, &mut Class::ALL.iter().map(|class| class.name())),
            counters: by_name(Class::COUNT, &mut reasons()),
            would_drop: by_name(Class::COUNT + REASONS, &mut reasons()),
        }
    }
}

fn add(sums: &mut Sums, counters: &Counters) {
    for class in Class::ALL {
        sums[class as usize] += counters.by_class[class as usize];
    }
    for (number, reason) in Reason::ALL.iter().enumerate() {
        for (simulated, first) in [(false, Class::COUNT), (true, Class::COUNT + REASONS)] {
            let indices = Family::ALL.map(|family| counter_index(*reason as u8, family, simulated));
            sums[first + number] += indices
                .iter()
                .map(|index| counters.by_reason[*index])
                .sum::<u64>();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nothing() -> Counters {
        Counters {
            by_reason: [0; sip_filter_common::abi::COUNTER_WORDS],
            by_class: [0; Class::COUNT],
            events_lost: 0,
            events_suppressed: 0,
        }
    }

    fn counted(registers: u64, dropped: u64) -> Counters {
        let mut counters = nothing();
        counters.by_class[Class::Register as usize] = registers;
        let index = counter_index(Reason::DropBanAddress as u8, Family::V6, false);
        counters.by_reason[index] = dropped;
        let index = counter_index(Reason::DropLimitRegister as u8, Family::V4, true);
        counters.by_reason[index] = 2 * dropped;
        counters
    }

    #[test]
    fn each_second_has_its_packets() {
        let mut trend = Trend::default();
        let second = Duration::from_secs;
        assert_eq!(trend.latest(10), Series::default());
        trend.sample([counted(1_000, 0), counted(5, 0)].iter(), second(10));
        assert_eq!(
            trend.latest(10),
            Series::default(),
            "what was before does not count"
        );
        trend.sample([counted(1_010, 0), counted(6, 3)].iter(), second(11));
        // Two seconds late.
        trend.sample([counted(1_010, 0), counted(36, 3)].iter(), second(14));
        // An interface is gone.
        trend.sample([counted(1_015, 0)].iter(), second(15));
        let series = trend.latest(10);
        assert_eq!(series.classes["register"], [11, 10, 10, 10, 0]);
        assert_eq!(series.counters["drop-ban-address"], [3, 0, 0, 0, 0]);
        assert_eq!(series.would_drop["drop-limit-register"], [6, 0, 0, 0, 0]);
        assert_eq!(
            series.classes.len() + series.counters.len() + series.would_drop.len(),
            3
        );
        assert_eq!(trend.latest(2).classes["register"], [10, 0]);

        for n in 0..1_000 {
            trend.sample([counted(2_000 + 7 * n, 0)].iter(), second(20 + n));
        }
        assert_eq!(trend.latest(usize::MAX).classes["register"], [7; SECONDS]);
    }
}
