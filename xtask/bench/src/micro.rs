//! What each way through the program costs, by `BPF_PROG_TEST_RUN`.
//!
//! A test run repeats one packet, so that everything would lie in the nearest cache and every branch be foreseen. So
//! the program that is run is `vary_then_run`, which writes another source, port and payload into the packet and then
//! calls the program under test; the same with an empty program in its place is the floor, measured in turn with it
//! and subtracted.

use anyhow::{Result, ensure};
use sip_filter_common::verdict::Reason;

use super::{
    Results, Session,
    generator::{Payload, Shape, Sources, Traffic, arp},
    kernel::{Program, Programs, pin},
    plane::{ALLOWED, Filling, Limits, Plane, STRANGERS, TRUSTED},
    row::Row,
};

/// Different sources in a case, unless it says otherwise.
pub(super) const SOURCES: u32 = 65_536;

/// One way through the program.
struct Case {
    name: &'static str,
    traffic: Traffic,
    /// Which of the fillings.
    filling: usize,
    /// What the program must have counted.
    reason: Reason,
}

/// A host in operation; empty; everybody over the limit; the shared budget spent; no events.
const FILLINGS: [Filling; 5] = [
    Filling::SITE,
    Filling::NOTHING,
    Filling {
        limits: Limits::Narrow,
        ..Filling::SITE
    },
    Filling {
        limits: Limits::NoBudget,
        ..Filling::SITE
    },
    Filling {
        events: false,
        ..Filling::SITE
    },
];
const SITE: usize = 0;
const NOTHING: usize = 1;
const NARROW: usize = 2;
const NO_BUDGET: usize = 3;
const NO_EVENTS: usize = 4;

/// How often each thing is measured.
#[derive(Debug, Clone, Copy)]
pub(super) struct Effort {
    pub(super) rounds: usize,
    /// Runs of the program in each.
    pub(super) runs: u32,
}

impl Effort {
    pub(super) const fn of(session: &Session) -> Self {
        if session.quick {
            Self {
                rounds: 2,
                runs: 100_000,
            }
        } else {
            Self {
                rounds: 9,
                runs: 2_000_000,
            }
        }
    }
}

/// The least programs that do to the packets of a case what must be done, and what they read is all they do: below, no
/// filter with tables as large can come.
const LEAST: [(&str, &str); 9] = [
    ("not IP", "least_ban"),
    ("other port", "least_ban"),
    ("banned address", "least_ban"),
    ("banned address: 1 source", "least_ban"),
    ("banned network", "least_network"),
    ("clean REGISTER", "least_clean"),
    ("clean REGISTER: 1 source", "least_clean"),
    ("clean INVITE", "least_clean"),
    ("new source each packet", "least_clean"),
];

/// What one random line of a table costs, by the table's size: below, no look-up in a table that large can come.
const LINES: [(&str, &str); 3] = [
    ("one random line of 512 KiB", "line_512k"),
    ("one random line of 4 MiB", "line_4m"),
    ("one random line of 16 MiB", "line_16m"),
];

/// Measures the group.
///
/// # Errors
/// If something can't be loaded, or packets didn't take the way they should have.
pub(super) fn measure(session: &Session, results: &mut Results) -> Result<()> {
    let mut bench = Bench::new(session)?;
    let mut planes = FILLINGS.iter().map(Plane::load).collect::<Result<Vec<_>>>()?;
    for case in cases() {
        let Some(plane) = planes.get_mut(case.filling) else {
            anyhow::bail!("no such filling");
        };
        let cost = bench.cost(plane, &case.traffic, case.reason)?;
        let name = ("micro", "sip-filter", case.name, "cost");
        results.rows.push(Row::of(name, "ns", &cost)?);
        if let Some((_, program)) = LEAST.iter().find(|(name, _)| *name == case.name) {
            let cost = bench.least(program, &case.traffic)?;
            let name = ("micro", "least", case.name, "cost");
            results.rows.push(Row::of(name, "ns", &cost)?);
        }
    }
    for (case, program) in LINES {
        let traffic = Shape::request("REGISTER").from(Sources::from(STRANGERS, SOURCES));
        let cost = bench.least(program, &traffic)?;
        results
            .rows
            .push(Row::of(("micro", "memory", case, "cost"), "ns", &cost)?);
    }
    let name = ("micro", "floor", "vary, call, pass", "cost");
    results.rows.push(Row::of(name, "ns", &bench.floors)?);
    if let Some(plane) = planes.first_mut() {
        let [ingress, egress] = plane.verified()?;
        for (case, count) in [("ingress", ingress), ("egress", egress)] {
            let name = ("micro", "sip-filter", case, "verified instructions");
            results.rows.push(Row::of(name, "", &[count.into()])?);
        }
    }
    Ok(())
}

