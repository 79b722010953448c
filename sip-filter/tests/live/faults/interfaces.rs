//! Interfaces that go away, come back, and lose a part of what was attached to them.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use xtask::lab::{frames::Link, netns, wait};

use super::{random::Random, setting, witness::Witness};
use crate::{
    frames::{Frame, request},
    rig::{Daemon, INTERFACE, Rig, SENDER, usable},
};

const SOON: Duration = Duration::from_secs(20);
const KEEP: &str = "privileges = \"keep\"";

/// Tables that are quickly loaded.
pub(super) const SMALL: &str = "[tables]\nban4 = 16384\nban6 = 4096\nban6_hosts = 1024\nnetworks = 4096\nsources = 16384\n\
                                trust = 1024\nendpoints = 1024\n";

/// Numbers of the links by which the daemon's observer of answers is attached, as `/proc` describes its descriptors.
fn observers(daemon: &Daemon) -> Vec<u64> {
    let directory = format!("/proc/{}/fdinfo", daemon.process.id());
    let texts = fs::read_dir(directory).unwrap().flatten();
    let texts = texts.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let field = |text: &str, name: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(name));
        value.map(|value| value.trim().to_owned())
    };
    texts
        .filter(|text| field(text, "link_type:").as_deref() == Some("tcx"))
        .filter(|text| field(text, "ifindex:").is_some_and(|index| index != "0"))
        .map(|text| field(&text, "link_id:").unwrap().parse().unwrap())
        .collect()
}

fn take_observer_off(rig: &Rig, daemon: &Daemon) -> u64 {
    let links = observers(daemon);
    assert_eq!(links.len(), 1, "one program looks at the answers");
    rig.server
        .run("bpftool", &["link", "detach", "id", &links[0].to_string()])
        .unwrap();
    links[0]
}

fn metric(rig: &Rig, line: &str) -> bool {
    let page = crate::monitoring::scrape(&rig.server, "127.0.0.1:9798").unwrap();
    page.lines().any(|found| found == line)
}

#[test]
fn a_lost_observer_of_answers_is_told_and_put_back() {
    if !usable(&["bpftool", "tc"]) {
        return;
    }
    let rig = Rig::new("observer");
    rig.config("main", KEEP, SMALL);
    let daemon = rig.start("main", &[]);
    let witness = Witness::begin(&rig, &daemon, Duration::from_secs(120));
    if daemon.json(&["status"])["interfaces"][0]["egress"] != "tcx" {
        println!("this kernel attaches by clsact: `netlink::egress_classifiers` has its own tests");
        return;
    }
    let before = take_observer_off(&rig, &daemon);
    wait::until("another observer", SOON, || {
        Ok(observers(&daemon).iter().any(|link| *link != before))
    })
    .unwrap();
    wait::until("the journal", SOON, || {
        let events = daemon.done(&["events", "-n", "1000", "-o", "raw"]);
        let told = |kind: &str| {
            events
                .lines()
                .any(|line| line.contains(kind) && line.contains("answers-unseen"))
        };
        Ok(told("condition-raised") && told("condition-cleared"))
    })
    .unwrap();
    assert!(
        daemon.process.log().contains("was put back"),
        "{}",
        daemon.process.log()
    );
    assert!(metric(
        &rig,
        "sip_filter_conditions_raised_total{name=\"answers-unseen\"} 1"
    ));
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
    daemon.stop();

    // A daemon that gave its capabilities up can only tell.
    rig.config("main", "", SMALL);
    let daemon = rig.start("main", &[]);
    take_observer_off(&rig, &daemon);
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(1))).unwrap();
    let health = daemon.ask(&["health"]).stdout;
    for words in [
        "answers that leave sip0 are not seen",
        "was taken off the interface",
        "a restart tries again",
    ] {
        assert!(health.contains(words), "no `{words}` in {health}");
    }
    assert!(metric(
        &rig,
        "sip_filter_condition{name=\"answers-unseen\",severity=\"warning\"} 1"
    ));
    assert!(
        daemon.process.log().contains("restart the daemon"),
        "{}",
        daemon.process.log()
    );
    let daemon = {
        daemon.stop();
        rig.start("main", &[])
    };
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
    assert_eq!(observers(&daemon).len(), 1);
    println!("{}", witness.end(&rig));
}

