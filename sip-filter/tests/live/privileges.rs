//! The daemon as the unit runs it: an ordinary user with three capabilities, and none once everything is attached.

use std::{fs, path::PathBuf, process::Command, time::Duration};

use nix::sys::signal::Signal;
use xtask::lab::{Process, command, netns, wait, workdir::path_str};

use crate::{
    rig::{INTERFACE, Rig, SENDER, ask, usable},
    wire::{passed, sip_probes},
};

const USER: &str = "nobody";
const UID: &str = "65534";

/// What the unit gives; also what the error message names.
const CAPABILITIES: &str = "-all,+bpf,+net_admin,+perfmon";

/// A daemon of another user.
struct Unprivileged {
    rig: Rig,
    binary: PathBuf,
    config: PathBuf,
    socket: PathBuf,
}

impl Unprivileged {
    fn new(top: &str) -> Self {
        let rig = Rig::new("rights");
        let theirs = rig.path("theirs");
        fs::create_dir(&theirs).unwrap();
        std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
        // The build directory may be closed to others; not std::fs::copy, since another test's child could inherit
        // the open file meanwhile, and then it cannot be run.
        let binary = rig.path("sip-filter");
        command::run(
            "cp",
            &[env!("CARGO_BIN_EXE_sip-filter"), path_str(&binary).unwrap()],
        )
        .unwrap();
        let config = rig.config("main", top, "[metrics]\nlisten = \"\"");
        let text = fs::read_to_string(&config).unwrap().replace(
            path_str(&rig.path("main")).unwrap(),
            path_str(&theirs.join("main")).unwrap(),
        );
        fs::write(&config, text).unwrap();
        Self {
            socket: theirs.join("main.sock"),
            rig,
            binary,
            config,
        }
    }

    /// What `ExecStartPre=+` does.
    fn prepare(&self) -> crate::rig::Ran {
        let pins = self.rig.pin_root("main");
        crate::rig::run(&["prepare", "--user", USER, "--pin-root", path_str(&pins).unwrap()])
    }

    fn spawn(&self, supervised: bool) -> Process {
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", UID, "--regid", UID, "--clear-groups"])
            .args(["--bounding-set", CAPABILITIES])
            .args(["--inh-caps", CAPABILITIES])
            .args(["--ambient-caps", CAPABILITIES])
            .arg("--")
            .arg(&self.binary)
            .args(["run", "--config"])
            .arg(&self.config)
            .env_remove("RUST_LOG");
        if supervised {
            command.env("INVOCATION_ID", "00000000000000000000000000000000");
        }
        let mut process = Process::spawn(&self.rig.server, "daemon", self.rig.dir.path(), command).unwrap();
        wait::until("the daemon", Duration::from_secs(30), || {
            process.check()?;
            Ok(ask(&self.socket, &["status"]).code == Some(0))
        })
        .unwrap();
        process
    }

    fn done(&self, arguments: &[&str]) -> String {
        let ran = ask(&self.socket, arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.stdout
    }

    fn status(&self) -> serde_json::Value {
        serde_json::from_str(&self.done(&["status", "-o", "json"])).unwrap()
    }
}

/// The capability sets of every thread of a process, and whether it can ever have more.
fn threads(process: &Process) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{}/task", process.id())).unwrap();
    let mut threads = Vec::new();
    for task in tasks {
        let status = fs::read_to_string(task.unwrap().path().join("status")).unwrap();
        let lines = status.lines().filter(|line| {
            ["Name", "CapInh", "CapPrm", "CapEff", "CapAmb", "NoNewPrivs"]
                .iter()
                .any(|name| line.starts_with(name))
        });
        threads.push(lines.collect::<Vec<_>>().join(" "));
    }
    threads
}

#[test]
fn without_a_capability_left_everything_still_works() {
    if !usable(&["setpriv"]) {
        return;
    }
    let daemon = Unprivileged::new("on_stop = \"detach\"\ninterfaces = [\"auto\"]");
    assert_eq!(daemon.prepare().code, Some(0));
    let process = daemon.spawn(false);
    let status = daemon.status();
    assert_eq!(
        status["interfaces"][0]["name"], INTERFACE,
        "it has the default route"
    );
    assert_eq!(status["rights"]["user"], USER);
    assert_eq!(status["rights"]["capabilities"], serde_json::json!([]));
    assert_eq!(status["rights"]["no_new_privileges"], true);
    let of_threads = threads(&process);
    assert!(of_threads.len() >= 4, "{of_threads:?}");
    for thread in of_threads {
        let none = ["CapInh", "CapPrm", "CapEff", "CapAmb"]
            .iter()
            .all(|set| thread.contains(&format!("{set}:\t0000000000000000")));
        assert!(none && thread.contains("NoNewPrivs:\t1"), "{thread}");
    }

    // Bans of every kind of table, a reload, the mode, counters: all through what is open.
    let sources = ["203.0.113.7", "198.51.100.9", "2001:db8:bad:1::7"];
    let probes = || {
        sources
            .iter()
            .flat_map(|source| sip_probes(source.parse().unwrap()))
    };
    daemon.done(&["ban", "203.0.113.7", "198.51.100.0/24", "2001:db8:bad:1::/64"]);
    let probes: Vec<_> = probes().collect();
    assert!(passed(&daemon.rig, &probes).is_empty());
    daemon.done(&["mode", "simulate"]);
    assert_eq!(passed(&daemon.rig, &probes).len(), probes.len());
    daemon.done(&["mode", "enforce"]);
    let text = fs::read_to_string(&daemon.config).unwrap();
    fs::write(
        &daemon.config,
        format!("{text}\n[allow]\nnetworks = [\"203.0.113.7\"]\n"),
    )
    .unwrap();
    daemon.done(&["config", "reload"]);
    let allowed = sip_probes("203.0.113.7".parse().unwrap());
    assert_eq!(passed(&daemon.rig, &allowed).len(), allowed.len());
    assert_eq!(ask(&daemon.socket, &["health"]).code, Some(0));

    // Also taking the filter off needs nothing.
    process.signal(Signal::SIGTERM);
    let mut process = process;
    let ended = process.wait(Duration::from_secs(20)).unwrap();
    assert!(ended.success(), "{}", process.log());
    assert_eq!(daemon.rig.xdp(INTERFACE), None);
}

