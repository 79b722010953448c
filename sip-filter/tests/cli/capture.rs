//! `events --pcap`: what is dropped, in a file that tshark reads.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use etherparse::PacketBuilder;
use sip_filter::api::{Limits, types::DroppedPacket};

use crate::{
    Ran, sip_filter,
    support::{Daemon, fake::Fake},
};

const REQUEST: &[u8] = b"REGISTER sip:198.51.100.1 SIP/2.0\r\nCall-ID: dropped-1\r\n\r\n";

fn frame() -> Vec<u8> {
    let builder = PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([203, 0, 113, 7], [198, 51, 100, 1], 64)
        .udp(5066, 5060);
    let mut frame = Vec::new();
    builder.write(&mut frame, REQUEST).unwrap();
    frame
}

fn dropped() -> DroppedPacket {
    let frame = frame();
    DroppedPacket {
        length: u32::try_from(frame.len()).unwrap(),
        ..Fake::dropped(frame)
    }
}

fn start(daemon: &Daemon, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_sip-filter"))
        .arg("--socket")
        .arg(&daemon.socket)
        .args(["events", "--pcap"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn capturing(daemon: &Daemon) {
    until("the capture", || daemon.service.drops.receiver_count() == 1).await;
}

fn finish(child: Child) -> Ran {
    let output = tokio::task::block_in_place(|| child.wait_with_output().unwrap());
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Fields of the packets as tshark sees them; `None` if it is not installed and need not be.
#[expect(clippy::print_stderr, reason = "a skipped test must be seen")]
fn tshark(file: &Path) -> Option<String> {
    let fields = [
        "frame.time_epoch",
        "frame.len",
        "frame.cap_len",
        "ip.src",
        "udp.dstport",
        "sip.Method",
        "sip.Call-ID",
    ];
    let mut tshark = Command::new("tshark");
    tshark.arg("-r").arg(file).args(["-T", "fields"]);
    for field in fields {
        tshark.args(["-e", field]);
    }
    let Ok(output) = tshark.output() else {
        assert!(
            std::env::var_os("SIP_FILTER_REQUIRE_KERNEL").is_none_or(|value| value != "1"),
            "tshark is not installed"
        );
        eprintln!("skipped in part: tshark is not installed");
        return None;
    };
    let complaints = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{complaints}");
    assert!(!complaints.contains("cut short"), "{complaints}");
    Some(String::from_utf8(output.stdout).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tshark_reads_what_was_dropped() {
    let daemon = Daemon::start(Limits::default());
    let path = daemon.socket.with_file_name("dropped.pcap");
    let child = start(&daemon, &[path.to_str().unwrap(), "--limit", "3"]);
    capturing(&daemon).await;
    let cut = DroppedPacket {
        length: 1_400,
        ..dropped()
    };
    for packet in [dropped(), cut, dropped()] {
        daemon.service.drops.send(packet).unwrap();
    }
    let ran = finish(child);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(ran.stdout, format!("captured 3 packets to {}\n", path.display()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "it holds what customers send");
    let Some(seen) = tshark(&path) else { return };
    let length = frame().len();
    let lines: Vec<Vec<&str>> = seen.lines().map(|line| line.split('\t').collect()).collect();
    assert_eq!(lines.len(), 3, "{seen}");
    for (line, on_wire) in lines.iter().zip([length, 1_400, length]) {
        // How many decimals it writes is tshark's affair.
        assert!(line[0].starts_with("1795500000.25"), "{seen}");
        assert_eq!(line[1..3], [on_wire.to_string(), length.to_string()], "{seen}");
        assert_eq!(
            line[3..],
            ["203.0.113.7", "5060", "REGISTER", "dropped-1"],
            "{seen}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_ends_by_time_and_by_hand_with_its_count() {
    let daemon = Daemon::start(Limits::default());
    let path = daemon.socket.with_file_name("dropped.pcap");
    let file = path.to_str().unwrap();
    let ran = finish(start(&daemon, &[file, "--timeout", "0", "-o", "raw", "-q"]));
    assert_eq!(
        (ran.code, ran.stdout.as_str()),
        (Some(0), "captured\t0\t0\ttimeout\n")
    );
    assert_eq!(ran.stderr, "");
    until("the end", || daemon.service.drops.receiver_count() == 0).await;

    let child = start(&daemon, &[file, "-o", "json"]);
    capturing(&daemon).await;
    let missed = DroppedPacket {
        missed: 7,
        ..dropped()
    };
    daemon.service.drops.send(missed).unwrap();
    until("the packet", || {
        std::fs::metadata(&path).is_ok_and(|file| file.len() > 24)
    })
    .await;
    let id = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGINT).unwrap();
    let ran = finish(child);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    assert_eq!(
        ran.stdout,
        "{\"schema_version\":1,\"packets\":1,\"missed\":7,\"ended_by\":\"interrupted\"}\n"
    );
    if let Some(seen) = tshark(&path) {
        assert_eq!(seen.lines().count(), 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_goes_into_a_pipe_at_once() {
    use std::io::Read as _;
    let daemon = Daemon::start(Limits::default());
    let mut child = start(&daemon, &["-", "--limit", "2"]);
    capturing(&daemon).await;
    daemon.service.drops.send(dropped()).unwrap();
    let mut first = vec![0; 24 + 16 + frame().len()];
    let mut stdout = child.stdout.take().unwrap();
    tokio::task::block_in_place(|| stdout.read_exact(&mut first)).unwrap();
    assert_eq!(first[40..], frame());
    // A daemon that stops ends it too soon.
    daemon.stop().await;
    let ran = finish(child);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(ran.stderr.contains("the daemon stopped"), "{}", ran.stderr);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_that_is_refused_leaves_no_file() {
    let daemon = Daemon::start(Limits {
        captures: 0,
        ..Limits::default()
    });
    let path = daemon.socket.with_file_name("dropped.pcap");
    let line = ["events", "--pcap", path.to_str().unwrap()];
    let ran = tokio::task::block_in_place(|| sip_filter(&daemon.socket, &line));
    assert_eq!(ran.code, Some(1), "{}", ran.stderr);
    assert!(ran.stderr.contains("too many clients capture"), "{}", ran.stderr);
    assert!(!path.exists());
    let line = ["events", "--pcap", "/nonexistent/x.pcap"];
    let daemon = Daemon::start(Limits::default());
    let ran = tokio::task::block_in_place(|| sip_filter(&daemon.socket, &line));
    assert_eq!(ran.code, Some(1));
    assert!(
        ran.stderr.contains("cannot write /nonexistent/x.pcap"),
        "{}",
        ran.stderr
    );
}
