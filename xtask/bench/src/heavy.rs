//! Heavy hitters: ten flooders among a million spoofed sources, through the whole filter.
//!
//! The noise is a million addresses of which each sends a packet now and then. Among it, some sources send more: ten of
//! them above the threshold of the rule (the flooders), ten just below it. Two runs: with the defaults, the flooders must
//! be banned and nobody else. With a threshold so high that nobody is banned, the count that the filter has of each
//! source that sent more must be what was sent.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use xtask::lab::{
    interrupt, kernel_table,
    spoof::{Forger, mac},
    traffic::Burst,
    usage,
};

use crate::{
    Results, Session,
    figures::Sample,
    flood::{self, Flood, Sent},
    generator::{Shape, Sources},
    row::{Row, Rows},
    stage::{Daemon, INTERFACE, SENDER, Stage},
};

const GROUP: &str = "heavy";
const FILTER: &str = "sip-filter";
/// Spoofed sources, all of which send in a run.
const NOISE: Sources = Sources::from(1, 1_000_000);
/// Frames of noise a second.
const NOISE_RATE: u32 = 200_000;
/// Length of a run, less than the rule's window of ten seconds: what is counted is what was sent.
const LENGTH: Duration = Duration::from_secs(6);
/// The least the rule looks back: nine tenths of its window.
const WINDOW: Duration = Duration::from_secs(9);
/// A machine that needs longer for the noise is too busy.
const PATIENCE: Duration = Duration::from_secs(30);
/// Requests of a flooder in a run; the rule's threshold is 500.
const FLOODER: u32 = 1_200;
/// Requests of a source that stays below the threshold.
const NEIGHBOUR: u32 = 450;
/// Of each kind.
const EACH: u8 = 10;
const MIB: f64 = 1_048_576.0;

/// Measures the group.
///
/// # Errors
/// If something can't be set up. A flooder that isn't found is no error but a figure.
pub(crate) fn measure(session: &Session, results: &mut Results) -> Result<()> {
    find(session, &mut results.rows)?;
    count(session, &mut results.rows)
}

/// The sources that send more, and how many requests each sends.
fn senders() -> Vec<(Ipv4Addr, u32)> {
    let flooders = (1..=EACH).map(|number| (Ipv4Addr::new(203, 0, 113, number), FLOODER));
    let neighbours = (1..=EACH).map(|number| (Ipv4Addr::new(203, 0, 113, 100 + number), NEIGHBOUR));
    flooders.chain(neighbours).collect()
}

/// With the defaults: who is banned?
fn find(session: &Session, rows: &mut Rows) -> Result<()> {
    let stage = Stage::new("heavy")?;
    let daemon = stage.start(&session.binary, "")?;
    let before = usage::memory(daemon.id())?.private;
    let sent = attack(session, &stage)?;
    thread::sleep(Duration::from_millis(300));
    let after = usage::memory(daemon.id())?.private;

    let bans = daemon.get("/v1/bans")?;
    let bans = bans["bans"].as_array().context("no `bans`")?;
    let banned = |address: Ipv4Addr| bans.iter().any(|ban| ban["target"] == address.to_string());
    let found = senders()
        .iter()
        .filter(|(address, requests)| *requests == FLOODER && banned(*address))
        .count();
    let first: Vec<f64> = bans
        .iter()
        .filter_map(|ban| ban["evidence"]["count"].as_u64())
        .map(|count| count as f64)
        .collect();
    let case = "10 flooders in 1 M sources";
    put(rows, case, "noise", "kpps", &[sent.rate() / 1e3])?;
    put(rows, case, "flooders found", "", &[found as f64])?;
    put(rows, case, "others banned", "", &[(bans.len() - found) as f64])?;
    if !first.is_empty() {
        put(rows, case, "count when banned", "packets", &first)?;
    }
    // The limiter's table and each CPU's list of recent reports lie in the kernel, the rest in the daemon.
    let kernel =
        (kernel_table::bytes(&daemon.pins, "SOURCES")? + kernel_table::bytes(&daemon.pins, "RECENT")?) as f64;
    let grown = after.saturating_sub(before) as f64;
    put(rows, case, "memory: kernel tables", "MiB", &[kernel / MIB])?;
    put(rows, case, "memory: daemon", "MiB", &[grown / MIB])?;
    put(rows, case, "memory: in all", "MiB", &[(kernel + grown) / MIB])
}

