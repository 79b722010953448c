//! Children inside a namespace, with their output kept and their end guaranteed.

use std::{
    fs::{self, File},
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    sys::{
        signal::{Signal, kill, killpg},
        wait::{Id, WaitPidFlag, WaitStatus, waitid},
    },
    unistd::Pid,
};

use super::{Netns, command, wait};

/// How long a child may take to end by itself after SIGTERM.
const GRACE: Duration = Duration::from_secs(2);

/// A running child; ended with all its own children, and reaped, when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    group: Pid,
    log: PathBuf,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command` inside `netns`; what it writes goes to `<name>.log` in `dir`.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(netns: &Netns, name: &str, dir: &Path, mut command: Command) -> Result<Self> {
        let log = dir.join(format!("{name}.log"));
        let output = File::create(&log).with_context(|| format!("can't create {}", log.display()))?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .process_group(0);
        command.env("PATH", command::search_path());
        let child = netns.spawn(&mut command)?;
        let group = Pid::from_raw(child.id().try_into()?);
        Ok(Self {
            name: name.to_owned(),
            child,
            group,
            log,
            status: None,
        })
    }

    /// The name it was started under.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Where that is kept which it writes.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        &self.log
    }

    /// What it wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read(&self.log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Its exit status once it ended.
    ///
    /// # Errors
    /// If the kernel can't tell.
    pub fn status(&mut self) -> Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.child.try_wait()?;
        }
        Ok(self.status)
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// If `limit` passes first or the run is interrupted.
    pub fn wait(&mut self, limit: Duration) -> Result<ExitStatus> {
        wait::until(&format!("end of {}", self.name.clone()), limit, || {
            Ok(self.status()?.is_some())
        })?;
        self.status.context("ended without a status")
    }

    /// Waits until it wrote `needle`.
    ///
    /// # Errors
    /// If it ends or `limit` passes first.
    pub fn wait_for_line(&mut self, needle: &str, limit: Duration) -> Result<()> {
        let what = format!("`{needle}` from {}", self.name);
        wait::until(&what, limit, || {
            let found = self.log().contains(needle);
            if !found {
                self.check()?;
            }
            Ok(found)
        })
    }

    /// Fails if it has ended already, with the end of its log.
    ///
    /// # Errors
    /// If it isn't running.
    pub fn check(&mut self) -> Result<()> {
        if let Some(status) = self.status()? {
            bail!("{} ended ({status}): {}", self.name, tail(&self.log(), 8));
        }
        Ok(())
    }

    /// Sends a signal to it and all its children.
    pub fn signal(&self, signal: Signal) {
        // It may be gone already, which is all we want.
        let _ = killpg(self.group, signal);
    }

    /// Ends it: SIGTERM, then SIGKILL to whatever of its group is left. Returns its status.
    pub fn stop(&mut self) -> ExitStatus {
        if let Some(status) = self.status {
            // Reaped: its number may belong to somebody else by now.
            return status;
        }
        // The leader alone, so that it can end and reap its own children as it does in service.
        let _ = kill(self.group, Signal::SIGTERM);
        let start = Instant::now();
        while start.elapsed() < GRACE && !self.has_ended() {
            thread::sleep(Duration::from_millis(10));
        }
        self.signal(Signal::SIGKILL);
        let status = self
            .child
            .wait()
            .unwrap_or_else(|_| ExitStatus::from_raw(Signal::SIGKILL as i32));
        self.status = Some(status);
        status
    }

    /// Looks without reaping, so that its number still names its group when the rest of it is killed.
    fn has_ended(&self) -> bool {
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG;
        !matches!(waitid(Id::Pid(self.group), flags), Ok(WaitStatus::StillAlive))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The last `lines` lines of a text.
#[must_use]
pub fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all.get(all.len().saturating_sub(lines)..)
        .unwrap_or_default()
        .join("\n")
}
