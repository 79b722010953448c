//! Loading a hundred thousand bans at once: through the daemon's API, into the bare table, and into an nftables set.

use std::{
    fmt::Write as _,
    net::Ipv4Addr,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use serde_json::{Value, json};
use sip_filter_common::table::{BanTable, Fate, HostLine, ban::V4};
use xtask::lab::{kernel_table::KernelTable, workdir::path_str};

use super::visible::{BUCKETS, milliseconds};
use crate::{
    figures::Sample,
    stage::{Daemon, Request, Stage},
};

/// Bans to load.
pub(crate) const BANS: u32 = 100_000;
/// The set holds addresses of the whole of 11.0.0.0/8, in no order.
const FIRST: u32 = 0x0b00_0000;

const PATIENCE: Duration = Duration::from_secs(60);
/// Lets the daemon say how long its tables took.
const LOG: &str = "[log]\nlevel = \"warn,sip_filter::daemon::controller=debug\"";

/// Milliseconds of each way to load.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// Into a table as the daemon's, by the code it does it with.
    pub(crate) table: Sample,
    /// `nft -f` of a set.
    pub(crate) nft: Sample,
    /// From the list to the tables when a daemon starts, by its own clock.
    pub(crate) restart: Sample,
    /// Through the API, until the last one is in the kernel's table.
    pub(crate) in_force: Sample,
    /// Through the API, until the daemon says so, saved on disk.
    pub(crate) acknowledged: Sample,
}

/// The addresses number `from` to `to`. An odd multiple is a bijection of 24 bits, so they are all different.
pub(crate) fn addresses(from: u32, to: u32) -> impl Iterator<Item = u32> + Clone {
    (from..to).map(|number| FIRST | (number.wrapping_mul(0x9e_3779) & 0x00ff_ffff))
}

/// Loads them into a table of our own, `runs` times.
pub(crate) fn table(times: &mut Times, runs: usize) -> Result<()> {
    for run in 0..runs {
        let table = KernelTable::create(BUCKETS, [run as u64 + 1, 0x5eed])?;
        let mut bans: BanTable<V4, &[HostLine]> = BanTable::new(table.lines(), table.seed());
        let start = Instant::now();
        for address in addresses(0, BANS) {
            bans.insert(address, Fate::new(None, false))
                .map_err(|_| anyhow!("the table is full"))?;
        }
        times.table.push(milliseconds(start.elapsed()));
        ensure!(bans.len() == BANS as usize, "{} bans in the table", bans.len());
    }
    Ok(())
}

/// Loads them into a set of nftables, `runs` times, in a network of its own.
pub(crate) fn nft(times: &mut Times, stage: &Stage, runs: usize) -> Result<()> {
    let mut rules =
        String::from("table netdev bench {\n  set banned {\n    type ipv4_addr\n    elements = {\n");
    for address in addresses(0, BANS) {
        let _ = writeln!(rules, "      {},", Ipv4Addr::from(address));
    }
    rules.push_str("    }\n  }\n}\n");
    let file = stage.dir.write("banned.nft", &rules)?;
    for _ in 0..runs {
        let start = Instant::now();
        stage.sender.run("nft", &["-f", path_str(&file)?])?;
        times.nft.push(milliseconds(start.elapsed()));
        let set = stage
            .sender
            .run("nft", &["-j", "list", "set", "netdev", "bench", "banned"])?;
        let set: Value = serde_json::from_str(&set).context("nft's JSON")?;
        let elements = set["nftables"]
            .as_array()
            .and_then(|objects| objects.iter().find_map(|object| object["set"]["elem"].as_array()));
        ensure!(
            elements.is_some_and(|elements| elements.len() == BANS as usize),
            "nft did not load all elements"
        );
        stage.sender.run("nft", &["delete", "table", "netdev", "bench"])?;
    }
    Ok(())
}

/// The request that imports the addresses number `from` to `to`, for good.
pub(crate) fn import(from: u32, to: u32) -> Request {
    let entries: Vec<Value> = addresses(from, to)
        .map(|address| json!({ "target": Ipv4Addr::from(address).to_string(), "lifetime": "permanent" }))
        .collect();
    let body = json!({ "entries": entries }).to_string();
    Request::new("POST", "/v1/bans/import", body.as_bytes())
}

/// Imports them into a fresh daemon, and starts it again.
pub(crate) fn daemon(times: &mut Times, binary: &Path) -> Result<()> {
    let request = import(0, BANS);
    let last = addresses(BANS - 1, BANS).next().context("no bans")?;
    let stage = Stage::new("import")?;
    let daemon = stage.start(binary, LOG)?;
    let table = KernelTable::of_daemon(&daemon.pins, BUCKETS)?;
    let start = Instant::now();
    let pending = daemon.send(&request)?;
    while !table.fate(last).exists() {
        ensure!(
            start.elapsed() < PATIENCE,
            "an import does not appear in the kernel"
        );
        // It takes long enough for a nap, and the daemon may want this core.
        thread::sleep(Duration::from_micros(200));
    }
    times.in_force.push(milliseconds(start.elapsed()));
    let report: Value = serde_json::from_slice(&pending.answer()?)?;
    times.acknowledged.push(milliseconds(start.elapsed()));
    ensure!(report["added"] == BANS, "the daemon says {report}");
    check(&daemon, &table)?;

    daemon.stop()?;
    let daemon = stage.start(binary, LOG)?;
    let took = microseconds(&daemon.log()).context("the daemon does not say how long its tables took")?;
    times.restart.push(took / 1e3);
    check(&daemon, &KernelTable::of_daemon(&daemon.pins, BUCKETS)?)
}

/// Of the line that the daemon logs when its tables hold the list.
fn microseconds(log: &str) -> Option<f64> {
    let line = log
        .lines()
        .find(|line| line.contains("the tables hold the ban list"))?;
    let (_, rest) = line.split_once("microseconds=")?;
    rest.split_ascii_whitespace().next()?.parse().ok()
}

/// Every ban is where the kernel program looks.
fn check(daemon: &Daemon, table: &KernelTable) -> Result<()> {
    let missing = addresses(0, BANS).filter(|address| !table.fate(*address).exists());
    ensure!(missing.count() == 0, "bans are missing in the kernel's table");
    let bans = daemon.get("/v1/status")?["bans"].as_u64();
    ensure!(bans == Some(u64::from(BANS)), "the daemon counts {bans:?} bans");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_million_addresses_are_different() {
        let all: std::collections::HashSet<u32> = addresses(0, 1_000_000).collect();
        assert_eq!(all.len(), 1_000_000);
        assert!(all.iter().all(|address| address >> 24 == 11));
    }

    #[test]
    fn the_daemon_says_how_long_its_tables_took() {
        let log = "x INFO y: filtering bans=1\n2026-11-24T09:43:58Z DEBUG sip_filter::daemon::controller: \
                   the tables hold the ban list interface=\"sip0\" bans=100000 microseconds=12345\n";
        assert_eq!(microseconds(log), Some(12345.0));
        assert_eq!(microseconds("the tables hold the ban list"), None);
    }
}
