//! When a condition becomes an alarm, and when the alarm is over. Pure: time is passed in.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use super::alarm::Key;
use crate::conditions::Condition;

/// Holds a condition back until it has lasted, and its end until it has stayed away: what flickers makes one alarm, not
/// many.
#[derive(Debug)]
pub(super) struct Hold {
    up: Duration,
    down: Duration,
    held: BTreeMap<Key, Held>,
}

#[derive(Debug)]
struct Held {
    condition: Condition,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    /// Not reported yet.
    Waiting { until: Duration },
    /// Reported.
    Firing,
    /// Reported, gone since `ended`, and over if it stays away.
    Leaving { until: Duration, ended: SystemTime },
}

/// What is to be reported.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) condition: Condition,
    /// When it ended, if it did.
    pub(super) ended: Option<SystemTime>,
}

impl Hold {
    /// Reports what has lasted `up`, and its end when it has been gone for `down`.
    pub(super) const fn new(up: Duration, down: Duration) -> Self {
        Self {
            up,
            down,
            held: BTreeMap::new(),
        }
    }

    /// It is there, at this time of a clock that never goes back.
    pub(super) fn raised(&mut self, condition: Condition, now: Duration) {
        let key = (condition.name, condition.subject.clone());
        let until = now + self.up;
        let held = self.held.entry(key).or_insert_with(|| Held {
            condition: condition.clone(),
            stage: Stage::Waiting { until },
        });
        if let Stage::Leaving { .. } = held.stage {
            // Back before its end was reported: it is one alarm that goes on, since its first time.
            held.stage = Stage::Firing;
        }
        held.condition.text = condition.text;
    }

    /// It is gone.
    pub(super) fn cleared(&mut self, key: &Key, now: Duration, wall: SystemTime) {
        let until = now + self.down;
        match self.held.get_mut(key) {
            Some(held) if matches!(held.stage, Stage::Firing) => {
                held.stage = Stage::Leaving { until, ended: wall };
            }
            Some(held) if matches!(held.stage, Stage::Waiting { .. }) => {
                self.held.remove(key);
            }
            _ => {}
        }
    }

    /// What is there now, told as a whole: whatever is not in it is gone.
    pub(super) fn is_now(&mut self, current: Vec<Condition>, now: Duration, wall: SystemTime) {
        let here: Vec<Key> = current
            .iter()
            .map(|condition| (condition.name, condition.subject.clone()))
            .collect();
        let gone: Vec<Key> = self
            .held
            .keys()
            .filter(|key| !here.contains(key))
            .cloned()
            .collect();
        for key in gone {
            self.cleared(&key, now, wall);
        }
        for condition in current {
            self.raised(condition, now);
        }
    }

    /// What has become due.
    pub(super) fn due(&mut self, now: Duration) -> Vec<Report> {
        let mut reports = Vec::new();
        self.held.retain(|_, held| match held.stage {
            Stage::Waiting { until } if until <= now => {
                held.stage = Stage::Firing;
                reports.push(Report {
                    condition: held.condition.clone(),
                    ended: None,
                });
                true
            }
            Stage::Leaving { until, ended } if until <= now => {
                reports.push(Report {
                    condition: held.condition.clone(),
                    ended: Some(ended),
                });
                false
            }
            _ => true,
        });
        reports
    }

    /// All alarms that have been reported and are not over, with their latest text.
    pub(super) fn firing(&self) -> Vec<Condition> {
        let reported = self
            .held
            .values()
            .filter(|held| !matches!(held.stage, Stage::Waiting { .. }));
        reported.map(|held| held.condition.clone()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::conditions::{Kind, Severity};

    const UP: Duration = Duration::from_secs(10);
    const DOWN: Duration = Duration::from_secs(60);

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn wall(seconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + at(seconds)
    }

    fn condition(text: &str) -> Condition {
        Condition {
            name: Kind::Detached,
            subject: "eth0".into(),
            severity: Severity::Critical,
            since: wall(1),
            text: text.into(),
            remedy: String::new(),
        }
    }

    fn key() -> Key {
        (Kind::Detached, "eth0".into())
    }

    #[test]
    fn what_does_not_last_is_not_reported() {
        let mut hold = Hold::new(UP, DOWN);
        hold.raised(condition("a"), at(0));
        assert!(hold.due(at(9)).is_empty());
        hold.cleared(&key(), at(9), wall(9));
        assert!(hold.due(at(1_000)).is_empty());
        assert!(hold.firing().is_empty());
    }

    #[test]
    fn what_lasts_is_reported_once_and_its_end_when_it_stays_away() {
        let mut hold = Hold::new(UP, DOWN);
        hold.raised(condition("a"), at(0));
        let reports = hold.due(at(10));
        assert_eq!(reports.len(), 1);
        assert_eq!(reports[0].ended, None);
        assert!(hold.due(at(11)).is_empty(), "once");
        hold.cleared(&key(), at(20), wall(20));
        assert!(hold.due(at(79)).is_empty());
        assert_eq!(hold.firing().len(), 1, "its end is not reported yet");
        let reports = hold.due(at(80));
        assert_eq!(
            reports[0].ended,
            Some(wall(20)),
            "it ended when it went, not later"
        );
        assert!(hold.due(at(1_000)).is_empty());
        assert!(hold.firing().is_empty());
    }

    #[test]
    fn what_flickers_is_one_alarm() {
        let mut hold = Hold::new(UP, DOWN);
        hold.raised(condition("first"), at(0));
        assert_eq!(hold.due(at(10)).len(), 1);
        for second in (20..600).step_by(20) {
            hold.cleared(&key(), at(second), wall(second));
            hold.raised(condition("again"), at(second + 10));
            assert!(hold.due(at(second + 10)).is_empty());
        }
        assert_eq!(hold.firing()[0].text, "again", "with the latest text");
        assert_eq!(hold.firing()[0].since, wall(1), "since its first time");
    }

    #[test]
    fn a_missed_change_is_made_up_for() {
        let mut hold = Hold::new(Duration::ZERO, Duration::ZERO);
        hold.is_now(vec![condition("a")], at(0), wall(0));
        assert_eq!(hold.due(at(0)).len(), 1);
        hold.is_now(Vec::new(), at(5), wall(5));
        assert_eq!(hold.due(at(5))[0].ended, Some(wall(5)));
    }

    #[test]
    fn an_end_that_nobody_heard_the_beginning_of_is_nothing() {
        let mut hold = Hold::new(UP, DOWN);
        hold.cleared(&key(), at(0), wall(0));
        assert!(hold.due(at(1_000)).is_empty());
    }
}