/// What a program costs beyond the floor.
pub(super) struct Bench {
    programs: Programs,
    runner: Program,
    empty: Program,
    effort: Effort,
    /// What the floor was, in nanoseconds, each time.
    floors: Vec<f64>,
}

impl Bench {
    pub(super) fn new(session: &Session) -> Result<Self> {
        // The last CPU: the first serves most interrupts.
        pin(std::thread::available_parallelism().map_or(0, |cpus| cpus.get() - 1))?;
        let programs = Programs::load(&session.programs)?;
        Ok(Self {
            runner: programs.program("vary_then_run")?,
            empty: programs.program("empty")?,
            programs,
            effort: Effort::of(session),
            floors: Vec::new(),
        })
    }

    /// Nanoseconds that a packet costs beyond the floor, once for each round.
    ///
    /// # Errors
    /// If packets didn't take the way they should have.
    pub(super) fn cost(&mut self, plane: &mut Plane, traffic: &Traffic, reason: Reason) -> Result<Vec<f64>> {
        let Effort { rounds, runs } = self.effort;
        self.programs.set_plan(&traffic.plan, &traffic.heads)?;
        // Every source once, so that limits are reached and tables are warm where they can be.
        let warm_up = u32::try_from(traffic.plan.sources)
            .unwrap_or(u32::MAX)
            .clamp(1, runs);
        self.programs.set_next(&plane.handle)?;
        self.runner.run(&traffic.frame, warm_up.max(1_000))?;
        let before = (plane.packets(reason)?, plane.seen()?);
        let mut costs = Vec::new();
        for _ in 0..rounds {
            let floor = self.nanoseconds(None, traffic)?;
            let whole = self.nanoseconds(Some(&plane.handle), traffic)?;
            plane.drain()?;
            self.floors.push(floor);
            costs.push(whole - floor);
        }
        let seen = plane.seen()? - before.1;
        let right = plane.packets(reason)? - before.0;
        ensure!(
            seen == u64::from(runs) * rounds as u64,
            "{seen} packets of {rounds} × {runs} were counted"
        );
        // Of 64 k flooders some share a bucket of the source table with four others, and then forget each other.
        ensure!(
            right * 100 >= seen * 97,
            "only {right} of {seen} packets were {}",
            reason.name()
        );
        Ok(costs)
    }

    /// Nanoseconds that one of the comparison programs costs beyond the floor, once for each round.
    ///
    /// # Errors
    /// If there is none of this name, or the kernel refuses.
    pub(super) fn least(&mut self, program: &str, traffic: &Traffic) -> Result<Vec<f64>> {
        let program = self.programs.program(program)?;
        self.programs.set_plan(&traffic.plan, &traffic.heads)?;
        let mut costs = Vec::new();
        for _ in 0..=self.effort.rounds {
            let floor = self.nanoseconds(None, traffic)?;
            costs.push(self.nanoseconds(Some(&program), traffic)? - floor);
        }
        // The first run finds the caches cold.
        costs.remove(0);
        Ok(costs)
    }

    fn nanoseconds(&mut self, program: Option<&Program>, traffic: &Traffic) -> Result<f64> {
        let runs = self.effort.runs;
        self.programs.set_next(program.unwrap_or(&self.empty))?;
        let time = self.runner.run(&traffic.frame, runs)?;
        Ok(time.as_nanos() as f64 / f64::from(runs))
    }
}

