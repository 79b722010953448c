//! From the packet that decides to the first packet that is dropped.
//!
//! Every packet carries its number, and the server notes which arrive behind the protection. The first number missing
//! after the deciding one was the first dropped; what passed between is the time between the two being sent. Nothing
//! but the protection can lose a packet: the receiver has room for all of them, and at the end of each flood a check makes
//! sure that all before it arrived.

use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBufForce};
use xtask::lab::{spoof::Forger, traffic, traffic::Burst};

use super::visible::milliseconds;
use crate::{
    figures::Sample,
    stage::{Daemon, INTERFACE, NO_BUDGETS, SENDER, Stage},
};

/// Packets a second of the source that is to be banned; the resolution is the pause between two.
const RATE: u32 = 10_000;
/// Numbers that must be missing in a row until a source counts as dropped: 20 ms, as the receiver may wait for a processor.
const SILENCE: u64 = 200;
/// A source that is not dropped by then never is.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of the receiver's buffer: ten thousand packets.
const ROOM: usize = 16 << 20;
/// A tick of the kernel's timer at 100 Hz, by which the limiter's clock moves: a burst may begin so much before it.
const TICK: Duration = Duration::from_millis(10);
/// Limits that drop nothing, so that whatever is dropped was banned.
const NO_LIMITS: &str = "[limits]\noptions = { rate = \"unlimited\" }\ngarbage = { rate = \"unlimited\" }\n";

/// How a source makes itself unwelcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Offence {
    /// With the first packet: a scanner's User-Agent.
    Scanner,
    /// With the hundredth packet that is no SIP.
    Garbage,
}

impl Offence {
    pub(crate) fn rule(self) -> &'static str {
        match self {
            Self::Scanner => "scanner-signature",
            Self::Garbage => "garbage",
        }
    }

    /// Number of the packet that reaches the threshold.
    fn deciding(self) -> u64 {
        match self {
            Self::Scanner => 0,
            Self::Garbage => 99,
        }
    }

    fn payload(self, number: u64, payload: &mut Vec<u8>) {
        let text = match self {
            Self::Scanner => format!(
                "OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.1:5060;branch=z9hG4bK{number}\r\n\
                 Max-Forwards: 70\r\nFrom: <sip:100@192.0.2.1>;tag={number}\r\nTo: <sip:100@192.0.2.1>\r\n\
                 Call-ID: <{number}>\r\nCSeq: 1 OPTIONS\r\nUser-Agent: friendly-scanner\r\nContent-Length: 0\r\n\r\n"
            ),
            Self::Garbage => format!("\x01\x02\x03 nothing <{number}> that anybody could read as a message"),
        };
        payload.extend(text.as_bytes());
    }
}

/// What arrived behind the filter, by source.
#[derive(Debug)]
pub(crate) struct Sink {
    socket: UdpSocket,
    arrived: Mutex<BTreeMap<IpAddr, Vec<u64>>>,
    newest: AtomicU64,
    over: AtomicBool,
}

impl Sink {
    pub(crate) fn open(stage: &Stage) -> Result<Self> {
        let socket = traffic::socket(&stage.server, Stage::target())?;
        // By default there is room for less than 300 small packets: what it lost of a burst looked dropped.
        setsockopt(&socket, RcvBufForce, &ROOM).context("a large buffer for the receiver")?;
        socket.set_read_timeout(Some(Duration::from_millis(20)))?;
        Ok(Self {
            socket,
            arrived: Mutex::default(),
            newest: AtomicU64::new(0),
            over: AtomicBool::new(false),
        })
    }

    fn receive(&self) {
        let mut buffer = [0; 2048];
        while !self.over.load(Ordering::Relaxed) {
            let Ok((length, from)) = self.socket.recv_from(&mut buffer) else {
                continue;
            };
            let Some(number) = number(buffer.get(..length).unwrap_or_default()) else {
                continue;
            };
            let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.entry(from.ip()).or_default().push(number);
            self.newest.store(number, Ordering::Release);
        }
    }

    fn of(&self, source: IpAddr) -> Vec<u64> {
        let arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.get(&source).cloned().unwrap_or_default()
    }

