//! What passes between the attackers and the server, seen on the router: the ground truth of every figure about
//! time, since it depends on nobody's counters or word.

use std::{
    collections::{BTreeSet, HashSet},
    fs::File,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io::{self, BufWriter, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result};
use ipnet::IpNet;
use xtask::lab::{Netns, Topology, frames::Link};

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
    pending: HashSet<u64>,
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

    /// Watches the router's link to the server until [`Tap::stop`]; keeps what it sees in `capture`.
    pub(super) fn watch(&self, router: &Netns, capture: Option<&Path>) -> Result<()> {
        let mut link = Link::open(router, "edge0")?;
        let attackers = networks();
        let mut capture = capture.map(Capture::new).transpose()?;
        while !self.stop.load(Ordering::Relaxed) {
            link.receive(Duration::from_millis(200), |frame| {
                if let Some(capture) = &mut capture {
                    capture.keep(frame);
                }
                if let Some(packet) = parse(frame) {
                    let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                    seen.note(&packet, &attackers);
                }
                false
            })?;
        }
        capture.map_or(Ok(()), Capture::finish)
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    pub(super) fn seen(&self) -> Seen {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A file in pcap's format with nanoseconds.
struct Capture {
    file: BufWriter<File>,
    failure: Option<io::Error>,
}

impl Capture {
    fn new(path: &Path) -> Result<Self> {
        let mut file =
            BufWriter::new(File::create(path).with_context(|| format!("can't create {}", path.display()))?);
        // Magic number, version 2.4, two unused fields, longest frame, Ethernet.
        let versions = 4 << 16 | 2;
        for word in [0xa1b2_3c4d_u32, versions, 0, 0, 262_144, 1] {
            file.write_all(&word.to_le_bytes())?;
        }
        Ok(Self { file, failure: None })
    }

    fn keep(&mut self, frame: &[u8]) {
        let time = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let length = frame.len() as u32;
        let words = [time.as_secs() as u32, time.subsec_nanos(), length, length].map(u32::to_le_bytes);
        let written = self.file.write_all(words.as_flattened());
        if let Err(error) = written.and_then(|()| self.file.write_all(frame)) {
            self.failure.get_or_insert(error);
        }
    }

    fn finish(mut self) -> Result<()> {
        self.file.flush()?;
        self.failure
            .map_or(Ok(()), |error| Err(error).context("can't write the capture"))
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
}

/// The addresses and the UDP payload of a frame.
fn parse(frame: &[u8]) -> Option<Packet<'_>> {
    let packet = frame.get(14..)?;
    let (from, to, udp): (IpAddr, IpAddr, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let header = packet.get(..20)?;
            let four = |at: usize| -> Option<Ipv4Addr> {
                Some(<[u8; 4]>::try_from(header.get(at..at + 4)?).ok()?.into())
            };
            if header[9] != 17 {
                return None;
            }
            let length = usize::from(header[0] & 15) * 4;
            (four(12)?.into(), four(16)?.into(), packet.get(length..)?)
        }
        6 => {
            let header = packet.get(..40)?;
            let sixteen = |at: usize| -> Option<Ipv6Addr> {
                Some(<[u8; 16]>::try_from(header.get(at..at + 16)?).ok()?.into())
            };
            if header[6] != 17 {
                return None;
            }
            (sixteen(8)?.into(), sixteen(24)?.into(), packet.get(40..)?)
        }
        _ => return None,
    };
    Some(Packet {
        from,
        to,
        payload: udp.get(8..)?,
    })
}

impl Seen {
    fn note(&mut self, packet: &Packet<'_>, attackers: &[IpNet]) {
        let hostile = |address: &IpAddr| attackers.iter().any(|net| net.contains(address));
        if hostile(&packet.from) {
            self.sent += 1;
            let text = String::from_utf8_lossy(packet.payload);
            if self.pending.len() < PENDING && has_credentials(&text) {
                self.pending.extend(transaction(&text));
            }
        } else if hostile(&packet.to) && packet.payload.starts_with(b"SIP/2.0 ") {
            self.answers += 1;
            self.last_answer = Some((Instant::now(), self.sent));
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
}
