//! Cursor over the headers of an Ethernet frame: up to two VLAN tags, IPv4 with options, IPv6 with extension headers,
//! UDP and TCP. Every step checks bounds, advances, and says what follows.
//!
//! Lengths are taken from the IP and UDP headers, since short frames are padded; they are only used to know where a
//! payload ends, never to judge a packet.

mod usual;

pub use usual::{Glance, glance, head4, is_not_ip, is_udp4, source4};

use crate::{abi::Address, sip::HEAD, table::Forget};

/// The first bytes of a payload, zeros beyond its end, as little-endian words: the first byte is the lowest of the first
/// word. As words they stay in registers.
#[derive(Clone, Copy, Debug)]
pub struct Head(pub [u64; HEAD / 8]);

impl Head {
    /// From the bytes themselves.
    #[must_use]
    pub fn new(bytes: &[u8; HEAD]) -> Self {
        let mut words = [0; HEAD / 8];
        for (word, bytes) in words.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(*bytes);
        }
        Self(words)
    }

    /// The byte at `offset`, which is below [`HEAD`].
    #[inline(always)]
    #[must_use]
    pub const fn byte(&self, offset: usize) -> u8 {
        (self.0[offset / 8] >> (offset % 8 * 8)) as u8
    }
}

/// The beginning of a packet, known to be there. Offsets are below the length that was asked for.
pub trait Direct: Copy {
    /// The byte at `offset`.
    fn byte(self, offset: usize) -> u8;
    /// The 16 bits at `offset`, from network order.
    fn half(self, offset: usize) -> u16;
    /// The 32 bits at `offset`, from network order.
    fn word(self, offset: usize) -> u32;
    /// The 64 bits at `offset`, from network order.
    fn double(self, offset: usize) -> u64;
}

impl Direct for &[u8] {
    fn byte(self, offset: usize) -> u8 {
        self[offset]
    }

    fn half(self, offset: usize) -> u16 {
        u16::from_be_bytes([self[offset], self[offset + 1]])
    }

    fn word(self, offset: usize) -> u32 {
        (self.half(offset) as u32) << 16 | self.half(offset + 2) as u32
    }

    fn double(self, offset: usize) -> u64 {
        (self.word(offset) as u64) << 32 | self.word(offset + 4) as u64
    }
}

/// A packet's memory. The only way this crate looks at a packet.
pub trait Packet: Sized {
    /// The beginning of a packet.
    type Direct<'a>: Direct
    where
        Self: 'a;

    /// The first `len` bytes, a constant, where they can be read directly: a single comparison for all that lies in
    /// them.
    fn direct(&self, len: usize) -> Option<Self::Direct<'_>>;

    /// Length of the frame in bytes. `reach` is how far its headers say it goes: the kernel only asks for the length
    /// of a frame in several buffers when it may have more than one.
    fn len(&self, reach: usize) -> usize;

    /// `N` bytes at `offset`, `None` if they do not all lie within the frame.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// The first bytes of a payload of `len` bytes at `offset`.
    fn head(&self, offset: usize, len: usize) -> Head;

    /// Copies `len` bytes at `offset` to `target`; returns whether they all lay within the packet.
    ///
    /// # Safety
    /// `target` must be writable for `len` bytes.
    unsafe fn copy_to(&self, offset: usize, target: *mut u8, len: usize) -> bool;

    /// The same packet, looked at afresh: see [`Forget`].
    #[must_use]
    fn again(&self) -> Self;
}

impl Packet for &[u8] {
    type Direct<'a>
        = &'a [u8]
    where
        Self: 'a;

    fn direct(&self, len: usize) -> Option<&[u8]> {
        self.get(..len)
    }

    fn len(&self, _reach: usize) -> usize {
        <[u8]>::len(self)
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    fn head(&self, offset: usize, len: usize) -> Head {
        let mut head = [0; HEAD];
        let payload = self.get(offset..).unwrap_or_default();
        for (target, byte) in head.iter_mut().zip(payload.iter().take(len)) {
            *target = *byte;
        }
        Head::new(&head)
    }

    unsafe fn copy_to(&self, offset: usize, target: *mut u8, len: usize) -> bool {
        let Some(bytes) = offset.checked_add(len).and_then(|end| self.get(offset..end)) else {
            return false;
        };
        // SAFETY: the caller's target has room, and it cannot overlap a shared borrow.
        unsafe { core::ptr::copy_nonoverlapping(bytes.as_ptr(), target, len) };
        true
    }

    fn again(&self) -> Self {
        self
    }
}

/// Why parsing stopped without a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// Not IPv4 or IPv6.
    NotIp,
    /// A header is cut short or contradicts itself.
    Truncated,
    /// More VLAN tags than are followed.
    TooDeep,
}

