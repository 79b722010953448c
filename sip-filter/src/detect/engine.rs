//! The engine: what it keeps, and its interface.

mod decide;
mod request;
mod response;
mod volume;

pub use volume::counts;

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use sip_filter_common::abi::EventKind;

use super::{
    Conclusion, Counter, DetectConfig, Observation, Proof, Rule, Standing,
    accounts::Accounts,
    bounded::Bounded,
    exchanges::Exchanges,
    keys::key,
    networks::Networks,
    offences::Offences,
    signature::Signatures,
    standings::Standings,
    trials::{Trials, Which},
    window::Window,
};
use crate::bans::Target;

/// Samples in the evidence of a decision.
const SAMPLES: usize = 3;

/// Part of [`DetectConfig::max_sources`] of which trials are remembered.
const SCANS: usize = 8;

/// The detection engine. Deterministic: the same observations give the same conclusions.
///
/// Memory is bounded by [`DetectConfig::max_sources`], [`DetectConfig::max_accounts`] and
/// [`DetectConfig::max_transactions`]. When more sources are seen at the same time, those give way that were idle for
/// longest and stayed below an eighth of every threshold, so that a flood of new (or forged) addresses washes out its
/// own counters and not those of a source that is being watched.
///
/// What may be forged is not held against anybody for long. A UDP packet proves nothing about who sent it, so
/// - a source that never returned a nonce of ours, completed a registration or carried SIP both ways over TCP is
///   banned for [`DetectConfig::unproven_ban`] at most;
/// - nothing that somebody else can send in its name is held against a source that is registered, or whose
///   credentials were accepted within [`DetectConfig::trust_time`]: only credentials that answer a challenge which
///   went to this very address, and what came over TCP and was answered.
#[derive(Debug)]
pub struct Engine {
    config: DetectConfig,
    signatures: Signatures,
    ipv6_prefix: u8,
    sources: Bounded<Target, Source>,
    scans: Bounded<Target, Scan>,
    exchanges: Exchanges,
    accounts: Accounts,
    standings: Standings,
    offences: Offences,
    networks: Networks,
    /// The longest window: what is older counts nowhere.
    longest: Duration,
    wall: (Duration, SystemTime),
    observations: u64,
    decisions: [[u64; 2]; Rule::COUNT],
}

/// What is counted of one source.
#[derive(Debug, Default)]
struct Source {
    windows: [Option<Box<Window>>; WINDOWS],
    last: Duration,
    /// When it was last reported that somebody floods in its name.
    alarmed: Option<Duration>,
}

/// What [`Source::windows`] count: first the rules that count packets, by their number.
const PACKETS: usize = Rule::ScannerSignature as usize + 1;
const GARBAGE: usize = PACKETS;
const OWN_CONTACT: usize = PACKETS + 1;
/// Refused credentials for whatever account, in the longer and the shorter window.
const REFUSED: usize = PACKETS + 2;
const REFUSED_SHORT: usize = PACKETS + 3;
/// Packets over a limit in the name of a trusted source, but not from an endpoint of it.
const STRAYS: usize = PACKETS + 4;
const WINDOWS: usize = PACKETS + 5;

