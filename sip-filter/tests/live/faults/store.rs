//! The disk fills up, goes away, becomes read-only, or holds nonsense, while packets flow.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::signal::Signal;
use sip_filter::bans::{BanList, Batch, BootId, Clock, NewBan, Origin, Scope, Store, Target};
use xtask::lab::{command, wait};

use crate::{
    monitoring::scrape,
    rig::{Daemon, INTERFACE, Rig, usable},
    wire::{passed, sip_probes},
};

const BANNED: &str = "203.0.113.7";
const INNOCENT: &str = "203.0.113.200";
const SOON: Duration = Duration::from_secs(20);

/// A small file system of its own at a directory.
struct Disk(PathBuf);

impl Disk {
    fn mount(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).unwrap();
        let (at_text, options) = (at.to_str().unwrap(), format!("mode=0750,{options}"));
        command::run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", at_text]).unwrap();
        Self(at.to_owned())
    }

    fn fill(&self) {
        let full = fs::write(self.0.join("filler"), vec![0; 64 << 20]).unwrap_err();
        assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
    }

    fn make_room(&self) {
        fs::remove_file(self.0.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = command::run("umount", &["-l", self.0.to_str().unwrap()]);
    }
}

fn state(rig: &Rig) -> PathBuf {
    rig.path("main-state")
}

/// Who is banned stays out, who is not gets in.
#[track_caller]
fn traffic_flows(rig: &Rig, when: &str) {
    let banned = sip_probes(BANNED.parse().unwrap());
    assert!(passed(rig, &banned).is_empty(), "a banned source passes {when}");
    let innocent = sip_probes(INNOCENT.parse().unwrap());
    assert_eq!(passed(rig, &innocent).len(), innocent.len(), "{when}");
}

fn list_of(count: u32) -> String {
    let mut csv = String::from("target,duration,reason\n");
    for number in 0..count {
        writeln!(csv, "{},7d,list of today", Ipv4Addr::from(0x0b00_0000 + number)).unwrap();
    }
    csv
}

fn targets(daemon: &Daemon) -> Vec<String> {
    let bans = daemon.bans();
    bans.iter()
        .map(|ban| ban["target"].as_str().unwrap().to_owned())
        .collect()
}

/// Health, the metric and the log say that changes are not saved, and why.
#[track_caller]
fn not_saved(rig: &Rig, daemon: &Daemon, why: &str) {
    wait::until("health to tell", SOON, || {
        let health = daemon.ask(&["health"]);
        Ok(health.code == Some(1) && health.stdout.contains(why))
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", daemon.ask(&["health"])));
    let metrics = scrape(&rig.server, "127.0.0.1:9798").unwrap();
    let raised = "sip_filter_condition{name=\"store-failing\",severity=\"critical\"} 1";
    assert!(metrics.contains(raised), "{metrics}");
    let log = daemon.process.log();
    let told = log
        .lines()
        .any(|line| line.contains("cannot be saved") && line.contains(why));
    assert!(told, "{log}");
}

#[track_caller]
fn all_saved(daemon: &Daemon) {
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0)))
        .unwrap_or_else(|error| panic!("{error}: {:?}", daemon.ask(&["health"])));
}

/// What a power cut leaves is what was acknowledged.
#[track_caller]
fn survives(rig: &Rig, daemon: Daemon, expected: &[String]) -> Daemon {
    daemon.kill();
    let daemon = rig.start("main", &[]);
    assert_eq!(targets(&daemon), expected);
    daemon
}

#[test]
fn a_full_disk_refuses_what_needs_room_and_nothing_else() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("disk-full");
    let disk = Disk::mount(&state(&rig), "size=16M");
    rig.config("main", "", "");
    let mut daemon = rig.start("main", &[]);
    daemon.done(&["ban", BANNED]);
    disk.fill();
    traffic_flows(&rig, "while the disk is full");
    let (before, file) = (targets(&daemon), state(&rig).join("bans.redb"));
    let length = fs::metadata(&file).unwrap().size();

    let list = rig.dir.write("list.csv", &list_of(5_000)).unwrap();
    let list = list.to_str().unwrap();
    for _ in 0..2 {
        let import = daemon.ask(&["import", list]);
        import.refused(1, &["bans.redb has no room to grow", "make room", "taken back"]);
    }
    assert_eq!(targets(&daemon), before);
    assert!(fs::metadata(&file).unwrap().size() <= length);
    let refused = sip_probes("11.0.0.1".parse().unwrap());
    assert_eq!(passed(&rig, &refused).len(), refused.len(), "it is not in force");
    traffic_flows(&rig, "after an import that was taken back");
    let events = daemon.done(&["events", "-o", "raw", "--limit", "1000"]);
    assert!(!events.contains("imported"), "{events}");
    assert!(events.contains("has no room to grow"), "{events}");

    // Single bans still fit into what the file has, also after a crash.
    daemon.done(&["ban", "203.0.113.8", "203.0.113.9"]);
    daemon.done(&["unban", "203.0.113.9"]);
    let expected = [BANNED, "203.0.113.8"].map(str::to_owned);
    daemon = survives(&rig, daemon, &expected);
    all_saved(&daemon);
    traffic_flows(&rig, "after a crash on a full disk");

    disk.make_room();
    daemon.done(&["import", list]);
    let daemon = {
        daemon.kill();
        rig.start("main", &[])
    };
    assert_eq!(daemon.json(&["status"])["bans"], 5_002);
}

