//! Sums of what the CPUs counted.

use sip_filter_common::{
    abi::{self, Counters, Family, counter_index},
    verdict::Reason,
};

/// Counters at zero.
#[must_use]
pub fn zero() -> Box<Counters> {
    Box::new(Counters {
        by_reason: [0; abi::COUNTER_WORDS],
        by_class: [0; sip_filter_common::sip::Class::COUNT],
        events_lost: 0,
        events_suppressed: 0,
    })
}

/// Adds the counters of one CPU.
pub(crate) fn add(sum: &mut Counters, part: &Counters) {
    let Counters {
        by_reason,
        by_class,
        events_lost,
        events_suppressed,
    } = part;
    for (total, value) in sum.by_reason.iter_mut().zip(by_reason) {
        *total += value;
    }
    for (total, value) in sum.by_class.iter_mut().zip(by_class) {
        *total += value;
    }
    sum.events_lost += events_lost;
    sum.events_suppressed += events_suppressed;
}

/// Packets of a reason, enforced and simulated, of all families.
pub(crate) fn packets(counters: &Counters, reason: Reason) -> u64 {
    let index = |family, simulated| counter_index(reason as u8, family, simulated);
    let both = |family| counters.by_reason[index(family, false)] + counters.by_reason[index(family, true)];
    Family::ALL.map(both).iter().sum()
}
