//! How a source stands with the lists.

use super::{NetworkValue, Subject, Tables, cover_bit, prefix6};
use crate::{
    abi::{Config, Family, flags},
    packet::{Head, Ip, Packet, head4, is_udp4, source4},
    sip::{Class, known_method, likely_class},
    table::{
        Memory,
        ban::{Fate, Layout, V4, V6Host, V6Prefix, Value as _, lookup},
        endpoint_key,
        network::{Effect, Lengths, Match, Net4, Net6, block4, block6, hit, longest},
        source::{SourceKey, touch as touch_source},
    },
    verdict::Reason,
};

pub(super) enum Standing {
    /// The lists decide.
    Decided(Reason),
    /// Not banned, and exempt from limits.
    Allowed,
    /// Neither.
    Open,
}

/// What is known of a source after one look at the lists, as a number: zero if something does concern it, or may, and
/// [`enforce`] has to tell. Numbers leave room below for that of a shape, and pass through `Forget` with it.
pub(super) enum AtOnce {}

impl AtOnce {
    const UNKNOWN: u64 = 0;
    /// No list concerns it.
    pub(super) const OPEN: u64 = 1 << 8;
    /// A ban of the address stops the packet; the hit is counted.
    pub(super) const STOPPED: u64 = 1 << 9;
    /// Beside [`Self::OPEN`]: the class of the payload and one, if that was seen already.
    pub(super) const CLASS_SHIFT: u32 = 16;
    /// Beside [`Self::STOPPED`]: the end of the packet by its header.
    pub(super) const END_SHIFT: u32 = 32;
}

/// The short way for an IPv4 packet of usual shape to a protected port: where no network lies near its source, only a
/// ban of the address itself can concern it, and most packets of a flood end here, before they are taken apart.
#[inline(always)]
pub(super) fn at_once<P: Packet, T: Tables>(packet: &P, tables: &T, config: &Config) -> u64 {
    let Some((address, end)) = source4(packet) else {
        return AtOnce::UNKNOWN;
    };
    let flags = tables.forget(config.flags);
    // Copies of what is dropped are made on the long way.
    if flags & flags::CAPTURE_DROPS != 0 || is_covered(tables, config, Ip::V4(address)) {
        return AtOnce::UNKNOWN;
    }
    if flags & flags::BANS4 == 0 {
        return open4(packet, tables, config, address);
    }
    let Some(found) = lookup::<V4, _>(tables.ban4(), config.seed, address) else {
        return open4(packet, tables, config, address);
    };
    if !found.value.in_force(tables.now()) {
        return open4(packet, tables, config, address);
    }
    found.hit(tables.random());
    AtOnce::STOPPED | (end as u64) << AtOnce::END_SHIFT
}

/// No list concerns the source. What its class is, if that is told as quickly, and a look ahead at its line in the table
/// of sources: asked for now, it comes from memory together with the line of the bans, and not after it.
#[inline(always)]
fn open4<P: Packet, T: Tables>(packet: &P, tables: &T, config: &Config, address: u32) -> u64 {
    const TOLD: u64 = 1 << 3;
    let guess = match head4(packet) {
        Some(Head(words)) => match known_method(words) {
            Class::Garbage => likely_class(words[0]) as u64,
            known => known as u64 | TOLD,
        },
        // Too short for anything else.
        None if is_udp4(packet) => Class::KeepAlive as u64,
        None => return AtOnce::OPEN,
    };
    let guess = tables.forget(guess);
    let place = SourceKey::v4(address, Class::from_low_bits(guess)).place(config.seed);
    touch_source(tables.sources(), place);
    if guess & TOLD == 0 {
        return AtOnce::OPEN;
    }
    AtOnce::OPEN | (1 + (guess & !TOLD)) << AtOnce::CLASS_SHIFT
}