/// With a threshold out of reach: what is counted?
fn count(session: &Session, rows: &mut Rows) -> Result<()> {
    let stage = Stage::new("heavy")?;
    let daemon = stage.start(&session.binary, "[detect.flood-options]\nthreshold = 100000\n")?;
    attack(session, &stage)?;
    thread::sleep(Duration::from_millis(300));
    let bans = daemon.get("/v1/status")?["bans"].as_u64();
    ensure!(bans == Some(0), "{bans:?} bans below the threshold");
    // Those who stay within their own limit are counted by what the shared budget admits of them, which is little.
    for (case, which) in [
        ("counts of the flooders", FLOODER),
        ("counts of those below", NEIGHBOUR),
    ] {
        let mut errors = Sample::default();
        for (address, requests) in senders().into_iter().filter(|(_, requests)| *requests == which) {
            let counted = counted(&daemon, address)? as f64;
            errors.push((counted - f64::from(requests)).abs() / f64::from(requests) * 100.0);
        }
        put(rows, case, "error", "%", errors.values())?;
        put(rows, case, "greatest error", "%", &[errors.percentile(100.0)])?;
    }
    Ok(())
}

/// Requests the filter has counted of a source within the rule's window.
fn counted(daemon: &Daemon, address: Ipv4Addr) -> Result<u64> {
    let check = daemon.get(&format!("/v1/bans/check?ip={address}"))?;
    let counters = check["counters"].as_array().context("no `counters`")?;
    let rule = counters.iter().find(|counter| counter["rule"] == "flood-options");
    Ok(rule.and_then(|counter| counter["count"].as_u64()).unwrap_or(0))
}

/// Noise, and those who send more in its midst.
fn attack(session: &Session, stage: &Stage) -> Result<Sent> {
    let target = Stage::target();
    let IpAddr::V4(server) = target.ip() else {
        anyhow::bail!("the server has no IPv4 address");
    };
    let traffic = flood::aim(
        Shape::request("OPTIONS").from(NOISE),
        mac(&stage.server, INTERFACE)?,
        server,
    )?;
    let mut noise = Flood::new(session, (&stage.sender, SENDER), traffic)?;
    let mut forger = Forger::new((&stage.sender, SENDER), (&stage.server, INTERFACE))?;
    let order = order();
    let (sent, noise) = noise.during(Some(NOISE_RATE), u64::MAX, |noise| {
        let start = Instant::now();
        for (number, source) in (0_u32..).zip(&order) {
            let due = LENGTH.mul_f64(f64::from(number) / order.len() as f64);
            thread::sleep(due.saturating_sub(start.elapsed()));
            interrupt::check()?;
            while !send(&mut forger, target, *source, number) {
                ensure!(
                    start.elapsed() < WINDOW,
                    "packets of the heavy sources find no room"
                );
            }
        }
        let took = start.elapsed();
        // Until everybody of the million has sent.
        while noise.load(Ordering::Relaxed) < u64::from(NOISE.count) && start.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(50));
        }
        Ok(took)
    })?;
    ensure!(
        sent < WINDOW,
        "it took {sent:?}, longer than the rule looks back: the machine is too busy"
    );
    ensure!(
        noise.frames >= u64::from(NOISE.count),
        "not everybody sent: {} frames of noise",
        noise.frames
    );
    Ok(noise)
}

/// Sends one request of a heavy source; whether there was room for it.
fn send(forger: &mut Forger, target: SocketAddr, source: Ipv4Addr, number: u32) -> bool {
    let one = Burst {
        count: 1,
        rate: None,
        limit: WINDOW,
    };
    let sent = forger.send(
        target,
        one,
        || false,
        |_, payload| {
            let text = format!(
                "OPTIONS sip:192.0.2.1 SIP/2.0\r\nVia: SIP/2.0/UDP {source};branch=z9hG4bK{number}\r\n\
             Max-Forwards: 70\r\nFrom: <sip:a@{source}>;tag={number}\r\nTo: <sip:b@192.0.2.1>\r\n\
             Call-ID: {number}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n"
            );
            payload.extend(text.as_bytes());
            SocketAddr::new(source.into(), 5060)
        },
    );
    sent.packets == 1
}

/// Whose turn it is: every source spread evenly over the run.
fn order() -> Vec<Ipv4Addr> {
    let mut turns: Vec<(f64, Ipv4Addr)> = senders()
        .iter()
        .flat_map(|(address, requests)| {
            let whole = f64::from(*requests);
            (0..*requests).map(move |turn| ((f64::from(turn) + 0.5) / whole, *address))
        })
        .collect();
    turns.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    turns.into_iter().map(|(_, address)| address).collect()
}

fn put(rows: &mut Rows, case: &str, metric: &str, unit: &str, values: &[f64]) -> Result<()> {
    rows.push(Row::of((GROUP, FILTER, case, metric), unit, values)?);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_has_its_turns_spread_over_the_run() {
        let order = order();
        for (address, requests) in senders() {
            let turns: Vec<usize> = (0..order.len()).filter(|turn| order[*turn] == address).collect();
            assert_eq!(turns.len(), requests as usize);
            let half = turns.iter().filter(|turn| **turn < order.len() / 2).count();
            assert!(
                (half as f64 / f64::from(requests) - 0.5).abs() < 0.02,
                "{address}: {half}"
            );
        }
    }
}