#[test]
fn interfaces_that_go_and_come_together_are_filtered_again_and_harm_no_other() {
    if !usable(&["tc"]) {
        return;
    }
    const ROUNDS: u64 = 3;
    let names = [("sip7", "eth7"), ("sip8", "eth8"), ("sip9", "eth9")];
    let rig = Rig::new("several");
    let connect = |(here, there)| netns::connect((&rig.server, here), (&rig.sender, there)).unwrap();
    names.into_iter().for_each(connect);
    let top = format!("interfaces = [\"sip0\", \"sip7\", \"sip8\", \"sip9\"]\n{KEEP}");
    rig.config("main", &top, SMALL);
    let daemon = rig.start("main", &[]);
    let witness = Witness::begin(&rig, &daemon, Duration::from_secs(300));
    daemon.done(&["ban", "198.18.0.0/24"]);
    let banned = Frame::udp(
        "198.18.0.9".parse::<std::net::IpAddr>().unwrap(),
        &request("OPTIONS"),
    )
    .build();
    let mut sent = 0;
    let mut stopped_everywhere = |daemon: &Daemon| {
        for (_, there) in names {
            let mut link = Link::open(&rig.sender, there).unwrap();
            for _ in 0..10 {
                link.send(&banned).unwrap();
            }
            sent += 10;
        }
        wait::until("the drops", SOON, || {
            Ok(daemon.counter("drop-ban-network") >= sent)
        })
        .unwrap();
        // Also those of interfaces that are gone since are in the sum.
        assert_eq!(daemon.counter("drop-ban-network"), sent);
    };
    let whole = |daemon: &Daemon| {
        wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
        assert!(names.iter().all(|(here, _)| rig.xdp(here).is_some()));
    };
    whole(&daemon);
    stopped_everywhere(&daemon);
    let begun = Instant::now();
    for round in 0..ROUNDS {
        for (here, _) in names {
            rig.server.ip(&["link", "set", "dev", here, "down"]).unwrap();
        }
        assert_eq!(daemon.ask(&["health"]).code, Some(0), "down is not gone");
        if round % 2 == 0 {
            for (here, _) in names {
                rig.server.ip(&["link", "delete", here]).unwrap();
            }
            wait::until("the loss", SOON, || {
                let health = daemon.ask(&["health"]);
                let named = names
                    .iter()
                    .all(|(here, _)| health.stdout.contains(&format!("waits for {here}")));
                Ok(health.code == Some(1) && named)
            })
            .unwrap();
            let missing = "sip_filter_condition{name=\"interface-missing\",severity=\"critical\"} 3";
            assert!(metric(&rig, missing));
            names.into_iter().for_each(connect);
        } else {
            // Gone and back before anybody looks.
            for pair in names {
                rig.server.ip(&["link", "delete", pair.0]).unwrap();
                connect(pair);
            }
        }
        for (here, _) in names {
            wait::until("the filter", SOON, || Ok(rig.xdp(here).is_some())).unwrap();
            rig.server.ip(&["link", "set", "dev", here, "up"]).unwrap();
        }
        whole(&daemon);
        stopped_everywhere(&daemon);
        witness.nothing_leaked("while other interfaces came and went");
    }
    println!(
        "{ROUNDS} rounds of three interfaces in {:?}: {}",
        begun.elapsed(),
        witness.end(&rig)
    );
}

#[test]
fn an_interface_that_vanishes_while_the_daemon_starts_is_waited_for_or_named() {
    if !usable(&[]) {
        return;
    }
    let rounds: u32 = setting("KILLS", 8);
    let mut random =
        Random::seeded("an_interface_that_vanishes_while_the_daemon_starts_is_waited_for_or_named");
    let rig = Rig::new("vanishing");
    rig.config("main", "", SMALL);
    let begun = Instant::now();
    rig.start("main", &[]).stop();
    let start = begun.elapsed();
    rig.config("strict", "missing_interface = \"fail\"", SMALL);
    let (mut waited, mut refused, mut ready) = (0, 0, 0);
    for round in 0..rounds {
        let strict = round % 2 == 1;
        let name = if strict { "strict" } else { "main" };
        let mut process = rig.spawn(name, &[]);
        thread::sleep(random.within(start));
        rig.server.ip(&["link", "delete", INTERFACE]).unwrap();
        let socket = rig.path(&format!("{name}.sock"));
        wait::until("what becomes of it", SOON, || {
            let up = crate::rig::ask(&socket, &["status"]).code == Some(0);
            Ok(up || process.status()?.is_some())
        })
        .unwrap();
        let log = process.log();
        if process.status().unwrap().is_some() {
            // Only who asked for it fails, and says why in one sentence.
            let errors: Vec<&str> = log.lines().filter(|line| line.starts_with("error: ")).collect();
            assert!(strict, "{log}");
            assert_eq!(errors.len(), 1, "{log}");
            let named = ["went away", "no interface `sip0`"]
                .iter()
                .any(|words| errors[0].contains(words));
            assert!(named && errors[0].contains(INTERFACE), "{log}");
            refused += 1;
        } else {
            let mut waits = false;
            wait::until("the condition", SOON, || {
                let health = crate::rig::ask(&socket, &["health"]);
                waits = health.stdout.contains("waits for sip0");
                Ok(waits && health.code == Some(1))
            })
            .unwrap_or_else(|error| panic!("{error}: {}", process.log()));
            if log.contains("going on without it") {
                waited += 1
            } else {
                ready += 1
            }
        }
        assert!(
            !log.contains("cannot run XDP"),
            "the driver is not to blame: {log}"
        );
        drop(process);
        netns::connect((&rig.server, INTERFACE), (&rig.sender, SENDER)).unwrap();
    }
    println!(
        "{rounds} starts of {start:?}: {waited} went on without it, {refused} ended with the reason, in {ready} it was \
         attached already or never seen"
    );
}
