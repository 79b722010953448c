//! The frames that are sent, and their variants.

use super::{
    Sources, Traffic,
    plan::{HEADS, Plan},
};

/// The first 32 bits of every IPv6 source (RFC 3849).
pub(super) const PREFIX6: u32 = 0x2001_0db8;
const SERVER4: [u8; 4] = [192, 0, 2, 1];
const SERVER6: [u8; 16] = [0x20, 1, 0xd, 0xb8, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1];

/// What a datagram carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Payload {
    /// A request of this method, 450 bytes in all.
    Request(&'static str),
    Response,
    /// Two line ends.
    KeepAlive,
    /// 64 bytes of noise.
    Garbage,
}

/// A UDP datagram's surroundings, and its payload.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) v6: bool,
    pub(crate) vlan: bool,
    pub(crate) port: u16,
    pub(crate) payload: Payload,
}

/// Bytes of a frame with a request, Ethernet header included.
const REQUEST_FRAME: usize = 450;
/// Bytes of payload that are exchanged as a whole.
const HEAD: usize = 32;

impl Shape {
    /// A request over IPv4 to port 5060.
    pub(crate) const fn request(method: &'static str) -> Self {
        Self::of(Payload::Request(method))
    }

    /// Over IPv4 to port 5060.
    pub(crate) const fn of(payload: Payload) -> Self {
        Self {
            v6: false,
            vlan: false,
            port: 5060,
            payload,
        }
    }

    pub(crate) const fn v6(self) -> Self {
        Self { v6: true, ..self }
    }

    pub(crate) const fn vlan(self) -> Self {
        Self { vlan: true, ..self }
    }

    pub(crate) const fn port(self, port: u16) -> Self {
        Self { port, ..self }
    }

    /// The frame from these sources.
    pub(crate) fn from(self, sources: Sources) -> Traffic {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        if self.vlan {
            frame.extend([0x81, 0, 0, 42]);
        }
        let network = frame.len() + 2;
        let payload = self.payload.bytes(0);
        let udp = 8 + payload.len();
        let (source_at, source_word, checksum) = if self.v6 {
            frame.extend(0x86dd_u16.to_be_bytes());
            frame.extend([0x60, 0, 0, 0]);
            frame.extend((udp as u16).to_be_bytes());
            frame.extend([17, 64]);
            frame.extend(super::prefix6(sources.first, sources.base).octets());
            frame.extend(SERVER6);
            (network + 8, u64::from(PREFIX6.to_be()), 0)
        } else {
            frame.extend(0x0800_u16.to_be_bytes());
            frame.extend([0x45, 0]);
            frame.extend((20 + udp as u16).to_be_bytes());
            frame.extend([0, 1, 0x40, 0, 64, 17, 0, 0]);
            let sum = sum(&frame[network..]) + sum(&SERVER4);
            frame.extend(super::source4(sources.first, sources.base).octets());
            frame.extend(SERVER4);
            (network + 8, u64::from(u16::from_ne_bytes([64, 17])), sum)
        };
        let ports_at = frame.len();
        frame.extend(40_000_u16.to_be_bytes());
        frame.extend(self.port.to_be_bytes());
        frame.extend((udp as u16).to_be_bytes());
        frame.extend([0, 0]);
        let mut ports = [0; 8];
        ports.copy_from_slice(&frame[ports_at..]);
        ports[..2].fill(0);
        let head_at = frame.len();
        frame.extend(&payload);
        let varied = payload.len() >= HEAD;
        Traffic {
            plan: Plan {
                sources: sources.count.into(),
                first: sources.first.into(),
                base: sources.base.into(),
                random: sources.random.into(),
                source_at: source_at as u64,
                source_word,
                checksum,
                ports_at: ports_at as u64,
                ports_word: u64::from_ne_bytes(ports),
                head_at: if varied { head_at as u64 } else { 0 },
                interface: 0,
            },
            heads: if varied { self.payload.heads() } else { Vec::new() },
            frame,
        }
    }
}

