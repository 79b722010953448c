//! The headers nearly every packet has, at constant offsets. What is read here of some frames, [`super::any`] reads of
//! every frame.

use super::{
    Direct, ETHERNET, ETHERTYPE_IPV4, ETHERTYPE_IPV6, Head, Headers, Packet, Ports, TCP, Transport, UDP,
    is_vlan, min,
};
use crate::sip::HEAD;

/// The little of a packet that tells whether it goes to a protected port, where its headers are usual: Ethernet, then
/// IPv4 without options or IPv6 without extension headers, then UDP or TCP, all at constant offsets; no VLAN tag, no
/// later fragment, nothing wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// Whether it is IPv6.
    pub is_ipv6: bool,
    /// Protocol number.
    pub protocol: u8,
    /// Destination port.
    pub port: u16,
    /// As in [`Headers`].
    pub end: usize,
}

impl Glance {
    /// Number of the shape of IPv4.
    pub const IPV4: u64 = 1;
    const IPV6: u64 = 2;

    /// What `headers` has to know of it, as a number; 0 if the headers are not usual.
    #[inline(always)]
    #[must_use]
    pub const fn shape(glance: Option<Self>) -> u64 {
        match glance {
            None => 0,
            Some(Self { is_ipv6: false, .. }) => Self::IPV4,
            Some(Self { is_ipv6: true, .. }) => Self::IPV6,
        }
    }
}

const IPV4_TRANSPORT: usize = ETHERNET + 20;
const IPV6_TRANSPORT: usize = ETHERNET + 40;
/// To the byte of a TCP header that tells its length. That a UDP header is shorter does not matter: frames are padded.
const TRANSPORT: usize = 14;

/// Looks at the few fields that [`Glance`] holds, and at those that could contradict.
#[inline(always)]
pub fn glance<P: Packet>(packet: &P) -> Option<Glance> {
    let frame = packet.direct(IPV4_TRANSPORT + TRANSPORT)?;
    let ethertype = frame.half(ETHERNET - 2);
    if ethertype == ETHERTYPE_IPV4 {
        let total_len = frame.half(ETHERNET + 2) as usize;
        let protocol = frame.byte(ETHERNET + 9);
        let is_usual =
            frame.byte(ETHERNET) == 0x45 && total_len >= 20 && frame.half(ETHERNET + 6) & 0x1fff == 0;
        if !is_usual || !has_ports(frame, protocol, IPV4_TRANSPORT) {
            return None;
        }
        return Some(Glance {
            is_ipv6: false,
            protocol,
            port: frame.half(IPV4_TRANSPORT + 2),
            end: ETHERNET + total_len,
        });
    }
    if ethertype != ETHERTYPE_IPV6 {
        return None;
    }
    let frame = packet.direct(IPV6_TRANSPORT + TRANSPORT)?;
    let protocol = frame.byte(ETHERNET + 6);
    // Nearly no address begins with 64 zeros; mapped ones do.
    let is_usual = frame.byte(ETHERNET) >> 4 == 6 && frame.double(ETHERNET + 8) != 0;
    if !is_usual || !has_ports(frame, protocol, IPV6_TRANSPORT) {
        return None;
    }
    Some(Glance {
        is_ipv6: true,
        protocol,
        port: frame.half(IPV6_TRANSPORT + 2),
        end: IPV6_TRANSPORT + frame.half(ETHERNET + 4) as usize,
    })
}

/// Whether a frame at which [`glance`] found nothing carries something else than IP, and no VLAN tag: ARP, or what switches
/// tell each other.
#[inline(always)]
pub fn is_not_ip<P: Packet>(packet: &P) -> bool {
    packet.direct(ETHERNET).is_some_and(|frame| {
        let ethertype = frame.half(ETHERNET - 2);
        ethertype != ETHERTYPE_IPV4 && ethertype != ETHERTYPE_IPV6 && !is_vlan(ethertype)
    })
}

/// The source of a frame at which [`glance`] found IPv4, and its end by its header.
#[inline(always)]
pub fn source4<P: Packet>(packet: &P) -> Option<(u32, usize)> {
    let frame = packet.direct(IPV4_TRANSPORT + TRANSPORT)?;
    Some((
        frame.word(ETHERNET + 12),
        ETHERNET + frame.half(ETHERNET + 2) as usize,
    ))
}

