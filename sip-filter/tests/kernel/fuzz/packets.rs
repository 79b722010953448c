//! Frames: built from their parts, each of which may be wrong, and changed afterwards.

use super::{
    payloads::Corpus,
    random::Random,
    world::{Pool, Ports},
};

const TCP: u8 = 6;
const UDP: u8 = 17;
/// IPv6 headers that are followed, and some that are not.
const EXTENSIONS: [u8; 11] = [0, 43, 44, 51, 60, 135, 139, 140, 50, 59, 253];
/// No driver hands over less, and none we know of more.
const SHORTEST: usize = 14;
const LONGEST: usize = 9_018;

/// Makes frames.
pub(super) struct Packets<'a> {
    pub(super) corpus: &'a Corpus,
    pub(super) pool: &'a Pool,
    last: Vec<u8>,
}

impl<'a> Packets<'a> {
    pub(super) const fn new(corpus: &'a Corpus, pool: &'a Pool) -> Self {
        Self {
            corpus,
            pool,
            last: Vec::new(),
        }
    }

    /// A frame that arrives, or one that leaves.
    pub(super) fn next(&mut self, random: &mut Random, ports: &Ports, leaves: bool) -> Vec<u8> {
        // A sender seldom sends one packet only; without repetition no limit is ever reached.
        if !leaves && random.once_in(3) && self.last.len() >= SHORTEST {
            let mut frame = self.last.clone();
            if random.once_in(3) {
                change(random, &mut frame);
            }
            return frame;
        }
        let mut frame = if random.once_in(12) {
            self.corpus.frame(random)
        } else {
            self.build(random, ports, leaves)
        };
        if random.once_in(4) {
            change(random, &mut frame);
        }
        frame.truncate(LONGEST);
        if frame.len() < SHORTEST {
            frame.resize(SHORTEST, 0);
        }
        if !leaves {
            self.last.clone_from(&frame);
        }
        frame
    }

    fn build(&self, random: &mut Random, ports: &Ports, leaves: bool) -> Vec<u8> {
        let protocol = random.weighted(&[(16, UDP), (6, TCP), (1, 1), (1, 58), (1, 132)]);
        let payload = self.corpus.payload(random);
        let segment = self.transport(random, ports, (protocol, leaves), &payload);
        let mut frame = ethernet(random);
        if random.once_in(60) {
            // ARP, LLDP, or something that nobody knows.
            frame.extend(random.pick(&[[0x08, 0x06], [0x88, 0xcc], [0x81, 0x37], [0, 0]]));
            frame.extend(&segment);
        } else if random.once_in(3) {
            self.ipv6(random, &mut frame, (protocol, leaves), &segment);
        } else {
            self.ipv4(random, &mut frame, (protocol, leaves), &segment);
        }
        if random.once_in(5) {
            frame.resize(frame.len().max(60), 0);
        }
        if random.once_in(16) {
            let count = random.below(30);
            frame.extend(random.bytes(count));
        }
        frame
    }

    fn transport(
        &self,
        random: &mut Random,
        ports: &Ports,
        (protocol, leaves): (u8, bool),
        payload: &[u8],
    ) -> Vec<u8> {
        let protected = if protocol == TCP { &ports.tcp } else { &ports.udp };
        let server = if random.once_in(8) || protected.is_empty() {
            *random.pick(&[5062, 16_384, 53, 0, 65_535, 5060, 5061])
        } else {
            *random.pick(protected)
        };
        let client = if random.once_in(4) {
            random.half()
        } else {
            *random.pick(&self.pool.ports)
        };
        let (source, destination) = if leaves {
            (server, client)
        } else {
            (client, server)
        };
        let mut segment = [source.to_be_bytes(), destination.to_be_bytes()].concat();
        match protocol {
            UDP => {
                let length = wrong_sometimes(random, 24, 8 + payload.len());
                segment.extend(length.to_be_bytes());
                segment.extend([0, 0]);
            }
            TCP => {
                let options = if random.once_in(4) { random.below(11) } else { 0 };
                let offset = if random.once_in(24) {
                    random.byte() >> 4
                } else {
                    5 + options as u8
                };
                segment.extend([
                    0,
                    0,
                    0,
                    1,
                    0,
                    0,
                    0,
                    2,
                    offset << 4,
                    *random.pick(&[0x18, 0x10, 2, 0x12, 1, 4, 0xff]),
                ]);
                segment.extend([1, 0, 0, 0, 0, 0]);
                segment.extend(random.bytes(options * 4));
            }
            _ => segment = random.bytes(8),
        }
        segment.extend(payload);
        segment
    }