/// A source or destination, as numbers in host order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// IPv4.
    V4(u32),
    /// IPv6: upper and lower 64 bits.
    V6([u64; 2]),
}

impl Ip {
    /// As the events carry it.
    #[inline(always)]
    #[must_use]
    pub const fn address(self) -> Address {
        // In words as long as possible, which the kernel program keeps in registers.
        let (high, low) = match self {
            Self::V4(address) => (0, 0xffff << 32 | address as u64),
            Self::V6([high, low]) => (high, low),
        };
        Address::from_words(high, low)
    }
}

/// What the IP header says.
#[derive(Clone, Copy, Debug)]
pub struct Network {
    /// Source.
    pub source: Ip,
    /// Where the destination address lies in the frame; it is needed for events only.
    pub destination: usize,
    /// Where the next header begins.
    next: usize,
    /// Its protocol number.
    protocol: u8,
    /// End of the IP packet within the frame, by its own length field.
    pub end: usize,
    /// IPv4 time to live, IPv6 hop limit.
    pub hops: u8,
    /// IPv4: a fragment other than the first.
    later_fragment: bool,
}

/// What carries the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// UDP or TCP with its ports and payload.
    Ports(Ports),
    /// A fragment other than the first. `udp` if it belongs to a UDP datagram.
    LaterFragment {
        /// Whether it is a piece of a UDP datagram.
        udp: bool,
    },
    /// Another protocol.
    Other,
    /// Cut short or contradicting itself.
    Truncated,
    /// More extension headers than are followed.
    TooDeep,
}

/// A UDP or TCP header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// Protocol number, [`UDP`] or [`TCP`].
    pub protocol: u8,
    /// Source port.
    pub source: u16,
    /// Destination port.
    pub destination: u16,
    /// Where the payload begins in the frame.
    pub payload: usize,
    /// Length of the payload in this packet; what lies beyond the frame's end is not counted.
    pub payload_len: usize,
}

/// Protocol number of UDP.
pub const UDP: u8 = 17;
/// Protocol number of TCP.
pub const TCP: u8 = 6;

/// Length of a TCP header without options.
const TCP_HEADER: usize = 20;

const ETHERNET: usize = 14;
const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// 802.1Q, 802.1ad, and the tag many switches used for QinQ before 802.1ad.
const VLAN_TAGS: [u16; 3] = [0x8100, 0x88a8, 0x9100];
const VLAN_MAX: usize = 2;
/// IPv6 extension headers that are followed.
const EXTENSIONS_MAX: usize = 8;
/// Largest offset the cursor works with: the kernel's verifier wants a bound.
pub const OFFSET_MASK: usize = 0x0fff;
/// Where UDP or TCP headers may begin: their payload must begin below the largest offset, too. Beyond, where only a chain
/// of long extension headers leads, nothing is read; offsets must not begin anew at the front of the frame, where a
/// sender could put another port for us than for the server.
const DEEPEST: usize = OFFSET_MASK - 15 * 4;

/// All headers of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Headers {
    /// Whether the source is IPv6.
    is_ipv6: bool,
    /// Words of the source, all of them always set: a value that is not there on one of two ways through the program is
    /// one the verifier does not let the compiler move.
    source: [u64; 2],
    /// Where the destination address lies in the frame.
    pub destination: usize,
    /// End of the IP packet within the frame, by its own length field.
    pub end: usize,
    /// IPv4 time to live, IPv6 hop limit.
    pub hops: u8,
    /// What follows the IP header.
    pub transport: Transport,
}

impl Headers {
    /// Source.
    #[inline(always)]
    #[must_use]
    pub const fn source(&self) -> Ip {
        if self.is_ipv6 {
            Ip::V6(self.source)
        } else {
            Ip::V4(self.source[0] as u32)
        }
    }
}

/// Reads all headers of a frame. `shape` is what [`glance`] said of it.
///
/// # Errors
/// [`Stop`] when there is no IP header to work with.
#[inline(always)]
pub fn headers<P: Packet, F: Forget>(packet: &P, shape: u64, forget: &F) -> Result<Headers, Stop> {
    match usual::headers(packet, shape) {
        Some(headers) => Ok(headers),
        None => any(packet, forget),
    }
}

