//! Responses: how the server answered.

use std::time::Duration;

use sip_filter_common::sip::{Class, Message};

use super::{
    Engine, REFUSED, REFUSED_SHORT,
    decide::{Finding, Outcome, add_sample},
    request::subject,
};
use crate::{
    bans::Target,
    detect::{
        Alarm, AtHome, Conclusion, Observation, Proof, Rule, Trusted,
        exchanges::{Number, Pending, Shown, Wish, exchange},
        keys::printable,
        trials::State,
    },
};

const TCP: u8 = 6;

/// Sources with several phones that are not registered yet: so many times more failures for different accounts
/// together than for one are needed.
const ALL_ACCOUNTS: u64 = 2;

/// A response, and what it answers.
struct Answer<'a> {
    observation: &'a Observation<'a>,
    target: Target,
    time: Duration,
    class: Class,
    status: u16,
    message: Message<'a>,
    request: Pending,
}

impl Answer<'_> {
    /// Whether it is certain that the source itself asked: it knew our challenge, or the request came by TCP.
    fn evident(&self) -> bool {
        self.observation.protocol == TCP || self.request.shown.as_ref().is_some_and(|shown| shown.ours)
    }
}

/// The endpoint from which the request came is its source's own.
fn at_home(answer: &Answer<'_>, until: Duration, conclusions: &mut Vec<Conclusion>) {
    if let Some(endpoint) = answer.request.endpoint {
        conclusions.push(Conclusion::AtHome(AtHome {
            time: answer.time,
            target: answer.target,
            endpoint,
            until,
        }));
    }
}

impl Engine {
    pub(super) fn response(
        &mut self,
        observation: &Observation<'_>,
        target: Target,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let message = Message::new(observation.payload);
        let (Some(status), Some(cseq)) = (message.status(), message.cseq()) else {
            return;
        };
        let time = observation.time;
        if status < 200 {
            return;
        }
        if observation.protocol == TCP {
            self.prove(target, Proof::Tcp, time, conclusions);
        }
        let class = class_of(cseq.method);
        let known = exchange(target, &message).and_then(|exchange| self.exchanges.answer(exchange, time));
        let request = known.unwrap_or_else(|| unknown(&message, class, time));
        if matches!(status, 401 | 407) {
            for challenge in message.challenges() {
                if let Some(nonce) = challenge.nonce {
                    self.exchanges.challenge(target, nonce, request.asked, time);
                }
            }
        }
        // An answer that is sent again.
        if request.due == 0 {
            return;
        }
        let answer = Answer {
            observation,
            target,
            time,
            class,
            status,
            message,
            request,
        };
        match status {
            200..=299 => self.accepted(&answer, conclusions),
            401 | 407 => self.challenged(&answer, conclusions),
            403 => self.forbidden(&answer, conclusions),
            404 | 410 | 484 | 604 => self.not_found(&answer, conclusions),
            _ => self.reached(&answer),
        }
    }

    fn accepted(&mut self, answer: &Answer<'_>, conclusions: &mut Vec<Conclusion>) {
        let Answer {
            target,
            time,
            request,
            ..
        } = answer;
        let (target, time) = (*target, *time);
        let shown = request.shown.as_ref();
        // A server may answer a request without looking at the credentials in it. A registration it does not, if it
        // has any use for passwords; a call it has looked at if it asked for credentials for the very same before.
        let success = match (answer.class, shown) {
            (_, None) => false,
            (Class::Register, Some(_)) => true,
            (_, Some(shown)) => {
                self.exchanges.answers(shown, request.asked) || self.exchanges.was_good(shown)
            }
        };
        if answer.class == Class::Register && (success || answer.observation.protocol == TCP) {
            self.prove(target, Proof::Registration, time, conclusions);
        }
        if let Some(shown) = shown.filter(|_| success) {
            self.exchanges.accepted(shown);
            self.accounts.accepted(target, shown.login, time, &self.config);
            self.standings.note_success(target, time);
            // A registration says below until when.
            if shown.ours
                && answer.class != Class::Register
                && let Some(until) = self.standings.trusted_until(target, time)
            {
                at_home(answer, until, conclusions);
            }
            for index in [REFUSED, REFUSED_SHORT] {
                if let Some(window) = self
                    .sources
                    .get_mut(&target)
                    .and_then(|source| source.windows[index].as_mut())
                {
                    window.clear();
                }
            }
        }
        if let Some(scan) = self.scans.get_mut(&target) {
            if answer.class == Class::Register {
                scan.accounts.succeeded(request.subject);
            } else if success {
                scan.numbers.clear();
            }
        }
        if answer.class == Class::Register {
            self.registered(answer, conclusions);
        } else {
            self.reached(answer);
        }
    }

