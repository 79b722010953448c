//! Who was banned before: how long the next ban is, and whether one runs.

use std::time::{Duration, SystemTime};

use super::{DetectConfig, bounded::Bounded};
use crate::bans::Target;

/// A ban that could not be put in force is decided again after so long: at once would be at every packet.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Earlier offences of sources, kept apart from their counters because they are remembered much longer.
///
/// Times are wall-clock times: offences outlive a reboot, the clock of the observations does not.
#[derive(Debug)]
pub(super) struct Offences {
    /// Shadow decisions are kept apart, so that a rule in rehearsal neither lengthens nor prevents a real ban.
    by_target: Bounded<(Target, bool), Offence>,
}

#[derive(Clone, Copy, Debug)]
struct Offence {
    count: u32,
    /// Begin and end of the last ban.
    banned: SystemTime,
    until: SystemTime,
    /// It was a short ban of a source that is not proven.
    unproven: bool,
}

impl Offence {
    /// Whether the last ban runs at `now`. A time before it began by more than its length means that the clock was
    /// set back; without that, nobody could be judged until the old time comes round again.
    fn runs(&self, now: SystemTime) -> bool {
        let length = self.until.duration_since(self.banned).unwrap_or_default();
        now < self.until && self.banned.duration_since(now).is_ok_and(|early| early < length)
            || (self.banned..self.until).contains(&now)
    }

    fn remembered(&self, now: SystemTime, memory: Duration) -> bool {
        now.duration_since(self.until).is_ok_and(|since| since <= memory) || now < self.until
    }
}

impl Offences {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            by_target: Bounded::new(capacity),
        }
    }

    pub(super) fn len(&self) -> usize {
        self.by_target.len()
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.by_target.set_capacity(capacity, |_| false);
    }

    /// Whether a ban that was decided here runs.
    pub(super) fn banned(&self, target: Target, shadow: bool, now: SystemTime) -> bool {
        let runs = |shadow| {
            self.by_target
                .get(&(target, shadow))
                .is_some_and(|offence| offence.runs(now))
        };
        runs(false) || shadow && runs(true)
    }

    /// Whether a ban of the target, which was not proven, ended within the time before `now`.
    pub(super) fn returned(&self, target: Target, shadow: bool, now: SystemTime, within: Duration) -> bool {
        let offence = self.by_target.get(&(target, shadow));
        offence.is_some_and(|offence| {
            offence.unproven
                && now
                    .duration_since(offence.until)
                    .is_ok_and(|since| since < within)
        })
    }

    /// Records a short ban of an unproven source, which is no offence: it may not have been that source at all.
    /// Returns the length of the ban.
    pub(super) fn record_unproven(
        &mut self,
        target: Target,
        shadow: bool,
        now: SystemTime,
        config: &DetectConfig,
    ) -> Duration {
        let memory = config.memory;
        let known = self.by_target.get(&(target, shadow));
        let count = known
            .filter(|offence| offence.remembered(now, memory))
            .map_or(0, |offence| offence.count);
        let ban_for = config.unproven_ban.min(config.ban_time);
        let offence = Offence {
            count,
            banned: now,
            until: now.checked_add(ban_for).unwrap_or(now),
            unproven: true,
        };
        self.put((target, shadow), offence, |offence| {
            !offence.remembered(now, memory)
        });
        ban_for
    }

    /// Records an offence; returns the number of earlier ones and the length of the ban.
    pub(super) fn record(
        &mut self,
        target: Target,
        shadow: bool,
        now: SystemTime,
        config: &DetectConfig,
    ) -> (u32, Duration) {
        let key = (target, shadow);
        let memory = config.memory;
        let earlier = match self.by_target.get(&key) {
            Some(offence) if offence.remembered(now, memory) => offence.count,
            _ => 0,
        };
        let ban_for = ban_time(config, earlier);
        self.put(
            key,
            Offence {
                count: earlier.saturating_add(1),
                banned: now,
                until: now.checked_add(ban_for).unwrap_or(now),
                unproven: false,
            },
            |offence| !offence.remembered(now, memory),
        );
        (earlier, ban_for)
    }

    /// Puts back what is known from before a restart: so many offences, the last ban of which ends or ended then.
    pub(super) fn restore(&mut self, target: Target, count: u32, ended: SystemTime) {
        if count > 0 {
            let offence = Offence {
                count,
                banned: ended,
                until: ended,
                unproven: false,
            };
            self.put((target, false), offence, |_| false);
        }
    }

    /// The ban that was decided last is not in force, for want of room: it is decided again in a moment, and is no
    /// offence.
    pub(super) fn not_enforced(&mut self, target: Target, now: SystemTime) {
        let Some(mut offence) = self.by_target.get(&(target, false)).copied() else {
            return;
        };
        if !offence.unproven {
            offence.count = offence.count.saturating_sub(1);
        }
        offence.until = offence.until.min(now.checked_add(TRY_AGAIN).unwrap_or(now));
        self.put((target, false), offence, |_| false);
    }

    pub(super) fn forget(&mut self, target: Target) {
        self.by_target.remove(&(target, false));
        self.by_target.remove(&(target, true));
    }

    fn put(&mut self, key: (Target, bool), offence: Offence, stale: impl Fn(&Offence) -> bool) {
        *self.by_target.touch(key, stale, || offence) = offence;
        // Who came back is worth remembering; a flood of first offences must not wash it out.
        if offence.count > 1 {
            self.by_target.protect(&key);
        }
    }
}

