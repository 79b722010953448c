//! What passes between the attackers and the server, seen on the router: the ground truth of every figure about
//! time, since it depends on nobody's counters or word.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Result;
use ipnet::IpNet;
use xtask::lab::{Topology, frames::Link};

/// Credentials that are remembered until their answer comes, at most.
const PENDING: usize = 65_536;

/// What was seen so far.
#[derive(Debug, Clone, Default)]
pub(super) struct Seen {
    /// Packets of attackers on their way to the server.
    pub(super) sent: u64,
    /// Answers of the server to attackers.
    pub(super) answers: u64,
    /// When the last answer passed, and how many packets had been sent by then.
    pub(super) last_answer: Option<(Instant, u64)>,
    /// Credentials of attackers that the server refused.
    pub(super) refused: u64,
    /// Accounts that the server said something about to an attacker.
    pub(super) accounts: BTreeSet<String>,
    /// REGISTERs of attackers that succeeded.
    pub(super) logins: u64,
    /// What attackers did over TCP since the last answer that is no new data: they connected, or said again what they
    /// had said.
    pub(super) knocks: u64,
    pending: HashSet<u64>,
    /// By connection and direction: where what was not said yet begins.
    next: HashMap<(IpAddr, [u16; 2]), u32>,
}

/// A running watch.
#[derive(Debug)]
pub(super) struct Tap {
    seen: Mutex<Seen>,
    stop: AtomicBool,
}

impl Tap {
    pub(super) fn new() -> Self {
        Self {
            seen: Mutex::default(),
            stop: AtomicBool::new(false),
        }
    }

    /// Watches the router's link to the server until [`Tap::stop`].
    pub(super) fn watch(&self, mut link: Link) -> Result<()> {
        let attackers = networks();
        while !self.stop.load(Ordering::Relaxed) {
            link.receive(Duration::from_millis(200), |frame| {
                if let Some(packet) = parse(frame) {
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.note(&packet, &attackers);
                }
                false
            })?;
        }
        Ok(())
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The networks that attackers are in.
pub(super) fn networks() -> [IpNet; 2] {
    let net = |address: IpAddr, length| IpNet::new_assert(address, length).trunc();
    [
        net(Topology::attacker_v4(1), 24),
        net(Topology::attacker_v6(1), 64),
    ]
}

struct Packet<'a> {
    from: IpAddr,
    to: IpAddr,
    payload: &'a [u8],
    tcp: Option<Segment>,
}

/// Where a TCP segment belongs.
#[derive(Clone, Copy)]
struct Segment {
    ports: [u16; 2],
    sequence: u32,
    opens: bool,
}

/// The addresses and the payload of a frame with UDP or TCP.
fn parse(frame: &[u8]) -> Option<Packet<'_>> {
    let packet = frame.get(14..)?;
    let (from, to, protocol, rest): (IpAddr, IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let header = packet.get(..20)?;
            let four = |at: usize| -> Option<Ipv4Addr> {
                Some(<[u8; 4]>::try_from(header.get(at..at + 4)?).ok()?.into())
            };
            let length = usize::from(header[0] & 15) * 4;
            // Short frames are filled up.
            let total = usize::from(u16::from_be_bytes([header[2], header[3]]));
            let rest = packet.get(length..total.min(packet.len()))?;
            (four(12)?.into(), four(16)?.into(), header[9], rest)
        }
        6 => {
            let header = packet.get(..40)?;
            let sixteen = |at: usize| -> Option<Ipv6Addr> {
                Some(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?.into())
            };
            let total = 40 + usize::from(u16::from_be_bytes([header[4], header[5]]));
            let rest = packet.get(40..total.min(packet.len()))?;
            (sixteen(8)?.into(), sixteen(24)?.into(), header[6], rest)
        }
        _ => return None,
    };
    let (payload, tcp) = match protocol {
        17 => (rest.get(8..)?, None),
        6 => {
            let (header, payload) = (rest.get(..20)?, rest.get(usize::from(rest.get(12)? >> 4) * 4..)?);
            let two = |at: usize| u16::from_be_bytes([header[at], header[at + 1]]);
            let segment = Segment {
                ports: [two(0), two(2)],
                sequence: u32::from(two(4)) << 16 | u32::from(two(6)),
                opens: header[13] & 2 != 0,
            };
            (payload, Some(segment))
        }
        _ => return None,
    };
    Some(Packet {
        from,
        to,
        payload,
        tcp,
    })
}

impl Seen {
    fn note(&mut self, packet: &Packet<'_>, attackers: &[IpNet]) {
        let hostile = |address: &IpAddr| attackers.iter().any(|net| net.contains(address));
        if let Some(segment) = packet.tcp
            && !self.is_news(packet, segment)
        {
            let again = segment.opens || !packet.payload.is_empty();
            self.knocks += u64::from(hostile(&packet.from) && again);
            return;
        }
        if hostile(&packet.from) {
            self.sent += 1;
            let text = String::from_utf8_lossy(packet.payload);
            if self.pending.len() < PENDING && has_credentials(&text) {
                self.pending.extend(transaction(&text));
            }
        } else if hostile(&packet.to) && packet.payload.starts_with(b"SIP/2.0 ") {
            self.answers += 1;
            self.last_answer = Some((Instant::now(), self.sent));
            self.knocks = 0;
            let text = String::from_utf8_lossy(packet.payload);
            let status: u16 = text
                .get(8..11)
                .and_then(|status| status.parse().ok())
                .unwrap_or(0);
            let about_credentials = transaction(&text).is_some_and(|key| self.pending.remove(&key));
            if about_credentials && status >= 400 {
                self.refused += 1;
            }
            let method = value(&text, "cseq", "cseq").unwrap_or_default();
            if method.ends_with("REGISTER") && status >= 200 {
                self.logins += u64::from(status == 200);
                self.accounts.extend(value(&text, "to", "t").and_then(user));
            }
        }
    }
}

