//! Everything that crosses the boundary between kernel program and controller.
//!
//! All structures are `repr(C)`, made of words without padding, and their layout is asserted at compile time. Any
//! change of a layout, of a table's meaning or of a number's meaning raises [`ABI_VERSION`], which is part of the
//! pin path, so that a controller never reads tables of another shape.

use crate::sip::Class;

/// Version of everything in this module and in [`crate::table`].
pub const ABI_VERSION: u32 = 6;

/// Address family of a packet, as an index of counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Family {
    /// Neither IPv4 nor IPv6, or not known yet.
    Other = 0,
    /// IPv4.
    V4 = 1,
    /// IPv6.
    V6 = 2,
}

impl Family {
    /// Number of families.
    pub const COUNT: usize = 3;
    /// All families, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [Self::Other, Self::V4, Self::V6];

    /// Stable name, the value of the `ip_type` label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::V4 => "ipv4",
            Self::V6 => "ipv6",
        }
    }
}

/// A source address: IPv6 as it is, IPv4 as the mapped address `::ffff:a.b.c.d` (RFC 4291 §2.5.5.2), bytes in
/// network order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[repr(transparent)]
pub struct Address(pub [u8; 16]);

impl Address {
    /// From an IPv4 address in network order.
    #[must_use]
    pub const fn v4(octets: [u8; 4]) -> Self {
        let [a, b, c, d] = octets;
        Self([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d])
    }

    /// From its upper and lower half.
    #[inline(always)]
    #[must_use]
    pub const fn from_words(high: u64, low: u64) -> Self {
        let [a, b, c, d, e, f, g, h] = high.to_be_bytes();
        let [i, j, k, l, m, n, o, p] = low.to_be_bytes();
        Self([a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p])
    }

    /// To the standard type; a mapped address becomes IPv4.
    #[must_use]
    pub fn to_ip(self) -> core::net::IpAddr {
        core::net::Ipv6Addr::from(self.0).to_canonical()
    }

    /// From the standard type.
    #[must_use]
    pub fn from_ip(ip: core::net::IpAddr) -> Self {
        match ip {
            core::net::IpAddr::V4(v4) => Self::v4(v4.octets()),
            core::net::IpAddr::V6(v6) => Self(v6.octets()),
        }
    }
}

/// Rate limit of one traffic class for one source, in the arithmetic of [`crate::limiter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Limit {
    /// Nanoseconds between packets at the sustained rate; 0 means no limit.
    pub interval: u64,
    /// How far ahead of time a source may get, in nanoseconds: `interval * (burst - 1)`.
    pub tolerance: u64,
}

impl Limit {
    /// No limit.
    pub const UNLIMITED: Self = Self {
        interval: 0,
        tolerance: u64::MAX,
    };

    /// `count` packets per `per_ns` nanoseconds sustained, `burst` (at least 1) at once.
    #[must_use]
    pub const fn new(count: u64, per_ns: u64, burst: u64) -> Self {
        if count == 0 {
            return Self::UNLIMITED;
        }
        let interval = if per_ns / count == 0 { 1 } else { per_ns / count };
        Self {
            interval,
            tolerance: interval.saturating_mul(burst.saturating_sub(1)),
        }
    }
}

/// Settings the kernel program reads for every packet. Two copies exist; [`Control::active`] names the one in
/// force, so a reload switches all of them at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Config {
    /// Random words that seed every table hash: nobody outside can aim at a bucket.
    pub seed: [u64; 2],
    /// Bits of [`flags`].
    pub flags: u64,
    /// Number of leading bits by which IPv6 sources are counted (64 by default).
    pub source_prefix6: u32,
    /// Bytes of payload a snapshot carries, at most [`SNAPSHOT_MAX`].
    pub snapshot_bytes: u32,
    /// Snapshots of one source per [`WINDOW_NS`]; further ones are only counted.
    pub snapshots_per_source: u32,
    /// Events of one CPU per [`WINDOW_NS`], of both kinds together; further ones are counted as suppressed.
    pub events_per_window: u32,
    /// Response events to one remote party per [`WINDOW_NS`].
    pub responses_per_source: u32,
    /// Copies of dropped frames one CPU sends per [`WINDOW_NS`] while [`flags::CAPTURE_DROPS`] is set.
    pub drop_captures_per_window: u32,
    /// Limits of a source by [`Class`], then those of a trusted source.
    pub limits: [Limit; 2 * Class::COUNT],
    /// Limits by [`Class`] of all sources together that are neither trusted nor allow-listed.
    pub unknown_budget: [Limit; Class::COUNT],
    /// What of it those get together, while it is short, that were never seen before.
    pub fresh_budget: [Limit; Class::COUNT],
}

