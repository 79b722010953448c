//! Events: what user space gets to see, within bounds.

use super::{Budget, RECENT_ENTRIES, Recent, Subject, Tables};
use crate::{
    abi::{Address, Config, EventHeader, EventKind, SNAPSHOT_MAX, WINDOW_SHIFT},
    packet::{Ip, OFFSET_MASK, Packet},
    sip::Class,
    table::{hash, source::SourceKey},
};

/// What to report.
pub(super) struct Report {
    pub(super) class: Class,
    pub(super) kind: EventKind,
    pub(super) key: SourceKey,
}

/// Sends an event unless the source had its share of this window or the CPU its own; what is not sent is added to
/// the count of the source's next event.
#[inline(always)]
pub(super) fn report<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    config: &Config,
    subject: &Subject,
    report: &Report,
) {
    let ports = &subject.ports;
    let over_limit = matches!(report.kind, EventKind::OverLimit);
    let share = if over_limit {
        1
    } else {
        config.snapshots_per_source
    };
    let key = report.key.number() ^ (over_limit as u64) << 62;
    let window = (subject.now >> WINDOW_SHIFT) as u32;
    let index = hash(config.seed, key, 5) as u32 & (RECENT_ENTRIES - 1);
    let count = tables.recent(index, |recent| {
        if recent.key != key {
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
        if recent.sent >= share || !within_budget(tables, config, window) {
            return 0;
        }
        recent.sent += 1;
        core::mem::take(&mut recent.pending)
    });
    let count = tables.forget(count.unwrap_or(0) as u64) as u32;
    if count == 0 {
        return;
    }
    let longest = if config.snapshot_bytes as usize > SNAPSHOT_MAX {
        SNAPSHOT_MAX
    } else {
        config.snapshot_bytes as usize
    };
    let captured = if ports.payload_len > longest {
        longest
    } else {
        ports.payload_len
    };
    let header = EventHeader {
        time: subject.now,
        source: subject.source.address(),
        destination: destination(packet, subject),
        count,
        source_port: ports.source,
        destination_port: ports.destination,
        kind: report.kind as u8,
        class: report.class as u8,
        protocol: ports.protocol,
        dropped: over_limit as u8,
        payload_len: ports.payload_len as u16,
        captured: captured as u16,
    };
    tables.emit(packet, &header, ports.payload);
}

#[inline(always)]
fn within_budget<T: Tables>(tables: &T, config: &Config, window: u32) -> bool {
    let within = tables.budget(|budget| {
        if budget.window != window {
            *budget = Budget { window, sent: 0 };
        }
        if budget.sent >= config.events_per_window {
            return false;
        }
        budget.sent += 1;
        true
    });
    if within == Some(false) {
        tables.count_suppressed();
    }
    within == Some(true)
}

#[inline(always)]
fn destination<P: Packet>(packet: &P, subject: &Subject) -> Address {
    let offset = subject.destination & OFFSET_MASK;
    match subject.source {
        Ip::V4(_) => packet.read(offset).map(Address::v4),
        Ip::V6(_) => packet.read(offset).map(Address),
    }
    .unwrap_or_default()
}
