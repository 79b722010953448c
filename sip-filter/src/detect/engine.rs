//! The engine: counts observations per source and rule, and decides.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use sip_filter_common::{abi::EventKind, sip::Class};

use super::{
    Conclusion, Decision, DetectConfig, Observation, Proof, Rule, RuleSettings, SignatureSettings, Standing,
    bounded::Bounded, offences::Offences, sample, signature::Signatures, window::Window,
};
use crate::bans::{Evidence, Scope, Target};

/// Samples in the evidence of a decision.
const SAMPLES: usize = 3;

/// A source that has reached this part of a threshold keeps its place when memory is short.
const NOTEWORTHY: u64 = 8;

/// The detection engine. Deterministic: the same observations give the same decisions.
///
/// Memory is bounded by [`DetectConfig::max_sources`]. When more sources are seen at the same time, those give way
/// that were idle for longest and stayed below an eighth of every threshold, so that a flood of new (or forged)
/// addresses washes out its own counters and not those of a source that is being watched.
#[derive(Debug)]
pub struct Engine {
    config: DetectConfig,
    signatures: Signatures,
    ipv6_prefix: u8,
    sources: Bounded<Target, Source>,
    offences: Offences,
    wall: (Duration, SystemTime),
    observations: u64,
    decisions: [[u64; 2]; Rule::COUNT],
}

/// What is counted of one source.
#[derive(Debug, Default)]
struct Source {
    windows: [Option<Box<Window>>; Rule::COUNT],
    last: Duration,
}

/// Numbers about the engine, for metrics and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Observations so far.
    pub observations: u64,
    /// Sources being counted.
    pub sources: usize,
    /// Room for sources.
    pub max_sources: usize,
    /// Sources that had to make room so far.
    pub sources_evicted: u64,
    /// Sources with earlier offences.
    pub offenders: usize,
    /// Decisions so far by rule, in the order of [`Rule::ALL`]: enforced, shadow.
    pub decisions: [[u64; 2]; Rule::COUNT],
}

impl Engine {
    /// An engine that counts IPv6 sources by their first `ipv6_prefix` bits. Until [`Engine::set_wall`] is called,
    /// the clock of the observations is taken to count from the Unix epoch, as that of a capture does.
    #[must_use]
    pub fn new(config: DetectConfig, ipv6_prefix: u8) -> Self {
        let capacity = config.max_sources as usize;
        Self {
            signatures: signatures(&config),
            config,
            ipv6_prefix,
            sources: Bounded::new(capacity),
            offences: Offences::new(capacity),
            wall: (Duration::ZERO, SystemTime::UNIX_EPOCH),
            observations: 0,
            decisions: [[0; 2]; Rule::COUNT],
        }
    }

    /// States what the wall clock shows at `time` on the clock of the observations.
    pub const fn set_wall(&mut self, time: Duration, wall: SystemTime) {
        self.wall = (time, wall);
    }

    /// The wall-clock time of a time on the clock of the observations.
    #[must_use]
    pub fn wall(&self, time: Duration) -> SystemTime {
        let (base, wall) = self.wall;
        let moved = match time.checked_sub(base) {
            Some(later) => wall.checked_add(later),
            None => wall.checked_sub(base.saturating_sub(time)),
        };
        moved.unwrap_or(wall)
    }

    /// Takes note of what was seen, and appends what follows from it to `conclusions`.
    pub fn observe(&mut self, observation: &Observation<'_>, conclusions: &mut Vec<Conclusion>) {
        self.observations += 1;
        // The clearer sign first: it is the better reason to give.
        let scans = self.config.scanner_signature.enabled
            && observation.class.is_request()
            && self.signatures.match_request(observation.payload);
        if scans {
            conclusions.extend(
                self.count(observation, Rule::ScannerSignature)
                    .map(Conclusion::Ban),
            );
        }
        if observation.kind != EventKind::Response {
            let rule = flood_rule(observation.class);
            conclusions.extend(self.count(observation, rule).map(Conclusion::Ban));
        }
    }

    /// Puts back the memory of earlier offences after a restart: `count` of them, the last ban of which ends or
    /// ended at `ended`.
    pub fn restore_offences(&mut self, target: Target, count: u32, ended: SystemTime) {
        self.offences.restore(target, count, ended);
    }

    /// Puts back a registration after a restart, which ends at `until` on the clock of the observations.
    pub fn restore_trust(&mut self, _target: Target, _account: &str, _until: Duration) {}

    /// Puts back a proof after a restart, which is believed until `until` on the clock of the observations.
    pub fn restore_proof(&mut self, _target: Target, _by: Proof, _until: Duration) {}

