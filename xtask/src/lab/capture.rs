//! tcpdump at a network interface: what it saw, as a file.

use std::{
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};

use super::{Netns, Process, WorkDir, workdir::path_str};

/// Room for packets that tcpdump has yet to write, in KiB.
const BUFFER: &str = "16384";

/// A capture being taken.
#[derive(Debug)]
pub struct Tcpdump {
    process: Process,
    file: PathBuf,
}

impl Tcpdump {
    /// Begins to write the packets of `interface` that `filter` selects, in both directions, to `file`.
    ///
    /// # Errors
    /// If tcpdump can't be started or doesn't listen in time.
    pub fn start(netns: &Netns, dir: &WorkDir, interface: &str, file: &Path, filter: &str) -> Result<Self> {
        let mut command = Command::new("tcpdump");
        // As root: by default it would give up its rights and then couldn't write here.
        command.args([
            "--relinquish-privileges=root",
            "--nano",
            "-n",
            "-B",
            BUFFER,
            "-i",
            interface,
            "-w",
            path_str(file)?,
        ]);
        if !filter.is_empty() {
            command.arg(filter);
        }
        let mut process = Process::spawn(netns, "tcpdump", dir.path(), command)?;
        process.wait_for_line("listening on", Duration::from_secs(10))?;
        Ok(Self {
            process,
            file: file.to_owned(),
        })
    }

    /// Ends it; returns the file and what tcpdump said of it.
    ///
    /// # Errors
    /// If packets are missing in it.
    pub fn finish(mut self) -> Result<(PathBuf, String)> {
        // It gets what the kernel gathered once a second.
        thread::sleep(Duration::from_millis(1_300));
        self.process.stop();
        let log = self.process.log();
        let lost = log.lines().find_map(|line| {
            line.strip_suffix(" dropped by kernel")?
                .split(' ')
                .next()?
                .parse()
                .ok()
        });
        let lost: u64 = lost.with_context(|| format!("tcpdump doesn't tell what it missed: {log}"))?;
        ensure!(lost == 0, "tcpdump missed {lost} packets");
        Ok((self.file, log))
    }
}
