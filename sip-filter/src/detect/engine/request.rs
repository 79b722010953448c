//! Requests: what is asked, for whom, and with what credentials.

use std::time::Duration;

use sip_filter_common::sip::{Class, Message, Uri};

use super::{
    Engine,
    decide::{Finding, Outcome, add_sample},
};
use crate::{
    bans::{Endpoint, Target},
    detect::{
        Conclusion, Observation, Proof, Proven, Rule,
        exchanges::{Number, Pending, Shown, exchange, wish},
        keys::key,
        trials::{Tally, Trials, Which},
    },
};

/// Trials from which on samples are kept.
const SUSPICIOUS: u64 = 2;

/// From where a request came.
const fn endpoint(observation: &Observation<'_>) -> Endpoint {
    Endpoint {
        address: observation.source,
        protocol: observation.protocol,
        port: observation.source_port,
        hops: observation.hops,
    }
}

impl Engine {
    pub(super) fn request(
        &mut self,
        observation: &Observation<'_>,
        target: Target,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let message = Message::new(observation.payload);
        let Some(cseq) = message.cseq() else {
            return;
        };
        // Neither is answered like other requests, and both repeat what the INVITE had.
        if matches!(cseq.method, b"ACK" | b"CANCEL") {
            return;
        }
        let Some(exchange) = exchange(target, &message) else {
            return;
        };
        let time = observation.time;
        let class = observation.class;
        let shown = self.exchanges.credentials(target, &message, time);
        if shown.as_ref().is_some_and(|shown| shown.ours) {
            self.prove(target, Proof::Nonce, time, conclusions);
            // Slow phones on a bad line answer late, one after the other.
            self.forgive_unanswered(target);
        }
        if shown.is_none() && matches!(class, Class::OtherRequest | Class::Subscribe) {
            return;
        }
        let subject = subject(&message, class);
        let uri = message.request().map(|line| line.uri).unwrap_or_default();
        let number = (class == Class::Invite)
            .then(|| Uri::new(uri).and_then(|uri| uri.user).map(Number::new))
            .flatten();
        let asked = key((message.call_id(), cseq.method, uri));
        let new = self.exchanges.ask(
            exchange,
            Pending {
                time,
                subject,
                asked,
                number,
                shown: shown.clone(),
                wish: wish(&message),
                endpoint: Some(endpoint(observation)),
                due: 1,
            },
        );
        if !new {
            return;
        }
        match (class, number) {
            (Class::Register | Class::Options, _) => {
                self.try_account(observation, target, subject, shown.as_ref(), conclusions);
            }
            (Class::Invite, Some(number)) => {
                self.try_number(observation, target, number, shown.as_ref(), conclusions);
            }
            _ => {}
        }
    }

    fn try_account(
        &mut self,
        observation: &Observation<'_>,
        target: Target,
        account: u64,
        shown: Option<&Shown>,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let time = observation.time;
        // Only of a source that was refused or challenged before is there anything to remember.
        let Some(scan) = self.scans.get_mut(&target) else {
            return;
        };
        if shown.is_some() {
            scan.accounts.answered(account);
        }
        self.sample(observation, target);
        self.judge_accounts(target, account, time, &[], conclusions);
    }

    fn try_number(
        &mut self,
        observation: &Observation<'_>,
        target: Target,
        number: Number,
        shown: Option<&Shown>,
        conclusions: &mut Vec<Conclusion>,
    ) {
        let time = observation.time;
        if self.is_known(target, time) {
            return;
        }
        let numbers = &mut self.scan(target, time).numbers;
        numbers.begun(number.whole, number.tail, time);
        if shown.is_some() {
            numbers.answered(number.whole);
        }
        self.sample(observation, target);
        self.judge_numbers(target, number, time, &[], conclusions);
    }

    /// Keeps a sample of a source that may have to be explained soon.
    fn sample(&mut self, observation: &Observation<'_>, target: Target) {
        let which = Which {
            now: observation.time,
            window: self.config.account_scan.slow_window,
            patience: Duration::ZERO,
            except: 0,
            evident: false,
        };
        if let Some(scan) = self.scans.get_mut(&target)
            && scan.samples.len() < super::SAMPLES
            && scan.accounts.count_in(&which) + scan.numbers.count_in(&which) > 0
        {
            add_sample(&mut scan.samples, observation.payload);
        }
    }

