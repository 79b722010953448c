//! Where a run took place: figures without it mean little.

use std::{fs, path::Path, process::Command, thread};

use anyhow::{Result, bail, ensure};
use xtask::lab::command;

/// Names and values, in order.
#[derive(Debug)]
pub(super) struct Environment(Vec<(&'static str, String)>);

impl Environment {
    /// Looks around.
    pub(super) fn look(ebpf_compiler: &str, binary: &Path) -> Self {
        let cpus = thread::available_parallelism().map_or(0, usize::from);
        Self(vec![
            ("date", output("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
            ("commit", commit()),
            (
                "sip-filter",
                output(&binary.display().to_string(), &["--version"]),
            ),
            ("kernel", output("uname", &["-r", "-m"])),
            ("processor", format!("{cpus} × {}", processor())),
            ("mitigations", mitigations()),
            ("BPF JIT", jit()),
            ("rustc", output("rustc", &["--version"])),
            ("eBPF compiler", ebpf_compiler.to_owned()),
            ("nftables", output("nft", &["--version"])),
            ("load before the run", read("/proc/loadavg")),
        ])
    }

    /// Lines of the form `name: value`.
    pub(super) fn lines(&self) -> Vec<String> {
        let line = |(name, value): &(&str, String)| format!("{name}: {value}");
        self.0.iter().map(line).collect()
    }

    /// Adds what became known later.
    pub(super) fn add(&mut self, name: &'static str, value: String) {
        self.0.push((name, value));
    }
}

/// Fails if nothing can be measured here, and says what to do about it.
pub(super) fn check() -> Result<()> {
    ensure!(
        nix::unistd::geteuid().is_root(),
        "network namespaces and BPF programs need root: run `cargo xtask bench` as root"
    );
    let cpus = thread::available_parallelism().map_or(0, usize::from);
    ensure!(cpus >= 2, "one processor against two needs two; here is {cpus}");
    for program in ["ip", "nft", "iptables"] {
        ensure!(
            command::exists(program),
            "`{program}` is missing: run `cargo xtask setup`"
        );
    }
    if read("/proc/sys/net/core/bpf_jit_enable") == "0" {
        bail!(
            "the kernel interprets BPF programs (net.core.bpf_jit_enable is 0), so their cost says nothing: switch it on"
        );
    }
    Ok(())
}

/// The average number of busy processes in the last minute.
pub(super) fn load() -> f64 {
    read("/proc/loadavg")
        .split(' ')
        .next()
        .and_then(|word| word.parse().ok())
        .unwrap_or(0.0)
}

/// The averages of load, as the kernel shows them.
pub(super) fn loads() -> String {
    read("/proc/loadavg")
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// The first line of what a program says; "unknown" if it can't be asked.
fn output(program: &str, args: &[&str]) -> String {
    let text = command::run(program, args).unwrap_or_default();
    text.lines().next().unwrap_or("unknown").trim().to_owned()
}

fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git")
            .args(args)
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .output()
            .ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain", "--untracked-files=no"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} with changes"),
    }
}

fn processor() -> String {
    let text = read("/proc/cpuinfo");
    let field = |name: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(name)?.split_once(": ").map(|(_, value)| value))
    };
    let model = field("model name").unwrap_or("unknown");
    let hypervisor = field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor"));
    let kind = if hypervisor { " (virtual machine)" } else { "" };
    // A comma would end the field for whoever reads the lines as a table.
    format!("{}{kind}", model.replace(',', ";"))
}

fn jit() -> String {
    match read("/proc/sys/net/core/bpf_jit_enable").as_str() {
        // Built in for good, the switch may be hidden.
        "" | "1" => "on".to_owned(),
        other => other.to_owned(),
    }
}

/// What the kernel does about the processor's weaknesses that makes calls dearer.
fn mitigations() -> String {
    ["spectre_v2", "spec_rstack_overflow", "retbleed"]
        .map(|name| {
            let text = read(&format!("/sys/devices/system/cpu/vulnerabilities/{name}"));
            let text = text.split(';').next().unwrap_or_default().to_owned();
            format!("{name}: {}", if text.is_empty() { "unknown" } else { &text })
        })
        .join("; ")
}
