//! A ban table without room.

use std::{
    net::{IpAddr, Ipv4Addr},
    thread,
    time::Duration,
};

use xtask::lab::{frames::Link, wait};

use super::witness::Witness;
use crate::{
    frames::Frame,
    rig::{Daemon, Rig, SENDER, usable},
    wire::{passed, sip_probes},
};

const SOON: Duration = Duration::from_secs(20);

/// A request of a tool that one rule bans for its name.
pub(super) fn scanner(source: IpAddr) -> Vec<u8> {
    let text = format!(
        "OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {source}:5060;branch=z9hG4bK1\r\nMax-Forwards: 70\r\n\
         To: <sip:100@192.0.2.1>\r\nFrom: <sip:100@192.0.2.1>;tag=1\r\nCall-ID: 1@{source}\r\nCSeq: 1 OPTIONS\r\n\
         User-Agent: friendly-scanner\r\nContent-Length: 0\r\n\r\n"
    );
    Frame::udp(source, text.as_bytes()).build()
}

fn filler(number: u32) -> String {
    Ipv4Addr::from(0x0b00_0000 + number).to_string()
}

/// Entries and room of the IPv4 ban table, as monitoring has them.
fn fill(rig: &Rig) -> String {
    let page = crate::monitoring::scrape(&rig.server, "127.0.0.1:9798").unwrap();
    let of_table = |line: &&str| line.contains("sip_filter_bpf_map_") && line.contains("\"ban4\"");
    page.lines().filter(of_table).collect::<Vec<_>>().join(", ")
}

#[test]
fn a_full_ban_table_refuses_loudly_and_keeps_what_it_has() {
    if !usable(&["tc"]) {
        return;
    }
    let rig = Rig::new("full");
    rig.config("main", "", "[tables]\nban4 = 64");
    let daemon = rig.start("main", &[]);
    let witness = Witness::begin(&rig, &daemon, Duration::from_secs(180));
    let (mut last, mut step) = (0, 32);
    while step > 0 {
        let several: Vec<String> = (last..last + step).map(filler).collect();
        let mut ban = vec!["ban", "-d", "permanent"];
        ban.extend(several.iter().map(String::as_str));
        let ran = daemon.ask(&ban);
        if ran.code == Some(0) {
            last += step;
            continue;
        }
        // None of them was taken, so fewer may fit.
        ran.refused(5, &["IPv4 ban table of sip0 is full", "tables.ban4"]);
        assert_eq!(daemon.json(&["status"])["bans"], last + 1);
        step /= 2;
    }
    assert!(last >= 62, "full after {last}");
    let list = |daemon: &Daemon| {
        let mut targets: Vec<String> = daemon
            .bans()
            .iter()
            .map(|ban| ban["target"].to_string())
            .collect();
        targets.sort_unstable();
        targets
    };
    let before = list(&daemon);

    // The rules find scanners, and cannot ban them: that is said, not only counted.
    let scanners: Vec<IpAddr> = (1..=5).map(|last| Ipv4Addr::new(12, 0, 0, last).into()).collect();
    let scan = || {
        let mut link = Link::open(&rig.sender, SENDER).unwrap();
        for source in &scanners {
            link.send(&scanner(*source)).unwrap();
        }
    };
    scan();
    wait::until("the refusals", SOON, || {
        let events = daemon.done(&["events", "-n", "1000", "-o", "raw"]);
        let told = |source: &IpAddr| {
            events.lines().any(|line| {
                line.contains(&source.to_string())
                    && line.contains("is not banned")
                    && line.contains("is full")
            })
        };
        Ok(scanners.iter().all(told))
    })
    .unwrap();
    let log = daemon.process.log();
    assert!(
        log.contains("12.0.0.1 is not banned: the IPv4 ban table of sip0 is full"),
        "{log}"
    );
    assert_eq!(list(&daemon), before, "nothing was changed");
    let health = daemon.ask(&["health"]);
    assert_eq!(health.code, Some(1));
    assert!(health.stdout.contains("table ban4 of sip0 holds"), "{health:?}");
    let page = crate::monitoring::scrape(&rig.server, "127.0.0.1:9798").unwrap();
    let raised = "sip_filter_condition{name=\"map-nearly-full\",severity=\"warning\"} 1";
    assert!(page.contains(raised), "{page}");
    println!("full with {}", fill(&rig));
    let held: Vec<_> = [0, last / 2, last - 1]
        .iter()
        .flat_map(|number| sip_probes(filler(*number).parse().unwrap()))
        .collect();
    assert!(passed(&rig, &held).is_empty(), "existing bans hold");
    witness.nothing_leaked("with a full table");

    // With room again, the same rule bans the same sources.
    let lifted: Vec<String> = (0..last / 2).map(filler).collect();
    let mut unban = vec!["unban"];
    unban.extend(lifted.iter().map(String::as_str));
    daemon.done(&unban);
    wait::until("the bans of the rule", SOON, || {
        scan();
        thread::sleep(Duration::from_millis(100));
        let now = list(&daemon);
        Ok(scanners
            .iter()
            .all(|source| now.contains(&format!("\"{source}\""))))
    })
    .unwrap();
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
    println!("{}", witness.end(&rig));
}
