//! A directory for configurations, logs and sockets of one run, and a BPF file system in it.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};
use tempfile::TempDir;

use super::{PREFIX, command, is_orphan};

/// A temporary directory named after this process, removed when dropped.
#[derive(Debug)]
pub struct WorkDir {
    dir: TempDir,
}

impl WorkDir {
    /// Creates the directory for `role`.
    ///
    /// # Errors
    /// If it can't be created.
    pub fn new(role: &str) -> Result<Self> {
        let prefix = format!("{PREFIX}-{}-{role}-", std::process::id());
        let dir = tempfile::Builder::new()
            .prefix(&prefix)
            .tempdir()
            .context("can't create a directory")?;
        // Servers that give up root must still reach their files.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { dir })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a file into it and returns its path.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn write(&self, name: &str, contents: &str) -> Result<PathBuf> {
        let path = self.path().join(name);
        fs::write(&path, contents).with_context(|| format!("can't write {name}"))?;
        Ok(path)
    }

    /// Mounts a BPF file system in it and returns its path.
    ///
    /// Pins made there are nobody else's and all go with the directory, also after a crash.
    ///
    /// # Errors
    /// If it can't be mounted.
    pub fn mount_bpf(&self) -> Result<PathBuf> {
        let path = self.path().join("bpf");
        fs::create_dir(&path)?;
        command::run("mount", &["-t", "bpf", "bpf", path_str(&path)?])?;
        Ok(path)
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

/// Paths handed to other programs are text.
///
/// # Errors
/// If the path isn't UTF-8.
pub fn path_str(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} isn't UTF-8", path.display()))
}

/// Removes the directories of dead runs.
pub(super) fn sweep() -> Result<()> {
    for entry in fs::read_dir(std::env::temp_dir())?.flatten() {
        if entry.file_name().to_str().is_some_and(is_orphan) {
            unmount(&entry.path());
            // Somebody may be sweeping beside us: then it is gone already.
            let _ = fs::remove_dir_all(entry.path());
        }
    }
    Ok(())
}

fn unmount(dir: &Path) {
    let bpf = dir.join("bpf");
    if let Some(bpf) = bpf.to_str().filter(|_| bpf.is_dir()) {
        let _ = command::run("umount", &[bpf]);
    }
}
