//! Every packet is counted exactly once.

use std::{collections::BTreeMap, thread, time::Duration};

use nix::{
    sched::{CpuSet, sched_setaffinity},
    unistd::Pid,
};
use xtask::lab::{frames::Link, wait};

use crate::{
    frames::{self, CLIENT4, Frame, client6, request},
    rig::{Daemon, INTERFACE, Rig, SENDER, usable},
};

const FRAMES: u64 = 1_000_000;
const SENDERS: u64 = 2;

/// Reasons that depend on how fast the frames come: a limit lets some pass and drops the others.
fn is_limited(reason: &str) -> bool {
    reason.starts_with("drop-limit-")
        || [
            "pass-request",
            "pass-response",
            "pass-keepalive",
            "pass-other-payload",
            "drop-unknown-budget",
        ]
        .contains(&reason)
}

/// Packets by reason, those subject to limits in one sum.
pub(crate) fn counted(daemon: &Daemon) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (reason, packets) in daemon.json(&["status"])["counters"].as_object().unwrap() {
        let name = if is_limited(reason) {
            "limited"
        } else {
            reason.as_str()
        };
        *sums.entry(name.to_owned()).or_default() += packets.as_u64().unwrap();
    }
    sums
}

/// Frames of every kind, of free, banned and exempt sources.
pub(crate) fn mix() -> Vec<Vec<u8>> {
    let options = request("OPTIONS");
    // The interface carries no jumbo frames.
    let fixtures = frames::all()
        .into_iter()
        .filter(|fixture| fixture.name != "jumbo");
    let mut frames: Vec<Vec<u8>> = fixtures.map(|fixture| fixture.frame).collect();
    for source in [
        "198.51.100.9",
        "198.51.100.130",
        "2001:db8:bad:1::7",
        "2001:db8:bad:2::9",
    ] {
        let source: std::net::IpAddr = source.parse().unwrap();
        frames.push(Frame::udp(source, &options).build());
        frames.push(Frame::tcp(source, &options).vlan(0x8100).build());
        frames.push(Frame::udp(source, &options).port(16_384).build());
    }
    for client in [CLIENT4.into(), std::net::IpAddr::from(client6())] {
        frames.push(Frame::udp(client, &options).build());
    }
    frames
}

#[test]
fn a_million_packets_are_counted_to_the_packet() {
    if !usable(&["tc"]) {
        return;
    }
    let rig = Rig::new("exactness");
    // The rules would ban those who send the most.
    let rules: String = sip_filter::detect::Rule::ALL
        .iter()
        .map(|rule| format!("[detect.{rule}]\nenabled = false\n"))
        .collect();
    rig.config("main", "", &rules);
    // Nobody but the test may send.
    for netns in [&rig.sender, &rig.server] {
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    }
    // Without a queue, a veth drops what its peer is too slow for.
    rig.sender
        .run(
            "tc",
            &[
                "qdisc", "replace", "dev", SENDER, "root", "pfifo", "limit", "10000",
            ],
        )
        .unwrap();
    let daemon = rig.start("main", &[]);
    daemon.done(&["allow", "add", "198.51.100.130"]);
    daemon.done(&[
        "ban",
        "198.51.100.0/24",
        "2001:db8:bad:1::/64",
        "2001:db8:bad:2::9",
    ]);
    let received = || -> u64 {
        let json = rig
            .server
            .ip(&["-s", "-j", "link", "show", "dev", INTERFACE])
            .unwrap();
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        json[0]["stats64"]["rx"]["packets"].as_u64().unwrap()
    };

    // One round by itself, to know what each round comes to.
    let mix = mix();
    let mut link = Link::open(&rig.sender, SENDER).unwrap();
    let settled = |frames: u64| {
        wait::until("all frames", Duration::from_secs(60), || Ok(received() >= frames)).unwrap();
    };
    thread::sleep(Duration::from_millis(300));
    let (before, quiet) = (counted(&daemon), received());
    for frame in &mix {
        link.send(frame).unwrap();
    }
    settled(quiet + mix.len() as u64);
    let one = difference(&counted(&daemon), &before);
    assert_eq!(one.values().sum::<u64>(), mix.len() as u64, "{one:?}");

    let rounds = FRAMES.div_ceil(SENDERS * mix.len() as u64);
    let (before, quiet) = (counted(&daemon), received());
    thread::scope(|scope| {
        for sender in 0..SENDERS {
            let (mix, rig) = (&mix, &rig);
            scope.spawn(move || {
                let mut cpus = CpuSet::new();
                cpus.set(sender as usize).unwrap();
                // On a machine with one processor both run there.
                let _ = sched_setaffinity(Pid::from_raw(0), &cpus);
                let mut link = Link::open(&rig.sender, SENDER).unwrap();
                for _ in 0..rounds {
                    for frame in mix {
                        link.send(frame).unwrap();
                    }
                }
            });
        }
    });
    let sent = rounds * SENDERS * mix.len() as u64;
    assert!(sent >= FRAMES);
    settled(quiet + sent);
    let got = difference(&counted(&daemon), &before);
    println!("{sent} frames sent, counted: {got:?}");
    assert_eq!(got.values().sum::<u64>(), sent, "{got:?}");
    for (reason, packets) in &one {
        assert_eq!(got[reason], packets * rounds * SENDERS, "{reason}");
    }
    assert_eq!(one["drop-ban-network"], 2, "SIP over UDP and TCP");
    assert_eq!(one["drop-ban-address"], 4);
    assert_eq!(one["pass-allowed-banned"], 2);
}

pub(crate) fn difference(
    after: &BTreeMap<String, u64>,
    before: &BTreeMap<String, u64>,
) -> BTreeMap<String, u64> {
    after
        .iter()
        .map(|(reason, packets)| (reason.clone(), packets - before.get(reason).unwrap_or(&0)))
        .filter(|(_, packets)| *packets > 0)
        .collect()
}
