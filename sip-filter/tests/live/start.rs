//! Starts that must fail: with one clear error, and without changing anything.

use std::{net::SocketAddr, path::PathBuf, process::Command};

use xtask::lab::{command, netns};

use crate::{
    rig::{Daemon, INTERFACE, Ran, Rig, usable},
    wire::{passed, sip_probes},
};

const NO_ENDPOINT: &str = "[metrics]\nlisten = \"\"";

/// What a failed start must not change.
#[derive(Debug, PartialEq)]
struct State {
    xdp: Vec<Option<(String, u64)>>,
    pins: Vec<PathBuf>,
    bans: usize,
}

fn state(rig: &Rig, daemon: &Daemon, interfaces: &[&str]) -> State {
    State {
        xdp: interfaces.iter().map(|name| rig.xdp(name)).collect(),
        pins: rig.pins(),
        bans: daemon.bans().len(),
    }
}

#[test]
fn a_second_daemon_does_not_start_and_changes_nothing() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("start");
    netns::connect((&rig.server, "sip1"), (&rig.sender, "eth1")).unwrap();
    daemon.done(&["ban", "203.0.113.0/24"]);
    let before = state(&rig, &daemon, &[INTERFACE, "sip1"]);
    let probes = sip_probes("203.0.113.7".parse().unwrap());
    let check = |ran: Ran, words: &[&str]| {
        ran.refused(1, words);
        assert_eq!(state(&rig, &daemon, &[INTERFACE, "sip1"]), before, "{ran:?}");
        assert!(passed(&rig, &probes).is_empty(), "{ran:?}");
    };
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();

    // On the same interface with the same pins. That the port of the endpoint is taken, too, says less.
    let same_pins = text(rig.pin_root("main"));
    rig.config("second", "", "");
    let config = std::fs::read_to_string(rig.path("second.toml")).unwrap();
    let config = config.replace(&text(rig.pin_root("second")), &same_pins);
    rig.dir.write("second.toml", &config).unwrap();
    check(
        rig.fail_to_start("second", &[]),
        &[
            "cannot filter on sip0",
            "another sip-filter is already running on sip0",
        ],
    );

    // With the same state, on another interface.
    rig.config("third", "interfaces = [\"sip1\"]", NO_ENDPOINT);
    let state_dir = text(rig.path("main-state"));
    check(
        rig.fail_to_start("third", &["--state-dir", &state_dir]),
        &["is in use", "state directory"],
    );

    // With the same socket.
    rig.config("fourth", "interfaces = [\"sip1\"]", NO_ENDPOINT);
    let socket = text(rig.path("main.sock"));
    check(
        rig.fail_to_start("fourth", &["--socket", &socket]),
        &["another sip-filter answers on", &socket],
    );

    // With the same metrics endpoint.
    rig.config("fifth", "interfaces = [\"sip1\"]", "");
    check(rig.fail_to_start("fifth", &[]), &["127.0.0.1:9798"]);

    // With pins of its own: to the second daemon the first is just another XDP program.
    rig.config("sixth", "", NO_ENDPOINT);
    check(
        rig.fail_to_start("sixth", &[]),
        &["another XDP program is attached to sip0", "left alone"],
    );

    // And with an interface that would do before the one that does not: it is let go again.
    rig.config("seventh", "interfaces = [\"sip1\", \"sip0\"]", NO_ENDPOINT);
    check(
        rig.fail_to_start("seventh", &[]),
        &["another XDP program is attached to sip0"],
    );
}

#[test]
fn interfaces_that_do_not_exist_are_named() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("start");
    let wanted = "interfaces = [\"sip0\", \"sip9\"]\nmissing_interface = \"fail\"";
    rig.config("main", wanted, "");
    rig.fail_to_start("main", &[])
        .refused(1, &["no interface `sip9`", "sip0"]);
    assert_eq!(rig.xdp(INTERFACE), None);
    assert!(rig.pins().is_empty(), "{:?}", rig.pins());
    assert!(!rig.path("main.sock").exists());

    rig.config("main", "interfaces = []", "");
    rig.fail_to_start("main", &[])
        .refused(1, &["there is no interface to filter on"]);
    assert!(rig.pins().is_empty());
}

#[test]
fn a_bad_configuration_names_file_line_and_value_and_changes_nothing() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("start");
    let path = rig.config("main", "", "[limits.options]\nrate = \"fifty\"\nburst = 10");
    let text = std::fs::read_to_string(&path).unwrap();
    let line = text.lines().position(|line| line.contains("fifty")).unwrap() + 1;
    let place = format!("{}:{line}", path.display());
    for ran in [
        rig.fail_to_start("main", &[]),
        crate::rig::run(&["config", "check", path.to_str().unwrap()]),
    ] {
        ran.refused(2, &[&place, "limits.options.rate", "fifty"]);
    }
    assert_eq!(rig.xdp(INTERFACE), None);
    assert!(rig.pins().is_empty());
    assert!(!rig.path("main-state").exists() && !rig.path("main.sock").exists());
}

