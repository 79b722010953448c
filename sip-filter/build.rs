//! Builds the kernel program for the BPF target and leaves it in `OUT_DIR` for the data plane to embed.
//!
//! Which compiler and linker do that was decided by `cargo xtask setup`; nothing is chosen here.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

#[path = "../xtask/src/toolchain_record.rs"]
mod toolchain_record;
use toolchain_record::ToolchainRecord;

fn main() {
    // `cargo::error` is shown as one plain line; a panic or an exit code would bury it in the script's output.
    if let Err(error) = build() {
        println!("cargo::error={}", format!("{error:#}").replace('\n', " "));
    }
}

fn build() -> anyhow::Result<()> {
    let manifest_dir =
        PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").context("cargo sets CARGO_MANIFEST_DIR")?);
    let workspace = manifest_dir
        .parent()
        .context("sip-filter lies inside a workspace")?;
    let ebpf = workspace.join("sip-filter-ebpf");
    let ebpf = ebpf
        .to_str()
        .context("the path of the source tree must be UTF-8")?;

    // The crate of the kernel program itself is watched by aya-build; profile and lock file shape it as well.
    for input in [
        "sip-filter-common/src",
        "sip-filter-common/Cargo.toml",
        "Cargo.toml",
        "Cargo.lock",
    ] {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=XDG_CACHE_HOME");
    if let Some(record) = ToolchainRecord::path() {
        println!("cargo::rerun-if-changed={}", record.display());
    }

    let record = ToolchainRecord::load()
        .filter(|record| record.linker.is_file())
        .context("the eBPF toolchain is not set up: run `cargo xtask setup` once, then build again")?;

    let mut vars = record.build_env();
    vars.push(("CARGO_BUILD_BUILD_DIR", shared_build_dir()?.into()));
    // aya-build turns each line of the inner cargo into a warning. Its diagnostics arrive another way.
    vars.push(("CARGO_TERM_QUIET", "true".into()));
    for (name, value) in vars {
        // SAFETY: this process has only this thread so far.
        unsafe { env::set_var(name, value) };
    }
    // cargo sets it for this script alone; aya's own build scripts would take its coming and going for a change.
    // SAFETY: as above.
    unsafe { env::remove_var("HOST") };

    aya_build::build_ebpf(
        [Package {
            name: "sip-filter-ebpf",
            root_dir: ebpf,
            ..Package::default()
        }],
        Toolchain::Custom(&record.toolchain),
    )
    .context(
        "building the kernel program failed (if its toolchain changed, `cargo xtask setup` finds it again)",
    )
}

/// One place for the intermediate files of the eBPF build, whatever profile the outer build has: `core` is then
/// compiled once and not once for each of them.
fn shared_build_dir() -> anyhow::Result<PathBuf> {
    let out_dir = PathBuf::from(env::var_os("OUT_DIR").context("cargo sets OUT_DIR")?);
    // TARGET/PROFILE/build/PACKAGE-HASH/out
    let target = out_dir.ancestors().nth(4).map(Path::to_owned);
    Ok(target
        .context("OUT_DIR lies inside a target directory")?
        .join("ebpf"))
}
