//! What operators ask for concerning bans. Every operation is all or nothing.

use std::{
    collections::{HashMap, HashSet},
    net::IpAddr,
    time::Duration,
};

use super::{
    controller::Controller,
    error::ControlError,
    journal::{JournalEvent, JournalKind},
    requests::{
        BanDone, BanOrder, Checked, Filter, ImportBan, ImportOptions, Imported, Length, Unban, UnbanDone,
    },
    saving::{Done, News, Undo},
};
use crate::{
    bans::{Ban, Change, Clock, Entry, NewBan, Origin, Outcome, Refusal, Target},
    units,
};

/// An operation on more targets than this has one line of log.
pub(super) const LOGGED_ONE_BY_ONE: usize = 50;

/// Bans found so far.
#[derive(Debug, Default)]
pub(super) struct Found(Vec<Ban>);

impl Found {
    /// Keeps the first `most`, once there are many more.
    fn keep(&mut self, most: usize) {
        if self.0.len() > most.saturating_mul(2).saturating_add(1_000) {
            self.0.sort_unstable_by_key(|ban| ban.target);
            self.0.truncate(most);
        }
    }

    pub(super) fn in_order(mut self, filter: &Filter) -> Vec<Ban> {
        self.0.sort_unstable_by_key(|ban| ban.target);
        self.0.truncate(filter.limit.unwrap_or(usize::MAX));
        self.0
    }
}

