//! `cargo xtask bench`: builds the benchmarks and what they compare, and starts them.
//!
//! They are a package of their own, see [`xtask::bench`].

use std::{env, path::PathBuf};

use anyhow::{Context as _, Result};
use xtask::bench::Options;

use crate::{
    demo, ebpf,
    process::{cargo, run},
    setup,
    toolchain_record::ToolchainRecord,
};

/// Builds and runs.
///
/// # Errors
/// If something doesn't build, or can't be measured.
pub(crate) fn start(options: &Options) -> Result<()> {
    if ToolchainRecord::load().is_none() {
        setup::run()?;
    }
    let record =
        ToolchainRecord::load().context("the eBPF toolchain is not set up: run `cargo xtask setup`")?;
    let programs = ebpf::build_benchmarks()?;
    let profile = if options.debug_build { "dev" } else { "release" };
    let binary = demo::filter::build(profile)?;
    let mut command = cargo([
        "run",
        "--quiet",
        "--package",
        "sip-filter-bench",
        "--profile",
        profile,
        "--",
    ]);
    command
        .args(["--ebpf-compiler", record.rustc.as_str()])
        .args([PathBuf::from("--programs"), programs])
        .args([PathBuf::from("--binary"), binary])
        // They have been parsed here, and are parsed there by the same code.
        .args(env::args_os().skip_while(|arg| arg != "bench").skip(1));
    run(&mut command)
}