    /// What is known of a source at a time on the clock of the observations.
    #[must_use]
    pub fn standing(&self, _target: Target, _now: Duration) -> Standing {
        Standing::default()
    }

    /// Forgets counts and offences of a target, for when an operator lifts its ban: it starts anew.
    pub fn forget(&mut self, target: Target) {
        self.sources.remove(&target);
        self.offences.forget(target);
    }

    /// Puts new settings in force. Counters stay, except those of a rule whose window has changed.
    pub fn reload(&mut self, config: DetectConfig) {
        for (index, rule) in Rule::ALL.into_iter().enumerate() {
            if config.settings(rule).window != self.config.settings(rule).window {
                for source in self.sources.values_mut() {
                    source.windows[index] = None;
                }
            }
        }
        let capacity = config.max_sources as usize;
        self.sources.set_capacity(capacity, |_| false);
        self.offences.set_capacity(capacity);
        self.signatures = signatures(&config);
        self.config = config;
    }

    /// The settings in force.
    #[must_use]
    pub const fn config(&self) -> &DetectConfig {
        &self.config
    }

    /// Numbers about the engine.
    #[must_use]
    pub fn stats(&self) -> EngineStats {
        EngineStats {
            observations: self.observations,
            sources: self.sources.len(),
            max_sources: self.config.max_sources as usize,
            sources_evicted: self.sources.evicted(),
            offenders: self.offences.len(),
            decisions: self.decisions,
        }
    }

    /// The key under which `ip` is counted and banned.
    #[must_use]
    pub fn target(&self, ip: IpAddr) -> Target {
        Target::of_source(ip, self.ipv6_prefix)
    }

    fn count(&mut self, observation: &Observation<'_>, rule: Rule) -> Option<Decision> {
        let settings = self.config.settings(rule);
        if !settings.enabled {
            return None;
        }
        let threshold = settings.threshold.max(1);
        let target = self.target(observation.source);
        let time = observation.time;
        let longest = Rule::ALL
            .iter()
            .map(|rule| self.config.settings(*rule).window)
            .max();
        let longest = longest.unwrap_or_default();
        let source = self.sources.touch(
            target,
            |source| time.abs_diff(source.last) >= longest,
            Source::default,
        );
        source.last = time;
        let window = source.windows[rule as usize].get_or_insert_default();
        let total = window.add(time, settings.window, observation.count.max(1));
        // Samples cost memory, so they are taken only of who comes close.
        if total >= threshold / 2
            && window.samples.len() < SAMPLES
            && let Some(text) = sample::sample(observation.payload)
            && !window.samples.contains(&text)
        {
            window.samples.push(text);
        }
        if total >= threshold / NOTEWORTHY && total > 1 {
            self.sources.protect(&target);
        }
        if total < threshold {
            return None;
        }
        self.decide(target, rule, time, settings)
    }

    fn decide(
        &mut self,
        target: Target,
        rule: Rule,
        time: Duration,
        settings: RuleSettings,
    ) -> Option<Decision> {
        let shadow = settings.shadow;
        let now = self.wall(time);
        if self.offences.banned(target, shadow, now) {
            return None;
        }
        let source = self.sources.get_mut(&target)?;
        let window = source.windows[rule as usize].as_mut()?;
        let first = window.first_seen(settings.window);
        let count = window.total();
        let sample = std::mem::take(&mut window.samples);
        // What led to this ban must not lead to the next one.
        window.clear();
        let (earlier_offences, ban_for) = self.offences.record(target, shadow, now, &self.config);
        self.decisions[rule as usize][usize::from(shadow)] += 1;
        Some(Decision {
            time,
            target,
            rule,
            ban_for,
            shadow,
            earlier_offences,
            proven: true,
            sliding: false,
            scope: Scope::Sip,
            evidence: Evidence {
                count,
                threshold: settings.threshold,
                window_seconds: settings.window.as_secs(),
                first_seen: self.wall(first),
                last_seen: now,
                accounts: 0,
                proven: true,
                sample,
            },
        })
    }
}

fn signatures(config: &DetectConfig) -> Signatures {
    let SignatureSettings {
        user_agents,
        extra_user_agents,
        ..
    } = &config.scanner_signature;
    Signatures::new(user_agents.iter().chain(extra_user_agents))
}

/// The flood rule that counts a class. Everything that reaches a protected port counts somewhere.
const fn flood_rule(class: Class) -> Rule {
    match class {
        Class::Register => Rule::FloodRegister,
        Class::Invite => Rule::FloodInvite,
        Class::Options => Rule::FloodOptions,
        Class::Subscribe | Class::OtherRequest | Class::Response | Class::KeepAlive | Class::Garbage => {
            Rule::FloodOther
        }
    }
}

#[cfg(test)]
mod tests;
