//! Starts, stops, kills, upgrades and reboots, and interfaces that come and go.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use xtask::lab::{Netns, netns, wait};

use crate::{
    rig::{Daemon, INTERFACE, Rig, SENDER, SERVER4, usable},
    wire::{Flood, Sink, passed, reaches, register, sip_probes},
};

const BANNED: &str = "203.0.113.7";
/// Capabilities stay, to attach later.
const KEEP: &str = "privileges = \"keep\"";
const SOON: Duration = Duration::from_secs(15);

/// A banned source that sends, and the server that must not hear of it.
struct Siege {
    rig: Rig,
    flood: Flood,
    sink: Sink,
    /// What had arrived when the ban was in force.
    arrived: u64,
}

impl Siege {
    /// With a daemon that has banned the source.
    fn lay(role: &str, time: Duration) -> (Self, Daemon) {
        let (rig, daemon) = Rig::started(role);
        let source = rig.add_source(BANNED);
        let server = SocketAddr::new(SERVER4, 5060);
        let sink = Sink::open(&rig.server, server);
        let from = SocketAddr::new(source, 4000);
        let flood = Flood::start(&rig.sender, from, server, 2_000, time, register);
        wait::until("the flood", SOON, || Ok(sink.got().packets > 0)).unwrap();
        daemon.done(&["ban", BANNED, "-d", "30m", "-R", "by hand"]);
        daemon.done(&["ban", "2001:db8:bad:1::/64", "198.51.100.0/24", "-d", "permanent"]);
        // What was on its way.
        thread::sleep(Duration::from_millis(300));
        let arrived = sink.got().packets;
        let siege = Self {
            rig,
            flood,
            sink,
            arrived,
        };
        (siege, daemon)
    }

    #[track_caller]
    fn nothing_passed(&self, when: &str) {
        assert_eq!(
            self.sink.got().packets,
            self.arrived,
            "packets of a banned source passed {when}"
        );
    }
}

/// Every ban, with its origin, in the order of the list; not what changes by itself.
fn bans(daemon: &Daemon) -> Vec<String> {
    let bans = daemon.bans();
    let text = |ban: &serde_json::Value| format!("{} {} {}", ban["target"], ban["reason"], ban["scope"]);
    bans.iter().map(text).collect()
}

/// Packets seen, as the sum of all reasons.
fn seen(daemon: &Daemon) -> u64 {
    let status = daemon.json(&["status"]);
    let counters = status["counters"].as_object().unwrap();
    counters.values().map(|packets| packets.as_u64().unwrap()).sum()
}

#[test]
fn twenty_upgrades_under_a_flood_let_nothing_through_and_lose_nothing() {
    if !usable(&[]) {
        return;
    }
    let (siege, mut daemon) = Siege::lay("upgrades", Duration::from_secs(300));
    let (sent, known) = (siege.flood.sent(), bans(&daemon));
    let first = siege.rig.xdp(INTERFACE).unwrap();
    let (mut dropped, mut slowest) = (daemon.counter("drop-ban-address"), Duration::ZERO);
    let pins = siege.rig.pin_root("main");
    for round in 0..20 {
        // As `systemctl restart` does, as a crash does, and as an upgrade to other tables does.
        match round % 3 {
            0 => drop(daemon.stop()),
            1 => daemon.kill(),
            _ => {
                daemon.stop();
                let versions: Vec<_> = std::fs::read_dir(&pins).unwrap().flatten().collect();
                assert_eq!(versions.len(), 1, "{versions:?}");
                std::fs::rename(versions[0].path(), pins.join("v0")).unwrap();
            }
        }
        let started = Instant::now();
        daemon = siege.rig.start("main", &[]);
        slowest = slowest.max(started.elapsed());
        siege.nothing_passed(&format!("at upgrade {round}"));
        assert_eq!(bans(&daemon), known, "after upgrade {round}");
        let now = daemon.counter("drop-ban-address");
        assert!(
            now >= dropped,
            "counters went back at upgrade {round}: {dropped}, then {now}"
        );
        dropped = now;
        assert!(!pins.join("v0").exists());
    }
    assert_ne!(siege.rig.xdp(INTERFACE).unwrap(), first);
    let sent = siege.flood.sent() - sent;
    assert!(sent > 5_000, "only {sent} packets were sent");
    println!("20 upgrades, {sent} packets of a banned source: 0 passed; slowest start {slowest:?}");
}

