//! What a decision rests on besides the packet.

use crate::{
    abi::{Config, EventHeader, Family, flags},
    packet::{Head, Ip, Packet, TCP},
    sip::{Class, classify},
    table::{Fate, Forget, Memory, hash, network::Effect},
};

/// What the network trie says of a source: the merged effect of every ban and allowance on a network around it, so
/// that one longest-prefix match answers for all of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct NetworkValue {
    /// Ban of SIP traffic, the one that lasts longest.
    pub sip: Fate,
    /// Ban of all traffic, the one that lasts longest.
    pub all: Fate,
    /// Not zero if the source is allow-listed.
    pub allowed: u32,
    /// Packets dropped by this entry, wrapping.
    pub hits: u32,
}

impl NetworkValue {
    /// The same in one word.
    #[inline(always)]
    #[must_use]
    pub const fn effect(self) -> Effect {
        Effect::new(self.sip, self.all, self.allowed != 0)
    }
}

/// Counter of one source's events of one kind, in a direct-mapped table of each CPU.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Recent {
    /// Source, class and kind.
    pub key: u64,
    /// Window it was last seen in.
    pub window: u32,
    /// Events sent in that window.
    pub sent: u32,
    /// Packets seen since the last event.
    pub pending: u32,
    /// Not used.
    pub reserved: u32,
}

/// Entries of the table of [`Recent`], for each CPU.
pub const RECENT_ENTRIES: u32 = 4096;

/// What a CPU's events are budgeted by, so that none of them starves another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Lane {
    /// Snapshots and over-limit reports.
    Ingress = 0,
    /// Responses.
    Egress = 1,
    /// Copies of dropped frames.
    Drops = 2,
}

/// Events sent by one CPU in the current window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Budget {
    /// The window.
    pub window: u32,
    /// Events sent in it.
    pub sent: u32,
}

const _: () = {
    assert!(size_of::<NetworkValue>() == 16 && align_of::<NetworkValue>() == 4);
    assert!(size_of::<Recent>() == 24);
    assert!(size_of::<Budget>() == 8);
};

/// Everything a decision rests on besides the packet, and everything it leaves behind.
pub trait Tables: Forget {
    /// A flat table.
    type Memory: Memory;

    /// The configuration in force.
    fn config(&self) -> Option<&Config>;
    /// Whether some ban stops all traffic: [`flags::ALL`]. The kernel program knows without the configuration.
    #[inline(always)]
    fn stops_all(&self) -> bool {
        self.config().is_some_and(|config| config.flags & flags::ALL != 0)
    }
    /// Boot time in nanoseconds, coarse.
    fn now(&self) -> u64;
    /// A uniformly distributed number.
    fn random(&self) -> u32;
    /// Bans of IPv4 addresses.
    fn ban4(&self) -> &Self::Memory;
    /// Bans of IPv6 prefixes of the counted length.
    fn ban6(&self) -> &Self::Memory;
    /// Bans of single IPv6 addresses.
    fn ban6_host(&self) -> &Self::Memory;
    /// Limiter state.
    fn sources(&self) -> &Self::Memory;
    /// Trusted IPv4 addresses.
    fn trust4(&self) -> &Self::Memory;
    /// Trusted IPv6 prefixes of the counted length.
    fn trust6(&self) -> &Self::Memory;
    /// Endpoints of trusted sources of both families, by [`crate::table::endpoint_key`].
    fn endpoints(&self) -> &Self::Memory;
    /// Three buckets: the limiter state of unknown sources together, that of those never seen before, and until when
    /// these have to make do with it; a word for each class.
    fn unknown(&self) -> &Self::Memory;
    /// Runs `f` on the number of packets of a class that this CPU may still admit from unknown sources.
    fn share<R>(&self, class: Class, f: impl FnOnce(&mut u32) -> R) -> R;
    /// Word of the bitmap of protected ports, see [`port_bit`].
    fn port_word(&self, index: u32) -> Option<u64>;
    /// Word of the bitmap of addresses that lie in some network of the trie, see [`cover_bit`].
    fn cover_word(&self, family: Family, index: u32) -> Option<u64>;
    /// IPv4 networks.
    fn nets4(&self) -> &Self::Memory;
    /// IPv6 networks.
    fn nets6(&self) -> &Self::Memory;
    /// Word of the table of [`crate::table::network::Lengths`].
    fn lengths(&self, block: u32) -> Option<u64>;
    /// Longest match in the network trie.
    fn network(&self, source: Ip) -> Option<NetworkValue>;
    /// Counts a packet dropped by the entry that [`Self::network`] found.
    fn network_hit(&self, source: Ip);
    /// Runs `f` on an entry of this CPU's table of [`Recent`]; `None` if there is no such entry.
    fn recent<R>(&self, index: u32, f: impl FnOnce(&mut Recent) -> R) -> Option<R>;
    /// Runs `f` on this CPU's [`Budget`] of a lane.
    fn budget<R>(&self, lane: Lane, f: impl FnOnce(&mut Budget) -> R) -> R;
    /// The class of a payload of `len` bytes, as a number: [`classify`].
    #[inline(always)]
    fn classify(&self, head: &Head, len: usize) -> u64 {
        classify(head, len) as u64
    }
    /// Counts a packet of a class.
    fn count_class(&self, class: Class);
    /// Counts an event given up for the budget's sake.
    fn count_suppressed(&self);
    /// Sends an event with `header.captured` bytes of the packet from `payload` on.
    fn emit<P: Packet>(&self, packet: &P, header: &EventHeader, payload: usize);
}

/// Words of the port bitmap that belong to one protocol.
const PORT_WORDS: u32 = 65536 / 64;
/// Words of the port bitmap: UDP ports first, then TCP ports.
pub const PORT_BITMAP_WORDS: u32 = PORT_WORDS * 2;
/// Bits of a coverage bitmap, as a power of two. IPv4: one for each /24.
pub const COVER_BITS: u32 = 24;
/// Words of a coverage bitmap.
pub const COVER_WORDS: u32 = 1 << (COVER_BITS - 6);

/// Word and bit of a protected port in the port bitmap.
#[inline(always)]
#[must_use]
pub const fn port_bit(protocol: u8, port: u16) -> (u32, u32) {
    let base = if protocol == TCP { PORT_WORDS } else { 0 };
    (base + (port as u32 >> 6), port as u32 & 63)
}

/// Bit of the coverage bitmap that a source falls on: IPv4 by its /24, IPv6 by a seeded hash of its /48.
#[inline(always)]
#[must_use]
pub const fn cover_bit(seed: [u64; 2], source: Ip) -> u32 {
    match source {
        Ip::V4(address) => address >> 8,
        Ip::V6([high, _]) => hash(seed, high >> 16, 4) as u32 & ((1 << COVER_BITS) - 1),
    }
}

/// The key under which an IPv6 source is counted and banned: its leading `prefix` bits, 1 to 64.
#[inline(always)]
#[must_use]
pub const fn prefix6(high: u64, prefix: u32) -> u64 {
    high & (u64::MAX << (64u32.wrapping_sub(prefix) & 63))
}
