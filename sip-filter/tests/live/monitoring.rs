//! Numbers in the monitoring that is there already.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt as _,
    process::Command,
    thread,
    time::Duration,
};

use xtask::lab::{Netns, Process, wait};

use crate::{
    rig::{Rig, SERVER4, usable},
    wire::{Flood, register},
};

const EXPORTER: &str = "prometheus-node-exporter";

pub(crate) fn scrape(netns: &Netns, address: &str) -> Option<String> {
    let address: SocketAddr = address.parse().unwrap();
    netns
        .enter(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
            stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            // Of this version, so that the answer comes in one piece.
            write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").unwrap();
            let mut text = String::new();
            stream.read_to_string(&mut text).unwrap();
            assert!(
                text.lines().next().is_some_and(|line| line.contains(" 200 ")),
                "{text}"
            );
            Some(text)
        })
        .unwrap()
}

/// Sum of all series of a name.
fn sum(text: &str, name: &str, label: &str) -> f64 {
    text.lines()
        .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(label))
        .map(|line| line.rsplit_once(' ').unwrap().1.parse::<f64>().unwrap())
        .sum()
}

fn flood(rig: &Rig) {
    let source = rig.add_source("203.0.113.7");
    let to = SocketAddr::new(SERVER4, 5060);
    let limit = Duration::from_millis(800);
    let flood = Flood::start(
        &rig.sender,
        SocketAddr::new(source, 4000),
        to,
        1_500,
        limit,
        register,
    );
    thread::sleep(limit);
    flood.stop();
}

const DROPPED: &str = "sip_filter_dropped_packets_total";

#[test]
fn the_endpoint_counts_what_is_dropped() {
    if !usable(&[]) {
        return;
    }
    let (rig, daemon) = Rig::started("monitoring");
    let before = scrape(&rig.server, "127.0.0.1:9798").unwrap();
    assert_eq!(sum(&before, DROPPED, ""), 0.0, "{before}");
    flood(&rig);
    let after = scrape(&rig.server, "127.0.0.1:9798").unwrap();
    assert!(after.contains(&format!("# TYPE {DROPPED} counter")), "{after}");
    let status = daemon.json(&["status"]);
    let drops: u64 = status["counters"]
        .as_object()
        .unwrap()
        .iter()
        .filter(|(name, _)| name.starts_with("drop-"))
        .map(|(_, packets)| packets.as_u64().unwrap())
        .sum();
    assert!(drops > 0);
    assert_eq!(sum(&after, DROPPED, ""), drops as f64, "{after}");
    assert!(!after.contains("203.0.113"), "no address in a label: {after}");
}

#[test]
fn node_exporter_takes_the_text_file_of_the_live_daemon() {
    if !usable(&[EXPORTER]) {
        return;
    }
    let rig = Rig::new("monitoring");
    let directory = rig.path("textfile");
    std::fs::create_dir(&directory).unwrap();
    rig.config(
        "main",
        "",
        &format!(
            "[metrics]\nlisten = \"\"\ntextfile = \"{}\"\ntextfile_interval = \"1s\"",
            directory.display()
        ),
    );
    let daemon = rig.start("main", &[]);
    let mut command = Command::new(EXPORTER);
    command.args([
        "--collector.disable-defaults",
        "--collector.textfile",
        "--web.listen-address=127.0.0.1:9100",
    ]);
    command.arg(format!("--collector.textfile.directory={}", directory.display()));
    let mut exporter = Process::spawn(&rig.server, EXPORTER, rig.dir.path(), command).unwrap();
    flood(&rig);
    let mut text = String::new();
    wait::until(
        "dropped packets at node_exporter",
        Duration::from_secs(20),
        || {
            exporter.check()?;
            text = scrape(&rig.server, "127.0.0.1:9100").unwrap_or_default();
            Ok(sum(&text, DROPPED, "") > 0.0)
        },
    )
    .unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(text.contains("\nnode_textfile_scrape_error 0\n"), "{text}");
    assert!(text.contains(&format!("# TYPE {DROPPED} counter")), "{text}");
    assert!(!text.contains("203.0.113"), "{text}");

    let file = directory.join("sip_filter.prom");
    assert_eq!(
        std::fs::metadata(&file).unwrap().permissions().mode() & 0o777,
        0o644
    );
    daemon.stop();
    assert_eq!(
        std::fs::read_dir(&directory).unwrap().count(),
        0,
        "nothing stays behind"
    );
}