    fn registered(&mut self, answer: &Answer<'_>, conclusions: &mut Vec<Conclusion>) {
        let (target, time, message) = (answer.target, answer.time, &answer.message);
        let account = answer.request.subject;
        match answer.request.wish {
            Wish::Query => {}
            Wish::Unbind => {
                if self.standings.unregister(target, account, time) {
                    conclusions.push(Conclusion::Distrusted(target));
                }
            }
            Wish::Bind => {
                let default = message.expires();
                let granted = message
                    .contacts()
                    .filter_map(|contact| contact.expires.or(default))
                    .max();
                let granted = granted.or(default).map_or(self.config.trust_time, |seconds| {
                    Duration::from_secs(u64::from(seconds))
                });
                if granted.is_zero() {
                    return;
                }
                let until = time.saturating_add(granted.min(self.config.trust_time_max));
                self.standings.register(target, account, time, until);
                let name = message.to().and_then(|to| to.user).unwrap_or_default();
                conclusions.push(Conclusion::Trusted(Trusted {
                    time,
                    target,
                    account: printable(name),
                    until,
                }));
                at_home(answer, until, conclusions);
            }
        }
    }

    fn challenged(&mut self, answer: &Answer<'_>, conclusions: &mut Vec<Conclusion>) {
        let (target, time, request) = (answer.target, answer.time, &answer.request);
        if let Some(shown) = &request.shown {
            let stale = answer.message.challenges().any(|challenge| challenge.stale);
            if !stale && !self.exchanges.was_good(shown) {
                self.refused(answer, shown, conclusions);
            }
            return;
        }
        // Of a source that is registered, a challenge is nothing: it has to be forgotten too soon if it is counted.
        if self.is_known(target, time) {
            return;
        }
        match (answer.class, request.number) {
            (Class::Register | Class::Options, _) => {
                let scan = self.scan(target, time);
                scan.accounts.challenged(request.subject, 0, time);
            }
            (Class::Invite, Some(number)) => {
                let scan = self.scan(target, time);
                scan.numbers.challenged(number.whole, number.tail, time);
            }
            _ => {}
        }
    }

    fn forbidden(&mut self, answer: &Answer<'_>, conclusions: &mut Vec<Conclusion>) {
        let (target, time) = (answer.target, answer.time);
        match (&answer.request.shown, answer.class) {
            (Some(shown), Class::Register) => self.refused(answer, shown, conclusions),
            // A customer who may not call some number is told so as well.
            (Some(shown), _) => {
                let fine = self.is_known(target, time)
                    || self.accounts.succeeded(target, shown.login, time, &self.config);
                if !fine {
                    self.refused(answer, shown, conclusions);
                }
            }
            (None, _) => self.not_found(answer, conclusions),
        }
    }

    /// What was asked for does not exist, or not for this source.
    fn not_found(&mut self, answer: &Answer<'_>, conclusions: &mut Vec<Conclusion>) {
        let (target, time, request) = (answer.target, answer.time, &answer.request);
        let evident = answer.evident();
        if self.is_known(target, time) && !(evident && answer.class == Class::Register) {
            return;
        }
        let payload = answer.observation.payload;
        match (answer.class, request.number) {
            (Class::Register | Class::Options, _) => {
                let state = State::Refused { evident };
                let accounts = &mut self.scan(target, time).accounts;
                accounts.note(request.subject, 0, time, state);
                self.judge_accounts(target, 0, time, payload, conclusions);
            }
            (Class::Invite, Some(number)) => self.call_refused(answer, number, evident, conclusions),
            _ => {}
        }
    }