#[test]
fn no_packet_is_counted_twice_or_not_at_all_over_kills_and_upgrades() {
    if !usable(&[]) {
        return;
    }
    let (rig, mut daemon) = Rig::started("counters");
    let probes = sip_probes(BANNED.parse().unwrap());
    daemon.done(&["ban", BANNED]);
    // Each look sends one more frame, which is not banned.
    let per_look = probes.len() as u64;
    for round in 1..=6 {
        assert!(passed(&rig, &probes).is_empty());
        let before = seen(&daemon);
        assert_eq!(daemon.counter("drop-ban-address"), per_look * round);
        match round % 3 {
            0 => drop(daemon.stop()),
            1 => daemon.kill(),
            _ => {
                daemon.stop();
                let root = rig.pin_root("main");
                let version = std::fs::read_dir(&root).unwrap().flatten().next().unwrap();
                std::fs::rename(version.path(), root.join("v0")).unwrap();
            }
        }
        daemon = rig.start("main", &[]);
        assert_eq!(
            daemon.counter("drop-ban-address"),
            per_look * round,
            "round {round}"
        );
        let after = seen(&daemon);
        // The kernel's own chatter (neighbours) may have come meanwhile.
        assert!((before..before + 50).contains(&after), "{before}, then {after}");
    }
    // Gone with the pins.
    daemon.stop();
    let root = rig.pin_root("main");
    let detached = crate::rig::run(&["detach", INTERFACE, "--pin-root", root.to_str().unwrap()]);
    // From here there is no such interface, but there are its pins.
    assert_eq!(detached.code, Some(0), "{detached:?}");
    assert!(rig.pins().is_empty(), "{:?}", rig.pins());
    let daemon = rig.start("main", &[]);
    assert_eq!(daemon.counter("drop-ban-address"), 0);
}

#[test]
fn killed_at_any_moment_bans_hold_and_the_next_start_sets_things_right() {
    if !usable(&[]) {
        return;
    }
    let (siege, daemon) = Siege::lay("kills", Duration::from_secs(300));
    let known = bans(&daemon);
    let sent = siege.flood.sent();
    daemon.kill();
    let mut slowest = Duration::ZERO;
    for round in 0_u64..20 {
        // Before it does anything, while it loads, fills, attaches, or serves.
        let mut process = siege.rig.spawn("main", &[]);
        thread::sleep(Duration::from_millis(round * 37 % 700));
        process.signal(Signal::SIGKILL);
        process.wait(SOON).unwrap();
        siege.nothing_passed(&format!("at kill {round}"));
        if round % 5 == 4 {
            let started = Instant::now();
            let daemon = siege.rig.start("main", &[]);
            slowest = slowest.max(started.elapsed());
            assert_eq!(bans(&daemon), known, "after kill {round}");
            // The tables are what the list says, and nothing is left of those that were killed.
            let health = daemon.json(&["health"]);
            assert_eq!(health["healthy"], true, "{health}");
            let pins = siege.rig.pins();
            let stray = pins.iter().find(|pin| pin.to_string_lossy().contains("LOCAL-"));
            assert_eq!(stray, None, "{pins:?}");
            daemon.kill();
        }
    }
    let sent = siege.flood.sent() - sent;
    assert!(sent > 5_000, "only {sent} packets were sent");
    println!("20 kills, {sent} packets of a banned source: 0 passed; slowest start {slowest:?}");
}

