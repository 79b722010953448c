//! Every verb against a live daemon: what it prints, and how it exits.

use std::{fs, net::SocketAddr};

use nix::sys::signal::Signal;
use serde_json::Value;
use xtask::lab::wait;

use crate::{
    rig::{INTERFACE, Rig, SERVER4, ask, command, run, usable},
    wire::{passed, reaches, sip_probes},
};

#[track_caller]
fn has(value: &Value, keys: &[&str]) {
    for key in keys {
        assert!(value.get(key).is_some(), "no `{key}` in {value}");
    }
}

#[test]
fn verbs_answer_as_the_design_says() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("verbs");
    let status = daemon.json(&["status"]);
    has(
        &status,
        &[
            "schema_version",
            "mode",
            "uptime_seconds",
            "interfaces",
            "bans",
            "counters",
        ],
    );
    has(&status["interfaces"][0], &["name", "xdp_mode", "attached"]);
    assert_eq!(status["schema_version"], 1);
    assert_eq!(status["mode"], "enforce");
    assert_eq!(status["interfaces"][0]["name"], INTERFACE);
    assert_eq!(status["interfaces"][0]["xdp_mode"], "native");

    // ban, list, check
    daemon.done(&[
        "ban",
        "203.0.113.7",
        "2001:db8:1::/64",
        "-d",
        "1h30m",
        "-R",
        "toll fraud",
    ]);
    assert_eq!(
        daemon
            .ask(&["ban", "203.0.113.7", "-d", "1h30m", "-R", "toll fraud"])
            .code,
        Some(0)
    );
    let list = daemon.json(&["list"]);
    assert_eq!(list["schema_version"], 1);
    let ban = &list["bans"][0];
    has(
        ban,
        &[
            "target",
            "origin",
            "rule",
            "reason",
            "scope",
            "created",
            "expires",
            "expires_in_seconds",
            "hits",
            "last_hit",
        ],
    );
    assert_eq!(ban["target"], "203.0.113.7");
    assert_eq!(ban["origin"], "manual");
    assert_eq!(ban["reason"], "toll fraud");
    assert_eq!(ban["scope"], "sip");
    assert!(
        (5_390..=5_400).contains(&ban["expires_in_seconds"].as_u64().unwrap()),
        "{ban}"
    );
    humantime_like(ban["created"].as_str().unwrap());
    humantime_like(ban["expires"].as_str().unwrap());
    assert_eq!(daemon.done(&["list", "-o", "raw"]).lines().count(), 2);
    assert_eq!(
        daemon.json(&["list", "--contained", "203.0.113.0/24"])["bans"]
            .as_array()
            .unwrap()
            .len(),
        1
    );
    assert_eq!(
        daemon.json(&["list", "--origin", "detector"])["bans"]
            .as_array()
            .unwrap()
            .len(),
        0
    );
    let check = daemon.json(&["check", "2001:db8:1::99"]);
    has(
        &check,
        &[
            "schema_version",
            "address",
            "banned",
            "bans",
            "allowed_by",
            "history",
        ],
    );
    assert_eq!(check["banned"], true);
    let free = daemon.ask(&["check", "203.0.113.8", "-o", "json"]);
    assert_eq!(free.code, Some(1));
    assert_eq!(
        serde_json::from_str::<Value>(&free.stdout).unwrap()["banned"],
        false
    );
    assert!(free.stderr.is_empty(), "{free:?}");

    // allow
    daemon.done(&["allow", "add", "198.51.100.0/24", "-R", "customers"]);
    let allowed = daemon.json(&["allow", "list"]);
    has(&allowed, &["schema_version", "allow"]);
    assert_eq!(allowed["allow"][0]["target"], "198.51.100.0/24");
    assert_eq!(allowed["allow"][0]["comment"], "customers");

    // Nobody is locked out by mistake.
    daemon
        .ask(&["ban", "198.51.100.9"])
        .refused(4, &["198.51.100.9 is allow-listed by 198.51.100.0/24"]);
    daemon
        .ask(&["ban", "192.0.2.1"])
        .refused(4, &["192.0.2.1 is an address of this host"]);
    daemon
        .ask(&["ban", "192.0.2.1", "--force"])
        .refused(4, &["192.0.2.1 is an address of this host"]);
    daemon
        .ask(&["ban", "2001:db8:ffff::1"])
        .refused(4, &["address of this host"]);
    daemon
        .ask(&["ban", "192.0.2.0/24"])
        .refused(4, &["contains 192.0.2.1"]);
    daemon
        .ask(&["ban", "10.0.0.0/8"])
        .refused(4, &["10.0.0.0/8 is wider than /16"]);
    daemon
        .ask(&["ban", "2001:db0::/31"])
        .refused(4, &["wider than /32"]);
    // One that is refused keeps the others from being banned.
    daemon
        .ask(&["ban", "203.0.113.99", "10.0.0.0/8"])
        .refused(4, &["10.0.0.0/8"]);
    assert_eq!(daemon.bans().len(), 2);
    assert!(
        daemon
            .ask(&["ban", "10.0.0.0/8"])
            .stderr
            .contains("hint: if you mean it, use --force")
    );
    daemon.done(&["ban", "10.0.0.0/8", "--force"]);
    // Even a forced ban of our own network does not stop ourselves.
    daemon.done(&["ban", "192.0.2.0/24", "--force"]);
    let probes = [
        sip_probes("10.9.8.7".parse().unwrap()),
        sip_probes("198.51.100.9".parse().unwrap()),
    ];
    assert!(passed(&rig, &probes[0]).is_empty());
    assert_eq!(passed(&rig, &probes[1]).len(), probes[1].len());
    assert_eq!(daemon.ask(&["check", "192.0.2.1"]).code, Some(1));

    // usage, unreachable
    assert_eq!(daemon.ask(&["ban", "300.0.0.1"]).code, Some(2));
    assert_eq!(daemon.ask(&["unban", "--all"]).code, Some(2));
    let nobody = ask(&rig.path("nobody.sock"), &["status"]);
    nobody.refused(3, &["nobody.sock"]);

    // events, unban
    let events = daemon.done(&["events", "-n", "100", "-o", "json"]);
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let kinds: Vec<&str> = events.iter().filter_map(|event| event["kind"].as_str()).collect();
    assert!(
        kinds.contains(&"ban-added") && kinds.contains(&"allow-changed"),
        "{kinds:?}"
    );
    has(
        &events[0],
        &["schema_version", "time", "kind", "target", "origin", "message"],
    );
    daemon.done(&["unban", "203.0.113.7"]);
    assert_eq!(daemon.ask(&["unban", "203.0.113.7"]).code, Some(0), "already so");
    assert_eq!(daemon.ask(&["check", "203.0.113.7"]).code, Some(1));
}

