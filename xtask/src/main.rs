//! Tasks of the project: `cargo xtask --help`.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a task runner talks to whoever started it"
)]

mod benchmarks;
mod captures;
mod ci_checks;
mod coverage;
mod demo;
mod dist;
mod ebpf;
mod eval;
mod faults;
mod fuzz;
mod fuzz_targets;
mod kernels;
mod mixin;
mod models;
mod nightly;
mod pictures;
mod process;
mod reproducible;
mod setup;
mod soak;
mod test;
mod tidy;
mod tool;
mod toolchain_record;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    about = "Tasks of sip-filter",
    version
)]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

/// A new task is one line here and one in [`Task::run`].
#[derive(Subcommand)]
enum Task {
    /// Find or install all that building and testing need; quick when everything is there
    Setup,
    /// Build the kernel program alone and say where it lies
    BuildEbpf,
    /// Run all tests, those that load programs into the kernel included
    Test(test::Args),
    /// Formatting, lints on host and BPF, documentation, dependencies, house rules
    CiChecks,
    /// Render alerts, recording rules and dashboard from packaging/prometheus
    Mixin(mixin::Args),
    /// Draw what each panel of the dashboard shows, from a real run of three minutes (root)
    DashboardPictures(pictures::Args),
    /// The house rules alone
    Tidy,
    /// Record the captures under sip-filter/tests/captures anew (root)
    Captures,
    /// Show the filter at work: real attackers, a real server, real phones, one verdict (root)
    Demo(demo::Args),
    /// Judge the filter, and what operators use today, by scripted attackers and customers (root)
    Eval(eval::Args),
    /// Measure the filter beside what else could be used (root)
    Bench(xtask::bench::Options),
    /// Kill, fill, unmount and unplug with traffic running, as often as asked (root)
    Faults(faults::Args),
    /// Try the filter on other kernels, in virtual machines (root)
    Kernels(kernels::Args),
    /// Random packets and tables through host and kernel: do they decide alike? (root)
    Fuzz(fuzz::Args),
    /// Have libFuzzer look for inputs that break a parser (nightly compiler)
    FuzzTargets(fuzz_targets::Args),
    /// Run the tests of sip-filter-common in Miri (nightly compiler)
    Miri(models::MiriArgs),
    /// Run readers and writers of the flat tables in every order
    Loom(models::LoomArgs),
    /// Known vulnerabilities of dependencies, by RustSec's database (needs the network)
    Advisories,
    /// Which lines of the program all tests together run (root; long)
    Coverage(coverage::Args),
    /// Build the kernel program in two places and compare the bytes
    Reproducible(reproducible::Args),
    /// Run the daemon for long under mixed traffic and see that nothing grows and nobody is hurt (root)
    Soak(soak::Args),
    /// Make the Debian package and the archive
    Dist(dist::Args),
}

impl Task {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Setup => setup::run(),
            Self::BuildEbpf => ebpf::build(),
            Self::Test(args) => test::run(&args),
            Self::CiChecks => ci_checks::run_all(),
            Self::Mixin(args) => mixin::run_task(&args),
            Self::DashboardPictures(args) => pictures::run(&args),
            Self::Tidy => tidy::run(),
            Self::Captures => captures::run(),
            Self::Demo(args) => demo::run(&args),
            Self::Eval(args) => eval::run(&args),
            Self::Bench(options) => benchmarks::start(&options),
            Self::Faults(args) => faults::run(&args),
            Self::Kernels(args) => kernels::run(&args),
            Self::Fuzz(args) => fuzz::run(&args),
            Self::FuzzTargets(args) => fuzz_targets::run_task(&args),
            Self::Miri(args) => models::miri(&args),
            Self::Loom(args) => models::loom(&args),
            Self::Advisories => ci_checks::advisories(),
            Self::Coverage(args) => coverage::run_task(&args),
            Self::Reproducible(args) => reproducible::run_task(&args),
            Self::Soak(args) => soak::run(&args),
            Self::Dist(args) => dist::run_task(&args),
        }
    }
}

fn main() -> ExitCode {
    match Cli::parse().task.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
