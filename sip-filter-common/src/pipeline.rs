//! The one order of decisions, for the kernel program and for captures alike.
//!
//! parse → exact ban → network → (allow-list wins over any ban) → protected port? → classify → allow-listed? →
//! limiter → pass. The ban comes right after the IP header, so that later fragments, which have no port, are caught
//! too. Doubt always passes.

use crate::{
    abi::{Address, Config, EventHeader, EventKind, Family, Limit, SNAPSHOT_MAX, WINDOW_SHIFT, flags},
    packet::{self, Ip, Packet, Ports, Stop, TCP, Transport},
    sip::{Class, classify},
    table::{
        Line, Memory,
        ban::{Fate, Found, Layout, V4, V6Host, V6Prefix, lookup},
        hash,
        source::{SourceKey, admitted},
    },
    verdict::{Action, Reason, Verdict},
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

const _: () = assert!(size_of::<NetworkValue>() == 16 && align_of::<NetworkValue>() == 4);

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

const _: () = assert!(size_of::<Recent>() == 24);

/// Entries of the table of [`Recent`], for each CPU.
pub const RECENT_ENTRIES: u32 = 4096;

/// Events sent by one CPU in the current window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub struct Budget {
    /// The window.
    pub window: u32,
    /// Events sent in it.
    pub sent: u32,
}

/// Everything a decision rests on besides the packet, and everything it leaves behind.
pub trait Tables {
    /// A flat table.
    type Memory: Memory;

    /// The configuration in force.
    fn config(&self) -> Option<&Config>;
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
    /// Word of the bitmap of protected ports: UDP ports from 0 on, TCP ports from 1024 on.
    fn port_word(&self, index: u32) -> Option<u64>;
    /// Word of the bitmap of addresses that lie in some network of the trie.
    fn cover_word(&self, family: Family, index: u32) -> Option<u64>;
    /// Longest match in the network trie.
    fn network(&self, source: Ip) -> Option<NetworkValue>;
    /// Counts a packet dropped by the entry that [`Self::network`] found.
    fn network_hit(&self, source: Ip);
    /// Runs `f` on an entry of this CPU's table of [`Recent`]; `None` if there is no such entry.
    fn recent<R>(&self, index: u32, f: impl FnOnce(&mut Recent) -> R) -> Option<R>;
    /// Runs `f` on this CPU's [`Budget`].
    fn budget<R>(&self, f: impl FnOnce(&mut Budget) -> R) -> Option<R>;
    /// Counts a packet of a class.
    fn count_class(&self, class: Class);
    /// Counts an event given up for the budget's sake.
    fn count_suppressed(&self);
    /// Sends an event with `header.captured` bytes of the packet from `payload` on.
    fn emit<P: Packet>(&self, packet: &P, header: &EventHeader, payload: usize);
}

/// What [`decide`] found out about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision {
    /// What to do and why.
    pub verdict: Verdict,
    /// For the counters.
    pub family: Family,
    /// How far the headers say the frame goes, for [`Packet::len`].
    pub reach: usize,
}

/// Words of the port bitmap that belong to one protocol.
const PORT_WORDS: u32 = 65536 / 64;
/// Bits of the coverage bitmaps, as a power of two. IPv4: one for each /24.
pub const COVER_BITS: u32 = 24;
/// Words of one coverage bitmap.
pub const COVER_WORDS: u32 = 1 << (COVER_BITS - 6);
/// Words of the port bitmap.
pub const PORT_BITMAP_WORDS: u32 = PORT_WORDS * 2;

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

/// Decides on one frame. Counts classes and hits and sends events through `tables`; the caller counts the verdict.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(packet: &P, tables: &T) -> Decision {
    let Some(config) = tables.config() else {
        return passed(Reason::PassMapError);
    };
    let network = match packet::network(packet) {
        Ok(network) => network,
        Err(Stop::NotIp) => return passed(Reason::PassNotIp),
        Err(Stop::Truncated) => return passed(Reason::PassTruncated),
        Err(Stop::TooDeep) => return passed(Reason::PassTooDeep),
    };
    let family = match network.source {
        Ip::V4(_) => Family::V4,
        Ip::V6(_) => Family::V6,
    };
    let subject = Subject {
        network,
        now: tables.now(),
    };
    let reason = judge(packet, tables, config, &subject);
    let simulated = config.flags & flags::SIMULATE != 0 && matches!(reason.action(), Action::Drop);
    Decision {
        verdict: Verdict { reason, simulated },
        family,
        reach: subject.network.end,
    }
}