    fn ipv4(&self, random: &mut Random, frame: &mut Vec<u8>, (protocol, leaves): (u8, bool), segment: &[u8]) {
        frame.extend([0x08, 0]);
        let options = if random.once_in(8) {
            4 * random.below(11)
        } else {
            0
        };
        let mut first = 0x40 | ((20 + options) / 4) as u8;
        if random.once_in(60) {
            first = random.byte();
        }
        let length = wrong_sometimes(random, 24, 20 + options + segment.len());
        let fragment: u16 = match random.below(20) {
            0 => 0x2000,
            1 => *random.pick(&[1, 2, 0x2001, 185, 0x20b9, 0x1fff, 0x3fff, 0x8000]),
            2 => random.half(),
            3..10 => 0x4000,
            _ => 0,
        };
        frame.extend([first, random.byte()]);
        frame.extend(length.to_be_bytes());
        frame.extend([0, 7]);
        frame.extend(fragment.to_be_bytes());
        frame.extend([*random.pick(&self.pool.hops), protocol, 0, 0]);
        let client = self.pool.v4(random).to_be_bytes();
        let server = [192, 0, 2, 1];
        let [source, destination] = if leaves {
            [server, client]
        } else {
            [client, server]
        };
        frame.extend(source);
        frame.extend(destination);
        frame.extend(random.bytes(options));
        frame.extend(segment);
    }

    fn ipv6(&self, random: &mut Random, frame: &mut Vec<u8>, (protocol, leaves): (u8, bool), segment: &[u8]) {
        frame.extend([0x86, 0xdd]);
        let (first, headers) = extensions(random, protocol);
        let version = if random.once_in(60) { random.byte() } else { 0x60 };
        frame.extend([version, 0, 0, 0]);
        let length = wrong_sometimes(random, 24, headers.len() + segment.len());
        frame.extend(length.to_be_bytes());
        frame.extend([first, *random.pick(&self.pool.hops)]);
        let client = self.pool.v6(random).to_be_bytes();
        let server = 0x2001_0db8_ffff_0000_0000_0000_0000_0001_u128.to_be_bytes();
        let [source, destination] = if leaves {
            [server, client]
        } else {
            [client, server]
        };
        frame.extend(source);
        frame.extend(destination);
        frame.extend(&headers);
        // A later fragment has no header of its own, but what tries to pass for one may.
        frame.extend(segment);
    }
}

fn ethernet(random: &mut Random) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
    let tags = random.weighted(&[(24, 0), (6, 1), (4, 2), (1, 3), (1, 5)]);
    for _ in 0..tags {
        frame.extend(random.weighted(&[(12, [0x81, 0]), (6, [0x88, 0xa8]), (3, [0x91, 0]), (1, [0x92, 0])]));
        frame.extend(random.half().to_be_bytes());
    }
    frame
}

/// Extension headers, and the number of the first.
fn extensions(random: &mut Random, protocol: u8) -> (u8, Vec<u8>) {
    let count = random.weighted(&[(20, 0), (6, 1), (4, 2), (2, 3), (2, 7), (2, 8), (2, 9), (1, 24)]);
    let kinds: Vec<u8> = (0..count)
        .map(|_| {
            if random.once_in(24) {
                random.byte()
            } else {
                EXTENSIONS[random.below(8)]
            }
        })
        .collect();
    let mut bytes = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let next = kinds.get(index + 1).copied().unwrap_or(protocol);
        // Some long enough that the chain ends beyond what is followed.
        let units = random.weighted(&[(12, 0), (4, 1), (2, 3), (1, 31), (1, 255)]);
        let body = match kind {
            44 => {
                let offset: u16 = random.weighted(&[(10, 0), (6, 1), (2, 8), (1, 9), (1, 1480), (1, 0xfff8)]);
                let [high, low] = offset.to_be_bytes();
                vec![next, 0, high, low, 0, 0, 0, 9]
            }
            51 => [vec![next, (units + 1) as u8], random.bytes((units + 1) * 4 + 6)].concat(),
            _ => [vec![next, units as u8], random.bytes(units * 8 + 6)].concat(),
        };
        bytes.extend(&body);
        if random.once_in(24) {
            let start = bytes.len() - body.len();
            bytes[start + 1] = random.byte();
        }
    }
    (kinds.first().copied().unwrap_or(protocol), bytes)
}

/// A length, which is wrong once in so many times.
fn wrong_sometimes(random: &mut Random, times: usize, right: usize) -> u16 {
    let right = u16::try_from(right).unwrap_or(u16::MAX);
    if !random.once_in(times) {
        return right;
    }
    match random.below(6) {
        0 => 0,
        1 => random.below(64) as u16,
        2 => right.wrapping_sub(random.below(16) as u16),
        3 => right.saturating_add(random.below(16) as u16),
        4 => u16::MAX,
        _ => random.half(),
    }
}

/// Changes any bytes, cuts off, or appends.
fn change(random: &mut Random, frame: &mut Vec<u8>) {
    for _ in 0..random.below(4) {
        let within = if random.once_in(4) {
            frame.len()
        } else {
            frame.len().min(100)
        };
        let at = random.below(within);
        frame[at] = if random.once_in(2) {
            random.byte()
        } else {
            frame[at] ^ 1 << random.below(8)
        };
    }
    if random.once_in(4) {
        let within = if random.once_in(2) {
            frame.len().min(130)
        } else {
            frame.len()
        };
        frame.truncate(SHORTEST + random.below(within - SHORTEST + 1));
    }
}
