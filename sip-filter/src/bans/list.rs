//! The list itself. Pure: time is passed in, nothing is read or written.
//!
//! Every operation returns [`Change`]s. The same value is then written to the kernel tables and to the store, and
//! taken back if one of them refuses.

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    time::{Duration, SystemTime},
};

use super::{Ban, Clock, EndedBy, Evidence, History, Origin, Past, PrefixMap, Scope, Target};
use crate::detect::Rule;

/// A ban to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewBan {
    /// Who.
    pub target: Target,
    /// Who bans.
    pub origin: Origin,
    /// The detection rule, if one decided.
    pub rule: Option<Rule>,
    /// Why, for people.
    pub reason: String,
    /// What to stop.
    pub scope: Scope,
    /// How long from now; `None` is permanent.
    pub lifetime: Option<Duration>,
    /// When it was made, if it is an older one brought back.
    pub created: Option<SystemTime>,
    /// What the rule saw.
    pub evidence: Option<Box<Evidence>>,
}

/// A ban in force, with the boot time at which it ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The ban; its `expires` is as it was when the ban was made or changed, see [`Entry::at`].
    pub ban: Ban,
    /// Boot time at which it ends; `None` is permanent.
    pub deadline: Option<Duration>,
}

impl Entry {
    /// The ban with its end as the wall clock stands now: after the clock was stepped, the end moves with it.
    #[must_use]
    pub fn at(&self, clock: Clock) -> Ban {
        Ban {
            expires: self.deadline.map(|deadline| clock.to_wall(deadline)),
            ..self.ban.clone()
        }
    }

    /// Whether it has ended, collected or not.
    #[must_use]
    pub fn over(&self, clock: Clock) -> bool {
        self.deadline.is_some_and(|deadline| deadline <= clock.boot)
    }
}

/// What became of a [`NewBan`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not banned before.
    Added,
    /// The ban before was replaced, or its end, reason or scope changed.
    Replaced,
    /// An automatic ban now ends later.
    Extended,
    /// The ban in force stays as it is.
    Unchanged,
}

/// A target before and after an operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who.
    pub target: Target,
    /// The entry before.
    pub before: Option<Entry>,
    /// The entry now.
    pub after: Option<Entry>,
    /// The ban that ended by it, now in the history.
    pub past: Option<Past>,
}

/// All bans in force.
#[derive(Clone, Debug, Default)]
pub struct BanList {
    /// In boxes: a hash map keeps room for up to twice its entries, and moves all of them when it grows.
    entries: PrefixMap<Box<Entry>>,
    deadlines: BTreeSet<(Duration, Target)>,
    history: History,
    counts: Counts,
}

/// Number of bans by origin, scope and whether they are of IPv4.
pub type Counts = HashMap<(Origin, Scope, bool), u64>;

/// Whose word counts more: an operator's over a file's over a rule's.
fn rank(origin: &Origin) -> u8 {
    match origin {
        Origin::Manual => 2,
        Origin::Import => 1,
        Origin::Detector => 0,
    }
}

/// Whether a deadline lies after another; none at all is the latest.
fn later(a: Option<Duration>, b: Option<Duration>) -> bool {
    match (a, b) {
        (_, None) => false,
        (None, Some(_)) => true,
        (Some(a), Some(b)) => a > b,
    }
}

