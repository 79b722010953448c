//! `cargo xtask faults`: processes killed, tables full, disks and clocks gone wrong, with traffic running; as long as one
//! likes. `cargo xtask test` runs the same tests with small counts.

use crate::{
    process::{self, Privilege},
    setup,
};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// How often the daemon is killed, at random moments spread over what it does
    #[arg(long)]
    kills: Option<u32>,

    /// Seed of the random moments, as an earlier run printed it
    #[arg(long)]
    seed: Option<u64>,

    /// How many events go through the daemon
    #[arg(long)]
    events: Option<u64>,

    /// How many packets are sent while their counters are watched
    #[arg(long)]
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

    fn filter(&self) -> String {
        format!("faults::{}", self.only.as_deref().unwrap_or_default())
    }
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run()?;
    anyhow::ensure!(
        Privilege::look() == Privilege::Root,
        "the faults need root: they kill daemons on interfaces of their own; run `sudo cargo xtask faults`"
    );
    let mut command = process::cargo(["test", "--package", "sip-filter", "--test", "live"]);
    command
        .args(args.release.then_some("--release"))
        .arg(args.filter())
        // One after the other, so that what a test measures is its own.
        .args(["--", "--nocapture", "--test-threads=1"])
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
        assert_eq!(args.filter(), "faults::kills");
        let Cli { args } = Cli::parse_from(["faults"]);
        assert!(args.variables().is_empty());
        assert_eq!(args.filter(), "faults::");
    }
}
