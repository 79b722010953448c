//! What goes over the wire: frames by name, and real connections.

use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::{AsRawFd as _, OwnedFd},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime},
};

use nix::sys::{
    socket::{
        AddressFamily, SockFlag, SockType, SockaddrStorage, bind, connect, setsockopt, socket, sockopt,
    },
    time::{TimeVal, TimeValLike as _},
};
use xtask::lab::{Netns, frames::Link, traffic};

use crate::{
    frames::Frame,
    rig::{INTERFACE, Rig, SENDER},
};

/// A request that says which probe it belongs to.
fn marked(name: &str) -> Vec<u8> {
    format!("OPTIONS sip:probe@example.com SIP/2.0\r\nX-Probe: <{name}>\r\nContent-Length: 0\r\n\r\n")
        .into_bytes()
}

/// A frame that can be recognized behind the filter.
pub(crate) struct Probe {
    pub(crate) name: String,
    pub(crate) frame: Vec<u8>,
}

/// One frame from `source` in every wrapping in which SIP may come.
pub(crate) fn sip_probes(source: IpAddr) -> Vec<Probe> {
    let extensions = if source.is_ipv6() {
        vec![(0, vec![0; 8]), (60, vec![0; 16])]
    } else {
        Vec::new()
    };
    let options = if source.is_ipv4() { vec![1; 12] } else { Vec::new() };
    let with_options = move |frame: Frame| Frame {
        options: options.clone(),
        extensions: extensions.clone(),
        ..frame
    };
    let fragment = |frame: Frame, offset, more| Frame {
        fragment: Some((offset, more)),
        ..frame
    };
    let udp = |payload: &[u8]| Frame::udp(source, payload);
    let tcp = |payload: &[u8]| Frame::tcp(source, payload);
    let mut probes = Vec::new();
    let mut add = |name: &str, make: &dyn Fn(&[u8]) -> Frame| {
        let name = format!("{source} {name}");
        let frame = make(&marked(&name)).build();
        probes.push(Probe { name, frame });
    };
    add("udp", &udp);
    add("tcp", &tcp);
    add("udp with options", &|payload| with_options(udp(payload)));
    add("tcp with options", &|payload| with_options(tcp(payload)));
    add("udp in a vlan", &|payload| udp(payload).vlan(0x8100));
    add("tcp in a vlan", &|payload| tcp(payload).vlan(0x8100));
    add("udp in two vlans", &|payload| {
        udp(payload).vlan(0x88a8).vlan(0x8100)
    });
    add("udp with options in a vlan", &|payload| {
        with_options(udp(payload)).vlan(0x8100)
    });
    add("udp first fragment", &|payload| fragment(udp(payload), 0, true));
    add("tcp first fragment", &|payload| fragment(tcp(payload), 0, true));
    add("udp later fragment", &|payload| fragment(udp(payload), 185, true));
    add("udp last fragment", &|payload| fragment(udp(payload), 370, false));
    add("udp later fragment in a vlan", &|payload| {
        fragment(udp(payload), 185, true).vlan(0x8100)
    });
    probes
}

/// A frame to a port that is not protected.
pub(crate) fn media_probe(source: IpAddr) -> Probe {
    let name = format!("{source} media");
    let frame = Frame::udp(source, &marked(&name)).port(16_384).build();
    Probe { name, frame }
}

/// Sends the probes and returns the names of those that came through the filter.
pub(crate) fn passed(rig: &Rig, probes: &[Probe]) -> BTreeSet<String> {
    let mut receiver = Link::open(&rig.server, INTERFACE).unwrap();
    let mut sender = Link::open(&rig.sender, SENDER).unwrap();
    // Frames arrive in order, so whatever is to come is there when this one is.
    let last = media_probe("192.0.2.2".parse().unwrap());
    for probe in probes.iter().chain([&last]) {
        sender.send(&probe.frame).unwrap();
    }
    let mut seen = BTreeSet::new();
    loop {
        let frame = receiver
            .receive(Duration::from_secs(10), |frame| name_of(frame).is_some())
            .unwrap()
            .expect("not even the last frame arrived");
        let name = name_of(&frame).unwrap();
        if name == last.name {
            return seen;
        }
        assert!(seen.insert(name.clone()), "{name} arrived twice");
    }
}

fn name_of(frame: &[u8]) -> Option<String> {
    let text = String::from_utf8_lossy(frame);
    let (_, rest) = text.split_once("X-Probe: <")?;
    Some(rest.split_once('>')?.0.to_owned())
}

pub(crate) fn names(probes: &[Probe]) -> BTreeSet<String> {
    probes.iter().map(|probe| probe.name.clone()).collect()
}

