//! Frames: the headers of usual shape against the step-by-step cursor, both against a plain parser, and every frame
//! against its own truncations.

use sip_filter_common::{
    packet::{Glance, Headers, Ip, Packet, Stop, TCP, Transport, UDP, glance, headers, is_not_ip},
    table::Plain,
};

/// Reads the headers of a frame.
pub fn packet(frame: &[u8]) {
    let glance = glance(&frame);
    let fast = headers(&frame, Glance::shape(glance), &Plain);
    let slow = headers(&frame, 0, &Plain);
    assert_eq!(fast, slow, "the headers of usual shape and the cursor disagree");
    match glance {
        Some(glance) => agrees_with_glance(glance, &slow),
        None => assert!(
            !is_not_ip(&frame) || slow == Err(Stop::NotIp),
            "{slow:?} is not IP"
        ),
    }
    if let Ok(headers) = &slow {
        lies_within(frame, headers);
    }
    assert_eq!(
        summary(&slow),
        plain(frame),
        "the cursor and the plain parser disagree"
    );
    for cut in (0..frame.len().min(160)).chain([frame.len() / 2]) {
        survives_truncation(&frame[..cut], &slow);
    }
}

fn agrees_with_glance(glance: Glance, slow: &Result<Headers, Stop>) {
    let headers = slow.as_ref().expect("what has a glance has headers");
    let Transport::Ports(ports) = headers.transport else {
        panic!("a glance at {:?}", headers.transport);
    };
    let expected = (ports.protocol, ports.destination, headers.end);
    assert_eq!((glance.protocol, glance.port, glance.end), expected);
    assert_eq!(glance.is_ipv6, matches!(headers.source(), Ip::V6(_)));
}

/// What is copied to user space is the frame's, and the first bytes of the payload are those that are judged.
fn lies_within(frame: &[u8], headers: &Headers) {
    let address = if matches!(headers.source(), Ip::V6(_)) {
        16
    } else {
        4
    };
    assert!(headers.destination + address <= frame.len());
    let Transport::Ports(ports) = headers.transport else {
        return;
    };
    if ports.payload_len == 0 {
        return;
    }
    assert!(ports.payload + ports.payload_len <= frame.len().min(headers.end));
    let payload = &frame[ports.payload..][..ports.payload_len];
    let head = Packet::head(&frame, ports.payload, ports.payload_len);
    for offset in 0..sip_filter_common::sip::HEAD {
        assert_eq!(head.byte(offset), payload.get(offset).copied().unwrap_or(0));
    }
    let mut copy = vec![0; ports.payload_len];
    // SAFETY: the copy is as long as what is copied.
    let copied = unsafe { Packet::copy_to(&frame, ports.payload, copy.as_mut_ptr(), copy.len()) };
    assert!(copied && copy == payload);
}

/// A cut frame says less, or the same, and never something else.
fn survives_truncation(cut: &[u8], whole: &Result<Headers, Stop>) {
    let shape = Glance::shape(glance(&cut));
    let part = headers(&cut, shape, &Plain);
    let part = match part {
        Err(Stop::Truncated) => return,
        Err(stop) => return assert_eq!(whole, &Err(stop)),
        Ok(part) => part,
    };
    let whole = whole.as_ref().expect("a whole frame says no less than its part");
    assert_eq!(part.source(), whole.source());
    assert_eq!(
        (part.end, part.hops, part.destination),
        (whole.end, whole.hops, whole.destination)
    );
    match (part.transport, whole.transport) {
        (Transport::Truncated, _) => {}
        (Transport::Ports(mut part), Transport::Ports(whole)) => {
            assert!(part.payload_len <= whole.payload_len);
            part.payload_len = whole.payload_len;
            // What lies behind a packet of that kind is no part of it, but tells this.
            if part.protocol == TCP && part.payload_len == 0 {
                part.payload = whole.payload;
            }
            assert_eq!(part, whole);
        }
        (part, whole) => assert_eq!(part, whole),
    }
}

type Summary = Result<(Ip, usize, Transport), Stop>;

fn summary(headers: &Result<Headers, Stop>) -> Summary {
    headers.map(|headers| (headers.source(), headers.end, headers.transport))
}

