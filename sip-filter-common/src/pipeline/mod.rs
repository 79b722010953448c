//! The one order of decisions, for the kernel program and for captures alike.
//!
//! parse → network → exact ban → (allow-list wins over any ban) → protected port? → classify → allow-listed? → limiter
//! → count → pass. Bans are looked for whatever the packet carries, so that later fragments, which have no port, are
//! caught too. Doubt always passes.

mod egress;
mod recent;
mod report;
mod standing;
mod tables;
mod unknown;

pub use egress::observe;
pub use recent::recent_of;
use report::{Due, Outcome, due, due_copy, send};
use standing::{AtOnce, Standing, Trust, at_once, enforce, trust};
pub use tables::{
    Budget, COVER_BITS, COVER_WORDS, Lane, NetworkValue, PORT_BITMAP_WORDS, RECENT_ENTRIES, Recent, Tables,
    cover_bit, port_bit, prefix6,
};

use unknown::within_unknown_budget;

use crate::{
    abi::{Config, EventKind, Family, counter_index, flags},
    packet::{self, Glance, Headers, Ip, Packet, Ports, Stop, TCP, Transport},
    sip::Class,
    table::source::{Judged, SourceKey, admitted},
    verdict::{Action, Reason, Verdict},
};

/// What [`decide`] found out about a packet. The reason is kept as a number: the kernel's verifier would follow each
/// value of an enumeration on a path of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// Number of the [`Reason`].
    code: u8,
    simulated: bool,
    /// For the counters.
    pub family: Family,
    /// How far the headers say the frame goes, for [`Packet::len`].
    pub reach: usize,
}

impl Decision {
    #[inline(always)]
    const fn passed(reason: Reason) -> Self {
        Self {
            code: reason as u8,
            simulated: false,
            family: Family::Other,
            // No header says how far it goes.
            reach: usize::MAX,
        }
    }

    #[inline(always)]
    const fn other_port(glance: Glance) -> Self {
        Self {
            code: Reason::PassOtherPort as u8,
            simulated: false,
            family: if glance.is_ipv6 { Family::V6 } else { Family::V4 },
            reach: glance.end,
        }
    }

    #[inline(always)]
    const fn stopped(end: usize, flags: u64) -> Self {
        Self {
            code: Reason::DropBanAddress as u8,
            simulated: flags & flags::SIMULATE != 0,
            family: Family::V4,
            reach: end,
        }
    }

    /// What to do.
    #[inline(always)]
    pub const fn action(self) -> Action {
        if self.simulated || self.code < Reason::FIRST_DROP {
            Action::Pass
        } else {
            Action::Drop
        }
    }

    /// Index of the counter this packet belongs to, see [`counter_index`].
    #[inline(always)]
    #[must_use]
    pub const fn counter_index(self) -> usize {
        counter_index(self.code, self.family, self.simulated)
    }

    /// Reason and mode.
    pub fn verdict(self) -> Verdict {
        // The number is that of a reason; the alternative only satisfies the type.
        let reason = Reason::from_number(self.code).unwrap_or(Reason::PassMapError);
        Verdict {
            reason,
            simulated: self.simulated,
        }
    }
}

/// Decides on one frame. Counts classes and hits and sends events through `tables`; the caller counts the decision.
#[inline(always)]
pub fn decide<P: Packet, T: Tables>(packet: &P, tables: &T) -> Decision {
    let glance = packet::glance(packet);
    let mut port = Content::OtherPort;
    if let Some(glance) = glance {
        port = protection(tables, glance.protocol, glance.port);
        if matches!(port, Content::OtherPort) && !tables.stops_all() {
            return Decision::other_port(glance);
        }
    } else if packet::is_not_ip(packet) {
        return Decision::passed(Reason::PassNotIp);
    }
    let Some(config) = tables.config() else {
        return Decision::passed(Reason::PassMapError);
    };
    // What follows is not to be verified for each shape and each port.
    let mut shape = tables.forget(Glance::shape(glance));
    let port = tables.forget(port as u64);
    if port == Content::Protected as u64 && shape == Glance::IPV4 {
        shape |= at_once(&packet.again(), tables, config);
    }
    let shape = tables.forget(shape);
    if shape & AtOnce::STOPPED != 0 {
        return Decision::stopped((shape >> AtOnce::END_SHIFT) as usize, config.flags);
    }
    let packet = &packet.again();
    let headers = match packet::headers(packet, shape & (AtOnce::OPEN - 1), tables) {
        Ok(headers) => headers,
        Err(Stop::NotIp) => return Decision::passed(Reason::PassNotIp),
        Err(Stop::Truncated) => return Decision::passed(Reason::PassTruncated),
        Err(Stop::TooDeep) => return Decision::passed(Reason::PassTooDeep),
    };
    let family = match headers.source() {
        Ip::V4(_) => Family::V4,
        Ip::V6(_) => Family::V6,
    };
    let subject = Subject::new(tables, &headers, shape);
    // The headers are read; for the rest the verifier need not know how far they reached.
    let outcome = judge(&packet.again(), tables, config, &subject);
    let code = tables.forget(outcome.reason as u64) as u8;
    let mut due = Due::from_number(tables.forget(outcome.due.number()));
    if due == Due::NONE && code >= Reason::FIRST_DROP && config.flags & flags::CAPTURE_DROPS != 0 {
        due = due_copy(tables, config, subject.now, code);
    }
    let due = Due::from_number(tables.forget(due.number()));
    if due != Due::NONE {
        send(&packet.again(), tables, config, &subject, due);
    }
    let simulated = config.flags & flags::SIMULATE != 0 && code >= Reason::FIRST_DROP;
    Decision {
        code,
        simulated,
        family,
        reach: headers.end,
    }
}