impl BanList {
    /// Bans a target, or changes its ban:
    /// - a ban of the same origin is updated: it keeps its start and its hits. A rule never shortens its own ban;
    /// - one of a lesser origin is replaced and goes to the history;
    /// - one of a higher origin is only ever made longer, and stays that origin's in every other respect.
    pub fn ban(&mut self, new: NewBan, clock: Clock) -> (Outcome, Option<Change>) {
        let target = new.target;
        // One that ended but has not been collected yet is gone already, as it is for the kernel.
        let ended = match self.entries.get(target) {
            Some(entry) if entry.over(clock) => self.end(target, clock, EndedBy::Expired),
            _ => None,
        };
        let deadline = new.lifetime.map(|lifetime| clock.boot.saturating_add(lifetime));
        let Some(old) = self.get(target).cloned() else {
            let after = Entry {
                ban: Ban {
                    target,
                    origin: new.origin,
                    rule: new.rule,
                    reason: new.reason,
                    scope: new.scope,
                    created: new.created.unwrap_or(clock.wall),
                    expires: deadline.map(|deadline| clock.to_wall(deadline)),
                    hits: 0,
                    last_hit: None,
                    evidence: new.evidence,
                },
                deadline,
            };
            self.set(target, Some(after.clone()));
            let (before, past) = ended.map_or((None, None), |change| (change.before, change.past));
            let change = Change {
                target,
                before,
                after: Some(after),
                past,
            };
            return (Outcome::Added, Some(change));
        };

        let mut after = old.clone();
        let mut past = None;
        let outcome = if rank(&new.origin) < rank(&old.ban.origin) {
            if !later(deadline, old.deadline) {
                return (Outcome::Unchanged, None);
            }
            after.deadline = deadline;
            Outcome::Extended
        } else if new.origin == old.ban.origin {
            let automatic = new.origin == Origin::Detector;
            if automatic && !later(deadline, old.deadline) {
                return (Outcome::Unchanged, None);
            }
            after.deadline = deadline;
            after.ban.rule = new.rule;
            after.ban.reason = new.reason;
            after.ban.scope = new.scope;
            after.ban.evidence = new.evidence;
            if automatic {
                Outcome::Extended
            } else {
                Outcome::Replaced
            }
        } else {
            let ended = past_of(&old.ban, clock, EndedBy::Replaced);
            self.history.push(target, ended.clone());
            past = Some(ended);
            after = Entry {
                ban: Ban {
                    target,
                    origin: new.origin,
                    rule: new.rule,
                    reason: new.reason,
                    scope: new.scope,
                    created: new.created.unwrap_or(clock.wall),
                    expires: None,
                    hits: 0,
                    last_hit: None,
                    evidence: new.evidence,
                },
                deadline,
            };
            Outcome::Replaced
        };
        after.ban.expires = after.deadline.map(|deadline| clock.to_wall(deadline));
        if after == old {
            return (Outcome::Unchanged, None);
        }
        self.set(target, Some(after.clone()));
        let change = Change {
            target,
            before: Some(old),
            after: Some(after),
            past,
        };
        (outcome, Some(change))
    }

    /// Prolongs the ban in force that `rule` made, and changes nothing else of it. `None` if there is no such ban;
    /// `Some(None)` if it ends late enough.
    pub fn slide(
        &mut self,
        target: Target,
        rule: Rule,
        lifetime: Duration,
        clock: Clock,
    ) -> Option<Option<Change>> {
        let made_by = |entry: &&Entry| {
            entry.ban.origin == Origin::Detector && entry.ban.rule == Some(rule) && !entry.over(clock)
        };
        let old = self.get(target).filter(made_by)?.clone();
        let deadline = Some(clock.boot.saturating_add(lifetime));
        if !later(deadline, old.deadline) {
            return Some(None);
        }
        let mut after = old.clone();
        after.deadline = deadline;
        after.ban.expires = deadline.map(|deadline| clock.to_wall(deadline));
        self.set(target, Some(after.clone()));
        Some(Some(Change {
            target,
            before: Some(old),
            after: Some(after),
            past: None,
        }))
    }

    /// Moves the end of a ban, and changes nothing else of it.
    pub fn end_at(&mut self, target: Target, end: Duration, clock: Clock) -> Option<Change> {
        let before = self.get(target)?.clone();
        let mut after = before.clone();
        after.deadline = Some(end);
        after.ban.expires = Some(clock.to_wall(end));
        self.set(target, Some(after.clone()));
        Some(Change {
            target,
            before: Some(before),
            after: Some(after),
            past: None,
        })
    }

    /// Lifts the ban of exactly this target.
    pub fn unban(&mut self, target: Target, clock: Clock) -> Option<Change> {
        self.end(target, clock, EndedBy::Unbanned)
    }

    /// Removes everything that has ended.
    pub fn expire(&mut self, clock: Clock) -> Vec<Change> {
        self.expire_some(clock, usize::MAX)
    }

    /// Removes at most so many of what has ended, those that ended first.
    pub fn expire_some(&mut self, clock: Clock, most: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some((deadline, target)) = self.deadlines.first().copied() {
            if deadline > clock.boot || changes.len() >= most {
                break;
            }
            match self.end(target, clock, EndedBy::Expired) {
                Some(change) => changes.push(change),
                None => drop(self.deadlines.pop_first()),
            }
        }
        changes
    }

    fn end(&mut self, target: Target, clock: Clock, ended_by: EndedBy) -> Option<Change> {
        let before = self.set(target, None)?;
        let past = past_of(&before.at(clock), clock, ended_by);
        self.history.push(target, past.clone());
        Some(Change {
            target,
            before: Some(before),
            after: None,
            past: Some(past),
        })
    }

