//! The goals of the project, and whether a run meets them.

use super::row::{Key, Rows};

/// What must hold of a figure.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// Where a figure comes from.
#[derive(Debug, Clone, Copy)]
pub(super) enum Source {
    /// A row as it is.
    Value(Key),
    /// The first divided by the second.
    Ratio(Key, Key),
}

/// One figure of a goal.
#[derive(Debug, Clone, Copy)]
pub(super) struct Figure {
    pub(super) what: &'static str,
    pub(super) source: Source,
    pub(super) bound: Bound,
    /// The same figure of the least program there can be: whether the goal is within reach on this machine at all. It
    /// never decides whether the goal is met.
    pub(super) limit: Option<Source>,
    /// A quick run leaves it out.
    pub(super) takes_long: bool,
}

impl Figure {
    const fn takes_long(self) -> Self {
        Self {
            takes_long: true,
            ..self
        }
    }

    const fn limit(self, limit: Source) -> Self {
        Self {
            limit: Some(limit),
            ..self
        }
    }

    /// The rows it is made of.
    pub(super) fn keys(self) -> Vec<Key> {
        let limit = self.limit.map(Source::keys).unwrap_or_default();
        [self.source.keys(), limit].concat()
    }
}

/// A goal; it is met if all its figures are.
#[derive(Debug)]
pub(super) struct Goal {
    pub(super) number: u8,
    pub(super) text: &'static str,
    pub(super) figures: &'static [Figure],
}

/// How a goal fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    Met,
    NotMet,
    /// A row is missing: its group was not asked for.
    NotMeasured,
}

impl Outcome {
    pub(super) const fn text(self) -> &'static str {
        match self {
            Self::Met => "met",
            Self::NotMet => "NOT met",
            Self::NotMeasured => "not measured",
        }
    }
}

impl Source {
    pub(super) fn keys(self) -> Vec<Key> {
        match self {
            Self::Value(key) => vec![key],
            Self::Ratio(above, below) => vec![above, below],
        }
    }

    /// `None` if a row is missing.
    pub(super) fn value(self, rows: &Rows) -> Option<f64> {
        match self {
            Self::Value(key) => rows.value(key),
            Self::Ratio(above, below) => Some(rows.value(above)? / rows.value(below)?),
        }
    }
}

impl Bound {
    pub(super) fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(limit) => value >= limit,
            Self::AtMost(limit) => value <= limit,
        }
    }
}

impl Goal {
    pub(super) fn outcome(&self, rows: &Rows) -> Outcome {
        let mut outcome = Outcome::Met;
        for figure in self.figures {
            match figure.source.value(rows) {
                None => return Outcome::NotMeasured,
                Some(value) if !figure.bound.holds(value) => outcome = Outcome::NotMet,
                Some(_) => {}
            }
        }
        if self.figures.is_empty() {
            Outcome::NotMeasured
        } else {
            outcome
        }
    }
}

const fn at_least(what: &'static str, source: Source, limit: f64) -> Figure {
    Figure {
        what,
        source,
        bound: Bound::AtLeast(limit),
        limit: None,
        takes_long: false,
    }
}

const fn at_most(what: &'static str, source: Source, limit: f64) -> Figure {
    Figure {
        what,
        source,
        bound: Bound::AtMost(limit),
        limit: None,
        takes_long: false,
    }
}

/// A rate of the group `peers`.
const fn peer(subject: &'static str, case: &'static str) -> Key {
    Key("peers", subject, case, "rate")
}

const fn micro(case: &'static str) -> Source {
    Source::Value(Key("micro", "sip-filter", case, "cost"))
}

const fn least(case: &'static str) -> Source {
    Source::Value(Key("micro", "least", case, "cost"))
}

const fn scale(case: &'static str, metric: &'static str) -> Key {
    Key("scale", "sip-filter", case, metric)
}

const fn heavy(case: &'static str, metric: &'static str) -> Source {
    Source::Value(Key("heavy", "sip-filter", case, metric))
}

const fn control(case: &'static str, metric: &'static str) -> Source {
    Source::Value(Key("control", "sip-filter", case, metric))
}

/// What is served at the greatest flood, of what is without one.
const fn served(what: &'static str) -> Source {
    Source::Ratio(
        Key("service", "sip-filter", "maximum", what),
        Key("service", "sip-filter", "no flood", what),
    )
}

const NFTABLES: &str = "nftables ingress";

