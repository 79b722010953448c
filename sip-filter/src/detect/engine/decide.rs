//! From a finding to a decision.

use std::time::Duration;

use super::{Engine, SAMPLES};
use crate::{
    bans::{Evidence, Scope, Target},
    detect::{Conclusion, Decision, Rule},
};

/// What a rule found.
#[derive(Clone, Debug)]
pub(super) struct Finding {
    pub(super) count: u64,
    pub(super) threshold: u64,
    pub(super) window: Duration,
    pub(super) first: Duration,
    pub(super) accounts: u64,
    pub(super) sample: Vec<String>,
    /// It is certain that the source itself did it.
    pub(super) evident: bool,
}

/// What came of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The source is banned already.
    Banned,
    /// A short ban, because the address may be forged. What led to it goes on counting.
    Short,
    /// A full ban. What led to it must not lead to the next one.
    Full,
}

impl Engine {
    /// Decides to ban a source.
    pub(super) fn decide(
        &mut self,
        target: Target,
        rule: Rule,
        time: Duration,
        finding: Finding,
        conclusions: &mut Vec<Conclusion>,
    ) -> Outcome {
        let shadow = self.config.settings(rule).shadow;
        let now = self.wall(time);
        if self.offences.banned(target, shadow, now) {
            return Outcome::Banned;
        }
        let proven = finding.evident && self.standings.proof(target, time).is_some();
        let (earlier_offences, ban_for) = if proven {
            self.offences.record(target, shadow, now, &self.config)
        } else {
            (
                0,
                self.offences.record_unproven(target, shadow, now, &self.config),
            )
        };
        self.conclude(
            Ban {
                target,
                rule,
                time,
                ban_for,
                earlier_offences,
                proven,
            },
            finding,
            conclusions,
        );
        if !proven {
            return Outcome::Short;
        }
        if !shadow {
            self.aggregate(target, time, conclusions);
        }
        Outcome::Full
    }

    /// Bans a network if this was one ban too many in it.
    fn aggregate(&mut self, source: Target, time: Duration, conclusions: &mut Vec<Conclusion>) {
        let settings = self.config.network_aggregate.clone();
        if !settings.enabled {
            return;
        }
        let Some(crowd) = self.networks.note(source, time, &settings) else {
            return;
        };
        let network = crowd.network;
        let now = self.wall(time);
        if self.offences.banned(network, settings.shadow, now)
            || !self.networks.has_room(time, &settings)
            || self.standings.trusted_within(network, time)
        {
            return;
        }
        let (earlier_offences, ban_for) = self.offences.record(network, settings.shadow, now, &self.config);
        self.networks.banned(network, time.saturating_add(ban_for));
        let finding = Finding {
            count: crowd.sources,
            threshold: settings.threshold,
            window: settings.window,
            first: crowd.first,
            accounts: 0,
            sample: crowd.sample,
            evident: true,
        };
        self.conclude(
            Ban {
                target: network,
                rule: Rule::NetworkAggregate,
                time,
                ban_for,
                earlier_offences,
                proven: true,
            },
            finding,
            conclusions,
        );
    }

    fn conclude(&mut self, ban: Ban, finding: Finding, conclusions: &mut Vec<Conclusion>) {
        let shadow = self.config.settings(ban.rule).shadow;
        self.decisions[ban.rule as usize][usize::from(shadow)] += 1;
        conclusions.push(Conclusion::Ban(Decision {
            time: ban.time,
            target: ban.target,
            rule: ban.rule,
            ban_for: ban.ban_for,
            shadow,
            earlier_offences: ban.earlier_offences,
            proven: ban.proven,
            sliding: !ban.proven,
            scope: Scope::Sip,
            evidence: self.evidence(finding, ban.time, ban.proven),
        }));
    }

    pub(super) fn evidence(&self, finding: Finding, time: Duration, proven: bool) -> Evidence {
        Evidence {
            count: finding.count,
            threshold: finding.threshold,
            window_seconds: finding.window.as_secs(),
            first_seen: self.wall(finding.first.min(time)),
            last_seen: self.wall(time),
            accounts: finding.accounts,
            proven,
            sample: finding.sample,
        }
    }

    /// Counts an alarm like a decision.
    pub(super) fn count_alarm(&mut self, rule: Rule, shadow: bool) {
        self.decisions[rule as usize][usize::from(shadow)] += 1;
    }
}

struct Ban {
    target: Target,
    rule: Rule,
    time: Duration,
    ban_for: Duration,
    earlier_offences: u32,
    proven: bool,
}

/// Adds a sample unless there are enough, or it is there.
pub(super) fn add_sample(samples: &mut Vec<String>, payload: &[u8]) {
    if samples.len() < SAMPLES
        && let Some(text) = crate::detect::sample::sample(payload)
        && !samples.contains(&text)
    {
        samples.push(text);
    }
}