/// What one source tried.
#[derive(Debug, Default)]
struct Scan {
    accounts: Trials,
    numbers: Trials,
    samples: Vec<String>,
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
    /// Sources of which it is remembered what accounts and numbers they tried.
    pub scans: usize,
    /// Sources with earlier offences.
    pub offenders: usize,
    /// Sources that have shown that their address is their own.
    pub proven: usize,
    /// Sources that are registered.
    pub trusted: usize,
    /// Pairs of source and account remembered.
    pub accounts: usize,
    /// Requests that wait for an answer.
    pub pending: usize,
    /// Challenges remembered.
    pub nonces: usize,
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
            signatures: Signatures::new(&config.scanner_signature),
            sources: Bounded::new(capacity),
            scans: Bounded::new(capacity / SCANS),
            exchanges: Exchanges::new(config.max_transactions as usize),
            accounts: Accounts::new(&config),
            standings: Standings::new(capacity),
            offences: Offences::new(capacity),
            networks: Networks::new(),
            longest: longest(&config),
            config,
            ipv6_prefix,
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
        let target = self.target(observation.source);
        if observation.count > 1 && observation.kind != EventKind::OverLimit {
            // It stands for others that were not shown, the answers to challenges perhaps among them.
            self.forgive_unanswered(target);
        }
        match observation.kind {
            EventKind::Response => self.response(observation, target, conclusions),
            EventKind::Snapshot | EventKind::OverLimit => {
                if observation.class.is_request() {
                    // The clearer sign first: it is the better reason to give.
                    self.signature(observation, target, conclusions);
                    // What was dropped got no answer.
                    if observation.kind == EventKind::Snapshot {
                        self.request(observation, target, conclusions);
                    }
                }
                self.volume(observation, target, conclusions);
            }
            EventKind::Dropped => {}
        }
    }

    /// Puts back the memory of earlier offences after a restart: `count` of them, the last ban of which ends or
    /// ended at `ended`.
    pub fn restore_offences(&mut self, target: Target, count: u32, ended: SystemTime) {
        self.offences.restore(target, count, ended);
    }

    /// Puts back a registration after a restart, which ends at `until` on the clock of the observations.
    pub fn restore_trust(&mut self, target: Target, account: &str, until: Duration) {
        let since = until.saturating_sub(self.config.trust_time_max);
        self.standings
            .register(target, key(account.as_bytes()), since, until);
    }

    /// Puts back a proof after a restart, which is believed until `until` on the clock of the observations.
    pub fn restore_proof(&mut self, target: Target, by: Proof, until: Duration) {
        let since = until.saturating_sub(self.config.proof_lifetime);
        self.standings.put_proof(target, by, since, until);
    }

    /// What is known of a source at a time on the clock of the observations.
    #[must_use]
    pub fn standing(&self, target: Target, now: Duration) -> Standing {
        let mut counters = Vec::new();
        let mut counted = |rule: Rule, count: u64| {
            if count > 0 {
                let threshold = self.config.settings(rule).threshold;
                counters.push(Counter {
                    rule,
                    count,
                    threshold,
                });
            }
        };
        let scan = self.scans.get(&target);
        for rule in Rule::ALL {
            let window = window_of(rule).and_then(|index| self.sources.get(&target)?.windows[index].as_ref());
            let trials = |trials: fn(&Scan) -> &Trials, patience| {
                let which = Which {
                    now,
                    window: self.config.settings(rule).window,
                    patience,
                    except: 0,
                    evident: false,
                };
                scan.map_or(0, |scan| trials(scan).count_in(&which))
            };
            let count = match rule {
                Rule::AccountScan => trials(|scan| &scan.accounts, self.config.account_scan.patience),
                Rule::DialplanProbe => trials(|scan| &scan.numbers, self.config.dialplan_probe.patience),
                _ => window.map_or(0, |window| window.total()),
            };
            counted(rule, count);
        }
        Standing {
            proven: self.standings.proof(target, now),
            trusted_until: self.standings.trusted_until(target, now),
            accounts: self.standings.accounts(target, now),
            counters,
        }
    }

    /// Ends the trust in a source, as when an operator bans it by hand. It is trusted again when it registers again.
    pub fn distrust(&mut self, target: Target) {
        self.standings.distrust(target);
    }

    /// Forgets counts and offences of a target, for when an operator lifts its ban: it starts anew. What it has
    /// proven stays.
    pub fn forget(&mut self, target: Target) {
        self.sources.remove(&target);
        self.scans.remove(&target);
        self.offences.forget(target);
        self.networks.forget(target);
    }

    /// What was decided last about a target could not be put in force at `now`: it is decided again in a moment.
    pub fn not_enforced(&mut self, target: Target, now: SystemTime) {
        self.offences.not_enforced(target, now);
        self.networks.forget(target);
    }

    /// Puts new settings in force. Counters stay, except those of a rule whose window has changed.
    pub fn reload(&mut self, config: DetectConfig) {
        for rule in Rule::ALL {
            if config.settings(rule).window != self.config.settings(rule).window
                && let Some(index) = window_of(rule)
            {
                self.clear_windows(index);
            }
        }
        if config.auth_failure.burst_window != self.config.auth_failure.burst_window {
            self.clear_windows(REFUSED_SHORT);
        }
        if config.scanner_signature.window != self.config.scanner_signature.window {
            self.clear_windows(OWN_CONTACT);
        }
        let capacity = config.max_sources as usize;
        self.sources.set_capacity(capacity, |_| false);
        self.scans.set_capacity(capacity / SCANS, |_| false);
        self.standings.set_capacity(capacity);
        self.offences.set_capacity(capacity);
        self.exchanges.set_capacity(config.max_transactions as usize);
        self.accounts.reload(&self.config, &config);
        self.signatures = Signatures::new(&config.scanner_signature);
        self.longest = longest(&config);
        self.config = config;
    }

    fn clear_windows(&mut self, index: usize) {
        for source in self.sources.values_mut() {
            source.windows[index] = None;
        }
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
            scans: self.scans.len(),
            offenders: self.offences.len(),
            proven: self.standings.len().0,
            trusted: self.standings.len().1,
            accounts: self.accounts.len().0,
            pending: self.exchanges.len().0,
            nonces: self.exchanges.len().1,
            decisions: self.decisions,
        }
    }

    /// The key under which `ip` is counted and banned.
    #[must_use]
    pub fn target(&self, ip: IpAddr) -> Target {
        Target::of_source(ip, self.ipv6_prefix)
    }

    /// Whether the source is registered, or was a moment ago: what can be forged is not held against it.
    fn is_known(&self, target: Target, now: Duration) -> bool {
        self.standings.trusted_until(target, now).is_some()
            || self.standings.succeeded(target, now, self.config.trust_time)
    }

    fn scan(&mut self, target: Target, now: Duration) -> &mut Scan {
        let longest = self.config.account_scan.slow_window;
        let scan = self
            .scans
            .touch(target, |old| old.last.abs_diff(now) >= longest, Scan::default);
        scan.last = now;
        scan
    }
}

fn longest(config: &DetectConfig) -> Duration {
    let counting = Rule::ALL.into_iter().filter(|rule| window_of(*rule).is_some());
    let longest = counting.map(|rule| config.settings(rule).window).max();
    longest.unwrap_or_default().max(config.auth_failure.burst_window)
}

/// The window in which a rule counts, if it counts in one.
const fn window_of(rule: Rule) -> Option<usize> {
    match rule {
        Rule::FloodRegister
        | Rule::FloodInvite
        | Rule::FloodOptions
        | Rule::FloodOther
        | Rule::ScannerSignature => Some(rule as usize),
        Rule::Garbage => Some(GARBAGE),
        Rule::AuthFailure => Some(REFUSED),
        Rule::AccountScan | Rule::DialplanProbe | Rule::DistributedAuth | Rule::NetworkAggregate => None,
    }
}

#[cfg(test)]
mod tests;
