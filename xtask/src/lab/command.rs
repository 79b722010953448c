//! Short helper commands, run to their end.

use std::{
    env,
    ffi::OsString,
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context as _, Result, bail};

/// Runs `program` to its end and returns what it wrote to standard output.
///
/// It runs in a process group of its own: Ctrl-C on the terminal must not kill the very `ip netns delete` that
/// cleans up after Ctrl-C.
///
/// # Errors
/// If it can't be started or fails; the error carries what it wrote to standard error.
pub fn run(program: &str, args: &[&str]) -> Result<String> {
    finish(program, args, prepare(program, args).output())
}

/// A command in a process group of its own with empty standard input.
#[must_use]
pub fn prepare(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null()).process_group(0);
    command.env("PATH", search_path());
    command
}

/// `PATH` with the administrators' directories, which a root shell may lack; `ip` and `kamailio` are there.
#[must_use]
pub fn search_path() -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from);
    let dirs = env::split_paths(&path).filter(|dir| !more.contains(dir));
    env::join_paths(dirs.chain(more.clone())).unwrap_or(path)
}

/// Whether a program can be found.
#[must_use]
pub fn exists(program: &str) -> bool {
    env::split_paths(&search_path()).any(|dir| dir.join(program).is_file())
}

pub(super) fn finish(program: &str, args: &[&str], output: std::io::Result<Output>) -> Result<String> {
    let output = output.with_context(|| format!("can't start `{program}`"))?;
    if !output.status.success() {
        let stderr = String::from_utf8_lossy(&output.stderr);
        bail!(
            "`{program} {}` failed ({}): {}",
            args.join(" "),
            output.status,
            stderr.trim()
        );
    }
    String::from_utf8(output.stdout).with_context(|| format!("`{program}` wrote something that isn't UTF-8"))
}
