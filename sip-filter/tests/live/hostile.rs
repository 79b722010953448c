//! Hostile traffic at the built binary: frames that no socket sends, beside those of others who only want to telephone.
//!
//! `SIP_FILTER_HOSTILE_SECONDS` makes it last longer.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use xtask::lab::{frames::Link, traffic, wait};

use crate::{
    frames::{self, Frame},
    rig::{Daemon, INTERFACE, Rig, SENDER, SERVER4, SERVER6, usable},
    wire::{Probe, names, passed},
};

const ATTACKER: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 66));
const INNOCENT4: &str = "198.51.100.9";
const INNOCENT6: &str = "2001:db8:99::9";

fn seconds() -> u64 {
    std::env::var("SIP_FILTER_HOSTILE_SECONDS").map_or(6, |text| text.parse().unwrap())
}

/// A rig whose interfaces take frames of 9,000 bytes, and a daemon on it.
fn jumbo(role: &str) -> (Rig, Daemon) {
    let rig = Rig::new(role);
    for (netns, interface) in [(&rig.server, INTERFACE), (&rig.sender, SENDER)] {
        netns
            .ip(&["link", "set", "dev", interface, "mtu", "9000"])
            .unwrap();
    }
    rig.config("main", "", "");
    let daemon = rig.start("main", &[]);
    (rig, daemon)
}

/// Frames of up to 9,000 bytes, all to do with SIP, each with its name near the front.
fn jumbo_probes(source: IpAddr) -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut add = |name: &str, make: &dyn Fn(Vec<u8>) -> Frame| {
        let name = format!("{source} {name}");
        let head = format!("OPTIONS sip:probe@example.com SIP/2.0\r\nX-Probe: <{name}>\r\n\r\n");
        let frame = make(head.into_bytes()).build();
        assert!(frame.len() <= 9_014, "{}", frame.len());
        probes.push(Probe { name, frame });
    };
    let filled = |mut payload: Vec<u8>, length: usize| {
        payload.resize(length, b'x');
        payload
    };
    for length in [3_000, 3_500, 4_000, 4_096, 8_900] {
        add(&format!("udp {length}"), &|payload| {
            Frame::udp(source, &filled(payload, length))
        });
        add(&format!("tcp {length}"), &|payload| {
            Frame::tcp(source, &filled(payload, length))
        });
    }
    add("later fragment", &|payload| Frame {
        fragment: Some((100, true)),
        ..Frame::udp(source, &filled(payload, 8_800))
    });
    if source.is_ipv6() {
        // The UDP header lies in the second buffer, then beyond what is read.
        for length in [1_500, 1_960, 2_048] {
            add(&format!("chain of twice {length}"), &|payload| Frame {
                extensions: vec![(60, vec![0; length]); 2],
                ..Frame::udp(source, &payload)
            });
        }
    }
    probes
}

#[test]
fn frames_of_9000_bytes_are_judged_as_any_other() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = jumbo("jumbo");
    for source in [IpAddr::from([203, 0, 113, 7]), "2001:db8:1:2::7".parse().unwrap()] {
        let probes = jumbo_probes(source);
        assert_eq!(passed(&rig, &probes), names(&probes), "nobody is banned");
        daemon.done(&["ban", &source.to_string()]);
        assert!(passed(&rig, &probes).is_empty(), "banned");
        daemon.done(&["unban", &source.to_string()]);
    }
    assert_eq!(rig.xdp(INTERFACE).unwrap().0, "native", "in several buffers");
    // All that arrived is counted, to the byte of what the wire carried.
    assert!(daemon.counter("pass-too-deep") >= 1);
}

/// The messages of RFC 4475 and RFC 5118.
fn torture() -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sip-filter-common/tests/torture");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<_> = files
        .filter(|path| path.extension().is_some_and(|extension| extension == "dat"))
        .collect();
    files.sort_unstable();
    files.iter().map(|path| std::fs::read(path).unwrap()).collect()
}

/// Xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

/// What an attacker sends in his own name, or in the names of a network he forges; all of it says it is somebody else's.
fn hostile_frame(random: &mut Random, messages: &[Vec<u8>], fixtures: &[Vec<u8>], source: IpAddr) -> Vec<u8> {
    let mut payload = messages[random.below(messages.len())].clone();
    for _ in 0..random.below(5) {
        let at = random.below(payload.len());
        match random.below(3) {
            0 => payload.truncate(at.max(20)),
            1 => payload.insert(at, b"\r\n:;<\0"[random.below(6)]),
            _ => payload[at] ^= 1 << random.below(8),
        }
    }
    payload.truncate(1_300);
    let frame = match random.below(8) {
        // Sixty-four bytes on the wire, with its check sum.
        0 => Frame {
            padding: 18,
            ..Frame::udp(source, b"")
        },
        1 => Frame::tcp(source, &payload),
        2 => Frame {
            fragment: Some((0, true)),
            segment_max: 8 * (1 + random.below(20)),
            ..Frame::udp(source, &payload)
        },
        3 => Frame {
            fragment: Some((1 + random.below(20) as u16, random.below(2) == 0)),
            ..Frame::udp(source, &payload)
        },
        4 => {
            // Headers of any fixture, wrong or not, as they are.
            let mut frame = fixtures[random.below(fixtures.len())].clone();
            frame.truncate(1_500);
            // But for the source of IPv4: theirs is another one's.
            if frame.len() > 30
                && frame[12..14] == [8, 0]
                && let IpAddr::V4(v4) = source
            {
                frame[26..30].copy_from_slice(&v4.octets());
                return frame;
            }
            return Frame::udp(source, &payload).build();
        }
        _ => Frame::udp(source, &payload),
    };
    let mut frame = frame.build();
    if random.below(4) == 0 {
        frame.truncate(14 + random.below(frame.len() - 14));
    }
    frame
}