#[test]
fn after_a_reboot_every_ban_is_in_force_before_the_first_packet() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("reboot");
    rig.config("main", KEEP, "");
    let daemon = rig.start("main", &[]);
    daemon.done(&["ban", BANNED, "-d", "10m"]);
    daemon.done(&["ban", "198.51.100.0/24", "2001:db8:bad:1::/64", "-d", "permanent"]);
    let known = bans(&daemon);
    daemon.stop();
    // Power off: the pins and the interface are gone, the store is not.
    let root = rig.pin_root("main");
    let gone = crate::rig::run(&["detach", INTERFACE, "--pin-root", root.to_str().unwrap()]);
    assert_eq!(gone.code, Some(0), "{gone:?}");
    rig.server.ip(&["link", "delete", INTERFACE]).unwrap();
    assert!(rig.pins().is_empty());

    // The daemon starts before the network card is there, and waits for it.
    let daemon = rig.start("main", &[]);
    let status = daemon.json(&["status"]);
    assert_eq!(status["interfaces"][0]["name"], INTERFACE, "{status}");
    assert_eq!(status["interfaces"][0]["attached"], false);
    assert_eq!(
        status["interfaces"][0]["problem"],
        "waits for sip0, which is not there"
    );
    let health = daemon.ask(&["health"]);
    assert_eq!(health.code, Some(1));
    assert!(health.stdout.contains("waits for sip0"), "{health:?}");

    // The card comes, down as cards do, and is filtered before anything brings it up.
    rig.connect_down();
    wait::until("the filter", SOON, || Ok(rig.xdp(INTERFACE).is_some())).unwrap();
    let source = rig.add_source(BANNED);
    let server = SocketAddr::new(SERVER4, 5060);
    rig.server.ip(&["link", "set", "dev", INTERFACE, "up"]).unwrap();
    let sink = Sink::open(&rig.server, server);
    let from = SocketAddr::new(source, 4000);
    let flood = Flood::start(&rig.sender, from, server, 1_000, Duration::from_secs(2), register);
    wait::until("the filter's counter", SOON, || {
        Ok(daemon.counter("drop-ban-address") > 200)
    })
    .unwrap();
    drop(flood);
    assert_eq!(sink.got().packets, 0);
    assert_eq!(bans(&daemon), known);
    let left = daemon.bans();
    let left = left.iter().find(|ban| ban["target"] == BANNED).unwrap();
    let left = left["expires_in_seconds"].as_u64().unwrap();
    assert!((540..=600).contains(&left), "{left} s left");
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
    // It was the ban that kept them out.
    drop(sink);
    rig.server.add_route("default", "192.0.2.2").unwrap();
    daemon.done(&["unban", BANNED]);
    assert!(reaches(&rig, source, server));
}

#[test]
fn interfaces_that_come_later_are_filtered_and_do_not_hold_up_the_others() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("interfaces");
    let wanted = "interfaces = [\"sip0\", \"sip9\", \"trunk*\"]";
    rig.config("main", &format!("{wanted}\n{KEEP}"), "");
    // On the command line a name must be right.
    rig.fail_to_start("main", &["--interface", "sip9"])
        .refused(1, &["no interface `sip9`", "sip0"]);
    let daemon = rig.start("main", &[]);
    assert!(rig.xdp(INTERFACE).is_some());
    let status = daemon.done(&["status"]);
    assert!(status.contains("sip9 not attached: waits for sip9"), "{status}");
    assert!(
        status.contains("waits for an interface that matches `trunk*`"),
        "{status}"
    );
    daemon.done(&["ban", BANNED]);

    let mut latencies = Vec::new();
    for (name, far) in [("sip9", "eth9"), ("trunk0", "eth10"), ("trunk1", "eth11")] {
        netns::connect((&rig.server, name), (&rig.sender, far)).unwrap();
        let made = Instant::now();
        wait::until("the filter", SOON, || Ok(rig.xdp(name).is_some())).unwrap();
        latencies.push(made.elapsed());
    }
    println!("filtered after {latencies:?}");
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
    let status = daemon.json(&["status"]);
    assert_eq!(status["interfaces"].as_array().unwrap().len(), 4, "{status}");

    // One goes and comes back as another.
    rig.server.ip(&["link", "delete", "sip9"]).unwrap();
    wait::until("the loss", SOON, || {
        Ok(daemon
            .done(&["status"])
            .contains("sip9 not attached: waits for sip9"))
    })
    .unwrap();
    assert_eq!(daemon.ask(&["health"]).code, Some(1));
    assert!(
        !rig.pins().iter().any(|pin| pin.ends_with("sip9")),
        "{:?}",
        rig.pins()
    );
    netns::connect((&rig.server, "sip9"), (&rig.sender, "eth9")).unwrap();
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
    assert!(rig.xdp("sip9").is_some());
    let events = daemon.done(&["events", "-o", "raw"]);
    assert!(
        events.contains("condition-raised") && events.contains("condition-cleared"),
        "{events}"
    );
}

