//! `cargo xtask ci-checks`: everything but the tests. All checks run, so that one look at the end shows all
//! that is to be mended.

use std::process::Command;

use anyhow::bail;

use crate::{
    ebpf, mixin,
    process::{cargo, run, workspace},
    tidy,
    tool::Tool,
};

const CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    probe: &["--version"],
};

type Check = fn() -> anyhow::Result<()>;

/// `cargo xtask ci-checks`
pub(crate) fn run_all() -> anyhow::Result<()> {
    let checks: [(&str, Check); 7] = [
        ("house rules", tidy::run),
        ("formatting", formatting),
        ("lints on the host", host_lints),
        ("lints on BPF", bpf_lints),
        ("documentation", documentation),
        ("alerts and dashboard", mixin::check),
        ("dependencies", dependencies),
    ];
    let mut failed = Vec::new();
    for (name, check) in checks {
        if let Err(error) = check() {
            eprintln!("error: {name}: {error:#}");
            failed.push(name);
        }
    }
    if !failed.is_empty() {
        bail!("failed: {}", failed.join(", "));
    }
    println!("all checks passed");
    Ok(())
}

fn formatting() -> anyhow::Result<()> {
    run(&mut cargo(["fmt", "--all", "--check"]))
}

fn host_lints() -> anyhow::Result<()> {
    run(&mut cargo([
        "clippy",
        "--workspace",
        "--all-targets",
        "--locked",
        "--",
        "-D",
        "warnings",
    ]))
}

/// The kernel program has an empty `main` on the host; only here does anybody look at the real one, and at the
/// programs of the benchmarks.
fn bpf_lints() -> anyhow::Result<()> {
    run(ebpf::cargo("clippy")?.args(["--features", ebpf::BENCHMARKS, "--", "-D", "warnings"]))
}

fn documentation() -> anyhow::Result<()> {
    let args = [
        "doc",
        "--workspace",
        "--no-deps",
        "--document-private-items",
        "--locked",
    ];
    run(cargo(args).env("RUSTDOCFLAGS", "-D warnings"))
}

/// `cargo xtask advisories`: known vulnerabilities of dependencies, and those that were withdrawn. They change from day to
/// day, so that a tree that was good may not be so tomorrow; and their database is not within reach of every CI.
pub(crate) fn advisories() -> anyhow::Result<()> {
    let args = ["--workspace", "check", "--hide-inclusion-graph", "advisories"];
    run(Command::new(CARGO_DENY.binary()?)
        .current_dir(workspace())
        .args(args))
}

/// Licences, duplicates and origin of dependencies. Advisories are asked for by [`advisories`].
fn dependencies() -> anyhow::Result<()> {
    let deny = CARGO_DENY.binary()?;
    // cargo-deny looks at the dependencies of every platform; a build has fetched only those of ours.
    run(&mut cargo(["fetch", "--locked"]))?;
    let args = [
        "--offline",
        "--workspace",
        "check",
        "--hide-inclusion-graph",
        "bans",
        "licenses",
        "sources",
    ];
    run(Command::new(deny).current_dir(workspace()).args(args))
}