/// The same rules in slices and without a thought for the kernel's verifier.
fn plain(frame: &[u8]) -> Summary {
    let mut rest = frame.get(12..).ok_or(Stop::Truncated)?;
    let mut tags = 0;
    let ethertype = loop {
        let (kind, after) = rest.split_first_chunk::<2>().ok_or(Stop::Truncated)?;
        let kind = u16::from_be_bytes(*kind);
        if !matches!(kind, 0x8100 | 0x88a8 | 0x9100) {
            rest = after;
            break kind;
        }
        if tags == 2 {
            return Err(Stop::TooDeep);
        }
        // A tag counts only if what it holds is there.
        rest = after
            .get(2..)
            .filter(|rest| rest.get(1).is_some())
            .ok_or(Stop::Truncated)?;
        tags += 1;
    };
    match ethertype {
        0x0800 => plain_ipv4(frame, frame.len() - rest.len()),
        0x86dd => plain_ipv6(frame, frame.len() - rest.len()),
        _ => Err(Stop::NotIp),
    }
}

fn half(bytes: &[u8], offset: usize) -> usize {
    usize::from(bytes[offset]) << 8 | usize::from(bytes[offset + 1])
}

fn double(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .take(8)
        .fold(0, |value, byte| value << 8 | u64::from(*byte))
}

fn plain_ipv4(frame: &[u8], at: usize) -> Summary {
    let header = frame.get(at..at + 20).ok_or(Stop::Truncated)?;
    let length = usize::from(header[0] & 15) * 4;
    if header[0] >> 4 != 4 || length < 20 || half(header, 2) < length {
        return Err(Stop::Truncated);
    }
    let source = Ip::V4(
        header[12..16]
            .iter()
            .fold(0, |value, byte| value << 8 | u32::from(*byte)),
    );
    let end = at + half(header, 2);
    let transport = if half(header, 6) & 0x1fff == 0 {
        plain_transport(frame, header[9], at + length, end)
    } else {
        Transport::LaterFragment {
            udp: header[9] == UDP,
        }
    };
    Ok((source, end, transport))
}

fn plain_ipv6(frame: &[u8], at: usize) -> Summary {
    let header = frame.get(at..at + 40).ok_or(Stop::Truncated)?;
    let (high, low) = (double(&header[8..]), double(&header[16..]));
    if header[0] >> 4 != 6 || high == 0 && low >> 32 == 0xffff {
        return Err(Stop::Truncated);
    }
    let end = at + 40 + half(header, 4);
    let transport = match plain_extensions(frame, header[6], at + 40) {
        Ok((protocol, at)) => plain_transport(frame, protocol, at, end),
        Err(stop) => stop,
    };
    Ok((Ip::V6([high, low]), end, transport))
}

fn plain_extensions(frame: &[u8], mut protocol: u8, mut at: usize) -> Result<(u8, usize), Transport> {
    for followed in 0.. {
        // Headers further in than any frame is followed.
        if at > sip_filter_common::packet::OFFSET_MASK - 15 * 4 {
            return Err(Transport::TooDeep);
        }
        if !matches!(protocol, 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140) {
            break;
        }
        if followed == 8 {
            return Err(Transport::TooDeep);
        }
        let needed = if protocol == 44 { 4 } else { 2 };
        let header = frame
            .get(at..)
            .filter(|rest| rest.get(needed - 1).is_some())
            .ok_or(Transport::Truncated)?;
        if protocol == 44 && half(header, 2) & 0xfff8 != 0 {
            return Err(Transport::LaterFragment {
                udp: header[0] == UDP,
            });
        }
        at += match protocol {
            44 => 8,
            51 => (usize::from(header[1]) + 2) * 4,
            _ => (usize::from(header[1]) + 1) * 8,
        };
        protocol = header[0];
    }
    Ok((protocol, at))
}

fn plain_transport(frame: &[u8], protocol: u8, at: usize, end: usize) -> Transport {
    let rest = frame.get(at..).unwrap_or_default();
    // Where the packet itself ends before the byte that says how long a TCP header is, it is a first fragment, and counts
    // by its ports.
    let words = rest.get(12).map_or(0, |byte| byte >> 4);
    let tiny = end <= at + 12;
    let (payload, end) = match protocol {
        UDP if rest.len() < 8 => return Transport::Truncated,
        UDP => match half(rest, 4) {
            claimed @ 8.. => (at + 8, end.min(at + claimed)),
            _ => (at + 8, end),
        },
        TCP if rest.len() < 4 || words < 5 && !tiny => return Transport::Truncated,
        TCP => (at + usize::from(words.max(5)) * 4, end),
        _ => return Transport::Other,
    };
    Transport::Ports(sip_filter_common::packet::Ports {
        protocol,
        source: half(rest, 0) as u16,
        destination: half(rest, 2) as u16,
        payload,
        payload_len: end.min(frame.len()).saturating_sub(payload),
    })
}
