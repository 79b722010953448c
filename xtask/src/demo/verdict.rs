//! What was observed, and whether that is a pass. Pure, so that it can be tested without a network.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use xtask::lab::sipp::Stats;

/// Time from the ban to the moment from which nothing may arrive.
const GRACE: Duration = Duration::from_millis(100);

/// Packets of one source so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    /// When both counters were about to be read.
    pub(crate) at: SystemTime,
    /// Packets that passed the router towards the server.
    pub(crate) sent: u64,
    /// Packets that reached the server's network stack.
    pub(crate) reached: u64,
}

/// A ban as the daemon lists it.
#[derive(Debug, Clone)]
pub(crate) struct Ban {
    pub(crate) at: SystemTime,
    pub(crate) rule: String,
}

/// One attacker's story.
#[derive(Debug, Clone)]
pub(crate) struct AttackerRecord {
    pub(crate) name: &'static str,
    pub(crate) address: IpAddr,
    pub(crate) samples: Vec<Sample>,
    pub(crate) ban: Option<Ban>,
    /// What the attacker's own report says it found.
    pub(crate) loot: Vec<String>,
}

/// Packets on both sides of the filter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Packets {
    pub(crate) sent: u64,
    pub(crate) reached: u64,
}

impl AttackerRecord {
    /// From the last moment without a packet to the ban: an upper bound, since the counters are sampled.
    pub(crate) fn time_to_ban(&self) -> Option<Duration> {
        let ban = self.ban.as_ref()?;
        let silent = self.samples.iter().take_while(|sample| sample.sent == 0).last()?;
        Some(ban.at.duration_since(silent.at).unwrap_or_default())
    }

    /// The first sample that counts as after the ban.
    fn baseline(&self) -> Option<&Sample> {
        let from = self.ban.as_ref()?.at + GRACE;
        self.samples.iter().find(|sample| sample.at >= from)
    }

    /// Packets until the ban took effect, or all of them without one.
    pub(crate) fn before(&self) -> Packets {
        let end = self.baseline().or(self.samples.last());
        end.map_or_else(Packets::default, |end| Packets {
            sent: end.sent,
            reached: end.reached,
        })
    }

    /// Packets from then on.
    pub(crate) fn after(&self) -> Option<Packets> {
        let (start, end) = (self.baseline()?, self.samples.last()?);
        Some(Packets {
            sent: end.sent - start.sent,
            reached: end.reached - start.reached,
        })
    }

    fn failures(&self) -> Vec<String> {
        let name = self.name;
        if self.samples.last().is_none_or(|sample| sample.sent == 0) {
            return vec![format!("{name} sent nothing, so it proves nothing")];
        }
        let mut failures = Vec::new();
        match self.after() {
            None => failures.push(format!("{name} was not banned")),
            Some(Packets { sent: 0, .. }) => failures.push(format!("{name} sent nothing after its ban")),
            Some(Packets { reached: 0, .. }) => {}
            Some(Packets { reached, .. }) => {
                failures.push(format!(
                    "{reached} packets of {name} reached the server after its ban"
                ));
            }
        }
        failures
    }
}

/// One phone's story.
#[derive(Debug, Clone)]
pub(crate) struct PhoneRecord {
    pub(crate) user: String,
    pub(crate) address: IpAddr,
    /// Registrations and calls that it was to make, each.
    pub(crate) planned: u64,
    pub(crate) registrations: Stats,
    pub(crate) calls: Stats,
    /// The rule by which it was banned, which must never happen.
    pub(crate) banned: Option<String>,
}

impl PhoneRecord {
    fn failures(&self) -> Vec<String> {
        let Self { user, planned, .. } = self;
        let mut failures = Vec::new();
        for (what, stats) in [("registrations", self.registrations), ("calls", self.calls)] {
            if stats.completed < *planned {
                failures.push(format!(
                    "phone {user} completed {} of {planned} {what}",
                    stats.completed
                ));
            }
        }
        if let Some(rule) = &self.banned {
            failures.push(format!("phone {user} was banned ({rule})"));
        }
        failures
    }
}