/// `ban_time`, doubled for each earlier offence, at most `ban_time_max`.
fn ban_time(config: &DetectConfig, earlier: u32) -> Duration {
    2u32.checked_pow(earlier)
        .and_then(|factor| config.ban_time.checked_mul(factor))
        .map_or(config.ban_time_max, |time| time.min(config.ban_time_max))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> DetectConfig {
        DetectConfig {
            ban_time: Duration::from_secs(60),
            ..DetectConfig::default()
        }
    }

    fn target() -> Target {
        "192.0.2.1".parse().unwrap()
    }

    fn at(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    }

    #[test]
    fn bans_double_up_to_the_cap() {
        let config = config();
        let times: Vec<u64> = (0..15)
            .map(|earlier| ban_time(&config, earlier).as_secs())
            .collect();
        assert_eq!(times[..4], [60, 120, 240, 480]);
        assert_eq!(times[13..], [491_520, 604_800]);
        assert_eq!(ban_time(&config, u32::MAX), config.ban_time_max);
    }

    #[test]
    fn memory_runs_from_the_end_of_the_ban() {
        let config = DetectConfig {
            memory: Duration::from_secs(100),
            ..config()
        };
        let mut offences = Offences::new(10);
        assert_eq!(offences.record(target(), false, at(1_000), &config).0, 0);
        // The ban ran until 1060; 100 seconds later it is still an offence.
        assert_eq!(
            offences.record(target(), false, at(1_160), &config),
            (1, Duration::from_secs(120))
        );
        assert_eq!(offences.record(target(), false, at(1_381), &config).0, 0);
    }

    #[test]
    fn a_ban_runs_until_its_end_and_a_clock_set_back_does_not_prolong_it() {
        let mut offences = Offences::new(10);
        offences.record(target(), false, at(1_000), &config());
        for (time, banned) in [
            (1_000, true),
            (1_059, true),
            (1_060, false),
            (999, true),
            (941, true),
            (940, false),
        ] {
            assert_eq!(offences.banned(target(), false, at(time)), banned, "{time}");
        }
    }

    #[test]
    fn a_ban_that_is_not_in_force_is_decided_again_soon_and_is_no_offence() {
        let mut offences = Offences::new(10);
        for begin in [1_000, 1_010, 1_020] {
            assert!(!offences.banned(target(), false, at(begin)));
            let first = (0, Duration::from_secs(60));
            assert_eq!(offences.record(target(), false, at(begin), &config()), first);
            offences.not_enforced(target(), at(begin));
            assert!(
                offences.banned(target(), false, at(begin + 9)),
                "not at every packet"
            );
        }
        let unproven = offences.record_unproven(target(), false, at(1_030), &config());
        assert_eq!(unproven, Duration::from_secs(30));
        offences.not_enforced(target(), at(1_030));
        assert!(!offences.banned(target(), false, at(1_040)));
        // Once it is in force, all is as always.
        offences.record(target(), false, at(1_040), &config());
        assert!(offences.banned(target(), false, at(1_099)));
        offences.not_enforced("192.0.2.9".parse().unwrap(), at(1_099));
        assert_eq!(offences.len(), 1, "of nobody else anything is made up");
    }

    #[test]
    fn shadow_offences_prevent_no_ban() {
        let mut offences = Offences::new(10);
        offences.record(target(), true, at(1_000), &config());
        assert!(offences.banned(target(), true, at(1_001)));
        assert!(!offences.banned(target(), false, at(1_001)));
        assert_eq!(offences.record(target(), false, at(1_001), &config()).0, 0);
        offences.forget(target());
        assert!(!offences.banned(target(), true, at(1_001)));
        // While a real ban runs, a rule in rehearsal would see nothing.
        offences.record(target(), false, at(1_001), &config());
        assert!(offences.banned(target(), true, at(1_002)));
    }

    #[test]
    fn short_bans_are_no_offences() {
        let mut offences = Offences::new(10);
        assert_eq!(offences.record(target(), false, at(1_000), &config()).0, 0);
        let length = offences.record_unproven(target(), false, at(2_000), &config());
        assert_eq!(length, Duration::from_secs(30));
        assert!(offences.banned(target(), false, at(2_029)) && !offences.banned(target(), false, at(2_030)));
        assert!(offences.returned(target(), false, at(2_059), length));
        assert!(!offences.returned(target(), false, at(2_060), length));
        assert_eq!(offences.record(target(), false, at(2_030), &config()).0, 1);
    }
}