#[test]
fn without_privileges_there_is_one_clear_error() {
    if !usable(&["setpriv"]) {
        return;
    }
    let rig = Rig::new("start");
    let config = rig.config("main", "", NO_ENDPOINT);
    let binary = rig.path("sip-filter");
    // The build directory may be closed to others; not std::fs::copy, since another test's child could inherit the
    // open file meanwhile, and then it cannot be run.
    command::run(
        "cp",
        &[env!("CARGO_BIN_EXE_sip-filter"), binary.to_str().unwrap()],
    )
    .unwrap();
    let nobody = |config: &PathBuf| {
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
        command.arg(&binary).args(["run", "--config"]).arg(config);
        rig.output(&command)
    };
    // It may not even open its socket.
    nobody(&config).refused(1, &["ermission denied", rig.dir.path().to_str().unwrap()]);
    assert!(rig.pins().is_empty());

    // It may write its files, but nothing to the kernel.
    let theirs = rig.path("theirs");
    std::fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65534), Some(65534)).unwrap();
    let text = std::fs::read_to_string(&config).unwrap();
    let text = text.replace(
        rig.path("main").to_str().unwrap(),
        theirs.join("main").to_str().unwrap(),
    );
    let config = rig.dir.write("nobody.toml", &text).unwrap();
    nobody(&config).refused(1, &["cannot filter on sip0", "no permission to", "run as root"]);
    assert_eq!(rig.xdp(INTERFACE), None);
    assert!(rig.pins().is_empty());
    assert!(!theirs.join("main.sock").exists());

    // And it may not use the socket of a daemon that runs.
    rig.config("main", "", "");
    let daemon = rig.start("main", &[]);
    let mut command = Command::new("setpriv");
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    command
        .arg(&binary)
        .arg("--socket")
        .arg(daemon.socket())
        .arg("list");
    let ran = rig.output(&command);
    ran.refused(3, &["not permitted to open", "main.sock"]);
}

#[test]
fn a_file_system_without_bpf_is_named() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("start");
    let path = rig.config("main", "", NO_ENDPOINT);
    let text = std::fs::read_to_string(&path).unwrap();
    let elsewhere = rig.path("plain");
    let text = text.replace(
        rig.pin_root("main").to_str().unwrap(),
        elsewhere.to_str().unwrap(),
    );
    rig.dir.write("main.toml", &text).unwrap();
    rig.fail_to_start("main", &[]).refused(
        1,
        &[elsewhere.to_str().unwrap(), "BPF file system", "mount -t bpf"],
    );
    assert!(!elsewhere.exists());
    assert_eq!(rig.xdp(INTERFACE), None);
}

#[test]
fn the_xdp_program_of_somebody_else_is_left_alone() {
    if !usable(&["bpftool"]) {
        return;
    }
    let rig = Rig::new("start");
    // Any program will do. The one of a filter on another interface is at hand, attached here without a link.
    netns::connect((&rig.server, "sip1"), (&rig.sender, "eth1")).unwrap();
    rig.config("other", "interfaces = [\"sip1\"]", NO_ENDPOINT);
    let _other = rig.start("other", &[]);
    let (_, id) = rig.xdp("sip1").unwrap();
    rig.server
        .run(
            "bpftool",
            &["net", "attach", "xdp", "id", &id.to_string(), "dev", INTERFACE],
        )
        .unwrap();
    let (xdp, pins) = (rig.xdp(INTERFACE), rig.pins());
    assert!(xdp.is_some());
    for mode in ["auto", "native", "generic"] {
        rig.config("main", &format!("xdp_mode = \"{mode}\""), "");
        rig.fail_to_start("main", &[]).refused(
            1,
            &[
                "another XDP program is attached to sip0",
                "left alone",
                &format!("id {id} `ingress`, loaded by user 0, held by sip-filter (pid "),
                "ip link show dev sip0",
            ],
        );
        assert_eq!(
            (rig.xdp(INTERFACE), rig.pins()),
            (xdp.clone(), pins.clone()),
            "{mode}"
        );
    }
    rig.server
        .run("bpftool", &["net", "detach", "xdp", "dev", INTERFACE])
        .unwrap();
    let daemon = rig.start("main", &[]);
    assert_eq!(rig.xdp(INTERFACE).unwrap().0, "generic");
    let server = SocketAddr::new(crate::rig::SERVER4, 5060);
    assert!(crate::wire::reaches(&rig, "192.0.2.2".parse().unwrap(), server));
    daemon.stop();
}