    fn call_refused(
        &mut self,
        answer: &Answer<'_>,
        number: Number,
        evident: bool,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let (target, time) = (answer.target, answer.time);
        let numbers = &mut self.scan(target, time).numbers;
        numbers.note(number.whole, number.tail, time, State::Refused { evident });
        let payload = answer.observation.payload;
        // It is decided upon with this one counted, which is no longer being tried.
        self.judge_numbers(target, number, time, payload, conclusions);
    }

    /// A call came to somebody, or failed for reasons that are not the caller's.
    fn reached(&mut self, answer: &Answer<'_>) {
        if let (Class::Invite, Some(number)) = (answer.class, answer.request.number)
            && !(500..600).contains(&answer.status)
            && let Some(scan) = self.scans.get_mut(&answer.target)
        {
            scan.numbers
                .note(number.whole, number.tail, answer.time, State::Open);
        }
    }

    /// Credentials were refused.
    fn refused(&mut self, answer: &Answer<'_>, shown: &Shown, conclusions: &mut Vec<Conclusion>) {
        let (target, time) = (answer.target, answer.time);
        let known = self.is_known(target, time);
        let evident = answer.evident();
        // Anybody can send wrong credentials in the name of a customer, but not to a challenge of ours.
        if known && !evident {
            return;
        }
        let fresh = !self.accounts.succeeded(target, shown.login, time, &self.config);
        if answer.class == Class::Register && fresh {
            let accounts = &mut self.scan(target, time).accounts;
            accounts.note(answer.request.subject, 0, time, State::Refused { evident });
        }
        let attacked = evident && self.under_attack(answer, shown, conclusions);
        if self.config.auth_failure.enabled {
            self.judge_failures(answer, shown, known, attacked, conclusions);
        }
        self.judge_accounts(target, 0, time, answer.observation.payload, conclusions);
    }

    /// Counts who fails with an account; whether it is under attack and this source may be one of the attackers.
    fn under_attack(
        &mut self,
        answer: &Answer<'_>,
        shown: &Shown,
        conclusions: &mut Vec<Conclusion>,
    ) -> bool {
        let settings = self.config.distributed_auth.clone();
        if !settings.enabled {
            return false;
        }
        let (target, time) = (answer.target, answer.time);
        let state = self.accounts.attack(target, shown.login, time, &self.config);
        if state.alarm {
            self.count_alarm(Rule::DistributedAuth, settings.shadow);
            let mut sample = Vec::new();
            add_sample(&mut sample, answer.observation.payload);
            let finding = Finding {
                count: state.sources,
                threshold: settings.threshold,
                window: settings.window,
                first: state.first,
                accounts: 1,
                sample,
                evident: true,
            };
            conclusions.push(Conclusion::Alarm(Alarm {
                time,
                rule: Rule::DistributedAuth,
                target: None,
                account: Some(shown.name.to_string()),
                shadow: settings.shadow,
                evidence: self.evidence(finding, time, true),
                message: format!(
                    "account {} is under attack: credentials of {} sources were refused within {} s",
                    shown.name,
                    state.sources,
                    settings.window.as_secs()
                ),
            }));
        }
        let lifetime = self.config.proof_lifetime;
        state.attacked && !settings.shadow && !self.standings.succeeded(target, time, lifetime)
    }