/// Enforces bans and allowances on a packet.
#[inline(always)]
pub(super) fn enforce<T: Tables>(tables: &T, config: &Config, subject: &Subject) -> Standing {
    if subject.open {
        return Standing::Open;
    }
    let sip = subject.content.is_or_may_be_sip();
    if !sip && config.flags & flags::ALL == 0 {
        // No ban stops it, and limits do not concern it.
        return Standing::Open;
    }
    let found = if is_covered(tables, config, subject.source) {
        network(tables, config, subject.source)
    } else {
        Match::default()
    };
    let network = Effect::from_number(tables.forget(found.effect.number()));
    let place = tables.forget(found.place);
    let all = network.all().in_force(subject.now);
    let view = View {
        now: subject.now,
        // Flags as numbers the verifier does not follow: below, both values of each are one path.
        allowed: tables.forget(network.allowed() as u64) != 0,
        network_stops: tables.forget((all || sip && network.sip().in_force(subject.now)) as u64) != 0,
        any_address_ban_stops: tables.forget((all || sip) as u64) != 0,
    };
    if let Some(reason) = by_address(tables, config, subject, &view) {
        return Standing::Decided(reason);
    }
    match (view.network_stops, view.allowed) {
        (true, true) => Standing::Decided(Reason::PassAllowedBanned),
        (true, false) => {
            network_hit(tables, subject.source, place);
            Standing::Decided(Reason::DropBanNetwork)
        }
        (false, true) => Standing::Allowed,
        (false, false) => Standing::Open,
    }
}

/// What is known when the exact tables are asked.
struct View {
    now: u64,
    allowed: bool,
    /// A banned network stops this packet.
    network_stops: bool,
    /// A ban of the address stops this packet whatever its own scope.
    any_address_ban_stops: bool,
}

/// Looks for an exact ban that stops the packet. One that expired, or whose scope does not reach the packet, hides no
/// other.
#[inline(always)]
fn by_address<T: Tables>(tables: &T, config: &Config, subject: &Subject, view: &View) -> Option<Reason> {
    match subject.source {
        Ip::V4(_) if config.flags & flags::BANS4 == 0 => None,
        Ip::V4(address) => stopped::<V4, _, _>(tables, tables.ban4(), config, address, view),
        Ip::V6([high, low]) => {
            let prefix = prefix6(high, config.source_prefix6);
            let by_prefix = if config.flags & flags::BANS6 == 0 {
                None
            } else {
                stopped::<V6Prefix, _, _>(tables, tables.ban6(), config, prefix, view)
            };
            if by_prefix.is_some() || config.flags & flags::HOSTS6 == 0 {
                return by_prefix;
            }
            stopped::<V6Host, _, _>(tables, tables.ban6_host(), config, [high, low], view)
        }
    }
}

#[inline(always)]
fn stopped<L: Layout<Value = Fate>, T: Tables, M: Memory>(
    tables: &T,
    memory: &M,
    config: &Config,
    key: L::Key,
    view: &View,
) -> Option<Reason> {
    let found = lookup::<L, M>(memory, config.seed, key)?;
    if !found.value.in_force(view.now) || !(view.any_address_ban_stops || found.value.all()) {
        return None;
    }
    if view.allowed {
        return Some(Reason::PassAllowedBanned);
    }
    found.hit(tables.random());
    Some(Reason::DropBanAddress)
}

/// How a source stands with trust.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Trust(u64);

impl Trust {
    const TRUSTED: u64 = 1;
    const AT_HOME: u64 = 2;

    #[inline(always)]
    pub(super) const fn from_number(number: u64) -> Self {
        Self(number & (Self::TRUSTED | Self::AT_HOME))
    }

    #[inline(always)]
    pub(super) const fn number(self) -> u64 {
        self.0
    }

    #[inline(always)]
    pub(super) const fn is_trusted(self) -> bool {
        self.0 & Self::TRUSTED != 0
    }

    /// 1 if the packet came from an endpoint that is known, so that it can be taken for the trusted source's own.
    #[inline(always)]
    pub(super) const fn at_home(self) -> u64 {
        self.0 >> 1
    }

    /// 1 if the source is trusted, but this packet came from elsewhere: from a phone that has not registered yet, by
    /// another route, or from a forger.
    #[inline(always)]
    pub(super) const fn stray(self) -> u64 {
        self.0 & !(self.0 >> 1) & Self::TRUSTED
    }
}

