//! `cargo xtask setup`: find, or else install, all that building and testing need.
//!
//! It looks and never asks; each item takes one line that says what was found or done. What is already there
//! is left alone, so a second run changes nothing and takes no time.

mod apt;
mod bpffs;
mod linker;
mod packages;
mod toolchain;

use std::{fmt, fs};

use anyhow::{Context as _, bail};

use crate::{process::Privilege, toolchain_record::ToolchainRecord};
use apt::Apt;

/// How an item came to be there, with the one line that says so.
enum Outcome {
    /// It was there already.
    Found(String),
    /// It is there now.
    Done(String),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Found(detail) => write!(f, "found    {detail}"),
            Self::Done(detail) => write!(f, "done     {detail}"),
        }
    }
}

/// `cargo xtask setup`
pub(crate) fn run() -> anyhow::Result<()> {
    let privilege = Privilege::look();
    let mut apt = Apt::look(privilege);
    let mut missing = 0;
    let mut report = |item: &str, result: anyhow::Result<Outcome>| match result {
        Ok(outcome) => println!("{item:<14} {outcome}"),
        Err(error) => {
            missing += 1;
            println!("{item:<14} MISSING  {error:#}");
        }
    };

    match toolchain::find_or_install(&mut apt) {
        Ok((toolchain, outcome)) => {
            report("eBPF compiler", Ok(outcome));
            match linker::find_or_build(&toolchain, &mut apt) {
                Ok((linker, outcome)) => {
                    report("bpf-linker", Ok(outcome));
                    report("build record", record(&toolchain.record(linker)));
                }
                Err(error) => report("bpf-linker", Err(error)),
            }
        }
        Err(error) => report("eBPF compiler", Err(error)),
    }
    report("bpffs", bpffs::find_or_mount(privilege));
    report("lab programs", packages::find_or_install(&mut apt));

    if missing > 0 {
        bail!(
            "set-up is incomplete: {missing} item(s) missing, see above; then run `cargo xtask setup` again"
        );
    }
    Ok(())
}

/// Installs packages that one task alone needs; nothing to do if there are none.
pub(crate) fn install(packages: &[&str]) -> anyhow::Result<()> {
    if packages.is_empty() {
        return Ok(());
    }
    Apt::look(Privilege::look()).install(packages)
}

/// Leaves the choice where sip-filter's build script looks for it.
fn record(record: &ToolchainRecord) -> anyhow::Result<Outcome> {
    let path = ToolchainRecord::path().context("neither XDG_CACHE_HOME nor HOME says where the cache is")?;
    let detail = path.display().to_string();
    if ToolchainRecord::load().as_ref() == Some(record) {
        return Ok(Outcome::Found(detail));
    }
    let new = path.with_extension("new");
    fs::write(&new, record.to_string())
        .and_then(|()| fs::rename(&new, &path))
        .with_context(|| format!("cannot write {}", path.display()))?;
    Ok(Outcome::Done(detail))
}
