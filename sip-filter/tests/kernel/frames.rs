//! Packets by name: what real senders, odd senders and attackers put on the wire.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A named frame.
#[derive(Clone)]
pub(crate) struct Fixture {
    /// What it is.
    pub(crate) name: &'static str,
    /// The Ethernet frame.
    pub(crate) frame: Vec<u8>,
}

pub(crate) const SERVER4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const CLIENT4: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 7);

pub(crate) fn server6() -> Ipv6Addr {
    "2001:db8:ffff::1".parse().unwrap()
}

pub(crate) fn client6() -> Ipv6Addr {
    "2001:db8:1:2::7".parse().unwrap()
}

/// A request as a phone sends it.
pub(crate) fn request(method: &str) -> Vec<u8> {
    format!(
        "{method} sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.7:5060;branch=z9hG4bK776asdhds\r\n\
         Max-Forwards: 70\r\nTo: Bob <sip:bob@example.com>\r\nFrom: Alice <sip:alice@example.com>;tag=1928301774\r\n\
         Call-ID: a84b4c76e66710@203.0.113.7\r\nCSeq: 314159 {method}\r\nContact: <sip:alice@203.0.113.7>\r\n\
         User-Agent: Phone/1.0\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// Builds a frame step by step; every part can be bent.
#[derive(Clone)]
pub(crate) struct Frame {
    pub(crate) vlans: Vec<u16>,
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
    /// IPv4 options, a multiple of four bytes.
    pub(crate) options: Vec<u8>,
    /// IPv6 extension headers: type and body; the body's first two bytes are filled in.
    pub(crate) extensions: Vec<(u8, Vec<u8>)>,
    /// Fragment offset in units of eight bytes, and whether more follow.
    pub(crate) fragment: Option<(u16, bool)>,
    pub(crate) protocol: u8,
    pub(crate) ports: (u16, u16),
    /// IPv4 time to live, IPv6 hop limit.
    pub(crate) hops: u8,
    pub(crate) payload: Vec<u8>,
    /// Of header and payload of UDP or TCP, at most so many bytes.
    pub(crate) segment_max: usize,
    /// Bytes of Ethernet padding after the IP packet.
    pub(crate) padding: usize,
}

impl Frame {
    /// UDP between two addresses of one family, to port 5060.
    pub(crate) fn udp(source: impl Into<IpAddr>, payload: &[u8]) -> Self {
        let source = source.into();
        let destination = if source.is_ipv4() {
            SERVER4.into()
        } else {
            server6().into()
        };
        Self {
            vlans: Vec::new(),
            source,
            destination,
            options: Vec::new(),
            extensions: Vec::new(),
            fragment: None,
            protocol: 17,
            ports: (40_000, 5060),
            hops: 64,
            payload: payload.to_vec(),
            segment_max: usize::MAX,
            padding: 0,
        }
    }

    pub(crate) fn tcp(source: impl Into<IpAddr>, payload: &[u8]) -> Self {
        Self {
            protocol: 6,
            ..Self::udp(source, payload)
        }
    }

    pub(crate) fn vlan(mut self, ethertype: u16) -> Self {
        self.vlans.push(ethertype);
        self
    }

    pub(crate) fn port(mut self, port: u16) -> Self {
        self.ports.1 = port;
        self
    }

    fn transport(&self) -> Vec<u8> {
        if self.fragment.is_some_and(|(offset, _)| offset > 0) {
            return self.payload.clone();
        }
        let mut bytes = Vec::new();
        bytes.extend(self.ports.0.to_be_bytes());
        bytes.extend(self.ports.1.to_be_bytes());
        match self.protocol {
            17 => {
                bytes.extend((8 + self.payload.len() as u16).to_be_bytes());
                bytes.extend([0, 0]);
            }
            6 => bytes.extend([0, 0, 0, 1, 0, 0, 0, 2, 5 << 4, 0x18, 1, 0, 0, 0, 0, 0]),
            _ => {}
        }
        bytes.extend(&self.payload);
        bytes.truncate(self.segment_max);
        bytes
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        for ethertype in &self.vlans {
            frame.extend(ethertype.to_be_bytes());
            frame.extend([0, 42]);
        }
        let transport = self.transport();
        match (self.source, self.destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                let header_len = 20 + self.options.len();
                let (offset, more) = self.fragment.unwrap_or_default();
                frame.push(0x40 | (header_len / 4) as u8);
                frame.push(0);
                frame.extend(((header_len + transport.len()) as u16).to_be_bytes());
                frame.extend([0, 1]);
                frame.extend((offset | u16::from(more) << 13).to_be_bytes());
                frame.extend([self.hops, self.protocol, 0, 0]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(&self.options);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                let mut extensions = self.extensions.clone();
                if let Some((offset, more)) = self.fragment {
                    let field = (offset << 3 | u16::from(more)).to_be_bytes();
                    extensions.push((44, vec![0, 0, field[0], field[1], 0, 0, 0, 1]));
                }
                let following: Vec<u8> = extensions
                    .iter()
                    .skip(1)
                    .map(|(kind, _)| *kind)
                    .chain([self.protocol])
                    .collect();
                let mut chain = Vec::new();
                for ((kind, body), next) in extensions.iter().zip(following) {
                    let mut body = body.clone();
                    body[0] = next;
                    body[1] = match kind {
                        44 => 0,
                        51 => (body.len() / 4 - 2) as u8,
                        _ => (body.len() / 8 - 1) as u8,
                    };
                    chain.extend(body);
                }
                frame.extend([0x60, 0, 0, 0]);
                frame.extend(((chain.len() + transport.len()) as u16).to_be_bytes());
                frame.push(extensions.first().map_or(self.protocol, |(kind, _)| *kind));
                frame.push(self.hops);
                frame.extend(source.octets());
                frame.extend(destination.octets());
                frame.extend(chain);
            }
            _ => panic!("source and destination of one family"),
        }
        frame.extend(transport);
        frame.extend(vec![0; self.padding]);
        frame
    }
}

/// Every named fixture.
pub(crate) fn all() -> Vec<Fixture> {
    let options = request("OPTIONS");
    let crlf = |mut payload: Vec<u8>| {
        payload.splice(0..0, *b"\r\n\r\n");
        payload
    };
    let chain = |count: usize| -> Vec<(u8, Vec<u8>)> { vec![(60, vec![0; 8]); count] };
    let mut long_uri = b"INVITE sip:".to_vec();
    long_uri.extend(vec![b'9'; 900]);
    long_uri.extend(b"@example.com SIP/2.0\r\nVia: SIP/2.0/UDP host\r\n\r\n");
    let stun = [
        0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
    ];
    let mut fixtures = Vec::new();
    let mut add = |name, frame: Vec<u8>| fixtures.push(Fixture { name, frame });

    add(
        "arp",
        [&[0xff; 6][..], &[2, 0, 0, 0, 0, 2, 0x08, 0x06], &[0; 46]].concat(),
    );
    for (name, method) in [
        ("register", "REGISTER"),
        ("invite", "INVITE"),
        ("options", "OPTIONS"),
        ("subscribe", "SUBSCRIBE"),
        ("message", "MESSAGE"),
        ("lower-case method", "register"),
    ] {
        add(name, Frame::udp(CLIENT4, &request(method)).build());
    }
    add(
        "register over IPv6",
        Frame::udp(client6(), &request("REGISTER")).build(),
    );
    add(
        "response",
        Frame::udp(CLIENT4, b"SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP host\r\n\r\n").build(),
    );
    add(
        "leading CRLF",
        Frame::udp(CLIENT4, &crlf(options.clone())).build(),
    );
    add("long Request-URI", Frame::udp(CLIENT4, &long_uri).build());
    add(
        "keep-alive CRLF CRLF",
        Frame {
            padding: 14,
            ..Frame::udp(CLIENT4, b"\r\n\r\n")
        }
        .build(),
    );
    add(
        "empty datagram, padded",
        Frame {
            padding: 18,
            ..Frame::udp(CLIENT4, b"")
        }
        .build(),
    );
    add("padding that looks like SIP", {
        let mut frame = Frame::udp(CLIENT4, b"\0").build();
        frame.extend(b"REGISTER sip:x SIP/2.0\r\n");
        frame
    });
    add("STUN binding request", Frame::udp(CLIENT4, &stun).build());
    add("garbage", Frame::udp(CLIENT4, &[0xa5; 200]).build());
    add("one byte", Frame::udp(CLIENT4, b"R").build());
    add("31 bytes", Frame::udp(CLIENT4, &options[..31]).build());
    add("other port", Frame::udp(CLIENT4, &options).port(5062).build());
    add("media", Frame::udp(CLIENT4, &[0x80; 172]).port(16_384).build());
    add(
        "icmp",
        Frame {
            protocol: 1,
            ..Frame::udp(CLIENT4, &[8; 60])
        }
        .build(),
    );
    add("802.1Q", Frame::udp(CLIENT4, &options).vlan(0x8100).build());
    add(
        "QinQ",
        Frame::udp(CLIENT4, &options).vlan(0x88a8).vlan(0x8100).build(),
    );
    add(
        "old QinQ",
        Frame::udp(CLIENT4, &options).vlan(0x9100).vlan(0x8100).build(),
    );
    add(
        "three tags",
        Frame::udp(CLIENT4, &options)
            .vlan(0x88a8)
            .vlan(0x8100)
            .vlan(0x8100)
            .build(),
    );
    add(
        "IPv6 in 802.1Q",
        Frame::udp(client6(), &options).vlan(0x8100).build(),
    );
    add(
        "IPv4 options",
        Frame {
            options: vec![1; 12],
            ..Frame::udp(CLIENT4, &options)
        }
        .build(),
    );
    add(
        "IPv4 most options",
        Frame {
            options: vec![1; 40],
            ..Frame::udp(CLIENT4, &options)
        }
        .build(),
    );
    add("IPv4 header too short", {
        let mut frame = Frame::udp(CLIENT4, &options).build();
        frame[14] = 0x44;
        frame
    });
    add("IPv4 total length too short", {
        let mut frame = Frame::udp(CLIENT4, &options).build();
        frame[16..18].copy_from_slice(&10_u16.to_be_bytes());
        frame
    });
    add("IPv4 total length too long", {
        let mut frame = Frame::udp(CLIENT4, &options).build();
        frame[16..18].copy_from_slice(&9000_u16.to_be_bytes());
        frame
    });
    add("IPv4 version 6", {
        let mut frame = Frame::udp(CLIENT4, &options).build();
        frame[14] = 0x65;
        frame
    });
    add("UDP length too short", {
        let mut frame = Frame::udp(CLIENT4, &options).build();
        frame[38..40].copy_from_slice(&3_u16.to_be_bytes());
        frame
    });
    add("UDP length too long", {
        let mut frame = Frame::udp(CLIENT4, &options).build();
        frame[38..40].copy_from_slice(&60_000_u16.to_be_bytes());
        frame
    });
    add(
        "first fragment",
        Frame {
            fragment: Some((0, true)),
            ..Frame::udp(CLIENT4, &options)
        }
        .build(),
    );
    add(
        "later fragment",
        Frame {
            fragment: Some((185, false)),
            ..Frame::udp(CLIENT4, &options)
        }
        .build(),
    );
    add(
        "later TCP fragment",
        Frame {
            fragment: Some((185, false)),
            ..Frame::tcp(CLIENT4, &options)
        }
        .build(),
    );
    add(
        "IPv6 first fragment",
        Frame {
            fragment: Some((0, true)),
            ..Frame::udp(client6(), &options)
        }
        .build(),
    );
    add(
        "IPv6 later fragment",
        Frame {
            fragment: Some((185, false)),
            ..Frame::udp(client6(), &options)
        }
        .build(),
    );
    add("IPv6 hop-by-hop and routing", {
        let extensions = vec![(0, vec![0; 8]), (43, vec![0; 24]), (60, vec![0; 16])];
        Frame {
            extensions,
            ..Frame::udp(client6(), &options)
        }
        .build()
    });
    add("IPv6 authentication header", {
        Frame {
            extensions: vec![(51, vec![0; 24])],
            ..Frame::udp(client6(), &options)
        }
        .build()
    });
    add(
        "IPv6 eight extensions",
        Frame {
            extensions: chain(8),
            ..Frame::udp(client6(), &options)
        }
        .build(),
    );
    add(
        "IPv6 nine extensions",
        Frame {
            extensions: chain(9),
            ..Frame::udp(client6(), &options)
        }
        .build(),
    );
    add(
        "IPv6 mapped source",
        Frame::udp("::ffff:203.0.113.7".parse::<Ipv6Addr>().unwrap(), &options).build(),
    );
    add(
        "IPv6 no next header",
        Frame {
            protocol: 59,
            ..Frame::udp(client6(), b"")
        }
        .build(),
    );
    add("TCP SYN", {
        let mut frame = Frame::tcp(CLIENT4, b"").build();
        frame[14 + 20 + 13] = 2;
        frame
    });
    add("TCP request", Frame::tcp(CLIENT4, &options).build());
    add(
        "TCP middle of a message",
        Frame::tcp(CLIENT4, &options[40..]).build(),
    );
    add("TCP keep-alive", Frame::tcp(CLIENT4, b"\r\n\r\n").build());
    add(
        "TLS",
        Frame::tcp(CLIENT4, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3])
            .port(5061)
            .build(),
    );
    add("TCP data offset too short", {
        let mut frame = Frame::tcp(CLIENT4, &options).build();
        frame[14 + 20 + 12] = 4 << 4;
        frame
    });
    add("TCP with options over IPv6", {
        let mut frame = Frame::tcp(client6(), &options).build();
        let header = 14 + 40 + 12;
        frame[header] = 8 << 4;
        frame.splice(header + 8..header + 8, [1; 12]);
        let len = u16::from_be_bytes([frame[18], frame[19]]) + 12;
        frame[18..20].copy_from_slice(&len.to_be_bytes());
        frame
    });
    add(
        "large",
        Frame::udp(CLIENT4, &[options.clone(), vec![b'x'; 1000]].concat()).build(),
    );
    add(
        "jumbo",
        Frame::udp(CLIENT4, &[options, vec![b'x'; 2600]].concat()).build(),
    );
    fixtures
}
