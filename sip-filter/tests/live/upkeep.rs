//! What the daemon tells of itself, to systemd, to the journal and in `health`, and what it puts right by itself.

use std::{
    net::SocketAddr,
    thread,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use xtask::lab::{Process, netns, wait};

use crate::{
    rig::{INTERFACE, Rig, SERVER4, usable},
    wire::{passed, sip_probes},
};

const BANNED: &str = "203.0.113.7";
const SOON: Duration = Duration::from_secs(15);

#[test]
fn a_ban_taken_out_of_the_kernel_by_somebody_is_noticed_and_put_back() {
    is_noticed_and_put_back("drift", ("BAN4", 64, 64));
}

/// Without its mark in the summary nobody looks for the ban.
#[test]
fn a_summary_wiped_by_somebody_is_noticed_and_made_again() {
    is_noticed_and_put_back("drift-summary", ("BAN4_SUM", 16, 8));
}

/// Wipes the values of a map, so many of so many bytes, behind the daemon's back.
fn is_noticed_and_put_back(role: &str, (map, values, bytes): (&str, u8, usize)) {
    if !usable(&["bpftool"]) {
        return;
    }
    let rig = Rig::new(role);
    // Few buckets, all of which can be wiped.
    rig.config("main", "", "[tables]\nban4 = 64");
    let daemon = rig.start("main", &[]);
    let probes = sip_probes(BANNED.parse().unwrap());
    daemon.done(&["ban", BANNED]);
    // Longer than a packet may be on its way when its source is banned.
    thread::sleep(Duration::from_millis(2_500));
    assert!(passed(&rig, &probes).is_empty());
    assert_eq!(daemon.json(&["health"])["healthy"], true);
    let version = std::fs::read_dir(rig.pin_root("main"))
        .unwrap()
        .flatten()
        .next()
        .unwrap();
    let map = version.path().join(INTERFACE).join(map);
    let map = map.to_str().unwrap();
    let wiped = Instant::now();
    let wipe = |value: u8| {
        let zero = vec!["0"; bytes].join(" ");
        format!("map update pinned {map} key {value} 0 0 0 value {zero}\n")
    };
    let script = rig
        .dir
        .write("wipe", &(0..values).map(wipe).collect::<String>())
        .unwrap();
    rig.server
        .run("bpftool", &["batch", "file", script.to_str().unwrap()])
        .unwrap();
    assert!(!passed(&rig, &probes).is_empty(), "it passes now");
    wait::until("the repair", Duration::from_secs(90), || {
        thread::sleep(Duration::from_millis(200));
        Ok(passed(&rig, &probes).is_empty())
    })
    .unwrap();
    println!("repaired after {:?}", wiped.elapsed());
    let health = daemon.ask(&["health"]);
    assert_eq!(health.code, Some(1));
    // Its own requests told that it passed; what was missing was found then, and written again.
    assert!(
        health.stdout.contains("203.0.113.7 is banned and passes"),
        "{health:?}"
    );
    let missing = "203.0.113.7 is banned and passes on sip0: its kernel tables do not have the ban";
    assert!(health.stdout.contains(missing), "{health:?}");
    let metrics = crate::monitoring::scrape(&rig.server, "127.0.0.1:9798").unwrap();
    let passes = "sip_filter_condition{name=\"banned-source-passes\",severity=\"critical\"} 2";
    assert!(metrics.contains(passes), "{metrics}");
    assert!(!metrics.contains("sip_filter_self_test_failures_total 0"));
    let log = daemon.process.log();
    assert_eq!(
        log.matches("banned-source-passes").count(),
        2,
        "one line each: {log}"
    );
}

#[test]
fn systemd_is_told_and_the_journal_gets_priorities() {
    if !usable(&[]) {
        return;
    }
    use std::os::unix::{fs::MetadataExt as _, net::UnixDatagram};
    let rig = Rig::new("systemd");
    let path = rig.config("main", "interfaces = [\"lo\"]", "");
    let systemd = UnixDatagram::bind(rig.path("notify")).unwrap();
    systemd.set_read_timeout(Some(SOON)).unwrap();
    let hear = |wanted: &str| {
        let mut buffer = [0; 512];
        loop {
            let length = systemd.recv(&mut buffer).unwrap();
            let heard = String::from_utf8_lossy(&buffer[..length]).into_owned();
            if heard.starts_with(wanted) {
                return heard;
            }
        }
    };
    // The file that standard error will be.
    let log = std::fs::File::create(rig.path("systemd.log"))
        .unwrap()
        .metadata()
        .unwrap();
    let mut command = crate::rig::command(&["run", "--config", path.to_str().unwrap()]);
    command.env("NOTIFY_SOCKET", rig.path("notify"));
    command.env("WATCHDOG_USEC", "3000000");
    command.env("JOURNAL_STREAM", format!("{}:{}", log.dev(), log.ino()));
    let mut process = Process::spawn(&rig.server, "systemd", rig.dir.path(), command).unwrap();
    hear("READY=1");
    hear("STATUS=filtering on lo; 0 bans; generic-mode (lo)");
    hear("WATCHDOG=1");
    let heard = Instant::now();
    hear("WATCHDOG=1");
    assert!(heard.elapsed() < Duration::from_secs(3), "{:?}", heard.elapsed());
    process.signal(Signal::SIGHUP);
    hear("RELOADING=1\nMONOTONIC_USEC=");
    hear("READY=1");
    std::fs::write(&path, "bans = 7\n").unwrap();
    process.signal(Signal::SIGHUP);
    hear("RELOADING=1");
    hear("READY=1");
    process.signal(Signal::SIGTERM);
    hear("STOPPING=1");
    assert!(process.wait(SOON).unwrap().success());
    let log = process.log();
    assert!(log.lines().all(|line| line.starts_with('<')), "{log}");
    for start in [
        "<6>sip_filter::service",
        "<4>sip_filter::dataplane",
        "<3>sip_filter::daemon::journal",
    ] {
        assert!(
            log.lines().any(|line| line.starts_with(start)),
            "no {start} in {log}"
        );
    }
    let rejected = log
        .lines()
        .filter(|line| line.contains("main.toml:1: bans"))
        .count();
    assert_eq!(rejected, 1, "{log}");
}

#[test]
fn what_an_earlier_run_left_behind_is_found() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("leftovers");
    netns::connect((&rig.server, "sip9"), (&rig.sender, "eth9")).unwrap();
    rig.config("main", "interfaces = [\"sip0\", \"sip9\"]", "");
    rig.start("main", &[]).stop();
    // Taken out of the configuration while the daemon was down.
    rig.config("main", "", "");
    let daemon = rig.start("main", &[]);
    let health = daemon.ask(&["health"]);
    assert_eq!(health.code, Some(1), "{health:?}");
    let root = rig.pin_root("main");
    let root = root.to_str().unwrap();
    let remedy = format!("sip-filter detach sip9 --pin-root {root}");
    assert!(health.stdout.contains(&remedy), "{health:?}");
    let detached = crate::rig::run(&["detach", "sip9", "--pin-root", root]);
    assert_eq!(detached.code, Some(0), "{detached:?}");
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
    assert!(rig.xdp("sip9").is_none() && rig.xdp(INTERFACE).is_some());
}

