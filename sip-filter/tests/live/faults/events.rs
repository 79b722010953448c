//! More events than the daemon takes, and very many of them.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sip_filter::detect::Rule;
use xtask::lab::{frames::Link, spoof::Forger, traffic::Burst, wait};

use super::{interfaces::SMALL, setting, tables::scanner, witness::Witness};
use crate::{
    monitoring::scrape,
    rig::{Daemon, INTERFACE, Rig, SENDER, SERVER4, usable},
};

const SOON: Duration = Duration::from_secs(30);

/// Every request passes and is reported; only scanners are banned.
fn open(rig: &Rig) -> Daemon {
    let others = Rule::ALL.iter().filter(|rule| rule.name() != "scanner-signature");
    let off: String = others
        .map(|rule| format!("[detect.{rule}]\nenabled = false\n"))
        .collect();
    let rest = format!(
        "{SMALL}[limits.options]\nrate = \"unlimited\"\n[budget.options]\nrate = \"unlimited\"\n[events]\n\
         per_source = 1000000\nper_window = 1000000\n[detect]\nmax_sources = 20000\n{off}"
    );
    rig.config("main", "", &rest);
    rig.start("main", &[])
}

/// Sends so many OPTIONS from as many sources as there are below 10.0.0.0/8, going on where `from` left off.
fn send(rig: &Rig, from: u64, count: u64) {
    let mut forger = Forger::new((&rig.sender, SENDER), (&rig.server, INTERFACE)).unwrap();
    let burst = Burst {
        count,
        rate: None,
        limit: SOON,
    };
    let sent = forger.send(SocketAddr::new(SERVER4, 5060), burst, || false, |number, payload| {
        let number = from + number;
        let source = Ipv4Addr::from(0x0a00_0000 + (number % 1_000_000) as u32);
        payload.extend_from_slice(
            format!(
                "OPTIONS sip:pbx@example.com SIP/2.0\r\nVia: SIP/2.0/UDP {source}:5060;branch=z9hG4bK{number}\r\n\
                 Max-Forwards: 70\r\nTo: <sip:pbx@example.com>\r\nFrom: <sip:phone@example.com>;tag={number}\r\n\
                 Call-ID: {number}@{source}\r\nCSeq: 1 OPTIONS\r\nUser-Agent: Phone/1.0\r\nContent-Length: 0\r\n\r\n"
            )
            .as_bytes(),
        );
        SocketAddr::new(source.into(), 5060)
    });
    assert_eq!((sent.packets, sent.refused), (count, 0));
}

/// Events that reached the rules, that were lost, and that were held back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Events {
    observed: u64,
    lost: u64,
    suppressed: u64,
}

impl Events {
    fn of(rig: &Rig) -> Self {
        let page = scrape(&rig.server, "127.0.0.1:9798").unwrap();
        let sum = |name: &str| -> u64 {
            let of_name = page.lines().filter(|line| line.starts_with(name));
            of_name
                .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap() as u64)
                .sum()
        };
        Self {
            observed: sum("sip_filter_detector_observations_total"),
            lost: sum("sip_filter_events_lost_total"),
            suppressed: sum("sip_filter_events_suppressed_total"),
        }
    }

    fn all(self) -> u64 {
        self.observed + self.lost + self.suppressed
    }
}

/// Resident memory of the daemon, in KiB.
fn memory(daemon: &Daemon) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

/// The rules still find a scanner and ban it.
fn still_detects(rig: &Rig, daemon: &Daemon) {
    let source: IpAddr = "12.0.0.9".parse().unwrap();
    wait::until("the ban of a scanner", SOON, || {
        Link::open(&rig.sender, SENDER)?.send(&scanner(source))?;
        thread::sleep(Duration::from_millis(100));
        Ok(daemon.ask(&["check", "12.0.0.9"]).code == Some(0))
    })
    .unwrap();
}

#[test]
fn a_full_ring_loses_events_and_says_so_but_no_ban() {
    if !usable(&["tc"]) {
        return;
    }
    // The ring holds about ten thousand.
    const SENT: u64 = 30_000;
    let rig = Rig::new("ring");
    let daemon = open(&rig);
    let witness = Witness::begin(&rig, &daemon, Duration::from_secs(180));
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
    let before = Events::of(&rig);
    // As a daemon that hangs, or has no processor.
    daemon.process.signal(Signal::SIGSTOP);
    send(&rig, 0, SENT);
    witness.nothing_leaked("while the daemon stood still");
    daemon.process.signal(Signal::SIGCONT);
    wait::until("all events", SOON, || {
        Ok(Events::of(&rig).all() - before.all() >= SENT)
    })
    .unwrap();
    let after = Events::of(&rig);
    println!("{SENT} events for a daemon that stood still: {before:?}, then {after:?}");
    assert!(after.lost >= before.lost + SENT / 3, "{after:?}");
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(1))).unwrap();
    let health = daemon.ask(&["health"]).stdout;
    assert!(health.contains("detection does not keep up on sip0"), "{health}");
    let page = scrape(&rig.server, "127.0.0.1:9798").unwrap();
    assert!(
        page.contains("sip_filter_condition{name=\"events-lost\",severity=\"warning\"} 1"),
        "{page}"
    );
    assert!(
        daemon.process.log().contains("events-lost"),
        "{}",
        daemon.process.log()
    );
    still_detects(&rig, &daemon);
    println!("{}", witness.end(&rig));
}

#[test]
fn millions_of_events_neither_stall_the_daemon_nor_fill_its_memory() {
    if !usable(&["tc"]) {
        return;
    }
    const CHUNK: u64 = 6_000;
    let wanted: u64 = setting("EVENTS", 60_000);
    let rig = Rig::new("events");
    // Nobody but the test may send.
    for netns in [&rig.sender, &rig.server] {
        netns.sysctl("net/ipv6/conf/all/disable_ipv6", "1").unwrap();
    }
    let queue = [
        "qdisc", "replace", "dev", SENDER, "root", "pfifo", "limit", "10000",
    ];
    rig.sender.run("tc", &queue).unwrap();
    let daemon = open(&rig);
    let before = Events::of(&rig);
    let (mut sent, mut early, mut slowest) = (0, 0, Duration::ZERO);
    let begun = Instant::now();
    while sent < wanted {
        send(&rig, sent, CHUNK);
        sent += CHUNK;
        let waiting = Instant::now();
        wait::until("the events", SOON, || {
            Ok(Events::of(&rig).all() - before.all() >= sent)
        })
        .unwrap();
        slowest = slowest.max(waiting.elapsed());
        // By then every table of the engine is full.
        if early == 0 && sent >= wanted / 3 {
            early = memory(&daemon);
        }
    }
    let (after, late, took) = (Events::of(&rig), memory(&daemon), begun.elapsed());
    println!(
        "{sent} requests in {took:?}: {after:?}; slowest {CHUNK} in {slowest:?}; memory {early} KiB after a third, {late} KiB \
         at the end"
    );
    // None vanished without being counted, and none came twice.
    assert_eq!(after.all() - before.all(), sent);
    assert!(after.observed - before.observed >= sent / 10 * 9, "{after:?}");
    assert!(
        late < early + early / 4,
        "memory grows: {early} KiB, then {late} KiB"
    );
    still_detects(&rig, &daemon);
    assert!(daemon.counter("pass-request") >= sent);
}