    /// Whether a source tried too many accounts. `except` is the one it is trying now.
    pub(super) fn judge_accounts(
        &mut self,
        target: Target,
        except: u64,
        time: Duration,
        payload: &[u8],
        conclusions: &mut Vec<Conclusion>,
    ) {
        let settings = self.config.account_scan.clone();
        if !settings.enabled {
            return;
        }
        let evident = self.is_known(target, time);
        let Some(scan) = self.scans.get_mut(&target) else {
            return;
        };
        let which = Which {
            now: time,
            window: settings.window,
            patience: settings.patience,
            except,
            evident,
        };
        let fast = scan.accounts.tally(&which, settings.slow_window);
        let slow = scan.accounts.tally(
            &Which {
                window: settings.slow_window,
                ..which
            },
            settings.slow_window,
        );
        if slow.count >= SUSPICIOUS {
            self.scans.protect(&target);
        }
        let found = if fast.count >= settings.threshold {
            (fast, settings.threshold, settings.window)
        } else if slow.count >= settings.slow_threshold {
            (slow, settings.slow_threshold, settings.slow_window)
        } else {
            return;
        };
        self.decide_scan(target, Rule::AccountScan, time, found, payload, conclusions);
    }

    /// Whether a source dialled too many numbers in vain.
    pub(super) fn judge_numbers(
        &mut self,
        target: Target,
        number: Number,
        time: Duration,
        payload: &[u8],
        conclusions: &mut Vec<Conclusion>,
    ) {
        let settings = self.config.dialplan_probe.clone();
        if !settings.enabled || self.is_known(target, time) {
            return;
        }
        let Some(scan) = self.scans.get_mut(&target) else {
            return;
        };
        let which = Which {
            now: time,
            window: settings.window,
            patience: settings.patience,
            except: number.whole,
            evident: false,
        };
        let all = scan.numbers.tally(&which, settings.window);
        let alike = scan.numbers.alike(&which, number.tail);
        if all.count >= SUSPICIOUS {
            self.scans.protect(&target);
        }
        // Whoever calls many numbers has some that are wrong; who probes has hardly any that is right.
        let found = if all.count >= settings.threshold && all.count * 2 > all.all {
            (all, settings.threshold, settings.window)
        } else if alike.count >= settings.variants {
            (alike, settings.variants, settings.window)
        } else {
            return;
        };
        self.decide_scan(target, Rule::DialplanProbe, time, found, payload, conclusions);
    }

    fn decide_scan(
        &mut self,
        target: Target,
        rule: Rule,
        time: Duration,
        (tally, threshold, window): (Tally, u64, Duration),
        payload: &[u8],
        conclusions: &mut Vec<Conclusion>,
    ) {
        let Some(scan) = self.scans.get_mut(&target) else {
            return;
        };
        if scan.samples.is_empty() {
            add_sample(&mut scan.samples, payload);
        }
        let finding = Finding {
            count: tally.count,
            threshold,
            window,
            first: tally.first,
            accounts: tally.count,
            sample: scan.samples.clone(),
            evident: true,
        };
        if self.decide(target, rule, time, finding, conclusions) == Outcome::Full
            && let Some(scan) = self.scans.get_mut(&target)
        {
            let trials: &mut Trials = match rule {
                Rule::AccountScan => &mut scan.accounts,
                _ => &mut scan.numbers,
            };
            trials.clear();
            scan.samples = Vec::new();
        }
    }

    /// Takes back what a source is suspected of only because no answer to a challenge was seen.
    pub(super) fn forgive_unanswered(&mut self, target: Target) {
        if let Some(scan) = self.scans.get_mut(&target) {
            scan.accounts.forgive_unanswered();
            scan.numbers.forgive_unanswered();
        }
    }

    pub(super) fn prove(
        &mut self,
        target: Target,
        by: Proof,
        time: Duration,
        conclusions: &mut Vec<Conclusion>,
    ) {
        if let Some(until) = self.standings.prove(target, by, time, &self.config) {
            conclusions.push(Conclusion::Proven(Proven {
                time,
                target,
                by,
                until,
            }));
        }
    }
}

/// Whom a request is about: the account that is registered or asked for, else the one that asks.
pub(super) fn subject(message: &Message<'_>, class: Class) -> u64 {
    let party = match class {
        Class::Register | Class::Options => message.to(),
        _ => message.from(),
    };
    key(party.and_then(|party| party.user).unwrap_or_default())
}
