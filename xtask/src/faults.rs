//! `cargo xtask faults`: processes killed, tables full, disks and clocks gone wrong, with traffic running; as long as one
//! likes. `cargo xtask test` runs the same tests with small counts.

use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::{
    process::{self, Privilege},
    setup,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the daemon is killed, at random moments spread over what it does
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    kills: Option<u32>,

    /// Seed of the random moments, as an earlier run printed it
    #[arg(long)]
    seed: Option<u64>,

    /// How many events go through the daemon
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    events: Option<u64>,

    /// How many packets are sent while their counters are watched
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    packets: Option<u64>,

    /// Only the tests with this in their names, such as `kills` or `store`
    #[arg(long, value_name = "NAME")]
    only: Option<String>,

    /// Of the daemon as it is delivered: for very many events or packets
    #[arg(long)]
    release: bool,
}

impl Args {
    /// What the tests are told, by the environment; what is not given stays at the tests' own small count.
    fn variables(&self) -> Vec<(&'static str, String)> {
        let counts = [
            ("SIP_FILTER_FAULT_KILLS", self.kills.map(u64::from)),
            ("SIP_FILTER_FAULT_SEED", self.seed),
            ("SIP_FILTER_FAULT_EVENTS", self.events),
            ("SIP_FILTER_FAULT_PACKETS", self.packets),
        ];
        let given = counts
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, value.to_string())));
        given.collect()
    }

    /// Those of the tests that are wanted, by their full names.
    ///
    /// # Errors
    /// If there is none: to run nothing would pass.
    fn chosen(&self, list: &str) -> anyhow::Result<Vec<String>> {
        let all = list.lines().filter_map(|line| line.strip_suffix(": test"));
        let all = all.filter(|name| name.starts_with(FAULTS));
        let wanted = self.only.as_deref().unwrap_or_default();
        let chosen: Vec<_> = all
            .filter(|name| name.contains(wanted))
            .map(str::to_owned)
            .collect();
        anyhow::ensure!(!chosen.is_empty(), "no test of faults has `{wanted}` in its name");
        Ok(chosen)
    }

    /// cargo with the tests of this build, before what is for the tests themselves.
    fn tests(&self) -> Command {
        let mut command = process::cargo(["test", "--package", "sip-filter", "--test", "live"]);
        command.args(self.release.then_some("--release")).arg("--");
        command
    }
}

/// How the names of all of them begin.
const FAULTS: &str = "faults::";

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run()?;
    anyhow::ensure!(
        Privilege::look() == Privilege::Root,
        "the faults need root: they kill daemons on interfaces of their own; run `sudo cargo xtask faults`"
    );
    let mut list = args.tests();
    list.args(["--list", FAULTS]).stderr(Stdio::inherit());
    let list = process::output(&mut list).context("the tests can't be built or listed")?;
    let mut command = args.tests();
    command
        // One after the other, so that what a test measures is its own.
        .args(["--nocapture", "--test-threads=1", "--exact"])
        .args(args.chosen(&list)?)
        .env("SIP_FILTER_REQUIRE_KERNEL", "1")
        .envs(args.variables());
    process::run(&mut command)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn only_what_is_given_is_told_to_the_tests() {
        let Cli { args } = Cli::parse_from(["faults", "--kills", "200", "--only", "kills"]);
        assert_eq!(args.variables(), [("SIP_FILTER_FAULT_KILLS", "200".to_owned())]);
        let Cli { args } = Cli::parse_from(["faults"]);
        assert!(args.variables().is_empty());
    }

    /// A name in the middle is one, too, and one that no test has is a mistake: to run nothing would pass.
    #[test]
    fn tests_are_chosen_by_any_part_of_their_names() {
        let list = "faults::events::millions_of_events: test\nfaults::kills::killed: test\nstart::kills: test\n\n3 \
                    tests, 0 benchmarks\n";
        let chosen = |only: &str| {
            let Cli { args } = Cli::parse_from(["faults", "--only", only]);
            args.chosen(list)
        };
        assert_eq!(
            chosen("millions").unwrap(),
            ["faults::events::millions_of_events"]
        );
        assert_eq!(chosen("kills").unwrap(), ["faults::kills::killed"]);
        let error = chosen("milions").unwrap_err().to_string();
        assert_eq!(error, "no test of faults has `milions` in its name");
        let Cli { args } = Cli::parse_from(["faults"]);
        assert_eq!(args.chosen(list).unwrap().len(), 2);
    }
}
