//! Benchmarks of sip-filter, side by side with what else could be used, in namespaces of their own.
//!
//! Start them by `cargo xtask bench`, which builds what they need. A group of measurements is a variant of
//! [`xtask::bench::Group`] and a line in [`GROUPS`]; what it measures are [`row::Row`]s, by whose names [`goals`] finds
//! them; docs/performance.md has a place for its table.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task talks to whoever started it"
)]

mod control;
mod environment;
mod figures;
mod flood;
mod generator;
mod goals;
mod heavy;
mod kernel;
mod micro;
mod peers;
mod plane;
mod plot;
mod report;
mod rig;
mod row;
mod scale;
mod service;
mod stage;
mod subject;
mod wire;

use std::{
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Instant,
};

use anyhow::{Context as _, Result, bail};
use clap::Parser;
use xtask::{
    bench::{Group, Options},
    lab::{self, interrupt},
};

use self::{environment::Environment, goals::GOALS, report::Plot, row::Rows};

#[derive(Debug, Parser)]
#[command(name = "cargo xtask bench", bin_name = "cargo xtask bench")]
struct Cli {
    #[command(flatten)]
    options: Options,
    /// The comparison programs, built for the kernel
    #[arg(long, hide = true)]
    programs: PathBuf,
    /// The controller
    #[arg(long, hide = true)]
    binary: PathBuf,
    /// What compiled the programs
    #[arg(long, hide = true)]
    ebpf_compiler: String,
}

/// What every group is given.
#[derive(Debug)]
struct Session {
    /// Few and short rounds.
    quick: bool,
    /// Object with the comparison programs.
    programs: PathBuf,
    /// The built `sip-filter`.
    binary: PathBuf,
}

/// What a run has measured so far.
#[derive(Debug, Default)]
struct Results {
    rows: Rows,
    plots: Vec<Plot>,
}

/// Measures one group.
type Measure = fn(&Session, &mut Results) -> Result<()>;

/// The groups, in the order in which they are measured.
const GROUPS: [(Group, Measure); 7] = [
    (Group::Micro, micro::measure),
    (Group::Wire, wire::measure),
    (Group::Peers, peers::measure),
    (Group::Scale, scale::measure),
    (Group::Service, service::measure),
    (Group::Control, control::measure),
    (Group::Heavy, heavy::measure),
];

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> Result<()> {
    environment::check()?;
    let earlier = cli.options.compare.as_deref().map(read_rows).transpose()?;
    interrupt::install()?;
    lab::sweep()?;
    let busy = environment::load();
    if busy > 0.5 && !cli.options.quick {
        eprintln!("warning: the machine is busy (load {busy:.1}), so the figures will be worse than it is");
    }
    let session = Session {
        quick: cli.options.quick,
        programs: cli.programs.clone(),
        binary: cli.binary.clone(),
    };
    let mut environment = Environment::look(&cli.ebpf_compiler, &session.binary);
    let begun = Instant::now();
    let mut results = Results::default();
    for (group, measure) in GROUPS {
        if !cli.options.wants(group) {
            continue;
        }
        interrupt::check()?;
        let start = Instant::now();
        measure(&session, &mut results).with_context(|| format!("group {}", group.name()))?;
        println!("{}: {} s", group.name(), start.elapsed().as_secs());
    }
    environment.add("load after the run", environment::loads());
    environment.add("length of the run", format!("{} s", begun.elapsed().as_secs()));

    report::print(&results.rows, earlier.as_ref());
    let whole = cli.options.is_whole();
    report::write(
        &results.rows,
        &results.plots,
        &environment,
        whole,
        cli.options.out.as_deref(),
    )?;
    complete(&results.rows, &cli.options)
}

fn read_rows(file: &Path) -> Result<Rows> {
    let text = fs::read_to_string(file).with_context(|| format!("can't read {}", file.display()))?;
    Rows::from_csv(&text).with_context(|| file.display().to_string())
}

/// Fails if a goal could not be judged although its groups were measured: then a row has lost its name.
fn complete(rows: &Rows, options: &Options) -> Result<()> {
    let measured = |name: &str| {
        GROUPS
            .iter()
            .any(|(group, _)| group.name() == name && options.wants(*group))
    };
    for goal in &GOALS {
        let figures = goal
            .figures
            .iter()
            .filter(|figure| !(options.quick && figure.takes_long));
        let mut keys = figures.flat_map(|figure| figure.keys());
        if let Some(lost) = keys.find(|key| measured(key.0) && rows.find(*key).is_none()) {
            bail!("goal {} needs the row {lost:?}, which is missing", goal.number);
        }
    }
    Ok(())
}

/// The root of the source tree.
fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.ancestors().nth(2).unwrap_or(package)
}
