//! What one source tried: accounts, or numbers.

use std::time::Duration;

/// Most that is remembered of one source; what was tried first gives way.
pub(super) const MOST: usize = 128;

/// Different things a source tried, and how that went.
#[derive(Clone, Debug, Default)]
pub(super) struct Trials(Vec<Trial>);

/// One account or number.
#[derive(Clone, Copy, Debug)]
struct Trial {
    what: u64,
    /// Those that have this in common belong together; 0 is nothing.
    tail: u64,
    time: Duration,
    state: State,
}

/// How a trial went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not known yet, or well.
    Open,
    /// The server asked for credentials.
    Challenged,
    /// The server refused.
    Refused {
        /// It is certain that the source itself asked, and not somebody in its name.
        evident: bool,
    },
}

/// Which trials count.
#[derive(Clone, Copy, Debug)]
pub(super) struct Which {
    pub(super) now: Duration,
    pub(super) window: Duration,
    /// A challenge that is older and was not answered counts.
    pub(super) patience: Duration,
    /// What the source is trying now, which may still go well.
    pub(super) except: u64,
    /// Count only what is certain.
    pub(super) evident: bool,
}

/// What was counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) count: u64,
    /// All trials within the window, however they went.
    pub(super) all: u64,
    pub(super) first: Duration,
}

impl Trials {
    /// Notes how a trial went.
    pub(super) fn note(&mut self, what: u64, tail: u64, time: Duration, state: State) {
        if let Some(trial) = self.0.iter_mut().find(|trial| trial.what == what) {
            // What is certain stays so while it is repeated by whomever.
            let certain = trial.state == State::Refused { evident: true };
            if !(certain && matches!(state, State::Refused { .. })) {
                trial.state = state;
            }
            trial.time = time;
            return;
        }
        if self.0.len() >= MOST {
            self.0.remove(0);
        }
        self.0.push(Trial {
            what,
            tail,
            time,
            state,
        });
    }

    /// Something new is tried.
    pub(super) fn begun(&mut self, what: u64, tail: u64, time: Duration) {
        if !self.0.iter().any(|trial| trial.what == what) {
            self.note(what, tail, time, State::Open);
        }
    }

    /// A challenge: only of something that is not refused already, and not again for what is challenged.
    pub(super) fn challenged(&mut self, what: u64, tail: u64, time: Duration) {
        match self.0.iter().find(|trial| trial.what == what) {
            Some(trial) if trial.state != State::Open => {}
            _ => self.note(what, tail, time, State::Challenged),
        }
    }

    /// Credentials came for what was challenged.
    pub(super) fn answered(&mut self, what: u64) {
        let trial = self.0.iter_mut().find(|trial| trial.what == what);
        if let Some(trial) = trial.filter(|trial| trial.state == State::Challenged) {
            trial.state = State::Open;
        }
    }

    /// The source answers challenges, or its answers may have been missed: what is open with it may yet go well.
    pub(super) fn forgive_unanswered(&mut self) {
        for trial in self.0.iter_mut().filter(|trial| trial.state == State::Challenged) {
            trial.state = State::Open;
        }
    }

    /// Success: forgets this one, and all that somebody else may have sent.
    pub(super) fn succeeded(&mut self, what: u64) {
        self.0
            .retain(|trial| trial.what != what && trial.state == State::Refused { evident: true });
    }

    pub(super) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// Counts; forgets what is older than `keep`.
    pub(super) fn tally(&mut self, which: &Which, keep: Duration) -> Tally {
        self.0
            .retain(|trial| trial.time.abs_diff(which.now) < keep.max(which.window));
        self.count(which, |_| true)
    }

    /// Counts those that have `tail` in common.
    pub(super) fn alike(&self, which: &Which, tail: u64) -> Tally {
        match tail {
            0 => Tally::default(),
            _ => self.count(which, |trial| trial.tail == tail),
        }
    }

    pub(super) fn count_in(&self, which: &Which) -> u64 {
        self.count(which, |_| true).count
    }

    fn count(&self, which: &Which, wanted: impl Fn(&Trial) -> bool) -> Tally {
        let mut tally = Tally {
            first: which.now,
            ..Tally::default()
        };
        for trial in self.0.iter().filter(|trial| wanted(trial)) {
            let age = trial.time.abs_diff(which.now);
            if age >= which.window {
                continue;
            }
            tally.all += 1;
            let counts = match trial.state {
                State::Open => false,
                State::Challenged => !which.evident && trial.what != which.except && age >= which.patience,
                State::Refused { evident } => evident || !which.evident,
            };
            if counts {
                tally.count += 1;
                tally.first = tally.first.min(trial.time);
            }
        }
        tally
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn which(seconds: u64) -> Which {
        Which {
            now: Duration::from_secs(seconds),
            window: Duration::from_secs(60),
            patience: Duration::from_secs(2),
            except: 0,
            evident: false,
        }
    }

    #[test]
    fn a_challenge_counts_when_it_stays_without_answer() {
        let mut trials = Trials::default();
        trials.challenged(1, 0, Duration::from_secs(100));
        assert_eq!(trials.tally(&which(101), Duration::ZERO).count, 0);
        assert_eq!(trials.tally(&which(102), Duration::ZERO).count, 1);
        assert_eq!(
            trials
                .tally(
                    &Which {
                        except: 1,
                        ..which(102)
                    },
                    Duration::ZERO
                )
                .count,
            0
        );
        assert_eq!(
            trials
                .tally(
                    &Which {
                        evident: true,
                        ..which(102)
                    },
                    Duration::ZERO
                )
                .count,
            0
        );
        trials.answered(1);
        assert_eq!(
            trials.tally(&which(102), Duration::ZERO),
            Tally {
                count: 0,
                all: 1,
                first: Duration::from_secs(102)
            }
        );
        assert_eq!(trials.tally(&which(160), Duration::ZERO).all, 0);
    }

    #[test]
    fn memory_is_bounded_and_what_is_certain_stays() {
        let mut trials = Trials::default();
        for what in 0..1_000 {
            trials.note(
                what,
                what % 2 + 1,
                Duration::from_secs(100),
                State::Refused { evident: what == 999 },
            );
        }
        assert_eq!(trials.tally(&which(100), Duration::ZERO).count, MOST as u64);
        assert_eq!(trials.alike(&which(100), 1).count, MOST as u64 / 2);
        trials.note(
            999,
            0,
            Duration::from_secs(101),
            State::Refused { evident: false },
        );
        assert_eq!(
            trials.count_in(&Which {
                evident: true,
                ..which(101)
            }),
            1
        );
        trials.succeeded(5);
        assert_eq!(trials.count_in(&which(101)), 1);
        trials.succeeded(999);
        assert_eq!(trials.count_in(&which(101)), 0);
    }
}