/// An IPv6 frame that claims to come from an IPv4 address.
fn mapped(address: &str) -> Vec<u8> {
    let source: std::net::Ipv6Addr = format!("::ffff:{address}").parse().unwrap();
    Frame::udp(source, &[0xa5; 100]).build()
}

/// One attacker in earnest, many forged names now and then, and two who do nothing but ask.
#[test]
fn hostile_traffic_bans_its_sender_and_nobody_else() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("hostile");
    let server4 = SocketAddr::new(SERVER4, 5060);
    let receiver = traffic::socket(&rig.server, server4).unwrap();
    let receiver6 = traffic::socket(&rig.server, SocketAddr::new(SERVER6, 5060)).unwrap();
    let innocent = |address: &str, server| {
        let socket = traffic::socket(&rig.sender, SocketAddr::new(rig.add_source(address), 5060)).unwrap();
        socket.connect(server).unwrap();
        socket
    };
    let innocents = [
        innocent(INNOCENT4, server4),
        innocent(INNOCENT6, SocketAddr::new(SERVER6, 5060)),
    ];
    let messages: Vec<_> = torture()
        .into_iter()
        .chain(["REGISTER", "INVITE", "OPTIONS"].map(|method| {
            format!(
                "{method} sip:1001@{INNOCENT4} SIP/2.0\r\nVia: SIP/2.0/UDP {INNOCENT4};maddr={INNOCENT4};\
                 received={INNOCENT4};branch=z9hG4bK1\r\nFrom: <sip:1001@{INNOCENT4}>;tag=1\r\nTo: <sip:1001@x>\r\n\
                 Call-ID: 1@{INNOCENT4}\r\nCSeq: 1 {method}\r\nContact: <sip:1001@{INNOCENT4}>\r\n\r\n"
            )
            .into_bytes()
        }))
        .collect();
    let fixtures: Vec<_> = frames::all().into_iter().map(|fixture| fixture.frame).collect();
    let mut link = Link::open(&rig.sender, SENDER).unwrap();
    let mut random = Random(0x0123_4567_89ab_cdef);
    let began = Instant::now();
    let (mut sent, mut asked) = (0_u64, 0_u32);
    let mut last = Instant::now();
    while began.elapsed() < Duration::from_secs(seconds()) {
        for _ in 0..40 {
            let forged = IpAddr::from([203, 0, 114, random.below(250) as u8]);
            let source = if random.below(10) == 0 { forged } else { ATTACKER };
            let frame = hostile_frame(&mut random, &messages, &fixtures, source);
            // The sending kernel refuses some, as a driver would.
            sent += u64::from(link.send(&frame).is_ok());
        }
        link.send(&mapped(INNOCENT4)).unwrap();
        if last.elapsed() > Duration::from_millis(300) {
            last = Instant::now();
            for socket in &innocents {
                socket.send(&frames::request("OPTIONS")).unwrap();
            }
            asked += 1;
        }
        thread::sleep(Duration::from_millis(20));
    }
    // He is found out in the end, and that is the proof that the others could have been.
    wait::until("the attacker's ban", Duration::from_secs(10), || {
        Ok(daemon
            .bans()
            .iter()
            .any(|ban| ban["target"] == ATTACKER.to_string()))
    })
    .unwrap();
    let text = |ban: &Value| ban["target"].as_str().unwrap_or_default().to_owned();
    for ban in daemon.bans() {
        let target = text(&ban);
        let is_allowed = target == ATTACKER.to_string() || target.starts_with("203.0.114.");
        assert!(is_allowed, "somebody else is banned: {ban}");
    }
    for (socket, receiver) in innocents.iter().zip([&receiver, &receiver6]) {
        traffic::drain(receiver, Duration::from_millis(100)).unwrap();
        socket.send(&frames::request("OPTIONS")).unwrap();
        let arrived = traffic::drain(receiver, Duration::from_millis(300)).unwrap();
        assert!(arrived > 0, "{:?} gets through", socket.local_addr());
    }
    println!(
        "{sent} hostile frames, {asked} innocent requests of each of two: {:?}",
        daemon.bans().iter().map(text).collect::<Vec<_>>()
    );
    assert!(sent > 1_000, "{sent}");
    assert!(daemon.counter("pass-truncated") > 0 && daemon.counter("pass-fragment") > 0);
    assert_eq!(daemon.count("events", "lost"), 0);
    daemon.stop();
}