impl Seen {
    /// Whether a segment carries what was not seen before: a server repeats its answers to one that is banned by now.
    fn is_news(&mut self, packet: &Packet<'_>, segment: Segment) -> bool {
        let key = (packet.from, segment.ports);
        if segment.opens {
            self.next.insert(key, segment.sequence.wrapping_add(1));
            return false;
        }
        if packet.payload.is_empty() || self.next.len() > PENDING {
            return false;
        }
        let end = segment.sequence.wrapping_add(packet.payload.len() as u32);
        let next = self.next.entry(key).or_insert(segment.sequence);
        // Sequence numbers go round.
        let news = end.wrapping_sub(*next).cast_signed() > 0;
        if news {
            *next = end;
        }
        news
    }
}

fn has_credentials(text: &str) -> bool {
    value(text, "authorization", "authorization")
        .or_else(|| value(text, "proxy-authorization", "proxy-authorization"))
        .is_some()
}

/// A number for what a request and its answer share.
fn transaction(text: &str) -> Option<u64> {
    let mut hasher = DefaultHasher::new();
    value(text, "call-id", "i")?.hash(&mut hasher);
    value(text, "cseq", "cseq")?.hash(&mut hasher);
    Some(hasher.finish())
}

/// The value of a header by its long or compact name, given in lower case.
fn value<'a>(text: &'a str, long: &str, short: &str) -> Option<&'a str> {
    text.lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = name.trim();
            (name.eq_ignore_ascii_case(long) || name.eq_ignore_ascii_case(short)).then(|| value.trim())
        })
}

fn user(to: &str) -> Option<String> {
    let (_, rest) = to.split_once("sip:")?;
    rest.split_once('@').map(|(user, _)| user.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(start: &str, call: &str, more: &str) -> Vec<u8> {
        format!("{start}\r\nTo: <sip:100@h>\r\nCall-ID: {call}\r\nCSeq: 2 REGISTER\r\n{more}\r\n")
            .into_bytes()
    }

    #[test]
    fn refusals_count_for_sent_credentials_only() {
        let (attacker, server) = (Topology::attacker_v4(21), Topology::server_v4(10));
        let mut seen = Seen::default();
        let mut pass = |from, to, payload: Vec<u8>| {
            let packet = Packet {
                from,
                to,
                payload: &payload,
                tcp: None,
            };
            seen.note(&packet, &networks());
        };
        pass(attacker, server, message("REGISTER sip:h SIP/2.0", "1", ""));
        pass(server, attacker, message("SIP/2.0 401 Unauthorized", "1", ""));
        pass(
            attacker,
            server,
            message("REGISTER sip:h SIP/2.0", "2", "Authorization: Digest x\r\n"),
        );
        pass(server, attacker, message("SIP/2.0 401 Unauthorized", "2", ""));
        pass(server, attacker, message("SIP/2.0 401 Unauthorized", "2", ""));
        pass(server, Topology::phone_v4(11), message("SIP/2.0 200 OK", "3", ""));
        assert_eq!((seen.sent, seen.answers, seen.refused, seen.logins), (2, 3, 1, 0));
        assert_eq!(seen.accounts.len(), 1);
        assert_eq!(seen.last_answer.map(|(_, sent)| sent), Some(2));
    }

    #[test]
    fn what_tcp_repeats_is_no_answer() {
        let (attacker, server) = (Topology::attacker_v4(21), Topology::server_v4(10));
        let mut seen = Seen::default();
        let mut pass = |from, to, ports, sequence: u32, opens, payload: &[u8]| {
            let packet = Packet {
                from,
                to,
                payload,
                tcp: Some(Segment {
                    ports,
                    sequence,
                    opens,
                }),
            };
            seen.note(&packet, &networks());
            (seen.sent, seen.answers, seen.knocks)
        };
        let request = message("REGISTER sip:h SIP/2.0", "1", "");
        let answer = message("SIP/2.0 401 Unauthorized", "1", "");
        let (there, back) = ([4000, 5060], [5060, 4000]);
        // Close to the end of the numbers.
        assert_eq!(pass(attacker, server, there, u32::MAX - 1, true, b""), (0, 0, 1));
        assert_eq!(pass(server, attacker, back, 70, true, b""), (0, 0, 1));
        assert_eq!(pass(attacker, server, there, u32::MAX, false, b""), (0, 0, 1));
        assert_eq!(
            pass(attacker, server, there, u32::MAX, false, &request),
            (1, 0, 1)
        );
        assert_eq!(pass(server, attacker, back, 71, false, &answer), (1, 1, 0));
        for knocks in 1..3 {
            assert_eq!(
                pass(server, attacker, back, 71, false, &answer),
                (1, 1, knocks - 1)
            );
            let again = pass(attacker, server, there, u32::MAX, false, &request);
            assert_eq!(again, (1, 1, knocks));
        }
    }
}