#[test]
fn where_nothing_can_be_saved_bans_are_refused_and_what_lets_pass_holds() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("disk-read-only");
    rig.config("main", "", "");
    let daemon = rig.start("main", &[]);
    daemon.done(&["ban", BANNED, "203.0.113.8", "203.0.113.9"]);
    // Another, which nobody can write to, hides it.
    let hidden = Disk::mount(&state(&rig), "ro");
    not_saved(&rig, &daemon, "Read-only file system");
    traffic_flows(&rig, "while nothing can be saved");

    let ban = daemon.ask(&["ban", "203.0.113.10"]);
    ban.refused(1, &["bans.redb", "taken back"]);
    assert!(!targets(&daemon).contains(&"203.0.113.10".to_owned()));
    let warns = |ran: &crate::rig::Ran| {
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert!(
            ran.stderr
                .contains("is not saved and would not survive a restart"),
            "{ran:?}"
        );
    };
    let lifted = daemon.ask(&["unban", "203.0.113.8"]);
    warns(&lifted);
    assert!(lifted.stdout.contains("unbanned 203.0.113.8"), "{lifted:?}");
    let allowed = daemon.ask(&["allow", "add", "203.0.113.9"]);
    warns(&allowed);
    let json = daemon.json(&["unban", "203.0.113.77"]);
    assert_eq!(json.get("not_saved"), None, "nothing to save: {json}");
    let probes = sip_probes("203.0.113.9".parse().unwrap());
    assert_eq!(passed(&rig, &probes).len(), probes.len());
    traffic_flows(&rig, "while nothing can be saved");

    // All that waits is written as soon as that can be.
    drop(hidden);
    all_saved(&daemon);
    let log = daemon.process.log();
    assert!(log.contains("the ban list can be saved again"), "{log}");
    let expected = [BANNED, "203.0.113.9"].map(str::to_owned);
    let daemon = survives(&rig, daemon, &expected);
    assert_eq!(passed(&rig, &probes).len(), probes.len(), "still allowed");
    traffic_flows(&rig, "after that");

    // A start from a store that nobody can write to.
    daemon.stop();
    let before = rig.xdp(INTERFACE);
    let at = state(&rig).to_str().unwrap().to_owned();
    command::run("mount", &["--bind", "-o", "ro", &at, &at]).unwrap();
    let failed = rig.fail_to_start("main", &[]);
    command::run("umount", &[&at]).unwrap();
    failed.refused(1, &["bans.redb", "Read-only file system"]);
    assert_eq!(rig.xdp(INTERFACE), before, "the filter is as it was");
    traffic_flows(&rig, "while there is no daemon");
}

#[test]
fn a_store_that_is_deleted_is_written_anew() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("store-gone");
    rig.config("main", "", "");
    let mut daemon = rig.start("main", &[]);
    daemon.done(&["ban", BANNED, "198.51.100.0/24", "-d", "permanent"]);
    daemon.done(&["ban", "203.0.113.8"]);
    daemon.done(&["unban", "203.0.113.8"]);
    daemon.done(&["allow", "add", "203.0.113.9"]);
    let file = state(&rig).join("bans.redb");
    for gone in [file.clone(), state(&rig)] {
        let known = targets(&daemon);
        if gone.is_dir() {
            fs::remove_dir_all(&gone).unwrap();
        } else {
            fs::remove_file(&gone).unwrap();
        }
        wait::until("a new file", SOON, || Ok(file.exists())).unwrap();
        all_saved(&daemon);
        let log = daemon.process.log();
        assert!(log.contains("was removed while sip-filter runs"), "{log}");
        traffic_flows(&rig, "without its store");
        daemon = survives(&rig, daemon, &known);
        let allowed = daemon.done(&["allow", "list", "-o", "raw"]);
        assert!(allowed.contains("203.0.113.9"), "{allowed}");
        let check = daemon.ask(&["check", "203.0.113.8"]);
        assert!(check.stdout.contains("earlier bans"), "{check:?}");
    }
    // Another file in its place is nobody's to overwrite.
    let saved = fs::read(&file).unwrap();
    fs::rename(&file, state(&rig).join("moved")).unwrap();
    fs::write(&file, b"somebody's").unwrap();
    not_saved(&rig, &daemon, "was replaced by another file");
    daemon
        .ask(&["ban", "203.0.113.10"])
        .refused(1, &["was replaced by another file", "remove it", "taken back"]);
    assert_eq!(fs::read(&file).unwrap(), b"somebody's");
    fs::remove_file(&file).unwrap();
    all_saved(&daemon);
    assert!(fs::read(&file).unwrap().len() >= saved.len() / 2);
    let known = targets(&daemon);
    survives(&rig, daemon, &known);
}

