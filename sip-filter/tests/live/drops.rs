//! Captures of what is dropped.

use std::{fs::File, net::IpAddr, time::Duration};

use pcap_file::pcap::PcapReader;

use crate::{
    rig::{Rig, command, usable},
    wire::{Probe, names, passed, sip_probes},
};

/// Names of the probes whose frames are in a capture as they were sent.
fn captured(rig: &Rig, probes: &[Probe]) -> Vec<String> {
    let mut reader = PcapReader::new(File::open(rig.path("dropped.pcap")).unwrap()).unwrap();
    let mut found = Vec::new();
    while let Some(packet) = reader.next_packet() {
        let packet = packet.unwrap();
        let age = std::time::SystemTime::UNIX_EPOCH
            .elapsed()
            .unwrap()
            .abs_diff(packet.timestamp);
        assert!(age < Duration::from_secs(60), "{age:?}");
        let probe = probes.iter().find(|probe| probe.frame == *packet.data);
        found.push(probe.map_or_else(|| format!("{:02x?}", packet.data), |probe| probe.name.clone()));
    }
    found
}

#[test]
fn what_a_ban_drops_is_in_the_capture_to_the_byte() {
    if !usable(&["tshark"]) {
        return;
    }
    let (rig, daemon) = Rig::started("drops");
    let banned: Vec<Probe> = ["203.0.113.7", "2001:db8:bad::7"]
        .iter()
        .flat_map(|source| sip_probes(source.parse::<IpAddr>().unwrap()))
        // The sending kernel keeps the tags of frames beside them.
        .filter(|probe| !probe.name.contains("vlan"))
        .collect();
    let free = sip_probes("198.51.100.9".parse().unwrap());
    daemon.done(&["ban", "203.0.113.7", "2001:db8:bad::7"]);
    // Before anybody asks, nothing is copied.
    assert!(passed(&rig, &banned).is_empty());

    let file = rig.path("dropped.pcap");
    let limit = banned.len().to_string();
    let socket = daemon.socket().to_str().unwrap();
    let arguments = [
        "--socket",
        socket,
        "events",
        "--pcap",
        file.to_str().unwrap(),
        "-n",
        &limit,
    ];
    let start = |arguments: &[&str]| {
        xtask::lab::Process::spawn(&rig.server, "capture", rig.dir.path(), command(arguments)).unwrap()
    };
    let mut capture = start(&arguments);
    capture
        .wait_for_line("capturing up to", Duration::from_secs(10))
        .unwrap();
    assert_eq!(passed(&rig, &free), names(&free), "copying drops nothing");
    assert!(passed(&rig, &banned).is_empty());
    let status = capture.wait(Duration::from_secs(10)).unwrap();
    assert!(status.success(), "{}", capture.log());
    assert!(
        capture.log().contains(&format!("captured {limit} packets")),
        "{}",
        capture.log()
    );
    let mut seen = captured(&rig, &banned);
    seen.sort_unstable();
    let mut expected: Vec<String> = names(&banned).into_iter().collect();
    expected.sort_unstable();
    assert_eq!(seen, expected);

    let mut tshark = std::process::Command::new("tshark");
    tshark
        .arg("-r")
        .arg(&file)
        .args(["-T", "fields", "-e", "sip.Method"]);
    let ran = rig.output(&tshark);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(
        ran.stdout.lines().filter(|line| *line == "OPTIONS").count() >= 4,
        "{ran:?}"
    );

    // In simulate mode it is what would be dropped; an end by time is an end.
    daemon.done(&["mode", "simulate"]);
    let mut arguments = arguments.to_vec();
    arguments.extend(["--timeout", "2s"]);
    *arguments.iter_mut().find(|argument| **argument == limit).unwrap() = "1000";
    let mut capture = start(&arguments);
    capture
        .wait_for_line("capturing up to", Duration::from_secs(10))
        .unwrap();
    assert_eq!(passed(&rig, &banned), names(&banned));
    assert!(capture.wait(Duration::from_secs(20)).unwrap().success());
    let count = format!("captured {} packets", banned.len());
    assert!(capture.log().contains(&count), "{}", capture.log());
    assert_eq!(captured(&rig, &banned).len(), banned.len());
}
