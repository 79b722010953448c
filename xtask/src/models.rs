//! `cargo xtask miri` and `cargo xtask loom`: the code that other CPUs and the kernel share, under a machine that knows
//! the language's rules, and under every order of its steps.

use std::{env, process::Command};

use crate::{
    nightly,
    process::{cargo, run, workspace},
};

/// The tests of what is shared with the kernel and other CPUs, and of the one place that writes through a pointer. All
/// else in the crate is safe code that keeps to itself.
const SHARED: [&str; 3] = ["table::", "packet::", "a_copy_is"];

#[derive(clap::Args)]
pub(crate) struct MiriArgs {
    /// Run the tests with one of these in their names; "" runs all of the crate, for many minutes
    #[arg(default_values = SHARED)]
    names: Vec<String>,
}

/// Undefined behaviour in `sip-filter-common`: Miri interprets its tests. Those with many rounds do fewer there.
pub(crate) fn miri(args: &MiriArgs) -> anyhow::Result<()> {
    let toolchain = nightly::with(&["miri", "rust-src"])?;
    let mut command = Command::new("rustup");
    command
        .current_dir(workspace())
        .args(["run", &toolchain, "cargo"])
        .args([
            "miri",
            "test",
            "--locked",
            "--package",
            "sip-filter-common",
            "--lib",
            "--test",
            "copy",
            "--",
        ])
        .args(&args.names)
        // cargo of the stable toolchain runs us, and says so to its children.
        .env_remove("CARGO")
        .env_remove("RUSTC")
        .env("CARGO_TARGET_DIR", workspace().join("target/miri"))
        .env("CARGO_INCREMENTAL", "0")
        // Tests read the clock to bound their own time.
        .env("MIRIFLAGS", "-Zmiri-disable-isolation");
    run(&mut command)
}

#[derive(clap::Args)]
pub(crate) struct LoomArgs {
    /// Forced switches between threads, at most; more take much longer [default: 2 or 3, by the model]
    #[arg(long)]
    preemptions: Option<usize>,

    /// Run only models with this in their names
    name: Option<String>,
}

/// The protocol of the flat tables: loom runs readers and writers in every order.
pub(crate) fn loom(args: &LoomArgs) -> anyhow::Result<()> {
    let flags = format!("{} --cfg loom", env::var("RUSTFLAGS").unwrap_or_default());
    let mut command = cargo([
        "test",
        "--release",
        "--locked",
        "--package",
        "sip-filter-common",
        "--test",
        "loom",
    ]);
    command
        .args(&args.name)
        .env("RUSTFLAGS", flags.trim())
        .env("CARGO_TARGET_DIR", workspace().join("target/loom"))
        .env("CARGO_INCREMENTAL", "0");
    if let Some(preemptions) = args.preemptions {
        command.env("LOOM_MAX_PREEMPTIONS", preemptions.to_string());
    }
    run(&mut command)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// A name that no test has would have Miri run nothing, and pass.
    #[test]
    fn what_miri_runs_is_there() {
        let package = workspace().join("sip-filter-common");
        let has = |file: &str, text: &str| fs::read_to_string(package.join(file)).unwrap().contains(text);
        assert!(has("src/lib.rs", "mod table;") && has("src/table/ban/tests.rs", "#[test]"));
        assert!(has("src/lib.rs", "mod packet;") && has("src/packet/usual.rs", "#[test]"));
        assert!(has("tests/copy.rs", "fn a_copy_is"));
        assert_eq!(SHARED, ["table::", "packet::", "a_copy_is"]);
    }
}