    /// Runs `work` while packets are received.
    pub(crate) fn during<T>(&self, work: impl FnOnce() -> Result<T>) -> Result<T> {
        thread::scope(|scope| {
            let receiver = scope.spawn(|| self.receive());
            let result = work();
            self.over.store(true, Ordering::Relaxed);
            receiver.join().map_err(|_| anyhow!("the receiver panicked"))?;
            result
        })
    }
}

/// The number in `… <17> …`.
fn number(payload: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(payload).ok()?;
    let mut rest = text;
    while let Some((_, after)) = rest.split_once('<') {
        if let Some(number) = after.split_once('>').and_then(|(number, _)| number.parse().ok()) {
            return Some(number);
        }
        rest = after;
    }
    None
}

/// Milliseconds from the deciding packet to the first that a ban dropped, of `count` sources one after another.
pub(crate) fn bans(binary: &Path, offence: Offence, count: u8) -> Result<Sample> {
    let stage = Stage::new("reaction")?;
    let daemon = stage.start(binary, &format!("{NO_BUDGETS}{NO_LIMITS}"))?;
    let mut forger = Forger::new((&stage.sender, SENDER), (&stage.server, INTERFACE))?;
    let sink = Sink::open(&stage)?;
    let mut times = Sample::default();
    sink.during(|| {
        for last in 0..count {
            let source = SocketAddr::new(Ipv4Addr::new(203, 0, 113, last).into(), 5060);
            times.push(ban(&mut forger, &sink, offence, source)?);
        }
        Ok(())
    })?;
    confirm(&daemon, offence, count)?;
    Ok(times)
}

/// Sends until nothing arrives any more.
fn ban(forger: &mut Forger, sink: &Sink, offence: Offence, source: SocketAddr) -> Result<f64> {
    sink.newest.store(0, Ordering::Release);
    let burst = Burst {
        count: u64::from(RATE) * PATIENCE.as_secs(),
        rate: Some(RATE),
        limit: PATIENCE,
    };
    let mut sent = Vec::new();
    let next = AtomicU64::new(0);
    let silent = || {
        let behind = next
            .load(Ordering::Relaxed)
            .saturating_sub(sink.newest.load(Ordering::Acquire));
        behind > SILENCE + offence.deciding()
    };
    forger.send(Stage::target(), burst, silent, |number, payload| {
        offence.payload(number, payload);
        next.store(number + 1, Ordering::Relaxed);
        sent.push(Instant::now());
        source
    });
    // What was sent before the first drop has had time to arrive.
    thread::sleep(Duration::from_millis(5));
    let first = first_missing(&sink.of(source.ip()), offence.deciding())?;
    let at = |number: u64| {
        let time = usize::try_from(number).ok().and_then(|number| sent.get(number));
        time.with_context(|| format!("{} was not dropped", source.ip()))
    };
    let (decided, dropped) = (*at(offence.deciding())?, *at(first)?);
    Ok(milliseconds(dropped - decided))
}

/// The first number that did not arrive. A ban drops everything from there on, so none after it may have arrived.
fn first_missing(arrived: &[u64], deciding: u64) -> Result<u64> {
    let first = (0..)
        .zip(arrived)
        .take_while(|(number, seen)| number == *seen)
        .count() as u64;
    if first != arrived.len() as u64 {
        bail!("packet {first} is missing, but later ones arrived: not a ban, the network lost it");
    }
    ensure!(
        first > deciding,
        "packet {first} was dropped before there was a reason"
    );
    Ok(first)
}

/// The daemon's own word: all of them are banned, for that reason.
fn confirm(daemon: &Daemon, offence: Offence, count: u8) -> Result<()> {
    let bans = daemon.get("/v1/bans")?;
    let bans = bans["bans"].as_array().context("no `bans`")?;
    let so = bans.iter().filter(|ban| ban["rule"] == offence.rule()).count();
    ensure!(
        so == usize::from(count) && bans.len() == so,
        "{so} of {count} sources are banned by {}",
        offence.rule()
    );
    Ok(())
}

/// Packets of sources that send faster than they may, with the default limits.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    /// Packets that passed after the one that took the last of the source's allowance, before the first drop.
    pub(crate) late: Sample,
    /// Packets that passed in all, of a source.
    pub(crate) passed: Sample,
}

/// REGISTER requests one source may send at once, and a second, by default.
const REGISTER: (u64, f64) = (400, 20.0);
/// Enough to be throttled, too few to be banned.
const BURST: u64 = 450;