fn humantime_like(text: &str) {
    assert!(
        text.ends_with('Z') && text.as_bytes()[10] == b'T' && text.len() >= 20,
        "{text}"
    );
}

#[test]
fn what_is_exported_is_imported() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("verbs");
    daemon.done(&[
        "ban",
        "203.0.113.7",
        "2001:db8:1::/64",
        "-d",
        "2h",
        "-R",
        "with, \"quotes\"",
    ]);
    daemon.done(&["ban", "198.51.100.0/24", "-d", "permanent", "--scope", "all"]);
    let view = |bans: Vec<Value>| -> Vec<(Value, Value, Value, Value)> {
        let take = |ban: &Value, key: &str| ban[key].clone();
        bans.iter()
            .map(|ban| {
                (
                    take(ban, "target"),
                    take(ban, "reason"),
                    take(ban, "scope"),
                    take(ban, "created"),
                )
            })
            .collect()
    };
    let before = view(daemon.bans());
    let export = rig.dir.write("export.json", &daemon.done(&["export"])).unwrap();
    let plain = daemon.done(&["export", "--format", "plain"]);
    assert_eq!(plain.lines().count(), 3);
    daemon.done(&["unban", "--all", "--yes"]);
    assert!(daemon.bans().is_empty());
    let probes = sip_probes("198.51.100.5".parse().unwrap());
    assert_eq!(passed(&rig, &probes).len(), probes.len());
    daemon.done(&["import", export.to_str().unwrap()]);
    assert_eq!(view(daemon.bans()), before);
    assert!(passed(&rig, &probes).is_empty());

    // All or nothing.
    let bad = rig
        .dir
        .write("bad.txt", "203.0.113.1\nnonsense\n203.0.113.2\n")
        .unwrap();
    let ran = daemon.ask(&["import", bad.to_str().unwrap()]);
    assert_eq!(ran.code, Some(2), "{ran:?}");
    assert!(
        ran.stderr.contains("line 2") && ran.stderr.contains("nonsense"),
        "{ran:?}"
    );
    let own = rig.dir.write("own.txt", "203.0.113.1\n192.0.2.1\n").unwrap();
    let ran = daemon.ask(&["import", own.to_str().unwrap()]);
    assert_eq!(ran.code, Some(4), "{ran:?}");
    assert!(ran.stderr.contains("line 2"), "{ran:?}");
    assert_eq!(daemon.bans().len(), 3);
    daemon.done(&["import", own.to_str().unwrap(), "--skip-invalid"]);
    assert_eq!(daemon.bans().len(), 4);
}

