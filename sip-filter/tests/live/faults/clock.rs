//! The wall clock is stepped, and wrong after a reboot. The machine's own clock stays as it is: the daemon is shown
//! another by libfaketime. Boot time, by which bans live, cannot be set.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use serde_json::Value;
use sip_filter::bans::{BanList, Batch, BootId, Clock, NewBan, Origin, Scope, Store};
use xtask::lab::{Process, wait, workdir::path_str};

use crate::{
    rig::{Daemon, Rig, command, usable},
    wire::{passed, sip_probes},
};

const BANNED: &str = "203.0.113.7";
const SOON: Duration = Duration::from_secs(15);

/// How far off the daemon's wall clock is, as libfaketime reads it.
struct WallClock(PathBuf);

impl WallClock {
    fn new(rig: &Rig) -> Self {
        let clock = Self(rig.path("clock"));
        clock.set("+0");
        clock
    }

    fn set(&self, off: &str) {
        // Read at any moment: whole or not at all.
        let new = self.0.with_extension("new");
        fs::write(&new, off).unwrap();
        fs::rename(&new, &self.0).unwrap();
    }

    fn start(&self, rig: &Rig) -> Daemon {
        let mut command = command(&["run", "--config", path_str(&rig.path("main.toml")).unwrap()]);
        command
            .env("LD_PRELOAD", library())
            .env("FAKETIME_TIMESTAMP_FILE", &self.0)
            .env("FAKETIME_NO_CACHE", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let process = Process::spawn(&rig.server, "main", rig.dir.path(), command).unwrap();
        Daemon::started(process, rig.path("main.sock"))
    }
}

/// Where `faketime` has its library; its name has the machine's triplet in it.
fn library() -> PathBuf {
    let roots = fs::read_dir("/usr/lib").unwrap().flatten();
    let found = roots.map(|root| root.path().join("faketime/libfaketimeMT.so.1"));
    found
        .into_iter()
        .find(|path| path.exists())
        .expect("faketime is installed")
}

fn ban_of(daemon: &Daemon, target: &str) -> Option<Value> {
    daemon.bans().into_iter().find(|ban| ban["target"] == target)
}

#[track_caller]
fn left(daemon: &Daemon, target: &str) -> u64 {
    // As the daemon's clock has it: this process has another.
    let expires = ban_of(daemon, target).unwrap_or_else(|| panic!("{target} is not banned"));
    expires["expires_in_seconds"].as_u64().unwrap()
}

#[track_caller]
fn stopped(rig: &Rig, address: &str) {
    let address: IpAddr = address.parse().unwrap();
    assert!(passed(rig, &sip_probes(address)).is_empty(), "{address} passes");
}

fn wait_for_step(daemon: &Daemon, before: &str) {
    wait::until("the daemon's clock", SOON, || {
        Ok(ban_of(daemon, BANNED).is_none_or(|ban| ban["expires"] != before))
    })
    .unwrap();
}

#[test]
fn a_stepped_wall_clock_neither_shortens_nor_lengthens_a_ban() {
    if !usable(&["faketime"]) {
        return;
    }
    let rig = Rig::new("clock-steps");
    rig.config("main", "", "");
    let clock = WallClock::new(&rig);
    let mut daemon = clock.start(&rig);
    daemon.done(&["ban", BANNED, "-d", "30m"]);
    daemon.done(&["ban", "198.51.100.0/24", "-d", "permanent"]);
    for (step, days) in [("+400d", true), ("-400d", false), ("+0", true)] {
        let before = ban_of(&daemon, BANNED).unwrap()["expires"]
            .as_str()
            .unwrap()
            .to_owned();
        clock.set(step);
        wait_for_step(&daemon, &before);
        let after = ban_of(&daemon, BANNED).unwrap()["expires"]
            .as_str()
            .unwrap()
            .to_owned();
        assert_eq!(
            after > before,
            days,
            "{before}, then {after}: the end is shown as the clock stands"
        );
        let left = left(&daemon, BANNED);
        assert!((1_600..=1_800).contains(&left), "{left} s at {step}");
        stopped(&rig, BANNED);
        assert_eq!(daemon.json(&["status"])["bans"], 2);
        // One that is made under this clock ends after its time, not before it and not much later.
        daemon.done(&["ban", "203.0.113.8", "-d", "3s"]);
        thread::sleep(Duration::from_millis(1_500));
        stopped(&rig, "203.0.113.8");
        wait::until("its end", SOON, || Ok(ban_of(&daemon, "203.0.113.8").is_none())).unwrap();
        let free = sip_probes("203.0.113.8".parse().unwrap());
        // The kernel keeps ends to 268 ms, rounded up.
        wait::until("its end in the kernel", Duration::from_secs(1), || {
            Ok(passed(&rig, &free).len() == free.len())
        })
        .unwrap();
        // Nor does a crash under this clock.
        daemon.kill();
        daemon = clock.start(&rig);
        let left = self::left(&daemon, BANNED);
        assert!(
            (1_500..=1_800).contains(&left),
            "{left} s after a crash at {step}"
        );
        stopped(&rig, BANNED);
    }
}

/// A store as an earlier boot left it: a ban that had an hour left.
fn earlier_boot(state: &Path) {
    let now = Clock::now();
    let mut list = BanList::default();
    let new = NewBan {
        target: BANNED.parse().unwrap(),
        origin: Origin::Manual,
        rule: None,
        reason: String::new(),
        scope: Scope::Sip,
        lifetime: Some(Duration::from_secs(3_600)),
        created: None,
        evidence: None,
    };
    let entry = list.ban(new, now).1.unwrap().after.unwrap();
    let mut batch = Batch::default();
    batch.put_ban(&entry, now, &BootId::new("another boot"));
    Store::open(state).unwrap().write(&batch).unwrap();
}

#[test]
fn after_a_reboot_a_wrong_clock_makes_no_ban_permanent_and_none_vanish() {
    if !usable(&["faketime"]) {
        return;
    }
    for wrong in ["-3650d", "+3650d"] {
        let rig = Rig::new("clock-reboot");
        rig.config("main", "", "");
        rig.start("main", &[]).stop();
        earlier_boot(&rig.path("main-state"));
        let clock = WallClock::new(&rig);
        clock.set(wrong);
        let daemon = clock.start(&rig);
        let before = left(&daemon, BANNED);
        assert!((3_500..=3_600).contains(&before), "{before} s at {wrong}");
        stopped(&rig, BANNED);
        // The network sets it.
        let shown = ban_of(&daemon, BANNED).unwrap()["expires"]
            .as_str()
            .unwrap()
            .to_owned();
        clock.set("+0");
        wait_for_step(&daemon, &shown);
        wait::until("the log", SOON, || {
            Ok(daemon.process.log().contains("the wall clock counts from now on"))
        })
        .unwrap();
        let after = left(&daemon, BANNED);
        assert!((3_400..=3_600).contains(&after), "{after} s after {wrong}");
        stopped(&rig, BANNED);
        assert_eq!(daemon.ask(&["health"]).code, Some(0));
    }
}
