//! Bans outlive the daemon, and end without it.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use crate::{
    rig::{INTERFACE, Rig, SERVER4, usable},
    wire::{Flood, Sink, passed, register, sip_probes},
};

#[test]
fn a_ban_ends_on_time_without_the_daemon() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("survival");
    let sources = [
        "203.0.113.7",
        "198.51.100.7",
        "2001:db8:bad:1::7",
        "2001:db8:bad:2::9",
    ];
    let probes: Vec<_> = sources
        .iter()
        .flat_map(|source| sip_probes(source.parse().unwrap()))
        .collect();
    let before = Instant::now();
    daemon.done(&[
        "ban",
        "203.0.113.0/24",
        "198.51.100.7",
        "2001:db8:bad:1::/64",
        "2001:db8:bad:2::9",
        "-d",
        "5s",
    ]);
    let banned = Instant::now();
    daemon.kill();
    assert!(
        rig.xdp(INTERFACE).is_some(),
        "the filter stays when its daemon is killed"
    );
    let mut looks = 0;
    // As long as not even the time since before the command is over.
    while before.elapsed() < Duration::from_millis(4_800) {
        let got = passed(&rig, &probes);
        if before.elapsed() < Duration::from_secs(5) {
            assert!(got.is_empty(), "after {:?}: {got:?}", before.elapsed());
            looks += 1;
        }
        thread::sleep(Duration::from_millis(200));
    }
    assert!(looks > 3, "only {looks} looks");
    // The kernel keeps the end to 268 ms.
    thread::sleep(Duration::from_millis(5_300).saturating_sub(banned.elapsed()));
    assert_eq!(passed(&rig, &probes).len(), probes.len());
    // The next daemon knows, and remembers.
    let daemon = rig.start("main", &[]);
    assert!(daemon.bans().is_empty());
    let check = daemon.ask(&["check", "198.51.100.7", "-o", "json"]);
    assert_eq!(check.code, Some(1));
    assert!(
        check.stdout.contains("\"ended_by\": \"expired\"")
            || check.stdout.contains("\"ended_by\":\"expired\""),
        "{check:?}"
    );
    assert_eq!(passed(&rig, &probes).len(), probes.len());
}

#[test]
fn bans_survive_a_kill_and_a_restart_without_a_gap() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("survival");
    let source = rig.add_source("203.0.113.7");
    let server = SocketAddr::new(SERVER4, 5060);
    let sink = Sink::open(&rig.server, server);
    let flood = Flood::start(
        &rig.sender,
        SocketAddr::new(source, 4000),
        server,
        2_000,
        Duration::from_secs(40),
        register,
    );
    while sink.got().packets == 0 {
        assert!(
            flood.started.0.elapsed() < Duration::from_secs(10),
            "the flood does not even arrive"
        );
        thread::sleep(Duration::from_millis(10));
    }
    daemon.done(&["ban", "203.0.113.7", "-d", "10m", "-R", "by hand"]);
    daemon.done(&["ban", "2001:db8:bad:1::/64", "-d", "permanent", "--scope", "all"]);
    // What was on its way.
    thread::sleep(Duration::from_millis(200));
    let arrived = sink.got().packets;
    let sent = flood.sent();

    let first = rig.xdp(INTERFACE).unwrap();
    let mut daemon = daemon;
    for round in 0..2 {
        daemon.kill();
        thread::sleep(Duration::from_millis(300));
        daemon = rig.start("main", &[]);
        let bans = daemon.bans();
        assert_eq!(bans.len(), 2, "round {round}: {bans:?}");
        let by_target = |target: &str| bans.iter().find(|ban| ban["target"] == target).unwrap();
        let by_hand = by_target("203.0.113.7");
        let left = by_hand["expires_in_seconds"].as_u64().unwrap();
        assert!((500..=600).contains(&left), "{left} s left");
        assert_eq!(by_hand["reason"], "by hand");
        assert_eq!(by_hand["scope"], "sip");
        let permanent = by_target("2001:db8:bad:1::/64");
        assert!(permanent["expires"].is_null() && permanent["expires_in_seconds"].is_null());
        assert_eq!(permanent["scope"], "all");
        assert!(
            daemon.process.log().contains("without a gap"),
            "{}",
            daemon.process.log()
        );
    }
    assert_ne!(
        rig.xdp(INTERFACE).unwrap(),
        first,
        "a new program was put in place"
    );
    // A stop and a start, as at an upgrade.
    daemon.stop();
    let daemon = rig.start("main", &[]);
    // An upgrade from a version with other tables: the link is taken over, the old pins go.
    daemon.stop();
    let versions: Vec<_> = std::fs::read_dir(rig.pin_root("main"))
        .unwrap()
        .flatten()
        .collect();
    let [version] = &versions[..] else {
        panic!("{versions:?}")
    };
    let older = rig.pin_root("main").join("v0");
    std::fs::rename(version.path(), &older).unwrap();
    let daemon = rig.start("main", &[]);
    assert!(
        daemon.process.log().contains("without a gap"),
        "{}",
        daemon.process.log()
    );
    assert!(!older.exists() && version.path().exists());
    thread::sleep(Duration::from_millis(300));
    let during = flood.stop() - sent;
    thread::sleep(Duration::from_millis(200));
    assert_eq!(
        sink.got().packets,
        arrived,
        "of {during} packets of a banned source"
    );
    assert!(during > 1_000, "only {during} packets were sent");
    println!("{during} packets of a banned source through two kills, a stop and three starts: 0 arrived");

    daemon.done(&["unban", "203.0.113.7"]);
    assert_eq!(daemon.bans().len(), 1);
}

#[test]
fn a_stop_that_detaches_leaves_nothing_behind() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("survival");
    rig.config("main", "on_stop = \"detach\"", "");
    let daemon = rig.start("main", &[]);
    assert!(rig.xdp(INTERFACE).is_some());
    daemon.stop();
    assert_eq!(rig.xdp(INTERFACE), None);
    assert_eq!(rig.pins(), Vec::<std::path::PathBuf>::new());

    // By hand, when the daemon is gone for good.
    rig.config("main", "", "");
    let root = rig.pin_root("main");
    let detach = || crate::rig::run(&["detach", INTERFACE, "--pin-root", root.to_str().unwrap()]);
    let daemon = rig.start("main", &[]);
    detach().refused(1, &["another sip-filter is already running", INTERFACE]);
    daemon.stop();
    assert!(rig.xdp(INTERFACE).is_some());
    assert_eq!(detach().code, Some(0));
    assert_eq!(rig.xdp(INTERFACE), None);
    assert_eq!(rig.pins(), Vec::<std::path::PathBuf>::new());
    // Run from outside its namespace, where there is no such interface.
    detach().refused(1, &["no interface `sip0`", "there are:"]);
}
