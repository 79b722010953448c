//! The archive for systems without dpkg, and the checksums of everything.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::Release;
use crate::process::{output, run, workspace};

/// Makes the archive and returns its path. Order, owners and times are fixed.
pub(super) fn build(release: &Release, tree: &Path) -> anyhow::Result<PathBuf> {
    for file in ["packaging/INSTALL.md", "LICENSE-MIT", "LICENSE-APACHE"] {
        let from = workspace().join(file);
        let name = from.file_name().context("a path of a file")?;
        fs::copy(&from, tree.join(name)).with_context(|| format!("cannot copy {file}"))?;
    }
    let archive = release.out.join(format!("{}.tar.xz", release.name()));
    run(Command::new("tar")
        .args([
            "--sort=name",
            "--owner=0",
            "--group=0",
            "--numeric-owner",
            "--format=gnu",
        ])
        .args(["--mode=u+rw,go+r-w,a+X", "--xz"])
        .env("XZ_OPT", format!("-{}", release.compression))
        .arg(format!("--mtime=@{}", release.epoch))
        .arg("--directory")
        .arg(&release.out)
        .arg("--create")
        .arg("--file")
        .arg(&archive)
        .arg(release.name()))?;
    Ok(archive)
}

/// Writes `SHA256SUMS`, for `sha256sum --check`.
pub(super) fn checksums(release: &Release, files: &[&Path]) -> anyhow::Result<PathBuf> {
    let names: Vec<_> = files.iter().filter_map(|file| file.file_name()).collect();
    let sums = output(Command::new("sha256sum").current_dir(&release.out).args(names))
        .context("`sha256sum` failed")?;
    let path = release.out.join("SHA256SUMS");
    fs::write(&path, sums)?;
    Ok(path)
}
