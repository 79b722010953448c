//! What can be said to `cargo xtask bench`. The task in this package builds and starts the benchmarks; they are a
//! package of their own (`xtask/bench`), because they are built upon the controller, which a bare machine can't build
//! before `cargo xtask setup` has run.

use std::path::PathBuf;

/// A group of measurements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Group {
    /// Nanoseconds of each way through the program (`BPF_PROG_TEST_RUN`)
    Micro,
    /// Packets per second over veth, on one processor and on two
    Wire,
    /// The same traffic against what else could be used
    Peers,
    /// Cost against the number of bans, networks and sources
    Scale,
    /// Calls and registrations served while a flood grows
    Service,
    /// Bans in force, lists loaded, the daemon's own needs
    Control,
    /// Ten flooders among a million spoofed sources
    Heavy,
}

impl Group {
    /// The name on the command line and in the results.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Micro => "micro",
            Self::Wire => "wire",
            Self::Peers => "peers",
            Self::Scale => "scale",
            Self::Service => "service",
            Self::Control => "control",
            Self::Heavy => "heavy",
        }
    }
}

/// Options of the benchmarks.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Few and short rounds: shows that everything works, not how fast it is
    #[arg(long)]
    pub quick: bool,
    /// Measure this group; may be given several times
    #[arg(long, value_enum, value_name = "GROUP")]
    pub only: Vec<Group>,
    /// Write the results to this directory instead of documentation (whole run) or target/bench (any other)
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Show each figure beside that of an earlier run, a `performance.csv`
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Build the controller without optimisation, which is quicker
    #[arg(long, hide = true)]
    pub debug_build: bool,
}

impl Options {
    /// Whether `group` was asked for.
    #[must_use]
    pub fn wants(&self, group: Group) -> bool {
        self.only.is_empty() || self.only.contains(&group)
    }

    /// Whether everything is measured, at full length.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.only.is_empty() && !self.quick
    }
}
