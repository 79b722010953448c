//! Programs from crates.io that a task needs: built once, and kept outside the source tree.

use std::{path::PathBuf, process::Command};

use anyhow::{Context as _, Result};

use crate::{
    process::{cargo, output, run},
    toolchain_record::ToolchainRecord,
};

/// A program of exactly one version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    /// The package, and the program in it.
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    /// What it answers if it works.
    pub(crate) probe: &'static [&'static str],
}

impl Tool {
    /// Where it is; builds it on first use.
    ///
    /// # Errors
    /// If it can't be built, or nothing says where the cache is.
    pub(crate) fn binary(self) -> Result<PathBuf> {
        let Self { name, version, probe } = self;
        let cache = ToolchainRecord::cache_dir()
            .context("neither XDG_CACHE_HOME nor HOME says where the cache is")?;
        let root = cache.join(format!("{name}-{version}"));
        let binary = root.join("bin").join(name);
        if output(Command::new(&binary).args(probe)).is_none() {
            let mut install = cargo([
                "install",
                name,
                "--version",
                version,
                "--locked",
                "--quiet",
                "--force",
            ]);
            run(install.arg("--root").arg(&root))?;
        }
        Ok(binary)
    }
}
