//! What the daemon takes of the machine: idle, under a flood of new sources, with a million bans.

use std::{
    net::IpAddr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail, ensure};
use xtask::lab::{
    interrupt,
    spoof::mac,
    usage::{self, Memory},
};

use super::{FILTER, load, row};
use crate::{
    Session,
    figures::Sample,
    flood::{Flood, aim},
    generator::{Shape, Sources},
    row::Rows,
    stage::{Daemon, INTERFACE, SENDER, Stage},
};

const MIB: f64 = 1_048_576.0;
/// Bans of one import.
const PART: u32 = 100_000;

/// Measures.
pub(super) fn measure(session: &Session, rows: &mut Rows) -> Result<()> {
    let stage = Stage::new("needs")?;
    let daemon = stage.start(&session.binary, "")?;
    let pause = Duration::from_secs(if session.quick { 3 } else { 15 });
    idle(rows, &daemon, "idle", pause)?;
    let tables = usage::map_memory(daemon.id())? as f64 / MIB;
    row(
        rows,
        FILTER,
        "idle",
        "kernel tables",
        "MiB",
        &Sample::from_iter([tables]),
    )?;
    flood(session, rows, &stage, &daemon, pause)?;
    many(session, rows, &stage, &daemon, pause)
}

/// Memory, and processor time while nothing happens.
fn idle(rows: &mut Rows, daemon: &Daemon, case: &str, pause: Duration) -> Result<()> {
    // What the start or an import left to do is over by then.
    thread::sleep(Duration::from_secs(2));
    let before = usage::cpu(daemon.id())?;
    thread::sleep(pause);
    interrupt::check()?;
    let core = (usage::cpu(daemon.id())? - before).as_secs_f64() / pause.as_secs_f64();
    row(
        rows,
        FILTER,
        case,
        "processor",
        "% of a core",
        &Sample::from_iter([core * 100.0]),
    )?;
    memory(rows, daemon, case)
}

/// Memory by what it is for.
pub(crate) fn memory(rows: &mut Rows, daemon: &Daemon, case: &str) -> Result<()> {
    let memory = usage::memory(daemon.id())?;
    let Memory {
        private,
        program,
        tables,
        ..
    } = memory;
    for (metric, bytes) in [
        ("own memory", private + program),
        ("heap and stacks", private),
        ("mapped kernel tables", tables),
        ("resident (RSS)", memory.resident()),
    ] {
        row(
            rows,
            FILTER,
            case,
            metric,
            "MiB",
            &Sample::from_iter([bytes as f64 / MIB]),
        )?;
    }
    Ok(())
}

/// As many packets as a processor can send, each from another of ten million sources, of every kind that detection
/// looks at.
fn flood(session: &Session, rows: &mut Rows, stage: &Stage, daemon: &Daemon, pause: Duration) -> Result<()> {
    let case = "flood of new sources";
    let IpAddr::V4(server) = Stage::target().ip() else {
        bail!("the server has no IPv4 address");
    };
    let mac = mac(&stage.server, INTERFACE)?;
    for method in ["REGISTER", "INVITE", "OPTIONS"] {
        let traffic = Shape::request(method).from(Sources::from(1, 10_000_000));
        let mut flood = Flood::new(session, (&stage.sender, SENDER), aim(traffic, mac, server)?)?;
        let (core, sent) = flood.during(None, u64::MAX, |_| {
            thread::sleep(Duration::from_millis(500));
            let (cpu, start) = (usage::cpu(daemon.id())?, Instant::now());
            thread::sleep(pause / 3);
            Ok((usage::cpu(daemon.id())? - cpu).as_secs_f64() / start.elapsed().as_secs_f64())
        })?;
        interrupt::check()?;
        let case = format!("{case}: {method}");
        row(
            rows,
            FILTER,
            &case,
            "flood",
            "Mpps",
            &Sample::from_iter([sent.rate() / 1e6]),
        )?;
        row(
            rows,
            FILTER,
            &case,
            "processor",
            "% of a core",
            &Sample::from_iter([core * 100.0]),
        )?;
    }
    memory(rows, daemon, case)
}

/// A long list.
fn many(session: &Session, rows: &mut Rows, stage: &Stage, daemon: &Daemon, pause: Duration) -> Result<()> {
    let (parts, case) = if session.quick {
        (2, "200 k bans")
    } else {
        (10, "1 M bans")
    };
    for part in 0..parts {
        interrupt::check()?;
        daemon
            .send(&load::import(part * PART, (part + 1) * PART))?
            .answer()?;
    }
    let bans = daemon.get("/v1/status")?["bans"].as_u64();
    ensure!(
        bans == Some(u64::from(parts * PART)),
        "the daemon counts {bans:?} bans"
    );
    idle(rows, daemon, case, pause)?;
    let stored = daemon.stored(stage)? as f64 / MIB;
    row(rows, FILTER, case, "file", "MiB", &Sample::from_iter([stored]))
}
