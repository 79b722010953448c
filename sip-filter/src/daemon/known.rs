//! What is known of sources: who is trusted, because an account is registered from there, and who has proven that its
//! address is its own.
//!
//! Registrations are renewed at a rate of thousands a second. So nothing here waits for the disk, the kernel is told
//! only of what is new or has moved noticeably, and the store is written once a second. What a crash loses of it is
//! learnt again.

use std::{
    collections::HashSet,
    net::IpAddr,
    time::{Duration, SystemTime},
};

use super::{
    controller::Controller,
    decisions::REPORT_EVERY,
    error::chain,
    journal::{JournalEvent, JournalKind},
    regular::{WRITES, take_some},
};
use crate::{
    bans::{Batch, Clock, Endpoint, Endpoints, KnownSources, LoadedTrust, Origin, Target},
    conditions::Kind,
    config::Config,
    dataplane::{Image, ImageError},
    detect::{Alarm, AtHome, Conclusion, Proof, Proven, Rule, Trusted},
};

/// Alarms reported in a minute. The counters tell how many there were.
const ALARMS: u32 = 50;

/// Longest account that is kept, in bytes.
const ACCOUNT_MAX: usize = 128;

/// State of this part of the controller.
pub(super) struct KnownState {
    pub(super) trust: KnownSources<String>,
    pub(super) proof: KnownSources<Proof>,
    /// Endpoints of trusted sources.
    pub(super) endpoints: Endpoints,
    /// What the store does not have as it is.
    unsaved_trust: HashSet<Target>,
    unsaved_proof: HashSet<Target>,
    /// When the kernel last refused a trusted source and that was reported.
    refusal_reported: Option<Duration>,
    /// Start of the current minute of alarms, and how many were reported in it.
    alarms: (Duration, u32),
}

/// A registration, as [`Controller::known`] tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustedBy {
    /// The account that registered last.
    pub account: String,
    /// When it ends.
    pub until: SystemTime,
    /// Its endpoints.
    pub endpoints: Vec<Endpoint>,
}

/// A proof, as [`Controller::known`] tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProvenBy {
    /// How.
    pub by: Proof,
    /// Until when it is believed.
    pub until: SystemTime,
}

impl KnownState {
    /// With what the store holds, as far as it still counts.
    pub(super) fn new(
        config: &Config,
        trust: Vec<LoadedTrust>,
        proof: Vec<(Target, Proof, Duration)>,
        clock: Clock,
    ) -> Self {
        let max = config.trust.max as usize;
        let mut state = Self {
            trust: KnownSources::new(max),
            proof: KnownSources::new(max),
            endpoints: Endpoints::new(
                config.trust.endpoints as usize,
                config.trust.endpoints_per_source as usize,
            ),
            unsaved_trust: HashSet::new(),
            unsaved_proof: HashSet::new(),
            refusal_reported: None,
            alarms: (Duration::ZERO, 0),
        };
        // Sources may have been counted by another prefix before.
        let counted =
            |target: Target| target == Target::of_source(target.net().addr(), config.ipv6_source_prefix);
        for one in trust {
            let target = one.target;
            if !config.trust.enabled || one.until <= clock.boot || !counted(target) {
                state.unsaved_trust.insert(target);
                continue;
            }
            let learnt = state.trust.learn(target, one.account, one.until, clock.boot);
            for evicted in learnt.evicted {
                state.endpoints.forget(evicted);
                state.unsaved_trust.insert(evicted);
            }
            if state.trust.get(target).is_none() {
                continue;
            }
            let live = one.endpoints.into_iter().filter(|(_, end)| *end > clock.boot);
            for (endpoint, end) in live {
                let confirmed = state.endpoints.confirm(target, endpoint, end, clock.boot);
                let crowded_out = confirmed.evicted.into_iter().map(|(target, _)| target);
                state.unsaved_trust.extend(crowded_out);
            }
        }
        for (target, by, until) in proof {
            if until > clock.boot && counted(target) {
                let learnt = state.proof.learn(target, by, until, clock.boot);
                state.unsaved_proof.extend(learnt.evicted);
            } else {
                state.unsaved_proof.insert(target);
            }
        }
        state
    }
}

