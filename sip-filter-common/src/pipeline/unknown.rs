//! The budget that all sources share which are neither trusted nor allow-listed.
//!
//! A flood from a million forged addresses stays below every limit of a single source; here it ends, while trusted
//! sources do not compete with it. CPUs take from the shared budget a few packets at a time, so that they do not fight
//! over its word for every packet.

use super::Tables;
use crate::{
    abi::Config,
    limiter::{Admission, admit},
    sip::Class,
    table::{Line, Memory},
};

/// Packets a CPU takes from the budget at once: by so many times the number of CPUs a burst can exceed it.
const BATCH: u32 = 16;
/// As in [`crate::table::source`].
const TRIES: usize = 4;

/// Takes one packet from the budget; whether there was one.
#[inline(always)]
pub(super) fn within_unknown_budget<T: Tables>(tables: &T, config: &Config, class: Class, now: u64) -> bool {
    let index = tables.forget(class as u64) as usize & (Class::COUNT - 1);
    let limit = config.unknown_budget[index];
    if limit.interval == 0 {
        return true;
    }
    let in_hand = tables.share(class, |share| {
        let some = *share > 0;
        *share = share.saturating_sub(1);
        some
    });
    if in_hand {
        return true;
    }
    let Some(line) = tables.unknown().line(0) else {
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
