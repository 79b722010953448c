//! Requests that wait for their answer, and challenges that wait for theirs.

use std::time::Duration;

use sip_filter_common::sip::{Credentials, Message};

use super::{bounded::Bounded, keys::key};
use crate::bans::{Endpoint, Target};

/// How long a request waits for its answer: an INVITE rings for minutes.
const PATIENCE: Duration = Duration::from_secs(300);

/// How long a challenge may be answered. Phones use a nonce again until the server tells them not to.
const NONCE_LIFE: Duration = Duration::from_secs(3600);

/// Both maps are bounded; a flood of forged requests washes out what is unanswered for longest, except challenges
/// that were answered.
#[derive(Debug)]
pub(super) struct Exchanges {
    pending: Bounded<u64, Pending>,
    nonces: Bounded<u64, Nonce>,
}

/// A request.
#[derive(Clone, Debug)]
pub(super) struct Pending {
    pub(super) time: Duration,
    /// Whom it is about: the account that is registered or asked for, or that calls.
    pub(super) subject: u64,
    /// What it asks for: the same for a request that was challenged and the one that answers.
    pub(super) asked: u64,
    /// The number an INVITE calls.
    pub(super) number: Option<Number>,
    /// The credentials it carries.
    pub(super) shown: Option<Shown>,
    /// What a REGISTER wants.
    pub(super) wish: Wish,
    /// From where it came, if it was seen.
    pub(super) endpoint: Option<Endpoint>,
    /// Answers that are due: requests that differ in their credentials alone are told apart by nothing that an answer
    /// carries, and each of them counts.
    pub(super) due: u32,
}

/// A dialled number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Number {
    pub(super) whole: u64,
    /// Its last seven digits; 0 if it has fewer.
    pub(super) tail: u64,
}

/// Credentials in a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// All that matters of them: a repeated request shows the same.
    pub(super) digest: u64,
    pub(super) nonce: u64,
    /// The account they are for, and its name.
    pub(super) login: u64,
    pub(super) name: Box<str>,
    /// Whether the nonce is one that went to this source: the address is not forged.
    pub(super) ours: bool,
}

/// What a REGISTER wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    /// To be registered.
    Bind,
    /// To be registered no more.
    Unbind,
    /// To know what is registered.
    Query,
}

/// A challenge that went to a source.
#[derive(Clone, Copy, Debug)]
struct Nonce {
    time: Duration,
    asked: u64,
    /// The account that had success with it.
    good_for: Option<u64>,
}