/// The headers of any frame, step by step.
#[inline(always)]
fn any<P: Packet, F: Forget>(packet: &P, forget: &F) -> Result<Headers, Stop> {
    let network = network(packet)?;
    let (is_ipv6, source) = match network.source {
        Ip::V4(address) => (false, [address as u64, 0]),
        Ip::V6(words) => (true, words),
    };
    Ok(Headers {
        is_ipv6,
        source,
        destination: network.destination,
        end: network.end,
        hops: network.hops,
        transport: transport(packet, &network, forget),
    })
}

#[inline(always)]
const fn is_vlan(ethertype: u16) -> bool {
    ethertype == VLAN_TAGS[0] || ethertype == VLAN_TAGS[1] || ethertype == VLAN_TAGS[2]
}

/// Ethernet, VLAN tags and the IP header.
///
/// # Errors
/// [`Stop`] when there is no IP header to work with.
#[inline(always)]
pub fn network<P: Packet>(packet: &P) -> Result<Network, Stop> {
    let [hi, lo] = packet.read(ETHERNET - 2).ok_or(Stop::Truncated)?;
    let mut ethertype = u16::from_be_bytes([hi, lo]);
    let mut offset = ETHERNET;
    let mut tags = 0;
    while tags < VLAN_MAX && is_vlan(ethertype) {
        let [_, _, hi, lo] = packet.read(offset).ok_or(Stop::Truncated)?;
        ethertype = u16::from_be_bytes([hi, lo]);
        offset += 4;
        tags += 1;
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(packet, offset),
        ETHERTYPE_IPV6 => ipv6(packet, offset),
        other if is_vlan(other) => Err(Stop::TooDeep),
        _ => Err(Stop::NotIp),
    }
}

#[inline(always)]
fn ipv4<P: Packet>(packet: &P, offset: usize) -> Result<Network, Stop> {
    let header: [u8; 20] = packet.read(offset).ok_or(Stop::Truncated)?;
    let header_len = ((header[0] & 0x0f) as usize) * 4;
    let total_len = u16::from_be_bytes([header[2], header[3]]) as usize;
    if header[0] >> 4 != 4 || header_len < 20 || total_len < header_len {
        return Err(Stop::Truncated);
    }
    Ok(Network {
        source: Ip::V4(u32::from_be_bytes([
            header[12], header[13], header[14], header[15],
        ])),
        destination: offset + 16,
        next: offset + header_len,
        protocol: header[9],
        end: offset + total_len,
        hops: header[8],
        later_fragment: u16::from_be_bytes([header[6], header[7]]) & 0x1fff != 0,
    })
}

#[inline(always)]
fn ipv6<P: Packet>(packet: &P, offset: usize) -> Result<Network, Stop> {
    // In two pieces, to spare the kernel program's stack.
    let [version, _, _, _, len_hi, len_lo, protocol, hops]: [u8; 8] =
        packet.read(offset).ok_or(Stop::Truncated)?;
    let high: [u8; 8] = packet.read(offset + 8).ok_or(Stop::Truncated)?;
    let low: [u8; 8] = packet.read(offset + 16).ok_or(Stop::Truncated)?;
    let _destination: [u8; 16] = packet.read(offset + 24).ok_or(Stop::Truncated)?;
    // An IPv4-mapped source never is one on the wire (RFC 4291 §2.5.5.2), and the kernel drops it (ip6_rcv_core). Here
    // it must not be taken for the IPv4 address, or it would be counted against its owner.
    let is_mapped = u64::from_be_bytes(high) == 0 && u64::from_be_bytes(low) >> 32 == 0xffff;
    if version >> 4 != 6 || is_mapped {
        return Err(Stop::Truncated);
    }
    let payload_len = u16::from_be_bytes([len_hi, len_lo]) as usize;
    Ok(Network {
        source: Ip::V6([u64::from_be_bytes(high), u64::from_be_bytes(low)]),
        destination: offset + 24,
        next: offset + 40,
        protocol,
        end: offset + 40 + payload_len,
        hops,
        later_fragment: false,
    })
}

/// From the IP header to the payload.
#[inline(always)]
pub fn transport<P: Packet, F: Forget>(packet: &P, network: &Network, forget: &F) -> Transport {
    if network.later_fragment {
        return Transport::LaterFragment {
            udp: network.protocol == UDP,
        };
    }
    let (mut protocol, mut next) = (network.protocol, network.next);
    if matches!(network.source, Ip::V6(_)) {
        match extensions(packet, protocol, next, forget) {
            Ok(found) => (protocol, next) = found,
            Err(stop) => return stop,
        }
    }
    match protocol {
        UDP => udp(packet, next, network.end),
        TCP => tcp(packet, next, network.end),
        _ => Transport::Other,
    }
}