#[test]
fn a_reload_changes_ports_log_level_and_text_file_at_once() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("reload");
    daemon.done(&["ban", BANNED]);
    let source = rig.add_source(BANNED);
    let at = |port| SocketAddr::new(SERVER4, port);
    let passes = |port| {
        let receiver = xtask::lab::traffic::socket(&rig.server, at(port)).unwrap();
        let sender = xtask::lab::traffic::socket(&rig.sender, SocketAddr::new(source, 0)).unwrap();
        sender
            .send_to(b"OPTIONS sip:x SIP/2.0\r\n\r\n", at(port))
            .unwrap();
        xtask::lab::traffic::drain(&receiver, Duration::from_millis(300)).unwrap() > 0
    };
    assert!(!passes(5060) && passes(5080));
    let textfile = rig.path("textfile");
    std::fs::create_dir(&textfile).unwrap();
    rig.config(
        "main",
        "",
        &format!(
            "[protect]\nudp_ports = [5080, 5081]\n[log]\nlevel = \"warn\"\n[metrics]\ntextfile = \"{}\"",
            textfile.display()
        ),
    );
    let report = daemon.json(&["config", "reload"]);
    assert_eq!(report["needs_restart"].as_array().unwrap().len(), 0, "{report}");
    let changed = report["changed"].to_string();
    for key in ["protect.udp_ports", "log.level", "metrics.textfile"] {
        assert!(changed.contains(key), "{changed}");
    }
    assert!(passes(5060) && !passes(5080) && !passes(5081));
    wait::until("the text file", SOON, || {
        Ok(textfile.join("sip_filter.prom").exists())
    })
    .unwrap();
    let before = daemon.process.log();
    daemon.done(&["ban", "203.0.113.8"]);
    assert!(
        !daemon.process.log()[before.len()..].contains("203.0.113.8"),
        "at level info"
    );
    rig.config("main", "", "");
    daemon.done(&["config", "reload"]);
    daemon.done(&["ban", "203.0.113.9"]);
    assert!(daemon.process.log()[before.len()..].contains("203.0.113.9"));
    assert!(!passes(5060) && passes(5080));
    wait::until("the end of the text file", SOON, || {
        Ok(!textfile.join("sip_filter.prom").exists())
    })
    .unwrap();
}