#[test]
fn modes_health_and_the_configuration_can_be_changed_and_seen() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("verbs");
    let probes = sip_probes("203.0.113.7".parse().unwrap());
    daemon.done(&["ban", "203.0.113.7"]);
    assert!(passed(&rig, &probes).is_empty());
    let change = daemon.json(&["mode", "simulate"]);
    assert_eq!(
        (&change["mode"], &change["previous"]),
        (&Value::from("simulate"), &Value::from("enforce"))
    );
    assert_eq!(passed(&rig, &probes).len(), probes.len());
    assert_eq!(
        daemon.count("would_drop", "drop-ban-address"),
        probes.len() as u64
    );
    daemon.done(&["mode", "enforce"]);
    assert!(passed(&rig, &probes).is_empty());
    assert_eq!(daemon.counter("drop-ban-address"), 2 * probes.len() as u64);

    let health = daemon.json(&["health"]);
    assert_eq!(health["healthy"], true, "{health}");
    let shown = daemon.done(&["config", "show", "-o", "raw"]);
    assert!(shown.contains("hand_duration = \"1h\""), "{shown}");

    // A reload names what changed and what has to wait for a restart.
    rig.config(
        "main",
        "",
        "[bans]\nhand_duration = \"2h\"\n[protect]\nudp_ports = [5060, 5080]\n[tables]\nban4 = 5000",
    );
    let report = daemon.json(&["config", "reload"]);
    assert_eq!(
        report["changed"],
        Value::from(vec!["bans.hand_duration", "protect.udp_ports"]),
        "{report}"
    );
    assert_eq!(report["needs_restart"], Value::from(vec!["tables"]));
    assert!(
        daemon
            .ask(&["config", "reload"])
            .stderr
            .contains("at the next start only: tables")
    );
    let text = daemon.done(&["config", "show", "-o", "raw"]);
    assert!(
        text.contains("hand_duration = \"2h\"") && text.contains("5080") && !text.contains("ban4 = 5000"),
        "{text}"
    );

    // A bad one is refused with file, line and value, and the old one stays.
    let path = rig.config("main", "", "[bans]\nhand_duration = \"soon\"");
    let ran = daemon.ask(&["config", "reload"]);
    ran.refused(1, &["main.toml:", "hand_duration", "soon"]);
    assert!(
        daemon
            .done(&["config", "show", "-o", "raw"])
            .contains("hand_duration = \"2h\"")
    );
    assert_eq!(daemon.ask(&["health"]).code, Some(1), "the file is bad");
    assert!(passed(&rig, &probes).is_empty());
    // By signal, too; the journal tells.
    daemon.process.signal(Signal::SIGHUP);
    wait::until("the refused reload", std::time::Duration::from_secs(10), || {
        let events = daemon.done(&["events", "-o", "raw"]);
        Ok(events.matches("the old one stays in force").count() == 2)
    })
    .unwrap();
    fs::write(&path, fs::read_to_string(&path).unwrap().replace("soon", "3h")).unwrap();
    daemon.process.signal(Signal::SIGHUP);
    wait::until("the reload", std::time::Duration::from_secs(10), || {
        Ok(daemon
            .done(&["config", "show", "-o", "raw"])
            .contains("hand_duration = \"3h\""))
    })
    .unwrap();
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
    assert!(reaches(
        &rig,
        "192.0.2.2".parse().unwrap(),
        SocketAddr::new(SERVER4, 5060)
    ));
}

#[test]
fn events_can_be_followed_and_the_filter_lost_is_noticed() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("verbs");
    let mut follow = command(&[
        "--socket",
        daemon.socket().to_str().unwrap(),
        "events",
        "-f",
        "-o",
        "json",
    ]);
    let mut follower = xtask::lab::Process::spawn(&rig.server, "events", rig.dir.path(), {
        follow.arg("-n").arg("1");
        follow
    })
    .unwrap();
    // Until it follows, an event may be too early for it.
    wait::until("an event", std::time::Duration::from_secs(10), || {
        daemon.done(&["ban", "203.0.113.7"]);
        daemon.done(&["unban", "203.0.113.7"]);
        follower.check()?;
        Ok(follower.log().contains("ban-removed"))
    })
    .unwrap();
    // Somebody deletes the interface.
    rig.server.ip(&["link", "delete", INTERFACE]).unwrap();
    wait::until("the loss", std::time::Duration::from_secs(10), || {
        let health = daemon.ask(&["health"]);
        Ok(health.code == Some(1) && health.stdout.contains("waits for sip0"))
    })
    .unwrap();
    assert_eq!(daemon.json(&["status"])["interfaces"][0]["attached"], false);
    daemon.stop();
    assert!(follower.wait(std::time::Duration::from_secs(10)).is_ok());
    assert_eq!(run(&["--version"]).code, Some(0));
}
