//! The budget that all sources share which are neither trusted nor allow-listed.
//!
//! A flood from a million forged addresses stays below every limit of a single source; here it ends, while trusted
//! sources do not compete with it. CPUs take from the shared budget a few packets at a time, so that they do not fight
//! over its word for every packet.
//!
//! **Fresh before returning.** A forged address does not come back, whereas a phone sends again what was not answered
//! within 500 ms (T1, RFC 3261 §17.1). So while the budget is short, sources that were never seen before get a small
//! part of it only, and those that return may use all of it: a flood is held to the small part, and a newcomer comes in
//! with its first retransmission. It is short from the moment half the burst is used until for the time in which an
//! empty bucket fills nobody was refused: if refusals did not prolong it, the flood would have whatever the bucket
//! regains. In peace the first packet of every source is admitted as any other.

use super::Tables;
use crate::{
    abi::{Config, Limit},
    limiter::{Admission, admit},
    sip::Class,
    table::{Line, Memory},
};

/// Packets a CPU takes from the budget at once: by so many times the number of CPUs a burst can exceed it.
const BATCH: u32 = 16;
/// As in [`crate::table::source`].
const TRIES: usize = 4;

/// Buckets of [`Tables::unknown`]: state of the whole budget, of the part for fresh sources, and the time until which
/// these have to make do with their part.
const WHOLE: u32 = 0;
const FRESH: u32 = 1;
const SHORT_UNTIL: u32 = 2;

/// Takes one packet from the budget; whether there was one. `fresh` are sources never seen before.
#[inline(always)]
pub(super) fn within_unknown_budget<T: Tables>(
    tables: &T,
    config: &Config,
    (class, fresh): (Class, bool),
    now: u64,
) -> bool {
    let index = tables.forget(class as u64) as usize & (Class::COUNT - 1);
    let limit = config.unknown_budget[index];
    if limit.interval == 0 {
        return true;
    }
    if fresh {
        let part = config.fresh_budget[index];
        if part.interval != 0 && tables.forget(fresh_may_take(tables, limit, part, index, now) as u64) == 0 {
            return false;
        }
    }
    let index = tables.forget(index as u64) as usize & (Class::COUNT - 1);
    let in_hand = tables.share(class, |share| {
        let some = *share > 0;
        *share = share.saturating_sub(1);
        some
    });
    if in_hand {
        return true;
    }
    let Some(line) = tables.unknown().line(WHOLE) else {
        return true;
    };
    let mut tries = 0;
    while tries < TRIES {
        let state = line.load(index);
        let Admission::Admit(one) = admit(limit, state, now) else {
            return false;
        };
        let batch = one.wrapping_add(limit.interval.wrapping_mul(BATCH as u64 - 1));
        if line.compare_exchange(index, state, batch) {
            tables.share(class, |share| *share = BATCH - 1);
            return true;
        }
        tries += 1;
    }
    true
}

/// Whether a source that was never seen before may take from the budget `whole`: while it is short, only what `part`
/// grants to all of them. That is taken packet by packet: it is little.
#[inline(always)]
fn fresh_may_take<T: Tables>(tables: &T, whole: Limit, part: Limit, index: usize, now: u64) -> bool {
    let unknown = tables.unknown();
    let (Some(budget), Some(short)) = (unknown.line(WHOLE), unknown.line(SHORT_UNTIL)) else {
        return true;
    };
    let until = short.load(index);
    let is_short = until > now;
    if !is_short && budget.load(index).saturating_sub(now) <= whole.tolerance / 2 {
        return true;
    }
    let end = now.wrapping_add(whole.tolerance);
    if !is_short {
        short.store(index, end);
    }
    let Some(fresh) = unknown.line(FRESH) else {
        return true;
    };
    let mut tries = 0;
    while tries < TRIES {
        let state = fresh.load(index);
        let Admission::Admit(new) = admit(part, state, now) else {
            // The end is moved a few times in its length, not for every packet of a flood.
            if end.saturating_sub(short.load(index)) > whole.tolerance / 8 {
                short.store(index, end);
            }
            return false;
        };
        if fresh.compare_exchange(index, state, new) {
            return true;
        }
        tries += 1;
    }
    // Other CPUs have taken it.
    false
}

#[cfg(test)]
mod tests;
