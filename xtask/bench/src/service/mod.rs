//! Calls and registrations that Kamailio serves while a flood grows, with different things in between.
//!
//! Everything shares the machine: generator, server and phones. What the generator takes away by itself shows the
//! reference `drop at once`: its flood ends in a program that does nothing but drop it, on an interface of its own.

mod guard;
mod scene;

use std::time::Duration;

use anyhow::{Context as _, Result};
use xtask::lab::interrupt;

use self::{
    guard::Protection,
    scene::{Scene, Served},
};
use crate::{
    Results, Session,
    flood::Pace,
    plot::{Labels, Series},
    report::Plot,
    row::Row,
};

const GROUP: &str = "service";

/// A step of the flood: its name in the results, and its rate.
#[derive(Debug, Clone, Copy)]
struct Step {
    name: &'static str,
    /// `None` is no flood at all.
    pace: Option<Pace>,
}

const NO_FLOOD: Step = Step {
    name: "no flood",
    pace: None,
};
const MAXIMUM: Step = Step {
    name: "maximum",
    pace: Some(None),
};

const fn step(name: &'static str, rate: u32) -> Step {
    Step {
        name,
        pace: Some(Some(rate)),
    }
}

const STEPS: [Step; 6] = [
    NO_FLOOD,
    step("5 k/s", 5_000),
    step("25 k/s", 25_000),
    step("100 k/s", 100_000),
    step("400 k/s", 400_000),
    MAXIMUM,
];

/// Measures the group.
///
/// # Errors
/// If the scene can't be set up. That nobody is served is no error but a figure.
pub(crate) fn measure(session: &Session, results: &mut Results) -> Result<()> {
    let mut calls = Vec::new();
    let mut registrations = Vec::new();
    for protection in Protection::ALL {
        if session.quick && !protection.is_quick() {
            continue;
        }
        let curves =
            play(session, results, protection).with_context(|| format!("with {}", protection.name()))?;
        // A single step is no curve.
        if curves.calls.points.len() > 1 {
            calls.push(curves.calls);
            registrations.push(curves.registrations);
        }
    }
    for (name, title, y, series) in [
        (
            "service-calls",
            "Calls completed under a flood",
            "calls per second",
            calls,
        ),
        (
            "service-registrations",
            "Registrations completed under a flood",
            "registrations per second",
            registrations,
        ),
    ] {
        let labels = Labels {
            title,
            x: "flood, packets per second (leftmost: none)",
            y,
        };
        results.plots.push(Plot {
            name,
            group: GROUP,
            labels,
            series,
        });
    }
    Ok(())
}

struct Curves {
    calls: Series,
    registrations: Series,
}

/// Where the axis begins: no flood at all has no place on a logarithmic one.
const LEFTMOST: f64 = 1_000.0;

fn play(session: &Session, results: &mut Results, protection: Protection) -> Result<Curves> {
    let curve = || Series {
        name: protection.name().to_owned(),
        points: Vec::new(),
    };
    let mut curves = Curves {
        calls: curve(),
        registrations: curve(),
    };
    let scene = Scene::start(session, protection)?;
    let length = Duration::from_millis(if session.quick { 1_500 } else { 6_000 });
    for step in STEPS {
        interrupt::check()?;
        let is_end = step.name == NO_FLOOD.name || step.name == MAXIMUM.name;
        if !protection.plays(step.name) || session.quick && !is_end {
            continue;
        }
        let served = scene
            .serve(step.pace, length)
            .with_context(|| format!("flood: {}", step.name))?;
        let x = served.flood.max(LEFTMOST);
        curves.calls.points.push((x, served.calls));
        curves.registrations.points.push((x, served.registrations));
        note(results, protection, step, &served)?;
    }
    Ok(curves)
}

fn note(results: &mut Results, protection: Protection, step: Step, served: &Served) -> Result<()> {
    for (metric, unit, value) in [
        ("flood", "kpps", served.flood / 1e3),
        ("calls", "/s", served.calls),
        ("registrations", "/s", served.registrations),
        ("failed", "%", served.failed * 100.0),
    ] {
        let name = (GROUP, protection.name(), step.name, metric);
        results.rows.push(Row::of(name, unit, &[value])?);
    }
    Ok(())
}
