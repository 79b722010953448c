//! `cargo xtask test`: every test of the workspace, on a real kernel.

use std::{env, process::Command};

use crate::{
    process::{self, Privilege},
    setup,
};

/// Tests that load programs fail instead of skipping themselves when this is `1`.
const REQUIRE_KERNEL: &str = "SIP_FILTER_REQUIRE_KERNEL";

/// Packages with tests that need root.
const PRIVILEGED: [&str; 2] = ["sip-filter", "xtask"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests with this in their names
    name: Option<String>,

    /// Run all tests even if some fail
    #[arg(long)]
    no_fail_fast: bool,

    /// Passed on to the test binaries, such as `--nocapture`
    #[arg(last = true)]
    test_binary: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run()?;
    let cargo_test = |selection: &[&str]| {
        let mut command = process::cargo(["test"]);
        command
            .args(selection)
            .args(args.no_fail_fast.then_some("--no-fail-fast"));
        command.args(&args.name);
        if !args.test_binary.is_empty() {
            command.arg("--").args(&args.test_binary);
        }
        command
    };
    match Privilege::look() {
        Privilege::Root => process::run(cargo_test(&["--workspace"]).env(REQUIRE_KERNEL, "1")),
        // Only what needs root gets it: cargo and the other tests stay with the user.
        Privilege::Sudo => {
            let mut unprivileged = vec!["--workspace"];
            let mut privileged = Vec::new();
            for package in PRIVILEGED {
                unprivileged.extend(["--exclude", package]);
                privileged.extend(["--package", package]);
            }
            let first = process::run(&mut cargo_test(&unprivileged));
            if first.is_err() && !args.no_fail_fast {
                return first;
            }
            process::run(with_sudo_runner(&mut cargo_test(&privileged))).and(first)
        }
        Privilege::Missing => {
            eprintln!("warning: neither root nor sudo, so the tests that need a kernel will skip themselves");
            process::run(&mut cargo_test(&["--workspace"]))
        }
    }
}

/// Has cargo start each test binary through sudo.
pub(crate) fn with_sudo_runner(command: &mut Command) -> &mut Command {
    let host = format!(
        "{}-unknown-linux-{}",
        env::consts::ARCH,
        if cfg!(target_env = "musl") { "musl" } else { "gnu" }
    );
    let variable = format!("CARGO_TARGET_{}_RUNNER", host.to_uppercase().replace('-', "_"));
    command
        .env(REQUIRE_KERNEL, "1")
        .env(variable, "sudo --preserve-env")
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
    fn arguments_after_two_dashes_are_the_test_binaries() {
        let Cli { args } = Cli::parse_from(["test", "--no-fail-fast", "name", "--", "--nocapture"]);
        assert!(args.no_fail_fast);
        assert_eq!(args.name.as_deref(), Some("name"));
        assert_eq!(args.test_binary, ["--nocapture"]);
    }
}