/// Follows IPv6 extension headers (RFC 8200 §4) to the upper-layer protocol: its number and offset.
#[inline(always)]
fn extensions<P: Packet, F: Forget>(
    packet: &P,
    mut protocol: u8,
    mut next: usize,
    forget: &F,
) -> Result<(u8, usize), Transport> {
    const HOP_BY_HOP: u8 = 0;
    const ROUTING: u8 = 43;
    const FRAGMENT: u8 = 44;
    const AUTHENTICATION: u8 = 51;
    const DESTINATION: u8 = 60;
    const MOBILITY: u8 = 135;
    const HIP: u8 = 139;
    const SHIM6: u8 = 140;

    let mut count = 0;
    while count < EXTENSIONS_MAX {
        if next > DEEPEST {
            return Err(Transport::TooDeep);
        }
        next &= OFFSET_MASK;
        match protocol {
            HOP_BY_HOP | ROUTING | DESTINATION | MOBILITY | HIP | SHIM6 => {
                let [following, len] = packet.read(next).ok_or(Transport::Truncated)?;
                protocol = following;
                next += (len as usize + 1) * 8;
            }
            AUTHENTICATION => {
                let [following, len] = packet.read(next).ok_or(Transport::Truncated)?;
                protocol = following;
                next += (len as usize + 2) * 4;
            }
            FRAGMENT => {
                let [following, _, hi, lo] = packet.read(next).ok_or(Transport::Truncated)?;
                if u16::from_be_bytes([hi, lo]) & 0xfff8 != 0 {
                    return Err(Transport::LaterFragment {
                        udp: following == UDP,
                    });
                }
                protocol = following;
                next += 8;
            }
            _ => return Ok((protocol, next)),
        }
        protocol = forget.forget(protocol as u64) as u8;
        next = forget.forget(next as u64) as usize;
        count += 1;
    }
    match protocol {
        HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6 => {
            Err(Transport::TooDeep)
        }
        _ if next > DEEPEST => Err(Transport::TooDeep),
        _ => Ok((protocol, next)),
    }
}

#[inline(always)]
fn udp<P: Packet>(packet: &P, offset: usize, end: usize) -> Transport {
    let offset = offset & OFFSET_MASK;
    let Some([s1, s0, d1, d0, l1, l0, _, _]) = packet.read::<8>(offset) else {
        return Transport::Truncated;
    };
    // A first fragment has the length of the whole datagram; a jumbogram (RFC 2675) has 0.
    let claimed = u16::from_be_bytes([l1, l0]) as usize;
    let payload = offset + 8;
    let by_header = if claimed >= 8 { offset + claimed } else { end };
    ports(packet, UDP, [s1, s0, d1, d0], payload, min(by_header, end))
}

#[inline(always)]
fn tcp<P: Packet>(packet: &P, offset: usize, end: usize) -> Transport {
    let offset = offset & OFFSET_MASK;
    let Some([s1, s0, d1, d0]) = packet.read::<4>(offset) else {
        return Transport::Truncated;
    };
    let data_offset = packet.read::<1>(offset + 12);
    let mut header_len = data_offset.map_or(0, |[byte]| (byte >> 4) as usize * 4);
    if header_len < TCP_HEADER {
        // Where the IP packet ends before that byte, it is a first fragment as small as they can be, or worth nothing.
        // The server puts fragments together, so the port counts.
        if end > offset + 12 {
            return Transport::Truncated;
        }
        header_len = TCP_HEADER;
    }
    ports(packet, TCP, [s1, s0, d1, d0], offset + header_len, end)
}

#[inline(always)]
fn ports<P: Packet>(
    packet: &P,
    protocol: u8,
    [s1, s0, d1, d0]: [u8; 4],
    payload: usize,
    end: usize,
) -> Transport {
    let end = min(end, packet.len(end));
    Transport::Ports(Ports {
        protocol,
        source: u16::from_be_bytes([s1, s0]),
        destination: u16::from_be_bytes([d1, d0]),
        payload,
        payload_len: end.saturating_sub(payload),
    })
}

#[inline(always)]
const fn min(a: usize, b: usize) -> usize {
    if a < b { a } else { b }
}