#[inline(always)]
const fn passed(reason: Reason) -> Decision {
    Decision {
        verdict: Verdict {
            reason,
            simulated: false,
        },
        family: Family::Other,
        reach: 0,
    }
}

/// A packet with an IP header.
struct Subject {
    network: packet::Network,
    now: u64,
}

#[inline(always)]
fn judge<P: Packet, T: Tables>(packet: &P, tables: &T, config: &Config, subject: &Subject) -> Reason {
    let standing = Standing::of(tables, config, subject);
    if let Some(ban) = standing.ban
        && standing.all
        && !standing.allowed
    {
        return ban.enforce(tables, subject.network.source);
    }
    let transport = packet::transport(packet, &subject.network);
    if let Some(ban) = standing.ban
        && (standing.all || is_or_may_be_sip(tables, &transport))
    {
        if standing.allowed {
            return Reason::PassAllowedBanned;
        }
        return ban.enforce(tables, subject.network.source);
    }
    match transport {
        Transport::LaterFragment { .. } => Reason::PassFragment,
        Transport::Other => Reason::PassOtherPort,
        Transport::Truncated => Reason::PassTruncated,
        Transport::TooDeep => Reason::PassTooDeep,
        Transport::Ports(ports) => match is_protected(tables, &ports) {
            None => Reason::PassMapError,
            Some(false) => Reason::PassOtherPort,
            Some(true) => admit(packet, tables, config, subject, &ports, standing.allowed),
        },
    }
}

/// What a ban of scope `sip` stops: protected ports; and, since their port cannot be seen, later fragments of UDP
/// datagrams and packets of a banned source that hide their port behind a chain of extension headers.
#[inline(always)]
fn is_or_may_be_sip<T: Tables>(tables: &T, transport: &Transport) -> bool {
    match transport {
        Transport::Ports(ports) => is_protected(tables, ports) == Some(true),
        Transport::LaterFragment { udp } => *udp,
        Transport::TooDeep => true,
        Transport::Other | Transport::Truncated => false,
    }
}

#[inline(always)]
fn is_protected<T: Tables>(tables: &T, ports: &Ports) -> Option<bool> {
    let (word, bit) = port_bit(ports.protocol, ports.destination);
    Some(tables.port_word(word)? >> bit & 1 != 0)
}

/// How a source stands with the lists.
struct Standing<L> {
    ban: Option<Ban<L>>,
    all: bool,
    allowed: bool,
}

#[derive(Clone, Copy)]
enum Ban<L> {
    Address(Found<L>),
    Network,
}

impl<L: Line> Ban<L> {
    #[inline(always)]
    fn enforce<T: Tables>(self, tables: &T, source: Ip) -> Reason {
        match self {
            Self::Address(found) => {
                found.hit(tables.random());
                Reason::DropBanAddress
            }
            Self::Network => {
                tables.network_hit(source);
                Reason::DropBanNetwork
            }
        }
    }
}

impl<L: Line> Standing<L> {
    #[inline(always)]
    fn of<'t, T: Tables<Memory: Memory<Line<'t> = L>>>(
        tables: &'t T,
        config: &Config,
        subject: &Subject,
    ) -> Self {
        let (source, now) = (subject.network.source, subject.now);
        let (mut ban, mut all) = (None, false);
        if let Some(found) = exact_ban(tables, config, source, now) {
            all = found.fate.all();
            ban = Some(Ban::Address(found));
        }
        let mut allowed = false;
        if is_covered(tables, config, source)
            && let Some(network) = tables.network(source)
        {
            allowed = network.allowed != 0;
            let network_all = network.all.in_force(now);
            if ban.is_none() && (network_all || network.sip.in_force(now)) {
                ban = Some(Ban::Network);
            }
            all |= network_all;
        }
        Self { ban, all, allowed }
    }
}

/// The exact ban in force on a source. An expired one counts as none, so that it hides no other.
#[inline(always)]
fn exact_ban<'t, T: Tables>(
    tables: &'t T,
    config: &Config,
    source: Ip,
    now: u64,
) -> Option<Found<<T::Memory as Memory>::Line<'t>>> {
    match source {
        Ip::V4(address) => find::<V4, _>(tables.ban4(), config, address, now),
        Ip::V6([high, low]) => {
            let prefix = prefix6(high, config.source_prefix6);
            let by_prefix = find::<V6Prefix, _>(tables.ban6(), config, prefix, now);
            if config.flags & flags::HOSTS6 == 0 {
                return by_prefix;
            }
            let by_host = find::<V6Host, _>(tables.ban6_host(), config, [high, low], now);
            match (by_prefix, by_host) {
                (Some(prefix), Some(host)) if host.fate.all() && !prefix.fate.all() => Some(host),
                (Some(prefix), _) => Some(prefix),
                (None, host) => host,
            }
        }
    }
}