/// A packet with an IP header, taken apart.
struct Subject {
    /// No list concerns its source: it was asked already.
    open: bool,
    /// The class of its payload and one, if it was seen already.
    class: u64,
    source: Ip,
    /// Where the destination address lies.
    destination: usize,
    content: Content,
    ports: Ports,
    /// How far the headers say the frame goes.
    reach: usize,
    /// IPv4 time to live, IPv6 hop limit.
    hops: u8,
    now: u64,
}

/// What matters about a packet's content, before its payload is looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Content {
    /// UDP or TCP to a protected port.
    Protected = 0,
    OtherPort = 1,
    Truncated = 2,
    MapError = 3,
    /// A later fragment of something that is not UDP.
    OtherFragment = 4,
    /// A later fragment of a UDP datagram: its port cannot be seen.
    UdpFragment = 5,
    /// The port hides behind a chain of extension headers.
    TooDeep = 6,
}

impl Content {
    /// What a ban of scope `sip` stops: protected ports, and packets of a banned source whose port cannot be seen.
    #[inline(always)]
    const fn is_or_may_be_sip(self) -> bool {
        matches!(self, Self::Protected | Self::UdpFragment | Self::TooDeep)
    }

    #[inline(always)]
    const fn from_number(number: u64) -> Self {
        match number {
            0 => Self::Protected,
            1 => Self::OtherPort,
            2 => Self::Truncated,
            3 => Self::MapError,
            4 => Self::OtherFragment,
            5 => Self::UdpFragment,
            _ => Self::TooDeep,
        }
    }
}

impl Subject {
    #[inline(always)]
    fn new<T: Tables>(tables: &T, headers: &Headers, shape: u64) -> Self {
        const NONE: Ports = Ports {
            protocol: 0,
            source: 0,
            destination: 0,
            payload: 0,
            payload_len: 0,
        };
        let (content, ports) = match headers.transport {
            Transport::Ports(ports) => (protection(tables, ports.protocol, ports.destination), ports),
            Transport::LaterFragment { udp: true } => (Content::UdpFragment, NONE),
            Transport::LaterFragment { udp: false } => (Content::OtherFragment, NONE),
            Transport::Other => (Content::OtherPort, NONE),
            Transport::Truncated => (Content::Truncated, NONE),
            Transport::TooDeep => (Content::TooDeep, NONE),
        };
        // Whatever way the headers were parsed, the verifier looks at what follows once.
        Self {
            open: shape & AtOnce::OPEN != 0,
            class: shape >> AtOnce::CLASS_SHIFT,
            source: match headers.source() {
                Ip::V4(address) => Ip::V4(tables.forget(address as u64) as u32),
                Ip::V6([high, low]) => Ip::V6([tables.forget(high), tables.forget(low)]),
            },
            destination: tables.forget(headers.destination as u64) as usize,
            content: Content::from_number(tables.forget(content as u64)),
            ports: Ports {
                protocol: tables.forget(ports.protocol as u64) as u8,
                source: tables.forget(ports.source as u64) as u16,
                destination: tables.forget(ports.destination as u64) as u16,
                payload: tables.forget(ports.payload as u64) as usize,
                payload_len: tables.forget(ports.payload_len as u64) as usize,
            },
            reach: tables.forget(headers.end as u64) as usize,
            hops: headers.hops,
            now: tables.now(),
        }
    }
}

#[inline(always)]
fn protection<T: Tables>(tables: &T, protocol: u8, port: u16) -> Content {
    let (word, bit) = port_bit(protocol, port);
    match tables.port_word(word) {
        Some(word) if word >> bit & 1 != 0 => Content::Protected,
        Some(_) => Content::OtherPort,
        None => Content::MapError,
    }
}