#[test]
fn a_damaged_store_is_named_and_the_filter_stays() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("store-damaged");
    rig.config("main", "", "");
    let daemon = rig.start("main", &[]);
    let list = rig.dir.write("list.csv", &list_of(300)).unwrap();
    daemon.done(&["import", list.to_str().unwrap()]);
    daemon.done(&["ban", BANNED]);
    let known = targets(&daemon);
    daemon.stop();
    let (filter, file) = (rig.xdp(INTERFACE), state(&rig).join("bans.redb"));
    assert!(filter.is_some());
    let good = fs::read(&file).unwrap();
    let mut scribbled = good.clone();
    scribbled
        .iter_mut()
        .skip(4_096)
        .step_by(97)
        .for_each(|byte| *byte ^= 0x20);
    for bad in [vec![b'x'; 50_000], good[..good.len() / 2].to_vec(), scribbled] {
        fs::write(&file, &bad).unwrap();
        let failed = rig.fail_to_start("main", &[]);
        failed.refused(
            1,
            &[
                "bans.redb is damaged",
                "nothing was changed",
                "restore it from a backup",
            ],
        );
        assert!(fs::read(&file).unwrap() == bad, "changed");
        assert_eq!(rig.xdp(INTERFACE), filter, "the filter is as it was");
        traffic_flows(&rig, "while there is no daemon");
    }
    // The way out that the message names.
    fs::write(&file, &good).unwrap();
    let daemon = rig.start("main", &[]);
    assert_eq!(targets(&daemon), known);
    traffic_flows(&rig, "again");
}

#[test]
fn room_that_ended_bans_held_is_given_back_and_a_kill_meanwhile_loses_nothing() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("store-compact");
    rig.config("main", "", "");
    rig.start("main", &[]).stop();
    // A long list that ended, and two bans that did not.
    let (clock, boot) = (Clock::now(), BootId::current());
    let mut list = BanList::default();
    let mut ban = |target: Target| {
        let new = NewBan {
            target,
            origin: Origin::Manual,
            rule: None,
            reason: "a reason of some length, as people write them".to_owned(),
            scope: Scope::Sip,
            lifetime: None,
            created: None,
            evidence: None,
        };
        list.ban(new, clock).1.unwrap().after.unwrap()
    };
    let mut store = Store::open(&state(&rig)).unwrap();
    let (mut long, mut ended) = (Batch::default(), Batch::default());
    for number in 0..30_000_u32 {
        let target = Target::address(Ipv4Addr::from(0x0b00_0000 + number).into());
        long.put_ban(&ban(target), clock, &boot);
        ended.remove_ban(target);
    }
    let known = ["198.51.100.0/24", BANNED].map(str::to_owned);
    for target in &known {
        ended.put_ban(&ban(target.parse().unwrap()), clock, &boot);
    }
    store.write(&long).unwrap();
    store.write(&ended).unwrap();
    drop(store);
    let file = state(&rig).join("bans.redb");
    let length = || fs::metadata(&file).unwrap().size();
    let large = length();
    assert!(large > 4 << 20, "{large}");
    for round in 0..6 {
        let mut process = rig.spawn("main", &[]);
        thread::sleep(Duration::from_millis(40 + round * 45));
        process.signal(Signal::SIGKILL);
        process.wait(SOON).unwrap();
    }
    let daemon = rig.start("main", &[]);
    assert_eq!(targets(&daemon), known);
    all_saved(&daemon);
    println!("{large} bytes with the list, {} after it", length());
    assert!(length() < large / 4, "{} of {large}", length());
    traffic_flows(&rig, "after it");
    daemon.done(&["ban", "203.0.113.8"]);
}