#[inline(always)]
fn find<'m, L: Layout, M: Memory>(
    memory: &'m M,
    config: &Config,
    key: L::Key,
    now: u64,
) -> Option<Found<M::Line<'m>>> {
    let found = lookup::<L, M>(memory, config.seed, key)?;
    found.fate.in_force(now).then_some(found)
}

/// Whether the network trie may know a source.
#[inline(always)]
fn is_covered<T: Tables>(tables: &T, config: &Config, source: Ip) -> bool {
    let family = match source {
        Ip::V4(_) if config.flags & flags::NETWORKS4 == 0 => return false,
        Ip::V6(_) if config.flags & flags::NETWORKS6 == 0 => return false,
        Ip::V4(_) if config.flags & flags::WIDE4 != 0 => return true,
        Ip::V6(_) if config.flags & flags::WIDE6 != 0 => return true,
        Ip::V4(_) => Family::V4,
        Ip::V6(_) => Family::V6,
    };
    let bit = cover_bit(config.seed, source);
    match tables.cover_word(family, bit >> 6) {
        Some(word) => word >> (bit & 63) & 1 != 0,
        None => true,
    }
}

/// A packet to a protected port whose source is not banned.
#[inline(always)]
fn admit<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    config: &Config,
    subject: &Subject,
    ports: &Ports,
    allowed: bool,
) -> Reason {
    let class = classify(&packet::head(packet, ports).0, ports.payload_len);
    // A TCP segment may begin anywhere in a message, or be TLS; only one that begins a message is judged.
    if ports.protocol == TCP && matches!(class, Class::KeepAlive | Class::Garbage) {
        return if allowed {
            Reason::PassAllowed
        } else {
            Reason::PassStream
        };
    }
    tables.count_class(class);
    if allowed {
        return Reason::PassAllowed;
    }
    let key = match subject.network.source {
        Ip::V4(address) => SourceKey::v4(address, class),
        Ip::V6([high, _]) => SourceKey::v6(config.seed, prefix6(high, config.source_prefix6), 0, class),
    };
    let limit = limit_of(config, class);
    if limit.interval != 0 && !admitted(tables.sources(), config.seed, key, limit, subject.now) {
        report(
            packet,
            tables,
            config,
            subject,
            ports,
            &Report {
                class,
                kind: EventKind::OverLimit,
                key,
            },
        );
        return over_limit(class);
    }
    if class.is_request() || matches!(class, Class::Garbage) {
        report(
            packet,
            tables,
            config,
            subject,
            ports,
            &Report {
                class,
                kind: EventKind::Snapshot,
                key,
            },
        );
    }
    match class {
        Class::Register | Class::Invite | Class::Options | Class::Subscribe | Class::OtherRequest => {
            Reason::PassRequest
        }
        Class::Response => Reason::PassResponse,
        Class::KeepAlive => Reason::PassKeepAlive,
        Class::Garbage => Reason::PassOtherPayload,
    }
}

#[inline(always)]
const fn limit_of(config: &Config, class: Class) -> Limit {
    config.limits[class as usize & (Class::COUNT - 1)]
}

const _: () = assert!(Class::COUNT.is_power_of_two());

#[inline(always)]
const fn over_limit(class: Class) -> Reason {
    match class {
        Class::Register => Reason::DropLimitRegister,
        Class::Invite => Reason::DropLimitInvite,
        Class::Options => Reason::DropLimitOptions,
        Class::Subscribe => Reason::DropLimitSubscribe,
        Class::OtherRequest => Reason::DropLimitOther,
        Class::Response => Reason::DropLimitResponse,
        Class::KeepAlive => Reason::DropLimitKeepAlive,
        Class::Garbage => Reason::DropLimitGarbage,
    }
}

struct Report {
    class: Class,
    kind: EventKind,
    key: SourceKey,
}

/// Sends an event unless the source had its share of this window or the CPU its own; what is not sent is added to
/// the count of the source's next event.
#[inline(always)]
fn report<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    config: &Config,
    subject: &Subject,
    ports: &Ports,
    report: &Report,
) {
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
    let Some(count) = count else { return };
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
        source: subject.network.source.address(),
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
    match subject.network.source {
        Ip::V4(_) => packet.read(subject.network.destination).map(Address::v4),
        Ip::V6(_) => packet.read(subject.network.destination).map(Address),
    }
    .unwrap_or_default()
}