/// Bits of [`Config::flags`].
pub mod flags {
    /// Decide and count, but drop nothing.
    pub const SIMULATE: u64 = 1;
    /// The network trie has at least one IPv4 entry.
    pub const NETWORKS4: u64 = 1 << 1;
    /// The network trie has at least one IPv6 entry.
    pub const NETWORKS6: u64 = 1 << 2;
    /// An IPv6 network shorter than the coverage bitmap can hold exists: always ask the trie.
    pub const WIDE6: u64 = 1 << 3;
    /// At least one single IPv6 address is banned.
    pub const HOSTS6: u64 = 1 << 4;
    /// The same as [`WIDE6`] for IPv4.
    pub const WIDE4: u64 = 1 << 5;
    /// Send copies of dropped frames.
    pub const CAPTURE_DROPS: u64 = 1 << 6;
    /// At least one IPv4 source is trusted.
    pub const TRUST4: u64 = 1 << 7;
    /// At least one IPv6 source is trusted.
    pub const TRUST6: u64 = 1 << 8;
    /// At least one IPv4 address is banned.
    pub const BANS4: u64 = 1 << 9;
    /// At least one IPv6 prefix of the counted length is banned.
    pub const BANS6: u64 = 1 << 10;
    /// At least one ban stops all traffic: without, what is not SIP need not be looked up.
    pub const ALL: u64 = 1 << 11;
}

/// What the controller switches while the program runs; each word is changed by one store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Control {
    /// [`Control::INDEX`] and [`Control::ALL`].
    pub active: u64,
    /// Boot time in nanoseconds for programs loaded with a clock set by hand, as tests do.
    pub clock: u64,
}

impl Control {
    /// Bits of [`Self::active`]: the index of the active configuration.
    pub const INDEX: u64 = 1;
    /// Another one: its flags have [`flags::ALL`]. Here as well, so that packets to other ports need not look at it.
    pub const ALL: u64 = 2;
}

/// What identifies a set of pinned tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct Meta {
    /// [`ABI_VERSION`] of the program that made them.
    pub abi_version: u32,
    /// Process id of the controller that made them, for messages.
    pub owner: u32,
    /// The hash seed, as in [`Config::seed`].
    pub seed: [u64; 2],
    /// How the program was attached: 1 native, 2 generic, 0 not yet.
    pub xdp_mode: u32,
    /// Inode of the network namespace (`/proc/self/ns/net`) it was attached in; 0 if that is not known.
    pub netns: u32,
}

/// Length of the windows in which over-limit packets and snapshots of one source are counted, as a power of two of
/// nanoseconds: 2²⁶ ns = 67 ms. A flood's count reaches the controller that late at most.
pub const WINDOW_SHIFT: u32 = 26;
/// See [`WINDOW_SHIFT`].
pub const WINDOW_NS: u64 = 1 << WINDOW_SHIFT;

/// Unit in which the kernel program keeps the end of a ban, as a power of two of nanoseconds: 2²⁸ ns = 268 ms. Bans
/// last until the unit after their end begins, never shorter.
pub const EXPIRY_SHIFT: u32 = 28;

/// Largest payload excerpt of an event, in bytes.
pub const SNAPSHOT_MAX: usize = 1024;

/// What an event reports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum EventKind {
    /// An admitted request or response with the first bytes of its payload.
    Snapshot = 1,
    /// A source is over a limit.
    OverLimit = 2,
    /// A final response (RFC 3261 §7.2, status 200 and above) leaving a protected port, with the first bytes of its
    /// payload. Its source is the remote party it goes to, its destination our server.
    Response = 3,
    /// A copy of a dropped frame from its first byte on, sent only while somebody asks for them. Its class is the
    /// number of the [`crate::verdict::Reason`].
    Dropped = 4,
}

impl EventKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Snapshot),
            2 => Some(Self::OverLimit),
            3 => Some(Self::Response),
            4 => Some(Self::Dropped),
            _ => None,
        }
    }
}

