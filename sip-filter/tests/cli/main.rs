//! The built binary, as a shell or a cron job runs it.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod capture;
#[path = "../support/mod.rs"]
mod support;
mod verbs;
mod without_daemon;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// What a run of the binary left.
struct Ran {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// Runs `sip-filter` against `socket` with `input` on standard input.
fn sip_filter_with(socket: &Path, arguments: &[&str], input: &str) -> Ran {
    let mut child = Command::new(env!("CARGO_BIN_EXE_sip-filter"))
        .arg("--socket")
        .arg(socket)
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // A program that ends without reading its input closes the pipe.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    let output = child.wait_with_output().unwrap();
    Ran {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn sip_filter(socket: &Path, arguments: &[&str]) -> Ran {
    sip_filter_with(socket, arguments, "")
}

/// The binary where other users may run it: the build directory may be closed to them.
fn binary_for_others(directory: &Path) -> PathBuf {
    let binary = directory.join("sip-filter");
    // Not std::fs::copy: a child another test starts meanwhile would inherit the open file, and a file open for
    // writing cannot be run.
    let copied = Command::new("cp")
        .arg(env!("CARGO_BIN_EXE_sip-filter"))
        .arg(&binary)
        .status()
        .unwrap();
    assert!(copied.success());
    binary
}