#[test]
fn a_ban_holds_through_down_up_rename_and_another_interface_of_the_same_name() {
    if !usable(&["bpftool"]) {
        return;
    }
    let rig = Rig::new("rename");
    rig.config("main", KEEP, "");
    let daemon = rig.start("main", &[]);
    daemon.done(&["ban", BANNED]);
    let probes = sip_probes(BANNED.parse().unwrap());
    assert!(passed(&rig, &probes).is_empty());
    let link = |arguments: &[&str]| {
        rig.server
            .ip(&[&["link", "set", "dev"], arguments].concat())
            .unwrap();
    };
    link(&[INTERFACE, "down"]);
    link(&[INTERFACE, "up"]);
    assert!(passed(&rig, &probes).is_empty());

    link(&[INTERFACE, "down"]);
    link(&[INTERFACE, "name", "outside"]);
    wait::until("the new name", SOON, || {
        Ok(daemon.done(&["status"]).contains("outside attached"))
    })
    .unwrap();
    assert!(rig.xdp("outside").is_some());
    assert!(
        rig.pins().iter().any(|pin| pin.ends_with("outside/link")),
        "{:?}",
        rig.pins()
    );
    link(&["outside", "name", INTERFACE]);
    link(&[INTERFACE, "up"]);
    wait::until("the old name", SOON, || {
        Ok(daemon.done(&["status"]).contains("sip0 attached"))
    })
    .unwrap();
    assert!(passed(&rig, &probes).is_empty());
    let dropped = daemon.counter("drop-ban-address");
    assert_eq!(dropped, 3 * probes.len() as u64);

    // Somebody takes the filter off: it comes back by itself.
    let before = rig.xdp(INTERFACE).unwrap();
    let links = rig.server.run("bpftool", &["-j", "link", "show"]).unwrap();
    let links: serde_json::Value = serde_json::from_str(&links).unwrap();
    let ours = links.as_array().unwrap().iter();
    let ours = ours.filter(|link| link["prog_id"].as_u64() == Some(before.1));
    let ids: Vec<String> = ours.map(|link| link["id"].to_string()).collect();
    assert_eq!(ids.len(), 1, "{links}");
    rig.server
        .run("bpftool", &["link", "detach", "id", &ids[0]])
        .unwrap();
    wait::until("the filter", SOON, || {
        Ok(rig.xdp(INTERFACE).is_some_and(|now| now != before))
    })
    .unwrap();
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
    assert!(passed(&rig, &probes).is_empty());
    assert_eq!(
        daemon.counter("drop-ban-address"),
        dropped + probes.len() as u64,
        "counters go on"
    );
}

#[test]
fn pins_of_an_interface_in_another_namespace_are_left_alone() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("namespaces");
    daemon.stop();
    let (xdp, pins) = (rig.xdp(INTERFACE), rig.pins());
    // The same name, and by chance even the same number, behind the same BPF file system.
    let elsewhere = Netns::new("elsewhere").unwrap();
    let far = Netns::new("far").unwrap();
    netns::connect((&elsewhere, INTERFACE), (&far, SENDER)).unwrap();
    rig.config("other", "", "[metrics]\nlisten = \"\"");
    let text = std::fs::read_to_string(rig.path("other.toml")).unwrap();
    let shared = text.replace(
        rig.pin_root("other").to_str().unwrap(),
        rig.pin_root("main").to_str().unwrap(),
    );
    rig.dir.write("other.toml", &shared).unwrap();
    rig.fail_to_start_in(&elsewhere, "other", &[])
        .refused(1, &["sip0", "another network namespace", "bpf.pin_root"]);
    assert_eq!((rig.xdp(INTERFACE), rig.pins()), (xdp, pins));
    // With a place of its own it works.
    rig.dir.write("other.toml", &text).unwrap();
    let mut other = rig.spawn_in(&elsewhere, "other", &[]);
    wait::until("the other daemon", SOON, || {
        other.check()?;
        let ran = crate::rig::ask(&rig.path("other.sock"), &["health"]);
        Ok(ran.code == Some(0))
    })
    .unwrap();
}