/// How it ended, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It went as it should; the numbers that say so.
    Pass(String),
    /// Everything that speaks against a pass.
    Fail(String),
}

impl Verdict {
    pub(crate) fn of(attackers: &[AttackerRecord], phones: &[PhoneRecord]) -> Self {
        let failures: Vec<String> = attackers
            .iter()
            .flat_map(AttackerRecord::failures)
            .chain(phones.iter().flat_map(PhoneRecord::failures))
            .collect();
        if !failures.is_empty() {
            return Self::Fail(failures.join("; "));
        }
        let later: u64 = attackers
            .iter()
            .filter_map(AttackerRecord::after)
            .map(|packets| packets.sent)
            .sum();
        let kept: u64 = phones
            .iter()
            .map(|phone| phone.registrations.completed + phone.calls.completed)
            .sum();
        Self::Pass(format!(
            "{} of {0} attackers banned, none of their {later} later packets reached the server; all {kept} \
             registrations and calls of {} phones completed",
            attackers.len(),
            phones.len(),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds)
    }

    fn attacker(ban: Option<u64>, samples: &[(u64, u64, u64)]) -> AttackerRecord {
        AttackerRecord {
            name: "svwar",
            address: "203.0.113.22".parse().unwrap(),
            samples: samples
                .iter()
                .map(|&(time, sent, reached)| Sample {
                    at: at(time),
                    sent,
                    reached,
                })
                .collect(),
            ban: ban.map(|time| Ban {
                at: at(time),
                rule: "account-scan".to_owned(),
            }),
            loot: Vec::new(),
        }
    }

    fn phone(calls: u64, banned: bool) -> PhoneRecord {
        let stats = |completed| Stats {
            tried: 20,
            completed,
            failed: 20 - completed,
            repeated: 0,
        };
        PhoneRecord {
            user: "1001".to_owned(),
            address: "198.51.100.11".parse().unwrap(),
            planned: 20,
            registrations: stats(20),
            calls: stats(calls),
            banned: banned.then(|| "network-aggregate".to_owned()),
        }
    }

    #[test]
    fn a_banned_attacker_that_keeps_sending_in_vain_passes() {
        // What arrives between the ban and 100 ms after it is before.
        let record = attacker(
            Some(520),
            &[(300, 0, 0), (400, 5, 5), (600, 9, 7), (700, 20, 7), (900, 90, 7)],
        );
        assert_eq!(record.time_to_ban(), Some(Duration::from_millis(220)));
        assert_eq!(record.before(), Packets { sent: 20, reached: 7 });
        assert_eq!(record.after(), Some(Packets { sent: 70, reached: 0 }));
        let Verdict::Pass(text) = Verdict::of(&[record], &[phone(20, false)]) else {
            panic!("no pass")
        };
        assert!(
            text.contains("1 of 1 attackers") && text.contains("70 later packets"),
            "{text}"
        );
    }

    #[test]
    fn each_way_to_fail_is_one() {
        let leaky = attacker(Some(520), &[(300, 0, 0), (700, 20, 7), (900, 90, 8)]);
        let free = attacker(None, &[(300, 0, 0), (700, 20, 20)]);
        let silent = attacker(Some(520), &[(300, 0, 0), (700, 20, 7), (900, 20, 7)]);
        let unseen = attacker(Some(520), &[(300, 20, 7), (600, 21, 7)]);
        let absent = attacker(None, &[(300, 0, 0)]);
        let fails = |attackers: &[_], phones: &[_]| matches!(Verdict::of(attackers, phones), Verdict::Fail(text) if !text.contains(';'));
        for record in [leaky, free, silent, unseen, absent] {
            assert!(fails(std::slice::from_ref(&record), &[]), "{record:?}");
        }
        assert!(fails(&[], &[phone(19, false)]));
        assert!(fails(&[], &[phone(20, true)]));
    }
}