impl Controller {
    /// Carries out what the engine concluded. In force on return.
    pub fn conclude(&mut self, conclusion: Conclusion, clock: Clock) {
        match conclusion {
            Conclusion::Ban(decision) => drop(self.apply(&decision, clock)),
            Conclusion::Alarm(alarm) => self.alarm(alarm, clock),
            Conclusion::Trusted(trusted) => self.trust(trusted, clock),
            Conclusion::AtHome(home) => self.at_home(&home, clock),
            Conclusion::Proven(proven) => self.prove(&proven, clock),
            Conclusion::Distrusted(target) => drop(self.distrust(target)),
        }
    }

    fn alarm(&mut self, alarm: Alarm, clock: Clock) {
        *self.totals.alarms.entry(alarm.rule).or_default() += 1;
        if alarm.rule == Rule::DistributedAuth && !alarm.shadow {
            // It is told again as long as the attack goes on.
            let hold = self.config.detect.settings(alarm.rule).window;
            let until = clock.boot + hold;
            self.conditions
                .raise_until(Kind::DistributedAuth, "", alarm.message.clone(), until);
        }
        let reported = &mut self.known.alarms;
        if clock.boot.saturating_sub(reported.0) >= REPORT_EVERY {
            *reported = (clock.boot, 0);
        }
        if reported.1 >= ALARMS {
            return;
        }
        reported.1 += 1;
        self.journal.record(JournalEvent {
            target: alarm.target,
            origin: Some(Origin::Detector),
            rule: Some(alarm.rule),
            account: alarm.account,
            shadow: alarm.shadow,
            evidence: Some(alarm.evidence),
            ..JournalEvent::new(clock.wall, JournalKind::Alarm, alarm.message)
        });
    }

    fn trust(&mut self, trusted: Trusted, clock: Clock) {
        let Trusted {
            target,
            mut account,
            until,
            ..
        } = trusted;
        // An operator's ban stands above a registration, as it may come through while the filter simulates.
        let by_hand = |origin: &Origin| *origin != Origin::Detector;
        if !self.config.trust.enabled
            || until <= clock.boot
            || self
                .list
                .covering(target)
                .any(|entry| by_hand(&entry.ban.origin) && !entry.over(clock))
        {
            self.distrusted.push(target);
            return;
        }
        account.truncate(account.floor_char_boundary(ACCOUNT_MAX));
        let learnt = self.known.trust.learn(target, account, until, clock.boot);
        self.take_trust(&learnt.evicted);
        // Else the engine would spare whom the kernel no longer knows.
        self.distrusted.extend(&learnt.evicted);
        if learnt.write {
            self.known.unsaved_trust.insert(target);
            self.write_trust(target, until, clock);
        }
    }

    /// An endpoint is a trusted source's own.
    fn at_home(&mut self, home: &AtHome, clock: Clock) {
        // The controller may not have taken the source for trusted.
        if home.until <= clock.boot || self.known.trust.get(home.target).is_none() {
            return;
        }
        let confirmed = self
            .known
            .endpoints
            .confirm(home.target, home.endpoint, home.until, clock.boot);
        self.take_endpoints(&confirmed.evicted);
        if !confirmed.write {
            return;
        }
        self.known.unsaved_trust.insert(home.target);
        let mut refusals = Vec::new();
        for plane in &mut self.planes {
            refusals.extend(plane.image().set_endpoint(home.endpoint, Some(home.until)).err());
        }
        for error in refusals {
            self.trust_refused(&error, clock);
        }
    }

    /// Takes endpoints that are nobody's any more out of kernel and store.
    fn take_endpoints(&mut self, endpoints: &[(Target, Endpoint)]) {
        for (target, endpoint) in endpoints {
            self.known.unsaved_trust.insert(*target);
            for plane in &mut self.planes {
                if let Err(error) = plane.image().set_endpoint(*endpoint, None) {
                    // It ends there by itself.
                    tracing::warn!(error = chain(&error), %endpoint, "an endpoint stays in a kernel table");
                }
            }
        }
    }

    fn prove(&mut self, proven: &Proven, clock: Clock) {
        if proven.until <= clock.boot {
            return;
        }
        let known = &mut self.known;
        let learnt = known
            .proof
            .learn(proven.target, proven.by, proven.until, clock.boot);
        known.unsaved_proof.extend(learnt.evicted);
        if learnt.write {
            known.unsaved_proof.insert(proven.target);
        }
    }