/// Whether a TCP connection from `source` comes about within a second.
pub(crate) fn connects(netns: &Netns, source: IpAddr, to: SocketAddr) -> bool {
    netns.enter(|| try_connect(source, to)).unwrap().is_ok()
}

fn try_connect(source: IpAddr, to: SocketAddr) -> nix::Result<OwnedFd> {
    let family = if to.is_ipv4() {
        AddressFamily::Inet
    } else {
        AddressFamily::Inet6
    };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // It limits the time a connection may take, too.
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::milliseconds(700))?;
    bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(to))?;
    Ok(fd)
}

/// Whether one of three datagrams from `source` arrives at `receiver` at port 5060 or another.
pub(crate) fn reaches(rig: &Rig, source: IpAddr, to: SocketAddr) -> bool {
    let receiver = traffic::socket(&rig.server, to).unwrap();
    let sender = traffic::socket(&rig.sender, SocketAddr::new(source, 0)).unwrap();
    for _ in 0..3 {
        sender.send_to(&marked("datagram"), to).unwrap();
    }
    traffic::drain(&receiver, Duration::from_millis(200)).unwrap() > 0
}

/// A REGISTER as a flooder without credentials sends it.
pub(crate) fn register(number: u64) -> Vec<u8> {
    format!(
        "REGISTER sip:example.com SIP/2.0\r\nVia: SIP/2.0/UDP 203.0.113.7:5060;branch=z9hG4bK{number}\r\n\
         Max-Forwards: 70\r\nTo: <sip:{number}@example.com>\r\nFrom: <sip:{number}@example.com>;tag={number}\r\n\
         Call-ID: {number}@203.0.113.7\r\nCSeq: 1 REGISTER\r\nUser-Agent: Phone/1.0\r\nContent-Length: 0\r\n\r\n"
    )
    .into_bytes()
}

/// Sends datagrams at an even rate until told to stop, or until its time is over.
pub(crate) struct Flood {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    thread: Option<JoinHandle<()>>,
    pub(crate) started: (Instant, SystemTime),
}

impl Flood {
    pub(crate) fn start(
        netns: &Netns,
        from: SocketAddr,
        to: SocketAddr,
        rate: u32,
        limit: Duration,
        payload: impl Fn(u64) -> Vec<u8> + Send + 'static,
    ) -> Self {
        let socket = traffic::socket(netns, from).unwrap();
        socket.connect(to).unwrap();
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let started = (Instant::now(), SystemTime::now());
        let thread = thread::spawn({
            let (stop, sent) = (Arc::clone(&stop), Arc::clone(&sent));
            move || {
                for number in 0_u64.. {
                    let due = Duration::from_secs_f64(number as f64 / f64::from(rate));
                    thread::sleep(due.saturating_sub(started.0.elapsed()));
                    if stop.load(Ordering::Relaxed) || started.0.elapsed() > limit {
                        return;
                    }
                    // Nobody may listen there: that is reported to the next packet, which was not sent then.
                    if socket.send(&payload(number)).is_ok() {
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Self {
            stop,
            sent,
            thread: Some(thread),
            started,
        }
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Ends it and returns how many were sent.
    pub(crate) fn stop(mut self) -> u64 {
        self.end();
        self.sent()
    }

    fn end(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.end();
    }
}

/// What a server's socket got.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Got {
    pub(crate) packets: u64,
    pub(crate) last: Option<(Instant, SystemTime)>,
}

/// A server that counts.
pub(crate) struct Sink {
    got: Arc<Mutex<Got>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Sink {
    pub(crate) fn open(netns: &Netns, at: SocketAddr) -> Self {
        let socket = traffic::socket(netns, at).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let (got, stop) = (Arc::<Mutex<Got>>::default(), Arc::new(AtomicBool::new(false)));
        let thread = thread::spawn({
            let (got, stop) = (Arc::clone(&got), Arc::clone(&stop));
            move || count(&socket, &got, &stop)
        });
        Self {
            got,
            stop,
            thread: Some(thread),
        }
    }

    pub(crate) fn got(&self) -> Got {
        *self.got.lock().unwrap()
    }
}

impl Drop for Sink {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn count(socket: &UdpSocket, got: &Mutex<Got>, stop: &AtomicBool) {
    let mut buffer = [0; 2048];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(_) => {
                let mut got = got.lock().unwrap();
                got.packets += 1;
                got.last = Some((Instant::now(), SystemTime::now()));
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) => {}
            Err(error) => panic!("the server's socket: {error}"),
        }
    }
}
