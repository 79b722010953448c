//! Where user space finds what was counted of a source and is told with its next event.

use super::{RECENT_ENTRIES, prefix6};
use crate::{abi::EventKind, packet::Ip, sip::Class, table::source::SourceKey};

/// Index and key of the entry of [`super::Recent`] for events of a kind about a source, on each CPU. Sources are
/// counted by the first `source_prefix6` bits of an IPv6 address.
#[must_use]
pub const fn recent_of(
    seed: [u64; 2],
    source_prefix6: u32,
    source: Ip,
    (class, kind): (Class, EventKind),
) -> (u32, u64) {
    let key = match source {
        Ip::V4(address) => SourceKey::v4(address, class),
        Ip::V6([high, _]) => SourceKey::v6(seed, prefix6(high, source_prefix6), class),
    };
    let index = ((key.place(seed) >> 40) as u32 ^ kind as u32) & (RECENT_ENTRIES - 1);
    (index, key.number() ^ (kind as u64) << 60)
}