    fn distrust(&mut self, target: Target) -> bool {
        let was = self.known.trust.forget(target).is_some();
        if was {
            self.take_trust(&[target]);
        }
        was
    }

    /// What is banned by hand is not trusted any more, nor is anything in it.
    pub(super) fn distrust_banned(&mut self, target: Target, clock: Clock) {
        let inside: Vec<Target> = self
            .known
            .trust
            .within(target)
            .map(|(inside, _)| inside)
            .collect();
        for inside in inside {
            self.distrust(inside);
            self.distrusted.push(inside);
            self.journal.record(JournalEvent {
                target: Some(inside),
                ..JournalEvent::new(
                    clock.wall,
                    JournalKind::TrustRemoved,
                    format!("{inside} is not trusted any more: {target} is banned"),
                )
            });
        }
    }

    /// Takes those who are in the table no more out of kernel and store.
    fn take_trust(&mut self, targets: &[Target]) {
        for target in targets {
            let endpoints = self.known.endpoints.forget(*target);
            let endpoints: Vec<_> = endpoints
                .into_iter()
                .map(|endpoint| (*target, endpoint))
                .collect();
            self.take_endpoints(&endpoints);
            self.known.unsaved_trust.insert(*target);
            for plane in &mut self.planes {
                if let Err(error) = plane.image().set_trust(*target, None) {
                    // It ends there by itself.
                    tracing::warn!(error = chain(&error), %target, "a source stays trusted in a kernel table");
                }
            }
        }
    }

    fn write_trust(&mut self, target: Target, until: Duration, clock: Clock) {
        let mut refusals = Vec::new();
        for plane in &mut self.planes {
            refusals.extend(plane.image().set_trust(target, Some(until)).err());
        }
        for error in refusals {
            self.trust_refused(&error, clock);
        }
    }

    /// Writes all trusted sources to the tables of a data plane, as far as there is room.
    pub(super) fn fill_trust(&mut self, image: &mut dyn Image, clock: Clock) {
        let trusted = self.known.trust.iter();
        let mut refusals: Vec<ImageError> = trusted
            .filter_map(|(target, known)| image.set_trust(target, Some(known.until)).err())
            .collect();
        let endpoints = self.known.endpoints.iter();
        refusals.extend(
            endpoints.filter_map(|(_, endpoint, until)| image.set_endpoint(endpoint, Some(until)).err()),
        );
        for error in refusals {
            self.trust_refused(&error, clock);
        }
    }

    /// The source has the limits of a stranger then, and is still spared by the rules that go by volume.
    fn trust_refused(&mut self, error: &ImageError, clock: Clock) {
        self.totals.trust_refused += 1;
        let last = self.known.refusal_reported;
        if last.is_some_and(|last| clock.boot.saturating_sub(last) < REPORT_EVERY) {
            return;
        }
        self.known.refusal_reported = Some(clock.boot);
        self.journal.record(JournalEvent::new(
            clock.wall,
            JournalKind::TrustRefused,
            format!("trusted sources have the limits of strangers: {}", chain(error)),
        ));
    }

    /// Forgets registrations and proofs that have ended, a few at once; whether there may be more. The kernel program
    /// does so by itself.
    pub(super) fn expire_known(&mut self, clock: Clock) -> bool {
        let trust = self.known.trust.expire(clock.boot, WRITES);
        self.take_trust(&trust);
        let endpoints = self.known.endpoints.expire(clock.boot, WRITES);
        self.take_endpoints(&endpoints);
        let proof = self.known.proof.expire(clock.boot, WRITES);
        let most = trust.len().max(endpoints.len()).max(proof.len());
        self.known.unsaved_proof.extend(proof);
        most == WRITES
    }

    /// Puts another `[trust]` in force.
    pub(super) fn configure_known(&mut self) {
        let max = self.config.trust.max as usize;
        let mut gone = self.known.trust.set_max(max);
        if !self.config.trust.enabled {
            let all: Vec<Target> = self.known.trust.iter().map(|(target, _)| target).collect();
            for target in &all {
                self.known.trust.forget(*target);
            }
            gone.extend(all);
        }
        self.distrusted.extend(&gone);
        self.take_trust(&gone);
        let trust = &self.config.trust;
        let (endpoints, per_source) = (trust.endpoints as usize, trust.endpoints_per_source as usize);
        let crowded_out = self.known.endpoints.set_max(endpoints, per_source);
        self.take_endpoints(&crowded_out);
        let gone = self.known.proof.set_max(max);
        self.known.unsaved_proof.extend(gone);
    }