#[test]
fn an_interface_made_anew_asks_for_a_new_start_which_keeps_the_bans() {
    if !usable(&["setpriv"]) {
        return;
    }
    let daemon = Unprivileged::new("");
    assert_eq!(daemon.prepare().code, Some(0));
    let mut process = daemon.spawn(true);
    daemon.done(&["ban", "203.0.113.7"]);
    let rig = &daemon.rig;
    rig.server.ip(&["link", "del", INTERFACE]).unwrap();
    netns::connect((&rig.server, INTERFACE), (&rig.sender, SENDER)).unwrap();
    let ended = process.wait(Duration::from_secs(40)).unwrap();
    assert_eq!(ended.code(), Some(75), "{}", process.log());
    assert!(process.log().contains("sip0 was made anew"), "{}", process.log());

    let _again = daemon.spawn(true);
    assert!(daemon.rig.xdp(INTERFACE).is_some());
    assert!(daemon.done(&["list", "-o", "raw"]).starts_with("203.0.113.7\t"));
}

#[test]
fn kept_privileges_are_no_more_than_attaching_takes() {
    if !usable(&["setpriv"]) {
        return;
    }
    let daemon = Unprivileged::new("privileges = \"keep\"");
    assert_eq!(daemon.prepare().code, Some(0));
    let process = daemon.spawn(true);
    let held = serde_json::json!(["CAP_NET_ADMIN", "CAP_PERFMON", "CAP_BPF"]);
    assert_eq!(daemon.status()["rights"]["capabilities"], held);
    for thread in threads(&process) {
        // 12, 38 and 39.
        assert!(thread.contains("CapPrm:\t000000c000001000"), "{thread}");
        assert!(thread.contains("CapAmb:\t0000000000000000"), "{thread}");
        assert!(thread.contains("NoNewPrivs:\t1"), "{thread}");
    }
}

#[test]
fn pins_change_hands_from_root_to_the_daemons_user_and_to_nobody_else() {
    if !usable(&["setpriv"]) {
        return;
    }
    let daemon = Unprivileged::new("");
    let pins = daemon.rig.pin_root("main");
    // Run by hand as root first; the filter stays attached.
    {
        let mut command = Command::new(&daemon.binary);
        command.args(["run", "--config"]).arg(&daemon.config);
        let mut root = Process::spawn(&daemon.rig.server, "root", daemon.rig.dir.path(), command).unwrap();
        root.wait_for_line("ready", Duration::from_secs(30)).unwrap();
        let status = daemon.status();
        assert_eq!(
            status["rights"]["capabilities"],
            serde_json::json!([]),
            "root gives up, too"
        );
        root.signal(Signal::SIGTERM);
        assert!(root.wait(Duration::from_secs(20)).unwrap().success());
        // systemd gives the state directory to the unit's user.
        command::run(
            "chown",
            &["-R", UID, path_str(&daemon.rig.path("theirs")).unwrap()],
        )
        .unwrap();
    }
    let before = daemon.rig.xdp(INTERFACE).unwrap();
    assert_eq!(daemon.prepare().code, Some(0));
    let process = daemon.spawn(false);
    assert!(process.log().contains("without a gap"), "{}", process.log());
    assert_ne!(
        daemon.rig.xdp(INTERFACE).unwrap().1,
        before.1,
        "the program was replaced"
    );
    drop(process);

    // Somebody else was there first, or leads elsewhere: left alone, and named.
    let taken = daemon.rig.pin_root("taken");
    fs::create_dir(&taken).unwrap();
    std::os::unix::fs::chown(&taken, Some(65533), Some(65533)).unwrap();
    let link = daemon.rig.pin_root("link");
    std::os::unix::fs::symlink(&pins, &link).unwrap();
    for (root, why) in [
        (&taken, "belongs to user 65533"),
        (&link, "cannot write or read the pin"),
    ] {
        let root = path_str(root).unwrap();
        crate::rig::run(&["prepare", "--user", USER, "--pin-root", root]).refused(1, &[why, root]);
    }

    // A daemon that was taken over cannot send root's hand elsewhere.
    let victim = daemon.rig.path("victim");
    fs::create_dir_all(victim.join("eth9")).unwrap();
    fs::write(victim.join("eth9/precious"), "x").unwrap();
    std::os::unix::fs::symlink(&victim, pins.join("v9")).unwrap();
    let ran = crate::rig::run(&["detach", "--all", "--pin-root", path_str(&pins).unwrap()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    assert!(victim.join("eth9/precious").exists());
    fs::remove_file(pins.join("v9")).unwrap();
    let ran = crate::rig::run(&["detach", "--all", "--pin-root", path_str(&pins).unwrap()]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(daemon.rig.xdp(INTERFACE), None);
}
