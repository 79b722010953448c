//! Accounts: how each source fares with them, and which of them are attacked from many sides.

use std::time::Duration;

use super::{DetectConfig, bounded::Bounded, window::Window};
use crate::bans::Target;

/// What is known of accounts, keyed by source and account.
#[derive(Debug)]
pub(super) struct Accounts {
    by_source: Bounded<(Target, u64), Account>,
    attacks: Bounded<u64, Attack>,
}

/// One account as used by one source.
#[derive(Debug, Default)]
pub(super) struct Account {
    /// When the server last accepted credentials.
    success: Option<Duration>,
    last: Duration,
    failures: Option<Box<Failures>>,
}

/// Refused credentials.
#[derive(Debug, Default)]
pub(super) struct Failures {
    pub(super) short: Window,
    pub(super) long: Window,
    /// When an alarm was last given.
    pub(super) alarmed: Option<Duration>,
}

/// Who attacks an account.
#[derive(Debug, Default)]
struct Attack {
    sources: Vec<(Target, Duration)>,
    alarmed: Option<Duration>,
}

/// How things stand with an attack on one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct AttackState {
    pub(super) sources: u64,
    pub(super) first: Duration,
    /// The account is under attack.
    pub(super) attacked: bool,
    /// This is to be told.
    pub(super) alarm: bool,
}

/// Part of [`DetectConfig::max_accounts`] that may be under attack at the same time.
const ATTACKS: usize = 16;

impl Accounts {
    pub(super) fn new(config: &DetectConfig) -> Self {
        let capacity = config.max_accounts as usize;
        Self {
            by_source: Bounded::new(capacity),
            attacks: Bounded::new(capacity / ATTACKS),
        }
    }

    pub(super) fn reload(&mut self, old: &DetectConfig, new: &DetectConfig) {
        let capacity = new.max_accounts as usize;
        self.by_source.set_capacity(capacity, |_| false);
        self.attacks.set_capacity(capacity / ATTACKS, |_| false);
        let windows = |config: &DetectConfig| (config.auth_failure.window, config.auth_failure.burst_window);
        if windows(old) != windows(new) {
            for account in self.by_source.values_mut() {
                account.failures = None;
            }
        }
    }

    /// Pairs of source and account, attacked accounts.
    pub(super) fn len(&self) -> (usize, usize) {
        (self.by_source.len(), self.attacks.len())
    }

    /// Refused credentials: what they add up to.
    pub(super) fn refused(
        &mut self,
        source: Target,
        login: u64,
        now: Duration,
        config: &DetectConfig,
    ) -> &mut Failures {
        let key = (source, login);
        let account = self.touch(key, now, config);
        account.last = now;
        let failures = account.failures.get_or_insert_default();
        let settings = &config.auth_failure;
        failures.short.add(now, settings.burst_window, 1);
        let total = failures.long.add(now, settings.window, 1);
        if total > 1 {
            self.by_source.protect(&key);
        }
        self.touch(key, now, config).failures.get_or_insert_default()
    }

    /// Whether `source` had success with the account lately.
    pub(super) fn succeeded(&self, source: Target, login: u64, now: Duration, config: &DetectConfig) -> bool {
        let account = self.by_source.get(&(source, login));
        account
            .and_then(|account| account.success)
            .is_some_and(|at| at.abs_diff(now) < config.proof_lifetime)
    }

    /// Accepted credentials: earlier failures are forgotten.
    pub(super) fn accepted(&mut self, source: Target, login: u64, now: Duration, config: &DetectConfig) {
        let account = self.touch((source, login), now, config);
        *account = Account {
            success: Some(now),
            last: now,
            failures: None,
        };
        self.by_source.protect(&(source, login));
    }

    /// Notes that an alarm was given about the failures.
    pub(super) fn alarmed(&mut self, source: Target, login: u64, now: Duration) {
        let account = self.by_source.get_mut(&(source, login));
        if let Some(failures) = account.and_then(|account| account.failures.as_mut()) {
            failures.alarmed = Some(now);
        }
    }

    /// Forgets the failures that led to a ban.
    pub(super) fn clear_failures(&mut self, source: Target, login: u64) {
        if let Some(account) = self.by_source.get_mut(&(source, login)) {
            account.failures = None;
        }
    }

    /// Notes that `source` failed with an account that others may fail with, too.
    pub(super) fn attack(
        &mut self,
        source: Target,
        login: u64,
        now: Duration,
        config: &DetectConfig,
    ) -> AttackState {
        let settings = &config.distributed_auth;
        let old = |time: Duration| time.abs_diff(now) >= settings.window;
        let stale = |attack: &Attack| attack.sources.iter().all(|(_, time)| old(*time));
        let attack = self.attacks.touch(login, stale, Attack::default);
        attack
            .sources
            .retain(|(target, time)| *target != source && !old(*time));
        if attack.sources.len() >= super::config::MOST {
            attack.sources.remove(0);
        }
        attack.sources.push((source, now));
        let sources = attack.sources.len() as u64;
        let recent = attack.alarmed.is_some_and(|time| !old(time));
        let reached = settings.enabled && sources >= settings.threshold;
        let state = AttackState {
            sources,
            first: attack.sources.iter().map(|(_, time)| *time).min().unwrap_or(now),
            attacked: reached || recent,
            alarm: reached && !recent,
        };
        if state.alarm {
            attack.alarmed = Some(now);
        }
        if sources > 2 {
            self.attacks.protect(&login);
        }
        state
    }

    fn touch(&mut self, key: (Target, u64), now: Duration, config: &DetectConfig) -> &mut Account {
        let keep = config.auth_failure.window.max(config.auth_failure.burst_window);
        let stale = |old: &Account| old.success.is_none() && old.last.abs_diff(now) >= keep;
        self.by_source.touch(key, stale, Account::default)
    }
}