/// A goal of the group `peers`: what sip-filter reaches of another's rate, and what the least program does.
const fn of_peer(what: &'static str, other: &'static str, case: &'static str, limit: f64) -> Figure {
    at_least(
        what,
        Source::Ratio(peer("sip-filter", case), peer(other, case)),
        limit,
    )
    .limit(Source::Ratio(peer("least", case), peer(other, case)))
}

const fn two_to_one(what: &'static str, case_two: &'static str, case_one: &'static str) -> Figure {
    const fn ratio(subject: &'static str, case_two: &'static str, case_one: &'static str) -> Source {
        Source::Ratio(
            Key("wire", subject, case_two, "rate"),
            Key("wire", subject, case_one, "rate"),
        )
    }
    at_least(what, ratio("sip-filter", case_two, case_one), 1.9).limit(ratio("bare", case_two, case_one))
}

/// The goals, in the order of their numbers.
pub(super) const GOALS: [Goal; 12] = [
    Goal {
        number: 1,
        text: "banned source dropped on veth, against a program that only counts and drops, and nftables netdev ingress with the same set",
        figures: &[
            of_peer("1 ban, of bare", "bare", "1 ban", 0.95),
            of_peer("16 k bans, of bare", "bare", "16 k bans", 0.95),
            of_peer("500 k bans at random, of bare", "bare", "500 k bans", 0.75).takes_long(),
            of_peer("1 ban, × nftables", NFTABLES, "1 ban", 3.0),
            of_peer("16 k bans, × nftables", NFTABLES, "16 k bans", 3.0),
            of_peer("500 k bans, × nftables", NFTABLES, "500 k bans", 3.0).takes_long(),
        ],
    },
    Goal {
        number: 2,
        text: "clean SIP request: parsed, ban and network checked, classified, limited, counted, passed (ns, floor subtracted)",
        figures: &[
            at_most("REGISTER", micro("clean REGISTER"), 20.0).limit(least("clean REGISTER")),
            at_most("INVITE", micro("clean INVITE"), 20.0).limit(least("clean INVITE")),
        ],
    },
    Goal {
        number: 3,
        text: "flood in which every packet has a new source, against a single source",
        figures: &[at_least(
            "10 M sources, of 1 source",
            Source::Ratio(scale("10 M sources", "rate"), scale("1 source", "rate")),
            0.80,
        )
        .limit(Source::Ratio(
            Key("scale", "least limiter", "10 M sources", "rate"),
            Key("scale", "least limiter", "1 source", "rate"),
        ))],
    },
    Goal {
        number: 4,
        text: "100 k banned networks, against 100",
        figures: &[
            at_most(
                "clean packet",
                Source::Ratio(
                    scale("100 k networks: clean", "cost"),
                    scale("100 networks: clean", "cost"),
                ),
                1.1,
            ),
            at_most(
                "ban hit",
                Source::Ratio(
                    scale("100 k networks: hit", "cost"),
                    scale("100 networks: hit", "cost"),
                ),
                1.5,
            )
            .limit(Source::Ratio(
                Key("scale", "least", "100 k networks: hit", "cost"),
                Key("scale", "least", "100 networks: hit", "cost"),
            )),
        ],
    },
    Goal {
        number: 5,
        text: "two processors, against one",
        figures: &[
            two_to_one("banned", "banned: 2 CPUs", "banned: 1 CPU"),
            two_to_one("over the limit", "over limit: 2 CPUs", "over limit: 1 CPU"),
        ],
    },
    Goal {
        number: 6,
        text: "ten flooders among a million spoofed sources: all found, none below the threshold banned, counts within 1 %, 8 MiB in all",
        figures: &[
            at_least(
                "flooders found",
                heavy("10 flooders in 1 M sources", "flooders found"),
                10.0,
            ),
            at_most(
                "others banned",
                heavy("10 flooders in 1 M sources", "others banned"),
                0.0,
            ),
            at_most(
                "memory, MiB",
                heavy("10 flooders in 1 M sources", "memory: in all"),
                8.0,
            ),
            at_most(
                "greatest error of a count, %",
                heavy("counts of the flooders", "greatest error"),
                1.0,
            ),
        ],
    },
    Goal {
        number: 7,
        text: "packets that pass beyond a limit",
        figures: &[
            at_most(
                "1 CPU",
                Source::Value(Key("wire", "sip-filter", "limit: 1 CPU", "overshoot")),
                0.01,
            ),
            at_most(
                "2 CPUs",
                Source::Value(Key("wire", "sip-filter", "limit: 2 CPUs", "overshoot")),
                0.01,
            ),
        ],
    },
    Goal {
        number: 8,
        text: "from the deciding packet to the first drop: throttle the very next packet; ban p99 20 ms, 20 × faster than fail2ban",
        figures: &[
            at_most(
                "throttle: packets between",
                control("first drop: throttle", "packets between"),
                0.0,
            ),
            at_most(
                "scanner banned, ms",
                control("first drop: scanner-signature", "p99"),
                20.0,
            ),
            at_most("garbage banned, ms", control("first drop: garbage", "p99"), 20.0),
            at_least(
                "× faster than fail2ban (medians)",
                Source::Ratio(
                    Key("control", "fail2ban", "first drop: unknown accounts", "median"),
                    Key("control", "sip-filter", "first drop: scanner-signature", "median"),
                ),
                20.0,
            ),
        ],
    },
    Goal {
        number: 9,
        text: "100 k bans loaded in 1/20 of nftables' time; one ban visible in 1 ms (p99)",
        figures: &[
            at_most(
                "100 k bans, of nftables",
                Source::Ratio(
                    Key("control", "sip-filter", "100 k bans", "restart: tables written"),
                    Key("control", "nftables", "100 k bans", "table written"),
                ),
                0.05,
            ),
            at_most("one ban in force, ms", control("one ban: in force", "p99"), 1.0),
        ],
    },
    Goal {
        number: 10,
        text: "calls completed at the generator's greatest flood, against none",
        figures: &[
            at_least("calls", served("calls"), 0.98),
            at_least("registrations", served("registrations"), 0.98),
        ],
    },
    Goal {
        number: 11,
        text: "daemon: idle 20 MiB and 0.5 % of a core; under a flood of new sources 10 % of a core",
        figures: &[
            at_most(
                "idle, MiB without kernel tables",
                control("idle", "own memory"),
                20.0,
            ),
            at_most("idle, % of a core", control("idle", "processor"), 0.5),
            at_most(
                "REGISTER flood, % of a core",
                control("flood of new sources: REGISTER", "processor"),
                10.0,
            ),
            at_most(
                "INVITE flood, % of a core",
                control("flood of new sources: INVITE", "processor"),
                10.0,
            ),
            at_most(
                "OPTIONS flood, % of a core",
                control("flood of new sources: OPTIONS", "processor"),
                10.0,
            ),
        ],
    },
    Goal {
        number: 12,
        text: "traffic that is not SIP, bans loaded (ns over an empty program that passes)",
        figures: &[
            at_most("UDP to another port", micro("other port"), 8.0).limit(least("other port")),
            at_most("not IP", micro("not IP"), 8.0).limit(least("not IP")),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::row::Row;

    fn rows(values: &[(Key, f64)]) -> Rows {
        let mut rows = Rows::default();
        for (Key(group, subject, case, metric), value) in values {
            rows.push(Row::of((group, subject, case, metric), "", &[*value]).unwrap());
        }
        rows
    }

    #[test]
    fn goals_are_numbered_as_in_the_table() {
        let numbers: Vec<u8> = GOALS.iter().map(|goal| goal.number).collect();
        assert_eq!(numbers, (1..=12).collect::<Vec<u8>>());
    }

    #[test]
    fn a_goal_is_met_if_every_figure_is() {
        let goal = &GOALS[1];
        let keys: Vec<Key> = goal.figures.iter().flat_map(|f| f.source.keys()).collect();
        let [first, second] = keys[..] else {
            panic!("two rows")
        };
        assert_eq!(goal.outcome(&rows(&[])), Outcome::NotMeasured);
        assert_eq!(goal.outcome(&rows(&[(first, 10.0)])), Outcome::NotMeasured);
        assert_eq!(
            goal.outcome(&rows(&[(first, 10.0), (second, 20.0)])),
            Outcome::Met
        );
        assert_eq!(
            goal.outcome(&rows(&[(first, 10.0), (second, 20.1)])),
            Outcome::NotMet
        );
    }

    #[test]
    fn ratios_divide_the_first_by_the_second() {
        let (above, below) = (scale("a", "rate"), scale("b", "rate"));
        let ratio = Source::Ratio(above, below);
        assert_eq!(ratio.value(&rows(&[(above, 1.0), (below, 4.0)])), Some(0.25));
        assert_eq!(ratio.value(&rows(&[(above, 1.0)])), None);
        assert!(Bound::AtLeast(0.25).holds(0.25) && !Bound::AtLeast(0.26).holds(0.25));
    }
}
