//! bpf-linker, which turns the compiler's bitcode into a BPF object.
//!
//! It has to read that bitcode, so it must be built upon the compiler's own version of LLVM. No LLVM has to be
//! installed for that: rustc brings its own as a shared library, of which bpf-linker needs neither headers nor
//! `llvm-config`. Only where a compiler has LLVM linked into itself do we need a distribution's library.

use std::{
    fs,
    os::unix,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::{Outcome, apt::Apt, toolchain::Toolchain};
use crate::{
    process::{cargo, output, run},
    toolchain_record::ToolchainRecord,
};

const VERSION: &str = "0.13.0";

/// Versions of LLVM that this bpf-linker can be built with.
pub(super) const SUPPORTED_LLVM: std::ops::RangeInclusive<u32> = 21..=23;

pub(super) fn find_or_build(toolchain: &Toolchain, apt: &mut Apt) -> anyhow::Result<(PathBuf, Outcome)> {
    let llvm = toolchain.llvm;
    let cache =
        ToolchainRecord::cache_dir().context("neither XDG_CACHE_HOME nor HOME says where the cache is")?;
    let root = cache.join(format!("bpf-linker-{VERSION}-llvm{llvm}"));
    let binary = root.join("bin/bpf-linker");
    let detail = format!("{VERSION} for LLVM {llvm}: {}", binary.display());
    if works(&binary) {
        return Ok((binary, Outcome::Found(detail)));
    }

    let prefix = llvm_prefix(toolchain, &root, apt)?;
    let feature = format!("llvm-{llvm}");
    let mut install = cargo([
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--quiet",
        "--force",
    ]);
    install
        .args(["--no-default-features", "--features", &feature, "--root"])
        .arg(&root);
    run(install.env("LLVM_PREFIX", prefix))?;
    if !works(&binary) {
        bail!("{} was built but does not start", binary.display());
    }
    Ok((binary, Outcome::Done(detail)))
}

/// A linker whose LLVM went away with an upgraded compiler is there but does not start.
fn works(binary: &Path) -> bool {
    output(Command::new(binary).arg("--version")).is_some()
}

/// A directory with `lib/libLLVM.so` in it, as bpf-linker's build wants it.
fn llvm_prefix(toolchain: &Toolchain, root: &Path, apt: &mut Apt) -> anyhow::Result<PathBuf> {
    if let Some(library) = &toolchain.llvm_library {
        let prefix = root.join("llvm");
        let lib = prefix.join("lib");
        let _ = fs::remove_dir_all(&prefix);
        fs::create_dir_all(&lib).with_context(|| format!("cannot create {}", lib.display()))?;
        // One name for the link editor, the other for the dynamic loader.
        let loaded_as = library.file_name().context("a library has a name")?;
        for name in ["libLLVM.so".as_ref(), loaded_as] {
            unix::fs::symlink(library, lib.join(name))
                .with_context(|| format!("cannot link in {}", lib.display()))?;
        }
        return Ok(prefix);
    }
    let prefix = PathBuf::from(format!("/usr/lib/llvm-{}", toolchain.llvm));
    if !prefix.join("lib/libLLVM.so").exists() {
        apt.install(&[&format!("llvm-{}-dev", toolchain.llvm)])?;
    }
    Ok(prefix)
}