/// A frame that isn't IP: an ARP request.
pub(crate) fn arp() -> Traffic {
    let mut frame = vec![0xff; 6];
    frame.extend([2, 0, 0, 0, 0, 2, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    frame.resize(60, 0);
    Traffic {
        frame,
        plan: Plan::default(),
        heads: Vec::new(),
    }
}

impl Payload {
    /// Variant `n`. All variants are of one length.
    fn bytes(self, n: u32) -> Vec<u8> {
        match self {
            Self::Request(method) => {
                let mut bytes = format!(
                    "{method} sip:{n:08}@sip.example.org SIP/2.0\r\n\
                     Via: SIP/2.0/UDP 198.51.100.7:5060;branch=z9hG4bK776asdhds\r\nMax-Forwards: 70\r\n\
                     To: <sip:bob@sip.example.org>\r\nFrom: <sip:alice@sip.example.org>;tag=1928301774\r\n\
                     Call-ID: a84b4c76e66710\r\nCSeq: 1 {method}\r\nContact: <sip:alice@198.51.100.7>\r\n\
                     Content-Length: 0\r\nUser-Agent: "
                )
                .into_bytes();
                bytes.resize(REQUEST_FRAME - 42 - 4, b'x');
                bytes.extend(b"\r\n\r\n");
                bytes
            }
            Self::Response => format!(
                "SIP/2.0 {} Whatever\r\nVia: SIP/2.0/UDP 198.51.100.7;branch=z9hG4bK776asdhds\r\n\r\n",
                200 + n % 400
            )
            .into_bytes(),
            Self::KeepAlive => b"\r\n\r\n".to_vec(),
            Self::Garbage => {
                let mut seed = u64::from(n) * 2 + 1;
                let words = std::iter::repeat_with(|| {
                    seed = seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1);
                    seed ^ seed >> 29
                });
                // The highest bit of the first byte tells it from STUN.
                let mut bytes: Vec<u8> = words.take(8).flat_map(u64::to_be_bytes).collect();
                if let Some(first) = bytes.first_mut() {
                    *first |= 0x80;
                }
                bytes
            }
        }
    }

    fn heads(self) -> Vec<[u64; 4]> {
        let word = |bytes: &[u8]| {
            bytes
                .first_chunk()
                .map_or(0, |bytes: &[u8; 8]| u64::from_ne_bytes(*bytes))
        };
        (0..HEADS)
            .map(|n| {
                let bytes = self.bytes(n);
                std::array::from_fn(|index| word(&bytes[8 * index..]))
            })
            .collect()
    }
}

/// Sum of 16-bit words (RFC 1071), not yet folded.
fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| match *pair {
            [high, low] => u64::from(u16::from_be_bytes([high, low])),
            _ => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use sip_filter_common::sip::{Class, classify};

    use super::*;

    #[test]
    fn variants_are_of_one_class_and_differ() {
        let head = |words: &[u64; 4]| -> [u8; HEAD] {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
            bytes.try_into().unwrap()
        };
        for (payload, class) in [
            (Payload::Request("REGISTER"), Class::Register),
            (Payload::Request("INVITE"), Class::Invite),
            (Payload::Response, Class::Response),
            (Payload::Garbage, Class::Garbage),
        ] {
            let heads = payload.heads();
            let distinct: std::collections::BTreeSet<_> = heads.iter().collect();
            assert!(distinct.len() >= 400, "{payload:?}: {}", distinct.len());
            for words in &heads {
                assert_eq!(
                    classify(&sip_filter_common::packet::Head::new(&head(words)), 100),
                    class,
                    "{payload:?}"
                );
            }
        }
    }

    #[test]
    fn a_request_fills_its_frame() {
        let traffic = Shape::request("REGISTER").from(Sources::from(0, 1));
        assert_eq!(traffic.frame.len(), REQUEST_FRAME);
        assert_eq!(traffic.plan.head_at, 42);
        let header = &traffic.frame[14..34];
        let whole = sum(&header[..10]) + sum(&header[16..]);
        assert_eq!(
            whole, traffic.plan.checksum,
            "all of the header but checksum and source"
        );
    }
}
