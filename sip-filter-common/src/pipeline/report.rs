//! Events: what user space gets to see, within bounds.

use super::{Budget, Lane, RECENT_ENTRIES, Recent, Subject, Tables};
use crate::{
    abi::{Address, Config, EventHeader, EventKind, SNAPSHOT_MAX, WINDOW_SHIFT},
    packet::{Ip, OFFSET_MASK, Packet},
    sip::Class,
    table::source::SourceKey,
    verdict::Reason,
};

/// An event that is due, packed into a number: count, class, whether it is about a stray, and kind, from the highest
/// bits to the lowest; zero is none. Like this it passes through [`crate::table::Forget`] as a whole, and the header is written in one place, which
/// keeps the verifier's work bounded.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Due(u64);

impl Due {
    pub(super) const NONE: Self = Self(0);
    const KIND_BITS: u32 = 3;
    const STRAY_BITS: u32 = 1;
    const CLASS_BITS: u32 = 8;
    const CLASS_SHIFT: u32 = Self::KIND_BITS + Self::STRAY_BITS;
    const COUNT_SHIFT: u32 = Self::CLASS_SHIFT + Self::CLASS_BITS;

    #[inline(always)]
    const fn new(kind: EventKind, class: u8, stray: u64, count: u32) -> Self {
        let head = (class as u64) << Self::CLASS_SHIFT | (stray & 1) << Self::KIND_BITS | kind as u64;
        Self((count as u64) << Self::COUNT_SHIFT | head)
    }

    #[inline(always)]
    pub(super) const fn from_number(number: u64) -> Self {
        Self(number)
    }

    #[inline(always)]
    pub(super) const fn number(self) -> u64 {
        self.0
    }

    #[inline(always)]
    const fn kind(self) -> u8 {
        self.0 as u8 & ((1 << Self::KIND_BITS) - 1)
    }

    #[inline(always)]
    const fn class(self) -> u8 {
        (self.0 >> Self::CLASS_SHIFT) as u8
    }

    #[inline(always)]
    const fn count(self) -> u32 {
        (self.0 >> Self::COUNT_SHIFT) as u32
    }

    #[inline(always)]
    const fn stray(self) -> u8 {
        (self.0 >> Self::KIND_BITS) as u8 & 1
    }
}

/// Whether an event about a source is due, or its count is added to the source's next event: because the source had its
/// `share` of events of this window, or the CPU its own. `place` is the key's; `stray` is 1 for a trusted source at
/// another endpoint.
#[inline(always)]
pub(super) fn due<T: Tables>(
    tables: &T,
    config: &Config,
    now: u64,
    (kind, class, share): (EventKind, Class, u32),
    (key, place, stray): (SourceKey, u64, u64),
) -> Due {
    let lane = match kind {
        EventKind::Response => Lane::Egress,
        EventKind::OverLimit | EventKind::Snapshot | EventKind::Dropped => Lane::Ingress,
    };
    // The upper bits of a key are free, or random in it.
    let key = key.number() ^ (kind as u64) << 60;
    let window = (now >> WINDOW_SHIFT) as u32;
    // Bits of the hash that the source table does not use; the kinds of events of one source lie apart.
    let index = ((place >> 40) as u32 ^ kind as u32) & (RECENT_ENTRIES - 1);
    let count = tables.recent(index, |recent| {
        if recent.key != key {
            // What is only counted takes no place from a source of which something is told.
            if share == 0 && window.wrapping_sub(recent.window) < 2 {
                return 0;
            }
            *recent = Recent {
                key,
                window,
                ..Recent::default()
            };
        } else if recent.window != window {
            recent.window = window;
            recent.sent = 0;
        }
        recent.pending = recent.pending.saturating_add(1);
        if recent.sent >= share || !within_budget(tables, lane, config.events_per_window, window) {
            return 0;
        }
        recent.sent += 1;
        core::mem::take(&mut recent.pending)
    });
    let count = tables.forget(count.unwrap_or(0) as u64) as u32;
    if count == 0 {
        Due::NONE
    } else {
        Due::new(kind, class as u8, stray, count)
    }
}

/// Whether a copy of a dropped frame is to be sent.
#[inline(always)]
pub(super) fn due_copy<T: Tables>(tables: &T, config: &Config, now: u64, reason: u8) -> Due {
    let window = (now >> WINDOW_SHIFT) as u32;
    if !within_budget(tables, Lane::Drops, config.drop_captures_per_window, window) {
        return Due::NONE;
    }
    Due::new(EventKind::Dropped, reason, 0, 1)
}

#[inline(always)]
fn within_budget<T: Tables>(tables: &T, lane: Lane, most: u32, window: u32) -> bool {
    let within = tables.budget(lane, |budget| {
        if budget.window != window {
            *budget = Budget { window, sent: 0 };
        }
        if budget.sent >= most {
            return false;
        }
        budget.sent += 1;
        true
    });
    if !within {
        tables.count_suppressed();
    }
    within
}

/// Sends an event.
#[inline(always)]
pub(super) fn send<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    config: &Config,
    subject: &Subject,
    due: Due,
) {
    let ports = &subject.ports;
    let is_copy = due.kind() == EventKind::Dropped as u8;
    let (start, length, longest) = if is_copy {
        (0, packet.len(subject.reach), SNAPSHOT_MAX)
    } else {
        (
            ports.payload,
            ports.payload_len,
            min(config.snapshot_bytes as usize, SNAPSHOT_MAX),
        )
    };
    let start = tables.forget(start as u64) as usize;
    let length = tables.forget(length as u64) as usize;
    let captured = tables.forget(min(length, longest) as u64);
    let header = EventHeader {
        time: subject.now,
        source: subject.source.address(),
        destination: destination(packet, subject),
        count: due.count(),
        source_port: ports.source,
        destination_port: ports.destination,
        kind: due.kind(),
        class: due.class(),
        protocol: ports.protocol,
        dropped: (is_copy || due.kind() == EventKind::OverLimit as u8) as u8,
        payload_len: length as u16,
        captured: captured as u16,
        hops: subject.hops,
        stray: due.stray(),
        reserved: [0; 6],
    };
    tables.emit(packet, &header, start);
}

#[inline(always)]
const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}

/// The other end of the packet: its destination, or for a response its source.
#[inline(always)]
fn destination<P: Packet>(packet: &P, subject: &Subject) -> Address {
    let offset = subject.destination & OFFSET_MASK;
    // In words, as in `Ip::address`; unspecified, should it lie outside the frame.
    let double = |offset| packet.read(offset).map_or(0, u64::from_be_bytes);
    let (high, low) = match subject.source {
        Ip::V4(_) => {
            let address = packet.read(offset).map_or(0, u32::from_be_bytes);
            (0, 0xffff << 32 | address as u64)
        }
        Ip::V6(_) => (double(offset), double(offset + 8)),
    };
    Address::from_words(high, low)
}

/// A verdict and the event it causes.
#[derive(Clone, Copy)]
pub(super) struct Outcome {
    pub(super) reason: Reason,
    pub(super) due: Due,
}

impl From<Reason> for Outcome {
    #[inline(always)]
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            due: Due::NONE,
        }
    }
}
