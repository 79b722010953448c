//! What the figures mean. Pure, so that it can be tested without a network.

use std::time::{Duration, Instant};

use super::{
    meter::{Packets, Reading},
    scenario::Goal,
};

/// The share of a spoofed flood that may reach the server for it to count as contained.
pub(super) const CONTAINED: f64 = 0.1;
/// What an attacker must have sent in vain before silence means anything.
const IN_VAIN: u64 = 3;

/// Whether an attack was stopped.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Verdict {
    /// It was, so long after its start, so many of its packets having reached the server by then.
    Stopped { after: Duration, requests: u64 },
    /// It was, but the attacker had learnt more by then than the scenario grants.
    TooLate { after: Duration, requests: u64 },
    /// Only this share of it reached the server.
    Contained { share: f64 },
    /// The customer in whose name it came was served while it went on: so many of its requests, and how many succeeded.
    Served { requests: u64, answered: u64 },
    /// It went on to its end.
    No,
    /// It sent nothing, so that this shows nothing.
    Void,
}

impl Verdict {
    pub(super) fn is_good(self) -> bool {
        match self {
            Self::Stopped { .. } | Self::Contained { .. } => true,
            Self::Served { requests, answered } => is_served(requests, answered),
            Self::TooLate { .. } | Self::No | Self::Void => false,
        }
    }

    /// The same verdict on an attacker who learnt so much, and was granted so much.
    pub(super) fn within(self, learnt: Learnt, most: Learnt) -> Self {
        match self {
            Self::Stopped { after, requests }
                if learnt.refused > most.refused || learnt.accounts > most.accounts =>
            {
                Self::TooLate { after, requests }
            }
            verdict => verdict,
        }
    }
}

/// Whether so many answers are enough: 99 of 100.
pub(super) const fn is_served(requests: u64, answered: u64) -> bool {
    requests > 0 && answered * 100 >= requests * 99
}

/// What guessing tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Learnt {
    /// Credentials refused.
    pub(super) refused: u64,
    /// Accounts that the server said something about.
    pub(super) accounts: usize,
}

/// The course of an attack.
#[derive(Debug, Clone)]
pub(super) struct Course {
    pub(super) start: Instant,
    /// The last answer to an attacker, and what attackers had sent by then.
    pub(super) last_answer: Option<(Instant, u64)>,
    /// What they had sent at the end, as far as answers are concerned.
    pub(super) sent: u64,
    /// What they did in vain since beside sending, of TCP: connections and repetitions.
    pub(super) knocks: u64,
    /// Of the customer in whose name it came: requests meanwhile, and how many of them succeeded.
    pub(super) impersonated: (u64, u64),
    /// Counters from before the start to the end.
    pub(super) readings: Vec<Reading>,
}

impl Course {
    /// When the attack had its last success, and what had been sent by then; the start if it never had any.
    fn last_success(&self, goal: Goal) -> (Instant, u64, u64) {
        match goal {
            Goal::NoAnswer(_) | Goal::Contained | Goal::CustomerServed => {
                let (at, sent) = self.last_answer.unwrap_or((self.start, 0));
                (at, sent, self.sent + self.knocks)
            }
            Goal::NoPacket(_) => {
                let sent = self.readings.last().map_or(0, |last| last.attack.sent);
                let steps = self.readings.windows(2).rev();
                let last = steps
                    .filter_map(|step| {
                        (step[1].attack.reached > step[0].attack.reached)
                            .then_some((step[1].at, step[1].attack.sent))
                    })
                    .next();
                let (at, by_then) = last.unwrap_or((self.start, 0));
                (at, by_then, sent)
            }
        }
    }

    /// Whether the attack has had no success for long enough.
    pub(super) fn is_stopped(&self, goal: Goal, now: Instant) -> bool {
        let (Goal::NoAnswer(silence) | Goal::NoPacket(silence)) = goal else {
            return false;
        };
        let (at, by_then, sent) = self.last_success(goal);
        now.saturating_duration_since(at) >= silence && sent.saturating_sub(by_then) >= IN_VAIN
    }

    pub(super) fn verdict(&self, goal: Goal, now: Instant) -> Verdict {
        let total = self.total();
        if total.sent == 0 {
            return Verdict::Void;
        }
        if goal == Goal::Contained {
            let share = total.reached as f64 / total.sent as f64;
            return if share <= CONTAINED {
                Verdict::Contained { share }
            } else {
                Verdict::No
            };
        }
        if goal == Goal::CustomerServed {
            let (requests, answered) = self.impersonated;
            return Verdict::Served { requests, answered };
        }
        let (at, by_then, _) = self.last_success(goal);
        // A scanner that never gets an answer may give up after its first packet.
        let never = by_then == 0 && at == self.start;
        if !never && !self.is_stopped(goal, now) {
            return Verdict::No;
        }
        Verdict::Stopped {
            after: at.saturating_duration_since(self.start),
            requests: by_then,
        }
    }

    /// Packets of the whole attack.
    pub(super) fn total(&self) -> Packets {
        match (self.readings.first(), self.readings.last()) {
            (Some(first), Some(last)) => last.attack.since(first.attack),
            _ => Packets::default(),
        }
    }