    /// Whom the engine is not to trust, since the last call.
    pub fn take_distrusted(&mut self) -> Vec<Target> {
        std::mem::take(&mut self.distrusted)
    }

    /// Queues what changed for the store. To be called each second.
    pub fn save_known(&mut self, clock: Clock) {
        while self.save_some_known(clock) {}
    }

    /// Queues a few of what changed for the store; whether there is more.
    pub(super) fn save_some_known(&mut self, clock: Clock) -> bool {
        let mut batch = Batch::default();
        let known = &mut self.known;
        for target in take_some(&mut known.unsaved_trust) {
            match known.trust.get(target) {
                Some(trust) => batch.put_trust(
                    target,
                    (&trust.value, trust.until),
                    known.endpoints.of(target),
                    clock,
                    &self.boot_id,
                ),
                None => batch.remove_trust(target),
            }
        }
        for target in take_some(&mut known.unsaved_proof) {
            match known.proof.get(target) {
                Some(proof) => batch.put_proof(target, proof.value, proof.until, clock, &self.boot_id),
                None => batch.remove_proof(target),
            }
        }
        let more = !known.unsaved_trust.is_empty() || !known.unsaved_proof.is_empty();
        self.writer.submit(batch).detach();
        more
    }

    /// Adds all that is known of sources to what is to be saved.
    pub(super) fn put_known(&self, batch: &mut Batch, clock: Clock) {
        let known = &self.known;
        for (target, trust) in known.trust.iter() {
            let endpoints = known.endpoints.of(target);
            batch.put_trust(
                target,
                (&trust.value, trust.until),
                endpoints,
                clock,
                &self.boot_id,
            );
        }
        for (target, proof) in known.proof.iter() {
            batch.put_proof(target, proof.value, proof.until, clock, &self.boot_id);
        }
    }

    /// What is known of the source an address belongs to.
    #[must_use]
    pub fn known(&self, ip: IpAddr, clock: Clock) -> (Option<TrustedBy>, Option<ProvenBy>) {
        let target = self.source(ip);
        let trust = self
            .known
            .trust
            .get(target)
            .filter(|trust| trust.until > clock.boot);
        let proof = self
            .known
            .proof
            .get(target)
            .filter(|proof| proof.until > clock.boot);
        (
            trust.map(|trust| TrustedBy {
                account: trust.value.clone(),
                until: clock.to_wall(trust.until),
                endpoints: self
                    .known
                    .endpoints
                    .of(target)
                    .map(|(endpoint, _)| endpoint)
                    .collect(),
            }),
            proof.map(|proof| ProvenBy {
                by: proof.value,
                until: clock.to_wall(proof.until),
            }),
        )
    }

    /// The key under which an address is counted.
    #[must_use]
    pub fn source(&self, ip: IpAddr) -> Target {
        Target::of_source(ip, self.config.ipv6_source_prefix)
    }

    /// Trusted sources with the account that registered last, and the boot time at which that ends.
    pub fn trusted(&self) -> impl Iterator<Item = (Target, &str, Duration)> {
        let trusted = self.known.trust.iter();
        trusted.map(|(target, known)| (target, known.value.as_str(), known.until))
    }

    /// Proven sources, how they have shown it, and the boot time until which that is believed.
    pub fn proven(&self) -> impl Iterator<Item = (Target, Proof, Duration)> {
        let proven = self.known.proof.iter();
        proven.map(|(target, known)| (target, known.value, known.until))
    }

    /// Number of trusted and of proven sources.
    #[must_use]
    pub fn known_counts(&self) -> (usize, usize) {
        (self.known.trust.len(), self.known.proof.len())
    }

    /// Number of endpoints of trusted sources.
    #[must_use]
    pub fn endpoints(&self) -> usize {
        self.known.endpoints.len()
    }
}

#[cfg(test)]
#[path = "known_tests.rs"]
mod tests;