    fn judge_failures(
        &mut self,
        answer: &Answer<'_>,
        shown: &Shown,
        known: bool,
        attacked: bool,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let (target, time) = (answer.target, answer.time);
        let settings = self.config.auth_failure.clone();
        let failures = self.accounts.refused(target, shown.login, time, &self.config);
        let (short, long) = (failures.short.total(), failures.long.total());
        let first = failures.long.first_seen(settings.window);
        let alarmed = failures
            .alarmed
            .is_some_and(|at| at.abs_diff(time) < settings.window);
        let all_long = self.add(target, REFUSED, time, settings.window, 1);
        let all_short = self.add(target, REFUSED_SHORT, time, settings.burst_window, 1);
        if all_long > 1 {
            self.sources.protect(&target);
        }
        // Every pair of a count and what would be too much.
        let mut rates = vec![
            (short, settings.burst_threshold, settings.burst_window),
            (long, settings.threshold, settings.window),
        ];
        if known {
            let reached = rates.iter().find(|(count, most, _)| count >= most);
            if let Some(reached) = reached.filter(|_| !alarmed) {
                self.alarm_failures(answer, shown, *reached, first, conclusions);
            }
            for (_, most, _) in &mut rates {
                *most = most.saturating_mul(settings.trusted_factor);
            }
        } else {
            if attacked {
                rates.push((long, self.config.distributed_auth.failures, settings.window));
            }
            let all = |most: u64| most.saturating_mul(ALL_ACCOUNTS);
            rates.push((all_short, all(settings.burst_threshold), settings.burst_window));
            rates.push((all_long, all(settings.threshold), settings.window));
        }
        let Some((count, threshold, window)) = rates.into_iter().find(|(count, most, _)| count >= most)
        else {
            return;
        };
        let payload = answer.observation.payload;
        let scan = self.scan(target, time);
        if scan.samples.is_empty() {
            add_sample(&mut scan.samples, payload);
        }
        let finding = Finding {
            count,
            threshold,
            window,
            first: first.max(time.saturating_sub(window)),
            accounts: 1,
            sample: scan.samples.clone(),
            evident: answer.evident(),
        };
        let outcome = self.decide(target, Rule::AuthFailure, time, finding, conclusions);
        if outcome == Outcome::Full {
            self.accounts.clear_failures(target, shown.login);
            if let Some(source) = self.sources.get_mut(&target) {
                source.windows[REFUSED] = None;
                source.windows[REFUSED_SHORT] = None;
            }
        }
    }

    /// Tells that a customer's phone has a wrong password.
    fn alarm_failures(
        &mut self,
        answer: &Answer<'_>,
        shown: &Shown,
        (count, threshold, window): (u64, u64, Duration),
        first: Duration,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let (target, time) = (answer.target, answer.time);
        let settings = &self.config.auth_failure;
        let finding = Finding {
            count,
            threshold,
            window,
            first: first.max(time.saturating_sub(window)),
            accounts: 1,
            sample: Vec::new(),
            evident: true,
        };
        let alarm = Alarm {
            time,
            rule: Rule::AuthFailure,
            target: Some(target),
            account: Some(shown.name.to_string()),
            shadow: settings.shadow,
            evidence: self.evidence(finding, time, true),
            message: format!(
                "{target}, where others are registered, is refused as account {}: {count} times within {} s",
                shown.name,
                window.as_secs()
            ),
        };
        self.accounts.alarmed(target, shown.login, time);
        conclusions.push(Conclusion::Alarm(alarm));
    }
}

/// What a response tells about a request that was not seen: that it had credentials, it does not.
fn unknown(message: &Message<'_>, class: Class, time: Duration) -> Pending {
    let number = (class == Class::Invite).then(|| message.to().and_then(|to| to.user).map(Number::new));
    Pending {
        time,
        subject: subject(message, class),
        asked: 0,
        number: number.flatten(),
        shown: None,
        endpoint: None,
        // Whether a registration was to end, it does not tell either, if others remain.
        wish: match message.contacts().next() {
            Some(_) => Wish::Bind,
            None => Wish::Query,
        },
        due: 1,
    }
}

fn class_of(method: &[u8]) -> Class {
    match method {
        b"REGISTER" => Class::Register,
        b"INVITE" => Class::Invite,
        b"OPTIONS" => Class::Options,
        b"SUBSCRIBE" => Class::Subscribe,
        _ => Class::OtherRequest,
    }
}
