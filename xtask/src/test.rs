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
    /// Passed on to `cargo test`, such as a test's name
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    cargo_test: Vec<String>,
}

pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    setup::run()?;
    let cargo_test = |selection: &[&str]| {
        let mut command = process::cargo(["test"]);
        command.args(selection).args(&args.cargo_test);
        command
    };
    match Privilege::look() {
        Privilege::Root => {
            process::run(cargo_test(&["--workspace"]).env(REQUIRE_KERNEL, "1"))?;
        }
        // Only what needs root gets it: cargo and the other tests stay with the user.
        Privilege::Sudo => {
            let mut unprivileged = vec!["--workspace"];
            let mut privileged = Vec::new();
            for package in PRIVILEGED {
                unprivileged.extend(["--exclude", package]);
                privileged.extend(["--package", package]);
            }
            process::run(&mut cargo_test(&unprivileged))?;
            process::run(with_sudo_runner(&mut cargo_test(&privileged)))?;
        }
        Privilege::Missing => {
            eprintln!("warning: neither root nor sudo, so the tests that need a kernel will skip themselves");
            process::run(&mut cargo_test(&["--workspace"]))?;
        }
    }
    Ok(())
}

/// Has cargo start each test binary through sudo.
fn with_sudo_runner(command: &mut Command) -> &mut Command {
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