    /// Packets from the first reading after the attack was stopped.
    pub(super) fn after(&self, goal: Goal) -> Packets {
        let (at, ..) = self.last_success(goal);
        let from = self.readings.iter().find(|reading| reading.at >= at);
        match (from, self.readings.last()) {
            (Some(from), Some(last)) => last.attack.since(from.attack),
            _ => Packets::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const GOAL: Goal = Goal::NoAnswer(Duration::from_secs(6));

    fn course(answer: Option<(u32, u64)>, sent: u64, readings: &[(u32, u64, u64)]) -> Course {
        let start = Instant::now();
        Course {
            start,
            last_answer: answer.map(|(second, sent)| (start + SECOND * second, sent)),
            sent,
            knocks: 0,
            impersonated: (0, 0),
            readings: readings
                .iter()
                .map(|&(second, sent, reached)| Reading {
                    at: start + SECOND * second,
                    attack: Packets { sent, reached },
                    customer: Packets::default(),
                })
                .collect(),
        }
    }

    #[test]
    fn silence_while_the_attacker_goes_on_means_stopped() {
        let course = course(Some((2, 40)), 90, &[(0, 0, 0), (3, 50, 41), (9, 90, 41)]);
        assert!(!course.is_stopped(GOAL, course.start + SECOND * 7));
        let verdict = course.verdict(GOAL, course.start + SECOND * 9);
        let expected = Verdict::Stopped {
            after: SECOND * 2,
            requests: 40,
        };
        assert_eq!(verdict, expected);
        assert_eq!(course.after(GOAL), Packets { sent: 40, reached: 0 });
    }

    #[test]
    fn an_attacker_that_fell_silent_itself_was_not_stopped() {
        let course = course(Some((2, 40)), 42, &[(0, 0, 0), (9, 42, 42)]);
        assert_eq!(course.verdict(GOAL, course.start + SECOND * 9), Verdict::No);
    }

    #[test]
    fn never_answered_is_stopped_at_once_and_never_sent_is_void() {
        let mute = course(None, 50, &[(0, 0, 0), (7, 50, 50)]);
        let expected = Verdict::Stopped {
            after: Duration::ZERO,
            requests: 0,
        };
        assert_eq!(mute.verdict(GOAL, mute.start + SECOND * 7), expected);
        let absent = course(None, 0, &[(0, 0, 0), (7, 0, 0)]);
        assert_eq!(absent.verdict(GOAL, absent.start + SECOND * 7), Verdict::Void);
    }

    #[test]
    fn what_is_never_answered_is_judged_by_what_arrives() {
        let goal = Goal::NoPacket(SECOND * 6);
        let stopped = course(None, 0, &[(0, 0, 0), (1, 100, 100), (2, 200, 150), (9, 900, 150)]);
        let expected = Verdict::Stopped {
            after: SECOND * 2,
            requests: 200,
        };
        assert_eq!(stopped.verdict(goal, stopped.start + SECOND * 9), expected);
        let free = course(None, 0, &[(0, 0, 0), (1, 100, 100), (9, 900, 900)]);
        assert_eq!(free.verdict(goal, free.start + SECOND * 9), Verdict::No);
    }

    #[test]
    fn who_knocks_in_vain_goes_on() {
        let mut course = course(Some((2, 40)), 40, &[(0, 0, 0), (9, 60, 41)]);
        assert!(!course.is_stopped(GOAL, course.start + SECOND * 9));
        course.knocks = IN_VAIN;
        assert!(course.is_stopped(GOAL, course.start + SECOND * 9));
    }

    #[test]
    fn a_guesser_may_not_learn_more_than_granted() {
        let stopped = Verdict::Stopped {
            after: SECOND,
            requests: 20,
        };
        let most = Learnt {
            refused: 5,
            accounts: 10,
        };
        assert_eq!(stopped.within(most, most), stopped);
        for learnt in [Learnt { refused: 6, ..most }, Learnt { accounts: 11, ..most }] {
            let late = stopped.within(learnt, most);
            assert!(matches!(late, Verdict::TooLate { .. }) && !late.is_good());
        }
        assert_eq!(Verdict::No.within(most, most), Verdict::No);
    }

    #[test]
    fn a_customer_is_served_with_99_answers_of_100() {
        let mut course = course(None, 0, &[(0, 0, 0), (9, 1000, 1000)]);
        for (impersonated, good) in [((200, 198), true), ((200, 197), false), ((0, 0), false)] {
            course.impersonated = impersonated;
            let verdict = course.verdict(Goal::CustomerServed, course.start + SECOND * 9);
            assert_eq!(verdict.is_good(), good, "{impersonated:?}");
        }
    }

    #[test]
    fn forged_packets_need_only_be_contained() {
        let verdict = |reached| {
            let course = course(None, 0, &[(0, 0, 0), (9, 1000, reached)]);
            course.verdict(Goal::Contained, course.start + SECOND * 9)
        };
        assert_eq!(verdict(100), Verdict::Contained { share: 0.1 });
        assert_eq!(verdict(101), Verdict::No);
    }
}