/// Whether a frame at which [`glance`] found IPv4 carries UDP.
#[inline(always)]
pub fn is_udp4<P: Packet>(packet: &P) -> bool {
    packet
        .direct(IPV4_TRANSPORT + TRANSPORT)
        .is_some_and(|frame| frame.byte(ETHERNET + 9) == UDP)
}

/// The head of the payload of a frame at which [`glance`] found IPv4, if it is a UDP datagram with so long a payload.
#[inline(always)]
pub fn head4<P: Packet>(packet: &P) -> Option<Head> {
    const PAYLOAD: usize = IPV4_TRANSPORT + 8;
    let frame = packet.direct(PAYLOAD + HEAD)?;
    let total_len = frame.half(ETHERNET + 2) as usize;
    let claimed = frame.half(IPV4_TRANSPORT + 4) as usize;
    if frame.byte(ETHERNET + 9) != UDP || total_len < PAYLOAD + HEAD - ETHERNET || claimed < 8 + HEAD {
        return None;
    }
    Some(Head(
        [0, 8, 16, 24].map(|offset| frame.double(PAYLOAD + offset).swap_bytes()),
    ))
}

/// Whether what follows is UDP, or TCP with a header of a possible length.
#[inline(always)]
fn has_ports<D: Direct>(frame: D, protocol: u8, offset: usize) -> bool {
    protocol == UDP || protocol == TCP && frame.byte(offset + 12) >= 5 << 4
}

/// The headers of a frame of usual shape: nothing is left to be checked. [`super::any`] says the same.
#[inline(always)]
pub(super) fn headers<P: Packet>(packet: &P, shape: u64) -> Option<Headers> {
    if shape == Glance::IPV4 {
        let frame = packet.direct(IPV4_TRANSPORT + TRANSPORT)?;
        let end = ETHERNET + frame.half(ETHERNET + 2) as usize;
        return Some(Headers {
            is_ipv6: false,
            source: [frame.word(ETHERNET + 12) as u64, 0],
            destination: ETHERNET + 16,
            end,
            hops: frame.byte(ETHERNET + 8),
            transport: transport(packet, frame, frame.byte(ETHERNET + 9), IPV4_TRANSPORT, end),
        });
    }
    if shape != Glance::IPV6 {
        return None;
    }
    let frame = packet.direct(IPV6_TRANSPORT + TRANSPORT)?;
    let end = IPV6_TRANSPORT + frame.half(ETHERNET + 4) as usize;
    Some(Headers {
        is_ipv6: true,
        source: [frame.double(ETHERNET + 8), frame.double(ETHERNET + 16)],
        destination: ETHERNET + 24,
        end,
        hops: frame.byte(ETHERNET + 7),
        transport: transport(packet, frame, frame.byte(ETHERNET + 6), IPV6_TRANSPORT, end),
    })
}

