//! `cargo xtask captures`: records the captures that the tests of `sip-filter analyze` read.
//!
//! Each is what the server's interface saw while one real program talked to a real server.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{
    self, Site, Topology,
    capture::Tcpdump,
    interrupt,
    scanners::Scan,
    sipp::{Flood, Pace, Phone, Sipp},
    topology::EDGE_INTERFACE,
};

/// Captures are read by every test run and kept for ever.
const LARGEST: u64 = 60_000;
const LIMIT: Duration = Duration::from_secs(15);
const PHONE: u8 = 11;
const ATTACKER: u8 = 21;

/// Records every capture anew.
pub(crate) fn run() -> Result<()> {
    interrupt::install()?;
    lab::sweep()?;
    let dir = crate::process::workspace().join("sip-filter/tests/captures");
    std::fs::create_dir_all(&dir)?;
    let phone = Phone {
        address: Topology::phone_v4(PHONE),
        user: "1001".to_owned(),
        password: "labpass-1001".to_owned(),
    };
    let attacker = Topology::attacker_v4(ATTACKER);
    let server = Site::server_v4();
    let once = Pace {
        rate: 1,
        every: Duration::from_secs(1),
        count: 1,
        limit: LIMIT,
    };

    record(&dir, "svmap", "port 5060", &phone, |site| {
        let scan = Scan::Map {
            targets: Site::server_range(),
        };
        scan.start(site.topology.attacker(ATTACKER)?, &site.dir, "svmap", LIMIT)?
            .wait(LIMIT)
            .map(drop)
    })?;
    record(&dir, "svwar", "port 5060", &phone, |site| {
        let scan = Scan::War {
            server: server.ip(),
            extensions: "990-1012".to_owned(),
        };
        scan.start(site.topology.attacker(ATTACKER)?, &site.dir, "svwar", LIMIT)?
            .wait(LIMIT)
            .map(drop)
    })?;
    record(&dir, "svcrack", "port 5060", &phone, |site| {
        let scan = Scan::Crack {
            server: server.ip(),
            user: phone.user.clone(),
            passwords: "1000-1015".to_owned(),
        };
        scan.start(site.topology.attacker(ATTACKER)?, &site.dir, "svcrack", LIMIT)?
            .wait(LIMIT)
            .map(drop)
    })?;
    // Requests alone: with the challenges it would be three times as large.
    record(
        &dir,
        "sipp-register-flood",
        "udp and dst net 192.0.2.0/24",
        &phone,
        |site| {
            let pace = Pace {
                rate: 1000,
                every: Duration::from_secs(1),
                count: 160,
                limit: LIMIT,
            };
            let from = SocketAddr::new(attacker, 5060);
            let netns = site.topology.attacker(ATTACKER)?;
            let mut sipp = Sipp::flood(netns, &site.dir, "flood", Flood::Register, from, server, pace)?;
            let status = sipp.process.wait(LIMIT)?;
            ensure!(
                status.success(),
                "the flood failed ({status}): {}",
                sipp.process.log()
            );
            Ok(())
        },
    )?;
    record(&dir, "phone", "port 5060", &phone, |site| {
        let netns = &site.topology.phones;
        let mut register = Sipp::register(netns, &site.dir, "register", &phone, 5060, server, once)?;
        ensure!(register.process.wait(LIMIT)?.success(), "the registration failed");
        let mut call = Sipp::call(netns, &site.dir, "call", &phone, 5060, server, once)?;
        ensure!(call.process.wait(LIMIT)?.success(), "the call failed");
        Ok(())
    })
}

/// Runs `traffic` against a fresh server and keeps what its interface saw.
fn record(
    dir: &Path,
    name: &str,
    packets: &str,
    phone: &Phone,
    traffic: impl FnOnce(&Site) -> Result<()>,
) -> Result<()> {
    let users = std::slice::from_ref(phone);
    let site = Site::start("captures", &[PHONE], &[ATTACKER], users, LIMIT * 2)?;
    let fresh = site.dir.path().join("capture.pcap");
    let tcpdump = Tcpdump::start(&site.topology.edge, &site.dir, EDGE_INTERFACE, &fresh, packets)?;
    traffic(&site)?;
    let (_, log) = tcpdump.finish()?;
    let size = fresh.metadata().context("tcpdump wrote no capture")?.len();
    ensure!(size <= LARGEST, "{name}.pcap would have {size} bytes");
    let kept: PathBuf = dir.join(format!("{name}.pcap"));
    std::fs::copy(&fresh, &kept)?;
    let count = log.lines().find(|line| line.contains("captured")).unwrap_or("?");
    println!("{name}.pcap: {count}, {size} bytes");
    Ok(())
}
