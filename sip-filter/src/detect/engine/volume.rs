//! Rules that count packets: floods, garbage, and the marks of scanners.

use std::time::Duration;

use sip_filter_common::{abi::EventKind, sip::Class};

use super::{
    Engine, OWN_CONTACT, STRAYS, Source,
    decide::{Finding, Outcome, add_sample},
    window_of,
};
use crate::{
    bans::Target,
    detect::{Alarm, Conclusion, Observation, Rule, signature::Mark},
};

/// A source that has reached this part of a threshold keeps its place when memory is short.
const NOTEWORTHY: u64 = 8;

/// Who comes back from a short ban and goes on is banned again at this part of the threshold.
const RETURNED: u64 = 4;

/// How often it is reported that somebody floods in the name of a trusted source.
const STRAYS_EVERY: Duration = Duration::from_secs(60);

impl Engine {
    /// Everything that reaches a protected port counts somewhere.
    pub(super) fn volume(
        &mut self,
        observation: &Observation<'_>,
        target: Target,
        conclusions: &mut Vec<Conclusion>,
    ) {
        // Not-SIP over TCP is TLS, or the middle of a message.
        if observation.class == Class::Garbage && observation.protocol != TCP {
            self.count(observation, target, Rule::Garbage, conclusions);
        }
        let rule = flood_rule(observation.class);
        if observation.stray && observation.kind == EventKind::OverLimit {
            self.strays(observation, target, rule, conclusions);
        }
        self.count(observation, target, rule, conclusions);
    }

    /// Somebody sends too much in the name of a trusted source, but not from where it is registered. It is not held
    /// against the source; the operator should know.
    fn strays(
        &mut self,
        observation: &Observation<'_>,
        target: Target,
        rule: Rule,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let settings = self.config.settings(rule);
        let time = observation.time;
        if !settings.enabled || !self.is_known(target, time) {
            return;
        }
        let (window, threshold, shadow) = (settings.window, settings.threshold.max(1), settings.shadow);
        let total = self.add(target, STRAYS, time, window, observation.count.max(1));
        let source = self.source(target, time);
        let lately = |at: Duration| at.abs_diff(time) < STRAYS_EVERY.max(window);
        if total < threshold || source.alarmed.is_some_and(lately) {
            return;
        }
        source.alarmed = Some(time);
        let first = source.windows[STRAYS]
            .as_ref()
            .map_or(time, |strays| strays.first_seen(window));
        let mut sample = Vec::new();
        add_sample(&mut sample, observation.payload);
        let finding = Finding {
            count: total,
            threshold,
            window,
            first,
            accounts: 0,
            sample,
            evident: false,
        };
        self.count_alarm(rule, shadow);
        conclusions.push(Conclusion::Alarm(Alarm {
            time,
            rule,
            target: Some(target),
            account: None,
            shadow,
            evidence: self.evidence(finding, time, false),
            message: format!(
                "a flood in the name of trusted {target}, probably forged: {total} packets over the limit within {} s, \
                 not from where it is registered (the last from {} port {}, hop limit {})",
                window.as_secs(),
                observation.source,
                observation.source_port,
                observation.hops,
            ),
        }));
    }

    /// Whether a scanner sent a request.
    pub(super) fn signature(
        &mut self,
        observation: &Observation<'_>,
        target: Target,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let settings = &self.config.scanner_signature;
        if !settings.enabled {
            return;
        }
        let (window, own_contact) = (settings.window, settings.own_contact);
        let mark = self
            .signatures
            .mark(observation.class, observation.payload, observation.destination);
        // Anybody can send a scanner's request in the name of a customer.
        if mark == Mark::None || self.is_known(target, observation.time) {
            return;
        }
        if mark == Mark::OwnContact {
            let count = self.add(target, OWN_CONTACT, observation.time, window, 1);
            if own_contact == 0 || count < own_contact {
                return;
            }
        }
        self.count(observation, target, Rule::ScannerSignature, conclusions);
    }

    /// Counts something of a source; what that makes within the window.
    pub(super) fn add(
        &mut self,
        target: Target,
        index: usize,
        time: Duration,
        window: Duration,
        count: u32,
    ) -> u64 {
        let source = self.source(target, time);
        source.windows[index]
            .get_or_insert_default()
            .add(time, window, count)
    }

    fn source(&mut self, target: Target, time: Duration) -> &mut Source {
        let longest = self.longest;
        let source = self.sources.touch(
            target,
            |source| time.abs_diff(source.last) >= longest,
            Source::default,
        );
        source.last = time;
        source
    }

    fn count(
        &mut self,
        observation: &Observation<'_>,
        target: Target,
        rule: Rule,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let settings = self.config.settings(rule);
        let Some(index) = window_of(rule).filter(|_| settings.enabled) else {
            return;
        };
        let time = observation.time;
        let mut threshold = settings.threshold.max(1);
        let total = self.add(target, index, time, settings.window, observation.count.max(1));
        if total >= threshold / NOTEWORTHY && total > 1 {
            self.sources.protect(&target);
        }
        if total < threshold / RETURNED / 2 {
            return;
        }
        if rule.by_volume() {
            if self.is_known(target, time) {
                return;
            }
            let span = settings.window.saturating_add(self.config.unproven_ban);
            if self
                .offences
                .returned(target, settings.shadow, self.wall(time), span)
            {
                threshold = (threshold / RETURNED).max(1);
            }
        }
        let Some(window) = self
            .sources
            .get_mut(&target)
            .and_then(|source| source.windows[index].as_mut())
        else {
            return;
        };
        // Samples cost memory, so they are taken only of who comes close.
        if total >= threshold / 2 {
            add_sample(&mut window.samples, observation.payload);
        }
        if total < threshold {
            return;
        }
        let finding = Finding {
            count: total,
            threshold,
            window: settings.window,
            first: window.first_seen(settings.window),
            accounts: 0,
            sample: window.samples.clone(),
            evident: true,
        };
        let outcome = self.decide(target, rule, time, finding, conclusions);
        if outcome != Outcome::Banned
            && let Some(window) = self
                .sources
                .get_mut(&target)
                .and_then(|source| source.windows[index].as_mut())
        {
            window.samples = Vec::new();
            if outcome == Outcome::Full {
                window.clear();
            }
        }
    }
}

const TCP: u8 = 6;

/// The flood rule that counts a class.
/// Whether a rule counts the packets of a class.
#[must_use]
pub fn counts(rule: Rule, class: Class) -> bool {
    rule == flood_rule(class) || rule == Rule::Garbage && class == Class::Garbage
}

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