/// All ways worth a figure.
fn cases() -> Vec<Case> {
    let strangers = Sources::from(STRANGERS, SOURCES);
    let one = Sources::from(STRANGERS, 1);
    let banned = Sources::from(0, Filling::SITE.bans);
    let in_networks = Sources::from(0, Filling::SITE.networks).in_networks();
    let register = Shape::request("REGISTER");
    let request = |method| Shape::request(method).from(strangers);
    let case = |name, traffic, filling, reason| Case {
        name,
        traffic,
        filling,
        reason,
    };
    vec![
        case("not IP", arp(), SITE, Reason::PassNotIp),
        case(
            "other port",
            Shape::of(Payload::Garbage).port(16_384).from(strangers),
            SITE,
            Reason::PassOtherPort,
        ),
        case(
            "other port: 1 source",
            Shape::of(Payload::Garbage).port(16_384).from(one),
            SITE,
            Reason::PassOtherPort,
        ),
        case(
            "other port: IPv6",
            Shape::of(Payload::Garbage).port(16_384).v6().from(strangers),
            SITE,
            Reason::PassOtherPort,
        ),
        case(
            "banned address",
            register.from(banned),
            SITE,
            Reason::DropBanAddress,
        ),
        case(
            "banned address: 1 source",
            register.from(Sources::from(0, 1)),
            SITE,
            Reason::DropBanAddress,
        ),
        case(
            "banned address: IPv6",
            register.v6().from(banned),
            SITE,
            Reason::DropBanAddress,
        ),
        case(
            "banned network",
            register.from(in_networks),
            SITE,
            Reason::DropBanNetwork,
        ),
        case(
            "banned network: IPv6",
            register.v6().from(in_networks),
            SITE,
            Reason::DropBanNetwork,
        ),
        case("clean REGISTER", request("REGISTER"), SITE, Reason::PassRequest),
        case(
            "clean REGISTER: 1 source",
            register.from(one),
            SITE,
            Reason::PassRequest,
        ),
        case(
            "clean REGISTER: no events",
            request("REGISTER"),
            NO_EVENTS,
            Reason::PassRequest,
        ),
        case("clean INVITE", request("INVITE"), SITE, Reason::PassRequest),
        case("clean OPTIONS", request("OPTIONS"), SITE, Reason::PassRequest),
        case("clean BYE", request("BYE"), SITE, Reason::PassRequest),
        case(
            "clean REGISTER: empty tables",
            request("REGISTER"),
            NOTHING,
            Reason::PassRequest,
        ),
        case(
            "clean REGISTER: VLAN",
            register.vlan().from(strangers),
            SITE,
            Reason::PassRequest,
        ),
        case(
            "clean REGISTER: IPv6",
            register.v6().from(strangers),
            SITE,
            Reason::PassRequest,
        ),
        case(
            "trusted REGISTER",
            register.from(Sources::from(TRUSTED, Filling::SITE.trusted)),
            SITE,
            Reason::PassRequest,
        ),
        case(
            "allow-listed REGISTER",
            register.from(Sources::from(ALLOWED, Filling::SITE.allowed).in_networks()),
            SITE,
            Reason::PassAllowed,
        ),
        case(
            "response",
            Shape::of(Payload::Response).from(strangers),
            SITE,
            Reason::PassResponse,
        ),
        case(
            "keep-alive",
            Shape::of(Payload::KeepAlive).from(strangers),
            SITE,
            Reason::PassKeepAlive,
        ),
        case(
            "garbage",
            Shape::of(Payload::Garbage).from(strangers),
            SITE,
            Reason::PassOtherPayload,
        ),
        case(
            "over limit",
            request("REGISTER"),
            NARROW,
            Reason::DropLimitRegister,
        ),
        case(
            "shared budget spent",
            request("REGISTER"),
            NO_BUDGET,
            Reason::DropUnknownBudget,
        ),
        case(
            "new source each packet",
            register.from(Sources::from(STRANGERS, 1 << 30)),
            SITE,
            Reason::PassRequest,
        ),
    ]
}