impl Exchanges {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            pending: Bounded::new(capacity),
            nonces: Bounded::new(capacity),
        }
    }

    pub(super) fn set_capacity(&mut self, capacity: usize) {
        self.pending.set_capacity(capacity, |_| false);
        self.nonces.set_capacity(capacity, |_| false);
    }

    /// Entries held: requests, challenges.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.pending.len(), self.nonces.len())
    }

    /// Remembers a request. Whether it is new, and not one that was sent again.
    pub(super) fn ask(&mut self, exchange: u64, mut request: Pending) -> bool {
        let now = request.time;
        if let Some(earlier) = self.pending.get(&exchange)
            && earlier.time.abs_diff(now) < PATIENCE
        {
            if same(earlier.shown.as_ref(), request.shown.as_ref()) {
                return false;
            }
            request.due = request.due.saturating_add(earlier.due);
            // Which of the two is answered, nobody can tell.
            if request.endpoint != earlier.endpoint {
                request.endpoint = None;
            }
        }
        let stale = |old: &Pending| old.due == 0 || old.time.abs_diff(now) >= PATIENCE;
        self.pending.put(exchange, stale, request);
        true
    }

    /// The request that is answered now; `None` if it is not known.
    pub(super) fn answer(&mut self, exchange: u64, now: Duration) -> Option<Pending> {
        let pending = self.pending.get_mut(&exchange)?;
        if pending.time.abs_diff(now) >= PATIENCE {
            return None;
        }
        let before = pending.clone();
        pending.due = pending.due.saturating_sub(1);
        Some(before)
    }

    /// Remembers that a challenge went out.
    pub(super) fn challenge(&mut self, target: Target, nonce: &[u8], asked: u64, now: Duration) {
        let stale = |old: &Nonce| old.time.abs_diff(now) >= NONCE_LIFE;
        let nonce = self.nonces.touch(key((target, nonce)), stale, || Nonce {
            time: now,
            asked,
            good_for: None,
        });
        // Some servers give out a nonce more than once.
        nonce.time = now;
    }

    /// The credentials of a request: the first that answer a challenge of ours, else the first.
    pub(super) fn credentials(
        &mut self,
        target: Target,
        message: &Message<'_>,
        now: Duration,
    ) -> Option<Shown> {
        let mut first = None;
        for credentials in message.credentials() {
            let Some(nonce) = credentials.nonce else {
                continue;
            };
            let nonce = key((target, nonce));
            let known = self.nonces.get(&nonce);
            let ours = known.is_some_and(|known| known.time.abs_diff(now) < NONCE_LIFE);
            if ours {
                self.nonces.protect(&nonce);
                return shown(&credentials, nonce, true);
            }
            if first.is_none() {
                first = shown(&credentials, nonce, false);
            }
        }
        first
    }

    /// Whether `login` had success with this very challenge. A password that was right is right still: if it is
    /// refused, the challenge is too old.
    pub(super) fn was_good(&self, shown: &Shown) -> bool {
        let nonce = self.nonces.get(&shown.nonce);
        nonce.is_some_and(|nonce| nonce.good_for == Some(shown.login))
    }

    /// Whether these credentials answer the challenge of a request that asked for the same.
    pub(super) fn answers(&self, shown: &Shown, asked: u64) -> bool {
        let nonce = self.nonces.get(&shown.nonce);
        shown.ours && nonce.is_some_and(|nonce| nonce.asked == asked)
    }

    /// Remembers that credentials were accepted.
    pub(super) fn accepted(&mut self, shown: &Shown) {
        if shown.ours
            && let Some(nonce) = self.nonces.get_mut(&shown.nonce)
        {
            nonce.good_for = Some(shown.login);
        }
    }
}

fn same(one: Option<&Shown>, other: Option<&Shown>) -> bool {
    one.map(|shown| shown.digest) == other.map(|shown| shown.digest)
}

fn shown(credentials: &Credentials<'_>, nonce: u64, ours: bool) -> Option<Shown> {
    let username = credentials.username?;
    Some(Shown {
        digest: key((username, credentials.nonce, credentials.response)),
        nonce,
        login: key(username),
        name: super::keys::printable(username).into(),
        ours,
    })
}

impl Number {
    /// Of a number or name as dialled.
    pub(super) fn new(user: &[u8]) -> Self {
        const TAIL: usize = 7;
        let digits = user.iter().rev().take_while(|byte| byte.is_ascii_digit());
        let tail: Vec<u8> = digits.take(TAIL).copied().collect();
        Self {
            whole: key(user),
            tail: if tail.len() == TAIL { key(&tail) } else { 0 },
        }
    }
}

/// What a REGISTER wants, from its Contact and Expires.
pub(super) fn wish(message: &Message<'_>) -> Wish {
    let default = message.expires();
    let mut contacts = message.contacts().peekable();
    if contacts.peek().is_none() {
        return Wish::Query;
    }
    let ends = |expires: Option<u32>| expires.or(default) == Some(0);
    match contacts.all(|contact| contact.is_star || ends(contact.expires)) {
        true => Wish::Unbind,
        false => Wish::Bind,
    }
}

/// Identifies a request and its answers, which carry all of this back.
pub(super) fn exchange(target: Target, message: &Message<'_>) -> Option<u64> {
    let cseq = message.cseq()?;
    let tag = message.from().and_then(|from| from.tag);
    Some(key((target, message.call_id()?, cseq.number, cseq.method, tag)))
}