impl Controller {
    /// Bans by hand; refused if any target is. In force on return, to be acknowledged when saved.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn ban(&mut self, order: &BanOrder, clock: Clock) -> Result<Done<Vec<BanDone>>, ControlError> {
        for target in &order.targets {
            self.policy.permit(*target, order.force)?;
        }
        let lifetime = |target| self.lifetime(order.length, target, clock);
        let lifetimes = order.targets.iter().map(|target| lifetime(*target));
        let lifetimes = lifetimes.collect::<Result<Vec<_>, _>>()?;
        let (mut outcomes, mut changes) = (Vec::new(), Vec::new());
        for (target, lifetime) in order.targets.iter().zip(lifetimes) {
            let (outcome, change) = self.list.ban(
                NewBan {
                    target: *target,
                    origin: Origin::Manual,
                    rule: None,
                    reason: order.reason.clone(),
                    scope: order.scope,
                    lifetime,
                    created: None,
                    evidence: None,
                },
                clock,
            );
            outcomes.push(outcome);
            changes.extend(change);
        }
        self.enforce(&changes)?;
        let news = News {
            events: changes
                .iter()
                .filter_map(|change| self.ban_event(change, clock))
                .collect(),
            in_one: None,
            banned: order.targets.clone(),
        };
        let mut before: HashMap<Target, Ban> = changes
            .iter()
            .filter_map(|change| Some((change.target, change.before.as_ref()?.at(clock))))
            .collect();
        let value = order
            .targets
            .iter()
            .zip(outcomes)
            .filter_map(|(target, outcome)| {
                let ban = self.list.get(*target)?.at(clock);
                let before = before.remove(target).filter(|_| outcome == Outcome::Replaced);
                Some(BanDone { outcome, ban, before })
            })
            .collect();
        Ok(self.done(value, changes, news, clock))
    }

    fn lifetime(&self, length: Length, target: Target, clock: Clock) -> Result<Option<Duration>, Refusal> {
        let lifetime = match length {
            Length::Configured => self.config.bans.hand_duration,
            Length::For(time) => Some(time),
            Length::Until(end) => Some(end.duration_since(clock.wall).unwrap_or_default()),
            Length::Permanent => None,
        };
        if lifetime == Some(Duration::ZERO) {
            return Err(Refusal::NoTime(target));
        }
        Ok(lifetime.map(|lifetime| lifetime.min(units::LONGEST)))
    }

    pub(super) fn done<T>(&mut self, value: T, changes: Vec<Change>, news: News, clock: Clock) -> Done<T> {
        Done {
            value,
            receipt: self.save(&changes, clock),
            undo: Undo::Bans(self.pending.open(changes)),
            news,
        }
    }

    /// Journal and totals of a ban that a rule made or changed.
    pub(super) fn note_ban(&mut self, change: &Change, clock: Clock) {
        self.count_change(change);
        if let Some(event) = self.ban_event(change, clock) {
            self.journal.record(event);
        }
    }

    fn ban_event(&self, change: &Change, clock: Clock) -> Option<JournalEvent> {
        let entry = change.after.as_ref()?;
        let ban = &entry.ban;
        let length = entry.deadline.map(|end| end.saturating_sub(clock.boot));
        let extended = change.before.is_some() && change.past.is_none();
        let (kind, verb) = match (extended, self.config.simulate) {
            (true, _) => (JournalKind::BanExtended, "changed the ban of"),
            (false, false) => (JournalKind::BanAdded, "banned"),
            // Packets still pass: nobody must believe that this one is kept out.
            (false, true) => (JournalKind::WouldBan, "would ban (simulate mode)"),
        };
        let time = match length {
            Some(length) => format!(
                "for {}",
                units::format_duration(Duration::from_secs(length.as_secs()))
            ),
            None => "permanently".to_owned(),
        };
        let reason = if ban.reason.is_empty() {
            String::new()
        } else {
            format!(": {}", ban.reason)
        };
        Some(JournalEvent {
            target: Some(ban.target),
            origin: Some(ban.origin.clone()),
            rule: ban.rule,
            shadow: self.config.simulate,
            evidence: ban.evidence.as_deref().cloned(),
            ..JournalEvent::new(clock.wall, kind, format!("{verb} {} {time}{reason}", ban.target))
        })
    }

    /// Counts a ban that was made, or has ended, for metrics.
    pub(super) fn count_change(&mut self, change: &Change) {
        if let Some(entry) = &change.after
            && (change.before.is_none() || change.past.is_some())
        {
            let key = (entry.ban.origin.clone(), entry.ban.rule);
            *self.totals.added.entry(key).or_default() += 1;
        }
        if let Some(past) = &change.past {
            *self.totals.ended.entry(past.ended_by).or_default() += 1;
        }
    }

    /// Lifts bans. What an operator lets go starts anew with the rules.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn unban(&mut self, which: &Unban, clock: Clock) -> Result<Done<Vec<UnbanDone>>, ControlError> {
        let mut targets: Vec<Target> = match which {
            Unban::Targets(targets) => targets.clone(),
            Unban::Origin(origin) => {
                let all = self.list.iter().filter(|entry| entry.ban.origin == *origin);
                all.map(|entry| entry.ban.target).collect()
            }
            Unban::All => self.list.iter().map(|entry| entry.ban.target).collect(),
        };
        if !matches!(which, Unban::Targets(_)) {
            targets.sort_unstable();
        }
        let changes: Vec<Change> = targets
            .iter()
            .filter_map(|target| self.list.unban(*target, clock))
            .collect();
        self.enforce(&changes)?;
        let lifted = |change: &Change| JournalEvent {
            target: Some(change.target),
            origin: change.before.as_ref().map(|entry| entry.ban.origin.clone()),
            rule: change.before.as_ref().and_then(|entry| entry.ban.rule),
            ..JournalEvent::new(
                clock.wall,
                JournalKind::BanRemoved,
                format!("lifted the ban of {}", change.target),
            )
        };
        let news = News {
            events: changes.iter().map(lifted).collect(),
            in_one: (changes.len() > LOGGED_ONE_BY_ONE).then_some("lifted bans"),
            banned: Vec::new(),
        };
        self.forgiven.extend(changes.iter().map(|change| change.target));
        let removed: HashSet<Target> = changes.iter().map(|change| change.target).collect();
        let value = targets
            .into_iter()
            .map(|target| UnbanDone {
                target,
                removed: removed.contains(&target),
                still_banned_by: self.list.covering(target).next().map(|entry| entry.ban.target),
            })
            .collect();
        Ok(self.done(value, changes, news, clock))
    }

    /// The bans that match, by target.
    #[must_use]
    pub fn list(&self, filter: &Filter, clock: Clock) -> Vec<Ban> {
        let mut found = Found::default();
        for part in 0.. {
            if !self.list_part(part, filter, &mut found, clock) {
                break;
            }
        }
        found.in_order(filter)
    }

    /// Adds the bans of one part of the list that match; `false` behind the last part.
    pub(super) fn list_part(&self, part: usize, filter: &Filter, found: &mut Found, clock: Clock) -> bool {
        let Some(entries) = self.list.part(part) else {
            return false;
        };
        let of_origin = |entry: &&Entry| {
            let origin = filter.origin.as_ref();
            origin.is_none_or(|origin| entry.ban.origin == *origin)
        };
        let within = |entry: &&Entry| {
            let net = filter.within;
            net.is_none_or(|net| net.net().contains(&entry.ban.target.net()))
        };
        let matching = entries
            .filter(of_origin)
            .filter(within)
            .filter(|entry| !entry.over(clock));
        found.0.extend(matching.map(|entry| entry.at(clock)));
        found.keep(filter.limit.unwrap_or(usize::MAX));
        true
    }

    /// Everything known about an address.
    #[must_use]
    pub fn check(&self, ip: IpAddr, clock: Clock) -> Checked {
        let address = Target::address(ip);
        let bans: Vec<Ban> = self
            .list
            .check(ip)
            .filter(|entry| entry.deadline.is_none_or(|end| end > clock.boot))
            .map(|entry| entry.at(clock))
            .collect();
        let own = self.policy.is_own(ip).then_some(address);
        let allowed_by = own.or_else(|| self.policy.allowed_by(address).map(|(by, _)| by));
        let history = self.list.history().covering(address);
        let (trust, proof) = self.known(ip, clock);
        Checked {
            trust,
            proof,
            banned: !bans.is_empty() && allowed_by.is_none(),
            bans,
            allowed_by,
            history: history.into_iter().map(|(of, past)| (of, past.clone())).collect(),
        }
    }

    /// Takes over a list, or finds out what that would do.
    ///
    /// # Errors
    /// [`ControlError`]; nothing was changed.
    pub fn import(
        &mut self,
        entries: Vec<ImportBan>,
        options: ImportOptions,
        clock: Clock,
    ) -> Result<Done<Imported>, ControlError> {
        let mut report = Imported::default();
        let mut permitted = Vec::with_capacity(entries.len());
        for (index, entry) in entries.into_iter().enumerate() {
            let target = entry.target;
            let lifetime = self
                .policy
                .permit(target, options.force)
                .and_then(|()| self.lifetime(entry.length, target, clock));
            match lifetime {
                Ok(lifetime) => permitted.push((entry, lifetime)),
                Err(refusal) if options.skip_refused || options.dry_run => {
                    report.skipped.push((index, target, refusal));
                }
                Err(refusal) => return Err(ControlError::EntryRefused { index, refusal }),
            }
        }
        let mut changes = Vec::with_capacity(permitted.len());
        for (entry, lifetime) in permitted {
            let (outcome, change) = self.list.ban(
                NewBan {
                    target: entry.target,
                    origin: entry.origin,
                    rule: entry.rule,
                    reason: entry.reason,
                    scope: entry.scope,
                    lifetime,
                    created: entry.created,
                    evidence: None,
                },
                clock,
            );
            match outcome {
                Outcome::Added => report.added += 1,
                Outcome::Replaced | Outcome::Extended => report.replaced += 1,
                Outcome::Unchanged => report.unchanged += 1,
            }
            changes.extend(change);
        }
        if options.dry_run {
            for change in changes.iter().rev() {
                self.list.revert(change);
            }
            let new = changes.iter().filter(|change| change.before.is_none());
            let new: Vec<Target> = new.map(|change| change.target).collect();
            for plane in &mut self.planes {
                plane.image().room_for(&new)?;
            }
            return Ok(self.done(report, Vec::new(), News::default(), clock));
        }
        self.enforce(&changes)?;
        let mut news = News {
            banned: changes.iter().map(|change| change.target).collect(),
            ..News::default()
        };
        if !changes.is_empty() {
            // One line for all: a list of thousands would push everything else out of the journal.
            let message = format!(
                "imported a list: {} new bans, {} changed, {} left out",
                report.added,
                report.replaced,
                report.skipped.len()
            );
            news.events.push(JournalEvent {
                origin: Some(Origin::Import),
                ..JournalEvent::new(clock.wall, JournalKind::BanAdded, message)
            });
        }
        Ok(self.done(report, changes, news, clock))
    }
}
