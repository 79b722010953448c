//! What the daemon talks to is gone or in the way: the text file's directory, its port, the receivers of its alarms.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::net::UnixDatagram,
    path::Path,
    thread,
    time::Duration,
};

use xtask::lab::{command, wait};

use crate::{
    monitoring::scrape,
    rig::{Daemon, INTERFACE, Rig, usable},
    wire::{passed, sip_probes},
};

const BANNED: &str = "203.0.113.7";
const METRICS: &str = "127.0.0.1:9798";
const SOON: Duration = Duration::from_secs(30);

#[track_caller]
fn traffic_flows(rig: &Rig) {
    assert!(passed(rig, &sip_probes(BANNED.parse().unwrap())).is_empty());
    let innocent = sip_probes("203.0.113.200".parse().unwrap());
    assert_eq!(passed(rig, &innocent).len(), innocent.len());
}

/// Health and metric name a condition, or do not.
#[track_caller]
fn raised(rig: &Rig, daemon: &Daemon, name: &str, text: &str, count: u32) {
    let series = format!("sip_filter_condition{{name=\"{name}\",severity=\"warning\"}} {count}\n");
    wait::until(name, SOON, || {
        let health = daemon.ask(&["health"]);
        let told = health.stdout.contains(name) && health.stdout.contains(text);
        let metrics = scrape(&rig.server, METRICS).unwrap_or_default();
        Ok(told == (count > 0) && metrics.contains(&series))
    })
    .unwrap_or_else(|error| panic!("{error}: {:?}\n{}", daemon.ask(&["health"]), daemon.process.log()));
}

#[test]
fn a_text_file_that_cannot_be_written_is_told_and_comes_back() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("textfile");
    let directory = rig.path("textfile");
    fs::create_dir(&directory).unwrap();
    let settings = format!(
        "[metrics]\ntextfile = \"{}\"\ntextfile_interval = \"1s\"",
        directory.display()
    );
    rig.config("main", "", &settings);
    let daemon = rig.start("main", &[]);
    daemon.done(&["ban", BANNED]);
    let file = directory.join("sip_filter.prom");
    let written = || wait::until("the text file", SOON, || Ok(file.exists())).unwrap();
    written();
    fs::remove_dir_all(&directory).unwrap();
    raised(&rig, &daemon, "textfile-failing", "No such file or directory", 1);
    traffic_flows(&rig);
    fs::create_dir(&directory).unwrap();
    raised(&rig, &daemon, "textfile-failing", "", 0);
    written();

    let at = directory.to_str().unwrap();
    command::run("mount", &["-t", "tmpfs", "-o", "ro", "tmpfs", at]).unwrap();
    raised(&rig, &daemon, "textfile-failing", "Read-only file system", 1);
    traffic_flows(&rig);
    command::run("umount", &[at]).unwrap();
    raised(&rig, &daemon, "textfile-failing", "", 0);
    let log = daemon.process.log();
    assert_eq!(log.matches("metrics file not written").count(), 2, "{log}");
    assert_eq!(
        log.matches("the metrics file is written again").count(),
        2,
        "{log}"
    );
}

#[test]
fn a_taken_port_of_the_metrics_is_named_and_changes_nothing() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("port-taken");
    daemon.done(&["ban", BANNED]);
    // A reload does not move it, and says so; the old one goes on.
    let take = |port: u16| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        rig.server.enter(|| TcpListener::bind(address)).unwrap().unwrap()
    };
    let other = take(9_799);
    rig.config("main", "", "[metrics]\nlisten = \"127.0.0.1:9799\"");
    let reload = daemon.json(&["config", "reload"]);
    assert!(
        reload["needs_restart"].to_string().contains("metrics.listen"),
        "{reload}"
    );
    assert!(
        scrape(&rig.server, METRICS)
            .unwrap()
            .contains("sip_filter_build_info")
    );
    daemon.stop();

    let filter = rig.xdp(INTERFACE);
    let failed = rig.fail_to_start("main", &[]);
    failed.refused(
        1,
        &[
            "cannot serve metrics on 127.0.0.1:9799",
            "the port is taken",
            "metrics.listen",
        ],
    );
    assert_eq!(rig.xdp(INTERFACE), filter, "the filter is as it was");
    traffic_flows(&rig);
    drop(other);
    let daemon = rig.start("main", &[]);
    assert!(
        scrape(&rig.server, "127.0.0.1:9799")
            .unwrap()
            .contains("sip_filter_build_info")
    );
    traffic_flows(&rig);
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
}

/// Takes whatever it is sent.
fn receiver(rig: &Rig, port: u16) {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let listener = rig.server.enter(|| TcpListener::bind(address)).unwrap().unwrap();
    thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
            let mut request = [0; 65_536];
            while stream.read(&mut request).is_ok_and(|read| read > 0) {}
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        }
    });
}

#[test]
fn receivers_of_alarms_that_are_gone_are_told_by_health() {
    if !usable(&[]) {
        return;
    }
    let rig = Rig::new("alarms-dead");
    let syslog = rig.path("log.sock");
    let settings = |syslog: &Path| {
        format!(
            "[conditions]\ntable_full_percent = 20\n[tables]\nban4 = 64\n[alarms]\nhold_up = \"0s\"\nhold_down = \"0s\"\n\
             [alarms.alertmanager]\nurl = \"http://127.0.0.1:9093\"\nrepeat = \"1s\"\n\
             [alarms.syslog]\ntarget = \"unix:{}\"\n",
            syslog.display()
        )
    };
    rig.config("main", "", &settings(&syslog));
    let daemon = rig.start("main", &[]);
    // A reason for an alarm.
    let addresses: Vec<String> = (1..=100).map(|last| format!("198.51.100.{last}")).collect();
    let mut ban = vec!["ban", BANNED];
    ban.extend(addresses.iter().map(String::as_str));
    daemon.done(&ban);
    raised(
        &rig,
        &daemon,
        "alarms-undelivered",
        "alarms do not reach the receiver alertmanager",
        2,
    );
    raised(
        &rig,
        &daemon,
        "alarms-undelivered",
        "alarms do not reach the receiver syslog",
        2,
    );
    traffic_flows(&rig);
    let log = daemon.process.log();
    assert!(log.contains("cannot deliver alarms"), "{log}");

    receiver(&rig, 9_093);
    let socket = UnixDatagram::bind(&syslog).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    let mut message = [0; 4_096];
    socket.recv(&mut message).unwrap();
    raised(&rig, &daemon, "alarms-undelivered", "", 0);
    traffic_flows(&rig);
}