/// Whether a source is trusted, and if so, whether this packet came from one of its endpoints. Who is not trusted does
/// not pay for the second question.
#[inline(always)]
pub(super) fn trust<T: Tables>(tables: &T, config: &Config, subject: &Subject) -> Trust {
    let trusted = tables.forget(is_trusted(tables, config, subject) as u64) & Trust::TRUSTED;
    if trusted == 0 {
        return Trust(0);
    }
    let ports = &subject.ports;
    let key = endpoint_key(
        config.seed,
        subject.source,
        (ports.protocol, ports.source, subject.hops),
    );
    let key = tables.forget(key);
    let at_home = lookup::<V6Prefix, _>(tables.endpoints(), config.seed, key)
        .is_some_and(|found| found.value.in_force(subject.now));
    Trust(trusted | (at_home as u64) << 1)
}

/// Whether a source is trusted: its registration lives.
#[inline(always)]
fn is_trusted<T: Tables>(tables: &T, config: &Config, subject: &Subject) -> bool {
    let now = subject.now;
    match subject.source {
        Ip::V4(address) => {
            config.flags & flags::TRUST4 != 0
                && lookup::<V4, _>(tables.trust4(), config.seed, address)
                    .is_some_and(|found| found.value.in_force(now))
        }
        Ip::V6([high, _]) => {
            let prefix = prefix6(high, config.source_prefix6);
            config.flags & flags::TRUST6 != 0
                && lookup::<V6Prefix, _>(tables.trust6(), config.seed, prefix)
                    .is_some_and(|found| found.value.in_force(now))
        }
    }
}

/// Where the hits of an entry of the trie are counted: in the trie.
const IN_TRIE: u64 = u64::MAX;

/// The longest match among networks.
#[inline(always)]
fn network<T: Tables>(tables: &T, config: &Config, source: Ip) -> Match {
    let seed = config.seed;
    let lengths = tables.lengths(block(seed, source)).map_or(Lengths::TRIE, Lengths);
    if lengths == Lengths::TRIE {
        return Match {
            effect: tables.network(source).map_or(Effect::NONE, NetworkValue::effect),
            place: IN_TRIE,
        };
    }
    match source {
        Ip::V4(address) => {
            longest::<Net4, _>(tables.nets4(), seed, lengths, |length| Net4::key(address, length))
        }
        Ip::V6([high, _]) => {
            longest::<Net6, _>(tables.nets6(), seed, lengths, |length| Net6::key(high, length))
        }
    }
}

#[inline(always)]
fn network_hit<T: Tables>(tables: &T, source: Ip, place: u64) {
    match source {
        _ if place == IN_TRIE => tables.network_hit(source),
        Ip::V4(_) => hit(tables.nets4(), place, tables.random()),
        Ip::V6(_) => hit(tables.nets6(), place, tables.random()),
    }
}

/// The word of [`Tables::lengths`] that a source belongs to.
#[inline(always)]
const fn block(seed: [u64; 2], source: Ip) -> u32 {
    match source {
        Ip::V4(address) => block4(address),
        Ip::V6([high, _]) => block6(seed, high),
    }
}

/// Whether some network may lie around a source.
#[inline(always)]
fn is_covered<T: Tables>(tables: &T, config: &Config, source: Ip) -> bool {
    let (some, wide, family) = match source {
        Ip::V4(_) => (flags::NETWORKS4, flags::WIDE4, Family::V4),
        Ip::V6(_) => (flags::NETWORKS6, flags::WIDE6, Family::V6),
    };
    if config.flags & some == 0 {
        return false;
    }
    if config.flags & wide != 0 {
        return true;
    }
    // Small enough for the nearer caches, and without networks in most of its words; the bitmap is neither.
    if tables.lengths(block(config.seed, source)) == Some(0) {
        return false;
    }
    let bit = cover_bit(config.seed, source);
    match tables.cover_word(family, bit >> 6) {
        Some(word) => word >> (bit & 63) & 1 != 0,
        None => true,
    }
}
