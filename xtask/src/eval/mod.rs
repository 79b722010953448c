//! `cargo xtask eval`: the scoreboard. Scripted attackers and customers meet the same server, protected in turn by
//! nothing, by sip-filter and by what operators use today; everything is measured on the wire.

mod agreement;
mod attack;
mod attack_tcp;
mod csv;
mod customers;
mod judge;
mod meter;
mod protection;
mod report;
mod scenario;
mod tap;
mod trial;

use std::{
    cmp::Reverse,
    panic,
    path::PathBuf,
    sync::{Condvar, Mutex, PoisonError},
    thread::{self, ScopedJoinHandle},
    time::Instant,
};

use anyhow::{Context as _, Result, anyhow, bail};
use xtask::lab::{self, command, interrupt};

use self::{
    protection::Protection,
    scenario::{Play, Scenario},
    trial::{Conditions, Outcome},
};
use crate::{process::Privilege, setup, toolchain_record::ToolchainRecord};

/// How much may go on at the same time, in the scenarios' weights.
const CAPACITY: u32 = 20;
/// More of it in a quick run, where less depends on exact times.
const QUICK_CAPACITY: u32 = 30;
const TOOLS: [&str; 8] = [
    "ip",
    "nft",
    "kamailio",
    "sipp",
    "svmap",
    "svwar",
    "svcrack",
    "fail2ban-server",
];

/// Options of the evaluation.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Play this scenario; may be given several times
    #[arg(long, value_name = "SCENARIO")]
    only: Vec<String>,
    /// Judge these protections
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Protection::ALL)]
    against: Vec<Protection>,
    /// Leave out the slow ones and most twins, and shorten the others
    #[arg(long)]
    quick: bool,
    /// Say what the scenarios are, and end
    #[arg(long)]
    list: bool,
    /// Judge this sip-filter instead of the one built from here
    #[arg(long, hide = true, value_name = "FILE")]
    binary: Option<PathBuf>,
    /// Keep the logs of server and protection of each trial here, and a capture of the server's link
    #[arg(long, value_name = "DIR")]
    logs: Option<PathBuf>,
}

/// One cell of the scoreboard, to be played.
type Trial = (&'static Scenario, Protection);

/// Runs the evaluation.
///
/// # Errors
/// If something can't be set up, or a trial couldn't be played; what was measured is reported all the same.
pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        for scenario in scenario::ALL {
            println!("{:<22} {}", scenario.name, scenario.story());
        }
        return Ok(());
    }
    let trials = choose(args)?;
    interrupt::install()?;
    let binary = prepare(args)?;
    let start = Instant::now();
    let conditions = Conditions {
        brief: args.quick,
        binary,
        logs: args.logs.clone(),
    };
    let (outcomes, failures) = perform(trials, &conditions);
    interrupt::check()?;
    let whole =
        args.only.is_empty() && !args.quick && Protection::ALL.iter().all(|p| args.against.contains(p));
    report::print(&outcomes);
    println!("{} trials in {} s", outcomes.len(), start.elapsed().as_secs());
    report::write(
        &outcomes,
        whole && failures.is_empty(),
        conditions.binary.as_deref(),
    )?;
    println!("\neval: {}", report::verdict(&outcomes));
    if failures.is_empty() {
        return Ok(());
    }
    bail!("not all could be played:\n  {}", failures.join("\n  "))
}

/// The trials asked for, the longest and the heaviest first.
fn choose(args: &Args) -> Result<Vec<Trial>> {
    for name in &args.only {
        if !scenario::ALL.iter().any(|scenario| scenario.name == name) {
            bail!("there is no scenario `{name}`; see `cargo xtask eval --list`");
        }
    }
    let wanted = |scenario: &&Scenario| {
        if args.only.is_empty() {
            scenario.quick || !args.quick
        } else {
            args.only.iter().any(|name| name == scenario.name)
        }
    };
    let mut trials: Vec<Trial> = scenario::ALL
        .iter()
        .filter(wanted)
        .flat_map(|scenario| args.against.iter().map(move |protection| (scenario, *protection)))
        .collect();
    // Those that need no room go first, they are slow; those that need all of it go last.
    trials.sort_by_key(|(scenario, _)| {
        let group = match scenario.weight {
            0 => 0,
            CAPACITY => 2,
            _ => 1,
        };
        (group, Reverse(scenario.limit(args.quick)))
    });
    Ok(trials)
}

