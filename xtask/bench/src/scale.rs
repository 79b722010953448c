//! Cost against numbers: of bans, of banned networks, of sources.

use anyhow::Result;
use sip_filter_common::verdict::Reason;

use super::{
    Results, Session,
    generator::{Shape, Sources},
    kernel::Programs,
    micro::{Bench, SOURCES},
    plane::{Filling, Limits, Plane, STRANGERS},
    plot::{Labels, Series, count},
    report::Plot,
    row::Row,
    subject::Kind,
    wire::{Effort, compete, set_up},
};

/// Numbers of bans and of networks. The last only at full length: filling the tables takes longest.
const NUMBERS: [u32; 5] = [1, 100, 10_000, 100_000, 1_000_000];
const SENDERS: [u32; 6] = [1, 100, 10_000, 100_000, 1_000_000, 10_000_000];

/// Measures the group.
///
/// # Errors
/// If something can't be set up, or packets didn't take their way.
pub(super) fn measure(session: &Session, results: &mut Results) -> Result<()> {
    let mut bench = Bench::new(session)?;
    let numbers = if session.quick {
        &NUMBERS[..4]
    } else {
        &NUMBERS[..]
    };
    let mut curves = Vec::new();
    for what in [What::Bans, What::Networks] {
        curves.extend(costs(&mut bench, what, numbers, results)?);
    }
    results.plots.push(Plot {
        name: "performance-bans",
        group: "scale",
        labels: Labels {
            title: "Cost of a packet against the number of bans",
            x: "banned addresses or networks",
            y: "ns beyond the floor",
        },
        series: curves,
    });
    sources(session, results)
}

/// What there are many of.
#[derive(Debug, Clone, Copy)]
enum What {
    Bans,
    Networks,
}

impl What {
    const fn noun(self) -> &'static str {
        match self {
            Self::Bans => "bans",
            Self::Networks => "networks",
        }
    }

    /// The least program that stops a packet for it.
    const fn least(self) -> &'static str {
        match self {
            Self::Bans => "least_ban",
            Self::Networks => "least_network",
        }
    }

    const fn filling(self, number: u32) -> Filling {
        match self {
            Self::Bans => Filling {
                bans: number,
                ..Filling::NOTHING
            },
            Self::Networks => Filling {
                networks: number,
                ..Filling::NOTHING
            },
        }
    }
}

/// Curves of a packet that is stopped and of one that isn't.
fn costs(bench: &mut Bench, what: What, numbers: &[u32], results: &mut Results) -> Result<[Series; 2]> {
    let noun = what.noun();
    let mut curves = ["hit", "clean"].map(|kind| Series {
        name: format!("{noun}: {kind}"),
        points: Vec::new(),
    });
    for number in numbers {
        let mut plane = Plane::load(&what.filling(*number).ipv4_only())?;
        let listed = Sources::from(0, *number).random();
        let (hit, reason) = match what {
            What::Bans => (listed, Reason::DropBanAddress),
            What::Networks => (listed.in_networks(), Reason::DropBanNetwork),
        };
        let clean = Sources::from(STRANGERS, SOURCES).random();
        let kinds = [("hit", hit, reason), ("clean", clean, Reason::PassRequest)];
        for ((kind, sources, reason), curve) in kinds.into_iter().zip(&mut curves) {
            let traffic = Shape::request("REGISTER").from(sources);
            let cost = bench.cost(&mut plane, &traffic, reason)?;
            let case = format!("{} {noun}: {kind}", count(f64::from(*number)));
            let row = Row::of(("scale", "sip-filter", &case, "cost"), "ns", &cost)?;
            curve.points.push((f64::from(*number), row.value));
            results.rows.push(row);
        }
        let case = format!("{} {noun}: hit", count(f64::from(*number)));
        let cost = bench.least(what.least(), &Shape::request("REGISTER").from(hit))?;
        results
            .rows
            .push(Row::of(("scale", "least", &case, "cost"), "ns", &cost)?);
    }
    Ok(curves)
}

/// Rate of a flood against the number of sources it comes from. Each packet passes the limiter of its source, which
/// remembers it, and is dropped by the shared budget.
fn sources(session: &Session, results: &mut Results) -> Result<()> {
    let mut programs = Programs::load(&session.programs)?;
    let filling = Filling {
        limits: Limits::NoBudget,
        ..Filling::NOTHING
    };
    let kinds = [Kind::Bare, Kind::LeastLimiter, Kind::SipFilter];
    let mut subjects = set_up(&kinds, &programs, &filling)?;
    for number in SENDERS {
        let traffic = Shape::request("REGISTER").from(Sources::from(STRANGERS, number));
        let plural = if number == 1 { "" } else { "s" };
        let case = format!("{} source{plural}", count(f64::from(number)));
        let cases = [(case, 1)];
        compete(
            "scale",
            &mut subjects,
            &mut programs,
            (&traffic, &cases),
            Effort::of(session),
            results,
        )?;
    }
    let series = kinds.map(|kind| Series {
        name: kind.name().to_owned(),
        points: results
            .rows
            .of_group("scale")
            .filter(|row| row.subject == kind.name() && row.metric == "rate")
            .zip(SENDERS)
            .map(|(row, number)| (f64::from(number), row.value))
            .collect(),
    });
    results.plots.push(Plot {
        name: "performance-sources",
        group: "scale",
        labels: Labels {
            title: "Rate of a flood against the number of its sources",
            x: "sources",
            y: "million packets a second",
        },
        series: series.into(),
    });
    Ok(())
}
