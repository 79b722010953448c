//! A flood against detection, in earnest and rehearsed.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, SystemTime},
};

use serde_json::Value;
use xtask::lab::wait;

use crate::{
    rig::{Rig, SERVER4, usable},
    wire::{Flood, Sink, register},
};

const RATE: u32 = 1_000;

fn server() -> SocketAddr {
    SocketAddr::new(SERVER4, 5060)
}

#[test]
fn a_register_flood_is_banned_within_a_second() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("floods");
    let source = rig.add_source("203.0.113.7");
    let sink = Sink::open(&rig.server, server());
    let flood = Flood::start(
        &rig.sender,
        SocketAddr::new(source, 4000),
        server(),
        RATE,
        Duration::from_secs(15),
        register,
    );
    wait::until("the ban", Duration::from_secs(10), || {
        Ok(!daemon.bans().is_empty())
    })
    .unwrap();
    // It goes on for a while.
    thread::sleep(Duration::from_millis(1_500));
    let started = flood.started.1;
    let sent = flood.stop();
    let bans = daemon.bans();
    assert_eq!(bans.len(), 1);
    assert_eq!(bans[0]["target"], "203.0.113.7");
    assert_eq!(bans[0]["rule"], "flood-register");
    assert_eq!(bans[0]["origin"], "detector");
    let created = parse_time(bans[0]["created"].as_str().unwrap());
    let until_ban = created.duration_since(started).unwrap();
    let got = sink.got();
    let last = got.last.unwrap().1;
    let after = last.duration_since(created).unwrap_or_default();
    println!(
        "REGISTER flood of {RATE}/s: banned {until_ban:?} after its start; of {sent} packets {} arrived, the last {}",
        got.packets,
        match last.duration_since(created) {
            Ok(after) => format!("{after:?} after the ban"),
            Err(before) => format!("{:?} before the ban", before.duration()),
        }
    );
    assert!(until_ban < Duration::from_secs(1), "{until_ban:?}");
    assert!(after < Duration::from_millis(100), "{after:?}");
    assert!(daemon.counter("drop-ban-address") > 1_000);

    // Why, for whoever asks.
    let check = daemon.json(&["check", "203.0.113.7"]);
    let evidence = &check["bans"][0]["evidence"];
    assert!(evidence["count"].as_u64().unwrap() >= 500, "{check}");
    assert_eq!(evidence["threshold"], 500);
    let events = daemon.done(&["events", "-o", "raw"]);
    assert!(events.contains("flood-register"), "{events}");
    let top = daemon.json(&["top"]);
    wait::until("hits", Duration::from_secs(5), || {
        Ok(daemon.json(&["top"])["sources"][0]["hits"].as_u64() > Some(1_000))
    })
    .unwrap_or_else(|error| panic!("{error}: {top}"));
}

/// Of `2026-01-02T03:04:05.123456Z`.
fn parse_time(text: &str) -> SystemTime {
    humantime::parse_rfc3339(text).unwrap()
}

#[test]
fn a_rehearsal_reports_and_drops_nothing() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("floods");
    rig.config("main", "", "");
    let daemon = rig.start("main", &["--simulate"]);
    assert_eq!(daemon.json(&["status"])["mode"], "simulate");
    assert!(daemon.done(&["status"]).contains("nothing is dropped"));
    let source = rig.add_source("203.0.113.7");
    let sink = Sink::open(&rig.server, server());
    let flood = || {
        let flood = Flood::start(
            &rig.sender,
            SocketAddr::new(source, 4000),
            server(),
            RATE,
            Duration::from_millis(1_500),
            register,
        );
        thread::sleep(Duration::from_millis(1_600));
        flood.stop()
    };
    let sent = flood();
    wait::until("all of it", Duration::from_secs(5), || {
        Ok(sink.got().packets == sent)
    })
    .unwrap_or_else(|error| panic!("{error}: {} of {sent}", sink.got().packets));
    let dropped = |daemon: &crate::rig::Daemon| -> u64 {
        let status = daemon.json(&["status"]);
        let counters = status["counters"].as_object().unwrap();
        let drops = counters.iter().filter(|(name, _)| name.starts_with("drop-"));
        drops.map(|(_, packets)| packets.as_u64().unwrap()).sum()
    };
    assert_eq!(dropped(&daemon), 0);
    let limited = daemon.count("would_drop", "drop-limit-register");
    assert!(limited > 0);
    let events = daemon.done(&["events", "-n", "100", "-o", "json"]);
    let would: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .filter(|event: &Value| event["kind"] == "would-ban")
        .collect();
    assert!(!would.is_empty(), "{events}");
    assert_eq!(would[0]["target"], "203.0.113.7");
    assert_eq!(would[0]["rule"], "flood-register");
    assert_eq!(would[0]["shadow"], true);
    println!(
        "rehearsal: {sent} of {sent} packets arrived, would have dropped {limited} by limit and {} by ban",
        daemon.count("would_drop", "drop-ban-address")
    );

    daemon.done(&["mode", "enforce"]);
    let before = sink.got().packets;
    let sent = flood();
    thread::sleep(Duration::from_millis(200));
    let arrived = sink.got().packets - before;
    assert!(arrived < sent / 2, "{arrived} of {sent} arrived");
    assert!(dropped(&daemon) > 0);
}