/// Has `sources` sources send a burst each. More than four would meet the budget that all strangers share.
pub(crate) fn throttle(binary: &Path, sources: u8) -> Result<Throttle> {
    let stage = Stage::new("throttle")?;
    let _daemon = stage.start(binary, "")?;
    let mut forger = Forger::new((&stage.sender, SENDER), (&stage.server, INTERFACE))?;
    let sink = Sink::open(&stage)?;
    let mut throttle = Throttle::default();
    sink.during(|| {
        for last in 0..sources {
            let source = SocketAddr::new(Ipv4Addr::new(203, 0, 113, last).into(), 5060);
            let burst = Burst {
                count: BURST,
                rate: None,
                limit: PATIENCE,
            };
            let mut times = Vec::new();
            let sent = forger.send(
                Stage::target(),
                burst,
                || false,
                |number, payload| {
                    times.push(Instant::now());
                    let text = format!(
                        "REGISTER sip:192.0.2.1 SIP/2.0\r\nCall-ID: <{number}>\r\nCSeq: 1 REGISTER\r\n\
                     Content-Length: 0\r\n\r\n"
                    );
                    payload.extend(text.as_bytes());
                    source
                },
            );
            ensure!(
                sent.packets == BURST,
                "only {} packets of a burst went out",
                sent.packets
            );
            thread::sleep(Duration::from_millis(20));
            let arrived = sink.of(source.ip());
            throttle.late.push(late(&arrived, &times)? as f64);
            throttle.passed.push(arrived.len() as f64);
        }
        Ok(())
    })?;
    Ok(throttle)
}

/// How many packets passed after the last that the source was allowed, before the first that was dropped. `sent` says
/// when each was sent.
fn late(arrived: &[u64], sent: &[Instant]) -> Result<u64> {
    let first = first_gap(arrived);
    ensure!(
        first >= REGISTER.0,
        "packet {first} of {} that a source may send at once is missing: the network lost it",
        REGISTER.0
    );
    let dropped = usize::try_from(first).ok().and_then(|first| sent.get(first));
    let (begun, dropped) = sent.first().zip(dropped).context("nothing was dropped")?;
    // While they were sent, the allowance grew.
    let grown = (*dropped - *begun + TICK).as_secs_f64() * REGISTER.1;
    Ok(first.saturating_sub(REGISTER.0 + grown.floor() as u64))
}

/// How many arrived before the first that did not.
fn first_gap(arrived: &[u64]) -> u64 {
    (0..)
        .zip(arrived)
        .take_while(|(number, seen)| number == *seen)
        .count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_say_their_number() {
        let mut payload = Vec::new();
        for offence in [Offence::Scanner, Offence::Garbage] {
            payload.clear();
            offence.payload(4711, &mut payload);
            assert_eq!(number(&payload), Some(4711));
        }
        assert_eq!(number(b"<sip:x> <"), None);
    }

    #[test]
    fn a_gap_is_no_ban() {
        assert_eq!(first_missing(&[0, 1, 2], 1).unwrap(), 3);
        assert!(first_missing(&[0, 1, 3], 1).is_err(), "lost");
        assert!(first_missing(&[0], 1).is_err(), "dropped too early");
        assert_eq!(first_gap(&[0, 1, 3, 4]), 2);
    }
    #[test]
    fn what_passes_after_the_allowance_is_late() {
        let start = Instant::now();
        let sent = |pause: u64| -> Vec<_> {
            (0..BURST)
                .map(|n| start + Duration::from_micros(n * pause))
                .collect()
        };
        let passed = |until: u64| -> Vec<u64> { (0..until).collect() };
        assert_eq!(
            late(&passed(400), &sent(1)).unwrap(),
            0,
            "the very next was dropped"
        );
        assert_eq!(late(&passed(403), &sent(1)).unwrap(), 3);
        // In 400 ms it may send eight more.
        assert_eq!(late(&passed(408), &sent(1_000)).unwrap(), 0);
        assert_eq!(late(&passed(410), &sent(1_000)).unwrap(), 2);
        assert!(late(&passed(399), &sent(1)).is_err(), "lost, not dropped");
        assert!(late(&passed(450), &sent(1)).is_err(), "nothing was dropped");
    }
}