#[inline(always)]
fn judge<P: Packet, T: Tables>(packet: &P, tables: &T, config: &Config, subject: &Subject) -> Outcome {
    let allowed = match enforce(tables, config, subject) {
        Standing::Decided(reason) => return reason.into(),
        Standing::Allowed => true,
        Standing::Open => false,
    };
    let allowed = tables.forget(allowed as u64) != 0;
    match subject.content {
        Content::Protected => admit(packet, tables, config, subject, allowed),
        Content::OtherPort => Reason::PassOtherPort.into(),
        Content::Truncated => Reason::PassTruncated.into(),
        Content::MapError => Reason::PassMapError.into(),
        Content::OtherFragment | Content::UdpFragment => Reason::PassFragment.into(),
        Content::TooDeep => Reason::PassTooDeep.into(),
    }
}

/// A packet to a protected port whose source is not banned.
#[inline(always)]
fn admit<P: Packet, T: Tables>(
    packet: &P,
    tables: &T,
    config: &Config,
    subject: &Subject,
    allowed: bool,
) -> Outcome {
    let ports = &subject.ports;
    let seen = if subject.class == 0 {
        let head = packet.head(ports.payload, ports.payload_len);
        tables.classify(&head, ports.payload_len)
    } else {
        subject.class - 1
    };
    // One class for each stage below, so that none is verified for each of them.
    let class = || Class::from_low_bits(tables.forget(seen));
    // A TCP segment may begin anywhere in a message, or be TLS; only one that begins a message is judged.
    if ports.protocol == TCP && matches!(class(), Class::KeepAlive | Class::Garbage) {
        let reason = if allowed {
            Reason::PassAllowed
        } else {
            Reason::PassStream
        };
        return reason.into();
    }
    tables.count_class(class());
    if allowed {
        return Reason::PassAllowed.into();
    }
    let trust = tables.forget(trust(tables, config, subject).number());
    let trust = || Trust::from_number(tables.forget(trust));
    // What strays in the name of a trusted source must not use up what is its own.
    let stray = trust().stray();
    let key = source_key(config, subject.source, class()).apart(stray);
    let place = key.place(config.seed);
    let judged = by_source(tables, config, (class(), trust()), (key, place), subject.now);
    let judged = tables.forget(judged.number());
    let judged = || Judged::from_number(tables.forget(judged));
    let beyond = judged().within()
        && !trust().is_trusted()
        && !within_unknown_budget(tables, config, (class(), judged().is_fresh()), subject.now);
    let beyond = tables.forget(beyond as u64) != 0;
    // A forged address does not come back: nothing is kept of it.
    if beyond && judged().is_fresh() {
        return Reason::DropUnknownBudget.into();
    }
    let within = judged().within() && !beyond;
    // What the budget stops of a source that returns is no offence of its own, but is part of its count if it commits one.
    let (kind, share) = match (within, beyond) {
        (true, _) => (EventKind::Snapshot, config.snapshots_per_source),
        (false, true) => (EventKind::OverLimit, 0),
        (false, false) => (EventKind::OverLimit, 1),
    };
    let due = if !within || is_worth_a_snapshot(class()) {
        due(
            tables,
            config,
            subject.now,
            (kind, class(), share),
            (key, place, trust().stray()),
        )
    } else {
        Due::NONE
    };
    let (within, beyond) = (
        tables.forget(within as u64) != 0,
        tables.forget(beyond as u64) != 0,
    );
    let reason = if within {
        within_limit(class())
    } else if beyond {
        Reason::DropUnknownBudget
    } else {
        over_limit(class())
    };
    Outcome { reason, due }
}

/// Judges a packet by the limit of its source.
#[inline(always)]
fn by_source<T: Tables>(
    tables: &T,
    config: &Config,
    (class, trust): (Class, Trust),
    (key, place): (SourceKey, u64),
    now: u64,
) -> Judged {
    let index = tables.forget(class as u64 | trust.at_home() << 3) as usize & (2 * Class::COUNT - 1);
    let limit = config.limits[index];
    // Without a limit it still matters whether a source has been seen before, if it takes from the shared budget.
    let shares = !trust.is_trusted() && config.unknown_budget[index & (Class::COUNT - 1)].interval != 0;
    if limit.interval == 0 && !shares {
        return Judged::RETURNING;
    }
    admitted(tables.sources(), place, key, limit, now)
}

/// Responses and keep-alives tell detection nothing as long as they stay within their limits.
#[inline(always)]
const fn is_worth_a_snapshot(class: Class) -> bool {
    class.is_request() || matches!(class, Class::Garbage)
}

const _: () = assert!(Class::COUNT.is_power_of_two());

#[inline(always)]
const fn source_key(config: &Config, source: Ip, class: Class) -> SourceKey {
    match source {
        Ip::V4(address) => SourceKey::v4(address, class),
        Ip::V6([high, _]) => SourceKey::v6(config.seed, prefix6(high, config.source_prefix6), class),
    }
}

#[inline(always)]
const fn within_limit(class: Class) -> Reason {
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
