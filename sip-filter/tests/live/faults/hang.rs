//! A disk that neither works nor fails: it does not answer.

use std::{
    fs,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use xtask::lab::{command, frames::Link, wait, workdir::path_str};

use super::{tables::scanner, witness::Witness};
use crate::{
    monitoring::scrape,
    rig::{Daemon, Rig, SENDER, ask, usable},
    wire::{passed, sip_probes},
};

/// A disk counts as hanging after 15 s; the rest is for a busy machine.
const TOLD: Duration = Duration::from_secs(45);
const SOON: Duration = Duration::from_secs(20);
const WITHIN: Duration = Duration::from_secs(240);

/// An ext4 file system in a file, which can be frozen.
struct Disk(PathBuf);

impl Disk {
    fn mount(image: &Path, at: &Path) -> Self {
        fs::File::create(image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir_all(at).unwrap();
        let (image, text) = (path_str(image).unwrap(), path_str(at).unwrap());
        command::run("mkfs.ext4", &["-q", "-F", image]).unwrap();
        command::run("mount", &["-o", "loop", image, text]).unwrap();
        Self(at.to_owned())
    }

    fn freeze(&self) -> Frozen<'_> {
        let at = path_str(&self.0).unwrap();
        let mut watch = Command::new("sh");
        watch
            .args([
                "-c",
                "sleep \"$1\"; fsfreeze --unfreeze \"$2\"; umount -l \"$2\"",
                "thaw",
            ])
            .args([&WITHIN.as_secs().to_string(), at])
            .stderr(Stdio::null())
            // With its `sleep`, to be ended with it.
            .process_group(0);
        let watch = watch.spawn().unwrap();
        let frozen = Frozen(self, watch);
        command::run("fsfreeze", &["--freeze", at]).unwrap();
        frozen
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Ok(at) = path_str(&self.0) {
            let _ = command::run("umount", &["-l", at]);
        }
    }
}

/// A disk that hangs. It thaws when this is dropped, and by a process of its own should the test be killed.
struct Frozen<'a>(&'a Disk, Child);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        let thawed = path_str(&self.0.0).and_then(|at| command::run("fsfreeze", &["--unfreeze", at]));
        assert!(thawed.is_ok() || thread::panicking(), "{thawed:?}");
        let _ = signal::killpg(Pid::from_raw(self.1.id().cast_signed()), Signal::SIGKILL);
        let _ = self.1.wait();
    }
}

/// Those whom an operator has banned; what rules do here ends within seconds.
fn targets(daemon: &Daemon) -> Vec<String> {
    let bans = daemon.bans();
    let mut targets: Vec<String> = bans
        .iter()
        .filter(|ban| ban["rule"].is_null())
        .map(|ban| ban["target"].as_str().unwrap().to_owned())
        .collect();
    targets.sort();
    targets
}

/// A rule bans a scanner, in the kernel at once.
fn bans_a_scanner(rig: &Rig, daemon: &Daemon, source: &str) {
    let address = source.parse().unwrap();
    wait::until("the ban of a scanner", SOON, || {
        Link::open(&rig.sender, SENDER)?.send(&scanner(address))?;
        thread::sleep(Duration::from_millis(100));
        Ok(daemon.ask(&["check", source]).code == Some(0))
    })
    .unwrap();
    assert!(
        passed(rig, &sip_probes(address)).is_empty(),
        "{source} is not out"
    );
}

/// Operators who ask for something at the beginning of a hang, before anybody knows of it.
fn ask_while_it_hangs(daemon: &Daemon) {
    let verbs: [&[&str]; 3] = [
        &["ban", "203.0.113.50", "-d", "permanent"],
        &["unban", "203.0.113.8"],
        &["allow", "add", "203.0.113.60"],
    ];
    let begun = Instant::now();
    let asked = verbs.map(|verb| {
        let socket = daemon.socket().to_owned();
        thread::spawn(move || ask(&socket, verb))
    });
    let [ban, unban, allow] = asked.map(|asked| asked.join().unwrap());
    println!("answered after {:?}: {}", begun.elapsed(), ban.stderr.trim());
    ban.refused(1, &["its disk hangs", "taken back"]);
    for held in [unban, allow] {
        assert_eq!(held.code, Some(0), "{held:?}");
        let warned = held
            .stderr
            .contains("is not saved and would not survive a restart");
        assert!(warned && held.stderr.contains("its disk hangs"), "{held:?}");
    }
}

#[track_caller]
fn told(rig: &Rig, daemon: &Daemon) {
    wait::until("health to tell", TOLD, || {
        let health = daemon.ask(&["health"]);
        Ok(health.code == Some(1) && health.stdout.contains("its disk hangs"))
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}", daemon.ask(&["health"])));
    let metrics = scrape(&rig.server, "127.0.0.1:9798").unwrap();
    let raised = "sip_filter_condition{name=\"store-failing\",severity=\"critical\"} 1";
    assert!(metrics.contains(raised), "{metrics}");
    let log = daemon.process.log();
    let lines = log.lines().filter(|line| line.contains("until the disk answers"));
    assert_eq!(lines.count(), 1, "{log}");
}

#[test]
fn a_disk_that_hangs_stops_no_filtering_and_loses_nothing_acknowledged() {
    if !usable(&["tc", "fsfreeze", "mkfs.ext4"]) {
        return;
    }
    let rig = Rig::new("disk-hangs");
    let disk = Disk::mount(&rig.path("disk.img"), &rig.path("main-state"));
    rig.config("main", "", "");
    let daemon = rig.start("main", &[]);
    daemon.done(&["ban", "203.0.113.8", "203.0.113.9", "-d", "permanent"]);
    let witness = Witness::begin(&rig, &daemon, WITHIN);

    let frozen = disk.freeze();
    bans_a_scanner(&rig, &daemon, "12.0.0.9");
    ask_while_it_hangs(&daemon);
    told(&rig, &daemon);
    // Now that it is known, nobody waits long, and all that needs no disk goes on.
    let begun = Instant::now();
    daemon
        .ask(&["ban", "203.0.113.51"])
        .refused(1, &["its disk hangs", "taken back"]);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    bans_a_scanner(&rig, &daemon, "12.0.0.10");
    for refused in ["203.0.113.50", "203.0.113.51", "203.0.113.8"] {
        let probes = sip_probes(refused.parse().unwrap());
        assert_eq!(passed(&rig, &probes).len(), probes.len(), "{refused}");
    }
    witness.nothing_leaked("while the disk hung");

    drop(frozen);
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0)))
        .unwrap_or_else(|error| panic!("{error}: {:?}", daemon.ask(&["health"])));
    // What was acknowledged, and what was lifted meanwhile, is on the disk; what was refused is not.
    assert!(daemon.process.log().contains("the store's disk answers again"));
    let expected = ["203.0.113.7", "203.0.113.9"];
    assert_eq!(targets(&daemon), expected);
    daemon.kill();
    let daemon = rig.start("main", &[]);
    assert_eq!(targets(&daemon), expected);
    let allowed = daemon.done(&["allow", "list", "-o", "raw"]);
    assert!(allowed.contains("203.0.113.60"), "{allowed}");
    daemon.done(&["ban", "203.0.113.50"]);
    println!("{}", witness.end(&rig));
}