    /// Undoes a change. Several are undone in reverse order.
    pub fn revert(&mut self, change: &Change) {
        if let Some(past) = &change.past {
            self.history.take_back(change.target, past);
        }
        self.set(change.target, change.before.clone());
    }

    /// Puts back an entry from the store.
    pub fn restore(&mut self, entry: Entry) {
        self.set(entry.ban.target, Some(entry));
    }

    fn set(&mut self, target: Target, entry: Option<Entry>) -> Option<Entry> {
        let deadline = entry.as_ref().and_then(|entry| entry.deadline);
        if let Some(entry) = &entry {
            *self.counts.entry(kind(entry)).or_default() += 1;
        }
        let old = match entry {
            Some(entry) => self.entries.insert(target, Box::new(entry)),
            None => self.entries.remove(target),
        };
        let old = old.map(|old| *old);
        if let Some(old) = &old
            && let Some(count) = self.counts.get_mut(&kind(old))
        {
            *count -= 1;
        }
        if let Some(old) = old.as_ref().and_then(|old| old.deadline) {
            self.deadlines.remove(&(old, target));
        }
        if let Some(deadline) = deadline {
            self.deadlines.insert((deadline, target));
        }
        old
    }

    /// Counts packets that a ban stopped; tells whether there is such a ban.
    pub fn add_hits(&mut self, target: Target, packets: u64, clock: Clock) -> bool {
        let Some(entry) = self.entries.get_mut(target) else {
            return false;
        };
        entry.ban.hits = entry.ban.hits.saturating_add(packets);
        entry.ban.last_hit = Some(clock.wall);
        true
    }

    /// The ban of exactly this target.
    #[must_use]
    pub fn get(&self, target: Target) -> Option<&Entry> {
        self.entries.get(target).map(Box::as_ref)
    }

    /// Bans in which an address lies, the most specific first.
    pub fn check(&self, ip: IpAddr) -> impl Iterator<Item = &Entry> {
        self.covering(Target::address(ip))
    }

    /// Bans that cover the whole of a target, itself included, the most specific first.
    pub fn covering(&self, target: Target) -> impl Iterator<Item = &Entry> {
        self.entries.covering(target).map(|(_, entry)| entry.as_ref())
    }

    /// All bans, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Entry> {
        self.entries.iter().map(|(_, entry)| entry.as_ref())
    }

    /// The bans of one part of the list, in no order; `None` behind the last. Going through all parts meets every ban
    /// that is there all the time once, whatever changes in between.
    #[must_use]
    pub fn part(&self, part: usize) -> Option<impl ExactSizeIterator<Item = &Entry>> {
        Some(self.entries.part(part)?.map(|(_, entry)| entry.as_ref()))
    }

    /// Number of bans by what they are; those of which there are none may be there, too.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Number of bans.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Earlier bans.
    #[must_use]
    pub fn history(&self) -> &History {
        &self.history
    }

    /// Bans by rules that count against a target, with the end of the last: those of the history, and the one in
    /// force.
    #[must_use]
    pub fn offences(&self) -> Vec<(Target, u32, SystemTime)> {
        let mut offences: HashMap<Target, (u32, SystemTime)> = self
            .history
            .offences()
            .map(|(target, count, ended)| (target, (count, ended)))
            .collect();
        for entry in self.iter().filter(|entry| entry.ban.origin == Origin::Detector) {
            let ended = entry.ban.expires.unwrap_or(entry.ban.created);
            let offence = offences.entry(entry.ban.target).or_insert((0, ended));
            offence.0 += 1;
            offence.1 = offence.1.max(ended);
        }
        offences
            .into_iter()
            .map(|(target, (count, ended))| (target, count, ended))
            .collect()
    }

    /// Earlier bans.
    pub fn history_mut(&mut self) -> &mut History {
        &mut self.history
    }
}

fn kind(entry: &Entry) -> (Origin, Scope, bool) {
    let is_ipv4 = matches!(entry.ban.target.net(), ipnet::IpNet::V4(_));
    (entry.ban.origin.clone(), entry.ban.scope, is_ipv4)
}

fn past_of(ban: &Ban, clock: Clock, ended_by: EndedBy) -> Past {
    Past {
        origin: ban.origin.clone(),
        rule: ban.rule,
        reason: ban.reason.clone(),
        created: ban.created,
        ended: match (ended_by, ban.expires) {
            (EndedBy::Expired, Some(expires)) => expires,
            _ => clock.wall,
        },
        ended_by,
    }
}

#[cfg(test)]
#[path = "list_tests.rs"]
mod tests;
