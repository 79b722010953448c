//! The control plane: how soon a decision is in force, how long loading takes, and what the daemon needs.

mod fail2ban;
mod load;
mod needs;
mod reaction;
mod visible;

use std::net::Ipv4Addr;

use anyhow::{Context as _, Result};

use self::reaction::Offence;
use crate::{
    Results, Session,
    figures::Sample,
    row::{Row, Rows},
    stage::Stage,
};

const GROUP: &str = "control";
pub(crate) const FILTER: &str = "sip-filter";

/// Measures the group.
///
/// # Errors
/// If something can't be set up, or contradicts itself.
pub(crate) fn measure(session: &Session, results: &mut Results) -> Result<()> {
    let rows = &mut results.rows;
    react(session, rows)?;
    order(session, rows)?;
    load(session, rows)?;
    needs::measure(session, rows)
}

/// Deciding packet to first drop.
fn react(session: &Session, rows: &mut Rows) -> Result<()> {
    let binary = &session.binary;
    let count = if session.quick { 30 } else { 200 };
    for offence in [Offence::Scanner, Offence::Garbage] {
        let times = reaction::bans(binary, offence, count)?;
        percentiles(
            rows,
            FILTER,
            &format!("first drop: {}", offence.rule()),
            &times,
            "ms",
        )?;
    }
    let throttle = reaction::throttle(binary, 4)?;
    let case = "first drop: throttle";
    row(rows, FILTER, case, "packets between", "", &throttle.late)?;
    row(rows, FILTER, case, "passed of 450", "packets", &throttle.passed)?;
    let times = fail2ban::bans(if session.quick { 4 } else { 30 })?;
    percentiles(rows, "fail2ban", "first drop: unknown accounts", &times, "ms")
}

/// One ban ordered through the API, with lists of different lengths.
fn order(session: &Session, rows: &mut Rows) -> Result<()> {
    let (count, lists): (u32, &[(u32, &str)]) = if session.quick {
        (200, &[(0, ""), (1, " beside 100 k")])
    } else {
        // Ten parts of a hundred thousand are a million.
        (2_000, &[(0, ""), (1, " beside 100 k"), (10, " beside 1 M")])
    };
    for (parts, beside) in lists {
        let stage = Stage::new("order")?;
        let daemon = stage.start(&session.binary, "")?;
        for part in 0..*parts {
            let import = load::import(part * load::BANS, (part + 1) * load::BANS);
            daemon.send(&import)?.answer().context("a long list")?;
        }
        let times = visible::measure(&daemon, Ipv4Addr::new(100, 64, 0, 1), count)?;
        let case = format!("one ban{beside}: in force");
        percentiles(rows, FILTER, &case, &times.visible, "ms")?;
        let greatest = Sample::from_iter([times.visible.percentile(100.0)]);
        row(rows, FILTER, &case, "greatest", "ms", &greatest)?;
        let missing = Sample::from_iter([times.missing.percentile(99.0)]);
        row(
            rows,
            FILTER,
            &case,
            "p99 of the last look in vain",
            "ms",
            &missing,
        )?;
        let case = format!("one ban{beside}: acknowledged");
        percentiles(rows, FILTER, &case, &times.acknowledged, "ms")?;
    }
    Ok(())
}

/// A hundred thousand bans at once.
fn load(session: &Session, rows: &mut Rows) -> Result<()> {
    let mut times = load::Times::default();
    // In turn, so that a busy moment of the machine meets all of them.
    for _ in 0..if session.quick { 1 } else { 5 } {
        load::table(&mut times, 3)?;
        load::nft(&mut times, &Stage::new("nft")?, 1)?;
        load::daemon(&mut times, &session.binary)?;
    }
    let case = "100 k bans";
    row(rows, FILTER, case, "table written", "ms", &times.table)?;
    row(
        rows,
        FILTER,
        case,
        "restart: tables written",
        "ms",
        &times.restart,
    )?;
    row(rows, FILTER, case, "import: in force", "ms", &times.in_force)?;
    row(
        rows,
        FILTER,
        case,
        "import: acknowledged",
        "ms",
        &times.acknowledged,
    )?;
    row(rows, "nftables", case, "table written", "ms", &times.nft)
}

/// The median of a sample, as a row.
pub(crate) fn row(
    rows: &mut Rows,
    subject: &str,
    case: &str,
    metric: &str,
    unit: &str,
    sample: &Sample,
) -> Result<()> {
    rows.push(Row::of((GROUP, subject, case, metric), unit, sample.values())?);
    Ok(())
}

/// Median and 99th percentile, each a row.
fn percentiles(rows: &mut Rows, subject: &str, case: &str, sample: &Sample, unit: &str) -> Result<()> {
    row(rows, subject, case, "median", unit, sample)?;
    let p99 = Row {
        metric: "p99".to_owned(),
        value: sample.percentile(99.0),
        // One figure of the whole: there are no rounds that could lie apart.
        spread: 0.0,
        ..Row::of((GROUP, subject, case, "p99"), unit, sample.values())?
    };
    rows.push(p99);
    Ok(())
}
