//! The kernel program on its own, with the toolchain that set-up recorded.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    process::{run, workspace},
    toolchain_record::ToolchainRecord,
};

const PACKAGE: &str = "sip-filter-ebpf";
/// Feature under which the programs of the benchmarks are built.
pub(crate) const BENCHMARKS: &str = "bench";
const TARGET: &str = "bpfel-unknown-none";

/// `cargo VERB` on the kernel program, for the BPF target.
pub(crate) fn cargo(verb: &str) -> anyhow::Result<Command> {
    cargo_in(verb, workspace(), &target_dir())
}

/// The same on the sources in `tree`, with everything that is built under `target`.
pub(crate) fn cargo_in(verb: &str, tree: &Path, target: &Path) -> anyhow::Result<Command> {
    let record =
        ToolchainRecord::load().context("the eBPF toolchain is not set up: run `cargo xtask setup`")?;
    let mut command = if record.toolchain.is_empty() {
        Command::new("cargo")
    } else {
        let mut rustup = Command::new("rustup");
        rustup.args(["run", &record.toolchain, "cargo"]);
        rustup
    };
    // Flags and build directory are those of sip-filter's build script, so that nothing is compiled twice.
    let arch_flag = format!("--cfg=bpf_target_arch=\"{}\"", env::consts::ARCH);
    command
        .current_dir(tree)
        .args([
            verb,
            "--package",
            PACKAGE,
            "--bins",
            "--release",
            "--target",
            TARGET,
            "-Z",
            "build-std=core",
        ])
        .arg("--target-dir")
        .arg(target)
        .envs(record.build_env())
        .env("CARGO_BUILD_BUILD_DIR", target.join("ebpf"))
        .env(
            "CARGO_ENCODED_RUSTFLAGS",
            [&arch_flag, "-Cdebuginfo=2", "-Clink-arg=--btf"].join("\x1f"),
        )
        .env_remove("RUSTC")
        .env_remove("CARGO");
    Ok(command)
}

/// `cargo xtask build-ebpf`
pub(crate) fn build() -> anyhow::Result<()> {
    run(&mut cargo("build")?)?;
    println!("{}", built_in(&target_dir()).display());
    Ok(())
}

/// Builds the programs that only benchmarks load, and returns the object with them.
pub(crate) fn build_benchmarks() -> anyhow::Result<PathBuf> {
    run(cargo("build")?.args(["--features", BENCHMARKS]))?;
    Ok(built("sip-filter-ebpf-bench"))
}

fn built(binary: &str) -> PathBuf {
    target_dir().join(TARGET).join("release").join(binary)
}

/// The kernel program that a build left under `target`.
pub(crate) fn built_in(target: &Path) -> PathBuf {
    target.join(TARGET).join("release").join(PACKAGE)
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    workspace().join(env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}