/// Head of an event in the ring buffer; [`EventHeader::captured`] bytes of UDP or TCP payload follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[repr(C)]
pub struct EventHeader {
    /// Boot time (`CLOCK_BOOTTIME`) of the packet, nanoseconds, coarse to a timer tick.
    pub time: u64,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Packets of this source and class that this event stands for, this one included: those since the source's
    /// previous event of the same kind.
    pub count: u32,
    /// Source port, host order.
    pub source_port: u16,
    /// Destination port, host order.
    pub destination_port: u16,
    /// [`EventKind`].
    pub kind: u8,
    /// [`Class`]; of a dropped frame, the number of its reason.
    pub class: u8,
    /// IP protocol number: 17 UDP, 6 TCP.
    pub protocol: u8,
    /// 1 if the packet was, or would have been (simulate), dropped.
    pub dropped: u8,
    /// Length of the whole payload in this packet, in bytes.
    pub payload_len: u16,
    /// Bytes of payload that follow this header.
    pub captured: u16,
    /// IPv4 time to live or IPv6 hop limit of the packet.
    pub hops: u8,
    /// 1 if the source is trusted, but the packet did not come from an endpoint of it that is known; the same holds
    /// for all packets this event stands for.
    pub stray: u8,
    /// Not used.
    pub reserved: [u8; 6],
}

/// Counters of one CPU. Read by the controller, summed over all CPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Counters {
    /// Packets and bytes by reason and family: index with [`counter_index`].
    pub by_reason: [u64; COUNTER_WORDS],
    /// Packets to protected ports by [`Class`], admitted or over their limit; not those that a ban stopped.
    pub by_class: [u64; Class::COUNT],
    /// Events that found the ring buffer full.
    pub events_lost: u64,
    /// Events not sent because of [`Config::events_per_window`].
    pub events_suppressed: u64,
}

/// Words of [`Counters::by_reason`]: 64 reasons × 4 families (one unused) × (enforced, simulated) × (packets,
/// bytes). A power of two, so that the kernel's verifier accepts a masked index.
pub const COUNTER_WORDS: usize = crate::verdict::Reason::SLOTS * 4 * 2 * 2;

/// Index of the packet counter in [`Counters::by_reason`] of the [`crate::verdict::Reason`] with this number; the byte
/// counter follows it.
#[inline(always)]
#[must_use]
pub const fn counter_index(reason: u8, family: Family, simulated: bool) -> usize {
    (((reason as usize * 4 + family as usize) * 2 + simulated as usize) * 2) & (COUNTER_WORDS - 2)
}

/// What one CPU keeps for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Local {
    /// Counters, read by the controller.
    pub counters: Counters,
    /// Events sent in the current window: by ingress, by egress, copies of dropped frames.
    pub budgets: [crate::pipeline::Budget; 3],
    /// Packets of each class that this CPU may still admit from unknown sources before it asks the shared budget.
    pub shares: [u32; Class::COUNT],
    /// Timer ticks at which `now` was read.
    pub jiffies: u64,
    /// Boot time at that tick, nanoseconds.
    pub now: u64,
    /// State of the random numbers.
    pub random: u64,
    /// See [`crate::table::Forget`].
    pub forgotten: u64,
}

const _: () = {
    use core::mem::{align_of, offset_of, size_of};
    assert!(size_of::<Limit>() == 16);
    assert!(size_of::<Config>() == 16 + 8 + 24 + 4 * 16 * Class::COUNT);
    assert!(offset_of!(Config, limits) == 48);
    assert!(size_of::<Control>() == 16);
    assert!(COUNTER_WORDS.is_power_of_two());
    assert!(size_of::<Local>() == size_of::<Counters>() + 24 + 32 + 32);
    assert!(size_of::<Meta>() == 32);
    assert!(size_of::<EventHeader>() == 64);
    assert!(offset_of!(EventHeader, source) == 8);
    assert!(offset_of!(EventHeader, destination) == 24);
    assert!(offset_of!(EventHeader, count) == 40);
    assert!(offset_of!(EventHeader, kind) == 48);
    assert!(offset_of!(EventHeader, captured) == 54);
    assert!(offset_of!(EventHeader, hops) == 56);
    assert!(offset_of!(EventHeader, reserved) == 58);
    assert!(size_of::<Counters>() == (COUNTER_WORDS + Class::COUNT + 2) * 8);
    assert!(align_of::<EventHeader>() == 8);
};