/// Makes sure that everything needed is there; returns the filter's binary.
fn prepare(args: &Args) -> Result<Option<PathBuf>> {
    let needed = args.against.contains(&Protection::SipFilter);
    let needs_build = needed && args.binary.is_none();
    if !TOOLS.into_iter().all(command::exists) || (needs_build && ToolchainRecord::load().is_none()) {
        setup::run()?;
    }
    let binary = match &args.binary {
        Some(binary) => Some(std::path::absolute(binary)?),
        None => needs_build
            .then(|| crate::demo::filter::build("release"))
            .transpose()?,
    };
    if Privilege::look() != Privilege::Root {
        bail!("network namespaces and XDP need root");
    }
    lab::sweep()?;
    Ok(binary)
}

/// Plays all trials, as many at a time as there is room for.
fn perform(trials: Vec<Trial>, conditions: &Conditions) -> (Vec<Outcome>, Vec<String>) {
    let total = trials.len();
    let room = Room {
        capacity: if conditions.brief {
            QUICK_CAPACITY
        } else {
            CAPACITY
        },
        used: Mutex::new(0),
        left: Condvar::new(),
    };
    let results: Mutex<(Vec<Outcome>, Vec<String>)> = Mutex::default();
    thread::scope(|scope| {
        for (scenario, protection) in trials {
            room.enter(scenario.weight);
            if interrupt::requested() {
                break;
            }
            let (room, results) = (&room, &results);
            scope.spawn(move || {
                let begun = Instant::now();
                let play = || {
                    panic::catch_unwind(|| trial::play(scenario, protection, conditions))
                        .unwrap_or_else(|_| Err(anyhow!("panicked")))
                };
                // What fails is the stage, not the play, whose worst end is a figure: set it up once more.
                let played = play().or_else(|error| {
                    interrupt::check()?;
                    let error = format!("{error:#}");
                    let first = error.lines().next().unwrap_or_default();
                    println!("{} / {}: once more: {first}", scenario.name, protection.name());
                    play()
                });
                room.leave(scenario.weight);
                let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                let name = format!("{} / {}", scenario.name, protection.name());
                match played {
                    Ok(outcome) => {
                        let count = results.0.len() + 1;
                        println!(
                            "[{count}/{total}] {name}: {} ({} s)",
                            report::brief(&outcome),
                            begun.elapsed().as_secs()
                        );
                        results.0.push(outcome);
                    }
                    Err(error) => {
                        let error = format!("{error:#}");
                        println!("{name}: FAILED: {}", error.lines().next().unwrap_or_default());
                        results.1.push(format!("{name}: {error}"));
                    }
                }
            });
        }
    });
    let (mut outcomes, failures) = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    let place = |name| scenario::ALL.iter().position(|scenario| scenario.name == name);
    outcomes.sort_by_key(|outcome| (place(outcome.scenario), outcome.protection));
    (outcomes, failures)
}

/// How much is going on.
#[derive(Debug)]
struct Room {
    capacity: u32,
    used: Mutex<u32>,
    left: Condvar,
}

impl Room {
    fn enter(&self, weight: u32) {
        let used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let mut used = self
            .left
            .wait_while(used, |used| *used + weight > self.capacity)
            .unwrap_or_else(PoisonError::into_inner);
        *used += weight;
    }

    fn leave(&self, weight: u32) {
        *self.used.lock().unwrap_or_else(PoisonError::into_inner) -= weight;
        self.left.notify_all();
    }
}

/// The result of a thread.
fn joined<T>(thread: ScopedJoinHandle<'_, Result<T>>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("a thread panicked"))
        .context("in the scene")?
}

/// Whether a scenario is played by attackers.
fn is_attack(name: &str) -> bool {
    let scenario = scenario::ALL.iter().find(|scenario| scenario.name == name);
    scenario.is_some_and(|scenario| matches!(scenario.play, Play::Attack(_)))
}