#[inline(always)]
fn transport<P: Packet, D: Direct>(
    packet: &P,
    frame: D,
    protocol: u8,
    offset: usize,
    end: usize,
) -> Transport {
    let (payload, by_header) = if protocol == UDP {
        let claimed = frame.half(offset + 4) as usize;
        (offset + 8, if claimed >= 8 { offset + claimed } else { end })
    } else {
        (offset + (frame.byte(offset + 12) >> 4) as usize * 4, end)
    };
    let end = min(by_header, end);
    let end = min(end, packet.len(end));
    Transport::Ports(Ports {
        protocol,
        source: frame.half(offset),
        destination: frame.half(offset + 2),
        payload,
        payload_len: end.saturating_sub(payload),
    })
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::{
        super::{Stop, any},
        *,
    };
    use crate::table::Plain;

    fn frame(ethertype: u16, ip: &[u8], transport: &[u8]) -> Vec<u8> {
        let mut frame = std::vec![2; 12];
        frame.extend(ethertype.to_be_bytes());
        frame.extend(ip);
        frame.extend(transport);
        frame.resize(frame.len() + 40, b'x');
        frame
    }

    fn frames() -> Vec<Vec<u8>> {
        let ipv4 = |protocol| {
            let mut header = [0; 20];
            header[..10].copy_from_slice(&[0x45, 0, 0, 60, 0, 0, 0, 0, 64, protocol]);
            header[12..].copy_from_slice(&[203, 0, 113, 7, 192, 0, 2, 1]);
            header
        };
        let ipv6 = |protocol| {
            let mut header = [1; 40];
            header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 40, protocol, 64]);
            header
        };
        let udp = [0x9c, 0x40, 0x13, 0xc4, 0, 40, 0, 0];
        let mut tcp = [0; 20];
        tcp[..4].copy_from_slice(&udp[..4]);
        tcp[12] = 5 << 4;
        std::vec![
            frame(ETHERTYPE_IPV4, &ipv4(UDP), &udp),
            frame(ETHERTYPE_IPV4, &ipv4(TCP), &tcp),
            frame(ETHERTYPE_IPV6, &ipv6(UDP), &udp),
            frame(ETHERTYPE_IPV6, &ipv6(TCP), &tcp),
        ]
    }

    /// Whether the headers were usual; if so, what was read at constant offsets is what the step-by-step parser reads.
    fn agrees(frame: &[u8]) -> bool {
        let seen = glance(&frame);
        let Some(found) = headers(&frame, Glance::shape(seen)) else {
            return false;
        };
        let seen = seen.expect("headers were read, so their shape was known");
        assert_eq!(any(&frame, &Plain), Ok(found), "{frame:02x?}");
        let Transport::Ports(ports) = found.transport else {
            panic!("no ports in {frame:02x?}");
        };
        assert_eq!(
            (seen.is_ipv6, seen.protocol, seen.port, seen.end),
            (found.is_ipv6, ports.protocol, ports.destination, found.end)
        );
        if !found.is_ipv6 {
            assert_eq!(source4(&frame), Some((found.source[0] as u32, found.end)));
            if let Some(Head(words)) = head4(&frame) {
                assert!(ports.protocol == UDP && ports.payload_len >= HEAD, "{frame:02x?}");
                assert_eq!(words, frame.head(ports.payload, ports.payload_len).0);
            }
        }
        true
    }

    #[test]
    #[cfg_attr(miri, ignore = "tens of thousands of frames")]
    fn usual_headers_are_read_as_any_are() {
        for whole in frames() {
            assert!(agrees(&whole));
            for len in 0..whole.len() {
                agrees(&whole[..len]);
            }
            let mut usual = 0;
            for at in 12..whole.len() - 40 {
                for value in 0..=255 {
                    let mut frame = whole.clone();
                    frame[at] = value;
                    usual += u32::from(agrees(&frame));
                }
            }
            // Most bytes may be anything: addresses, ports, sums.
            assert!(usual > 20 * 256, "{usual}");
        }
    }

    #[test]
    fn the_head_of_a_whole_datagram_is_read_and_no_other() {
        let [v4, tcp, ..]: [Vec<u8>; 4] = frames().try_into().expect("four frames");
        assert_eq!(head4(&&v4[..]).map(|head| head.byte(31)), Some(b'x'));
        assert!(head4(&&tcp[..]).is_none());
        assert!(head4(&&v4[..73]).is_none(), "cut short");
        // A byte less by the lengths of IP and of UDP.
        for at in [17, 39] {
            let mut frame = v4.clone();
            frame[at] -= 1;
            assert!(head4(&&frame[..]).is_none(), "byte {at}");
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "tens of thousands of frames")]
    fn what_is_not_ip_is_what_the_other_parser_calls_so() {
        let [whole, ..]: [Vec<u8>; 4] = frames().try_into().expect("four frames");
        let mut others = 0;
        for ethertype in 0..=u16::MAX {
            let mut frame = whole.clone();
            frame[12..14].copy_from_slice(&ethertype.to_be_bytes());
            let frame = &frame[..60];
            // Behind a tag anything may follow.
            let expected = !is_vlan(ethertype) && any(&frame, &Plain) == Err(Stop::NotIp);
            assert_eq!(is_not_ip(&frame), expected, "{ethertype:04x}");
            others += u32::from(is_not_ip(&frame));
        }
        // IPv4, IPv6 and three kinds of VLAN tags.
        assert_eq!(others, 65_536 - 5);
        assert!(!is_not_ip(&&whole[..13]), "cut short");
    }

    #[test]
    fn what_is_not_usual_is_left_to_the_other_parser() {
        let [v4, tcp, v6, _] = frames().try_into().expect("four frames");
        for (frame, at, value) in [
            (&v4, 12, 0x81),
            (&v4, 14, 0x46),
            (&v4, 17, 19),
            (&v4, 21, 1),
            (&v4, 23, 1),
            (&tcp, 46, 4 << 4),
            (&v6, 14, 0x40),
            (&v6, 20, 44),
        ] {
            let mut frame = frame.clone();
            frame[at] = value;
            assert!(!agrees(&frame), "byte {at}");
        }
    }
}
