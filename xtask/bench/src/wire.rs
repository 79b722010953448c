//! Packets per second over veth, on one processor and on two; and whether a limit holds.

use std::{collections::BTreeMap, time::Duration};

use anyhow::{Context as _, Result, ensure};
use sip_filter_common::abi::Limit;

use super::{
    Results, Session,
    generator::{Shape, Sources, Traffic},
    kernel::Programs,
    plane::{Filling, Limits, STRANGERS},
    row::Row,
    subject::{Kind, Subject},
};

/// How often, and how many frames each time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) rounds: usize,
    pub(super) frames: u32,
}

impl Effort {
    pub(super) const fn of(session: &Session) -> Self {
        if session.quick {
            Self {
                rounds: 2,
                frames: 100_000,
            }
        } else {
            Self {
                rounds: 7,
                frames: 2_000_000,
            }
        }
    }
}

/// Measures the group.
///
/// # Errors
/// If something can't be set up, or frames were lost.
pub(super) fn measure(session: &Session, results: &mut Results) -> Result<()> {
    let mut programs = Programs::load(&session.programs)?;
    let effort = Effort::of(session);
    let register = Shape::request("REGISTER");
    let narrow = Filling {
        limits: Limits::Narrow,
        ..Filling::SITE
    };
    for (what, least, filling, traffic) in [
        (
            "banned",
            Kind::Least,
            Filling::SITE,
            register.from(Sources::from(0, Filling::SITE.bans).random()),
        ),
        (
            "over limit",
            Kind::LeastLimiter,
            narrow,
            register.from(Sources::from(STRANGERS, 16_384).random()),
        ),
    ] {
        let kinds = [Kind::Bare, least, Kind::SipFilter, Kind::Generic];
        let mut subjects = set_up(&kinds, &programs, &filling)?;
        let cases = [(format!("{what}: 1 CPU"), 1), (format!("{what}: 2 CPUs"), 2)];
        compete(
            "wire",
            &mut subjects,
            &mut programs,
            (&traffic, &cases),
            effort,
            results,
        )?;
    }
    overshoot(session, &mut programs, results)
}

/// Sets up several subjects alike.
pub(super) fn set_up(kinds: &[Kind], programs: &Programs, filling: &Filling) -> Result<Vec<Subject>> {
    kinds
        .iter()
        .map(|kind| Subject::new(*kind, programs, filling).with_context(|| kind.name().to_owned()))
        .collect()
}

/// Sends the same traffic to all subjects in turn, round by round, and leaves a row for each and each case (its name,
/// and from how many processors it is sent).
pub(super) fn compete(
    group: &str,
    subjects: &mut [Subject],
    programs: &mut Programs,
    (traffic, cases): (&Traffic, &[(String, usize)]),
    effort: Effort,
    results: &mut Results,
) -> Result<()> {
    let mut rates: BTreeMap<(usize, usize), Vec<f64>> = BTreeMap::new();
    let mut before = Vec::new();
    for round in 0..=effort.rounds {
        // The first round warms up: tables and limits fill.
        if round == 1 {
            before = subjects.iter().map(dropped_and_sent).collect::<Result<_>>()?;
        }
        for (place, subject) in subjects.iter_mut().enumerate() {
            for (case, (name, cpus)) in cases.iter().enumerate() {
                let burst = subject
                    .burst(programs, traffic, *cpus, effort.frames)
                    .with_context(|| format!("{name}: {}", subject.kind.name()))?;
                if round > 0 {
                    rates.entry((case, place)).or_default().push(burst.rate());
                }
            }
        }
    }
    for (subject, before) in subjects.iter().zip(before) {
        let after = dropped_and_sent(subject)?;
        let (dropped, sent) = (after.0 - before.0, after.1 - before.1);
        // Of flooders some share a bucket of the source table with four others, and then forget each other.
        ensure!(
            dropped * 100 >= sent * 97,
            "{} dropped only {dropped} of {sent}",
            subject.kind.name()
        );
    }
    for ((case, place), rates) in &rates {
        if let (Some((name, _)), Some(subject)) = (cases.get(*case), subjects.get(*place)) {
            let name = (group, subject.kind.name(), name.as_str(), "rate");
            results.rows.push(Row::of(name, "Mpps", rates)?);
        }
    }
    Ok(())
}

fn dropped_and_sent(subject: &Subject) -> Result<(u64, u64)> {
    Ok((subject.dropped()?, subject.sent))
}

/// The limit that must hold, packets a second and at once.
const RATE: u64 = 10_000;
const AT_ONCE: u64 = 1_000;

/// How far beyond a limit one source gets, as a part of what it may send.
fn overshoot(session: &Session, programs: &mut Programs, results: &mut Results) -> Result<()> {
    let filling = Filling {
        limits: Limits::Only(Limit::new(RATE, 1_000_000_000, AT_ONCE)),
        ..Filling::NOTHING
    };
    let (rounds, length) = if session.quick { (1, 500) } else { (3, 2_000) };
    let traffic = Shape::request("REGISTER").from(Sources::from(STRANGERS, 1));
    for (case, cpus) in [("limit: 1 CPU", 1), ("limit: 2 CPUs", 2)] {
        let mut beyond = Vec::new();
        for _ in 0..rounds {
            // A new one each time, so that the burst is there again.
            let mut subject = Subject::new(Kind::SipFilter, programs, &filling)?;
            let burst = subject
                .rig
                .flood(programs, &traffic, cpus, Duration::from_millis(length))?;
            let plane = subject.plane().context("sip-filter has a data plane")?;
            super::rig::delivered(burst.sent, || plane.seen())?;
            let passed = plane.seen()? - plane.dropped()?;
            let allowed = AT_ONCE as f64 + RATE as f64 * burst.time.as_secs_f64();
            beyond.push(passed as f64 / allowed - 1.0);
        }
        let name = ("wire", "sip-filter", case, "overshoot");
        results.rows.push(Row::of(name, "", &beyond)?);
    }
    Ok(())
}
