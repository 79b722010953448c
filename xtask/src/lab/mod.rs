//! A SIP network in a box: network namespaces, real servers, phones and attackers.
//!
//! Everything here is made by this process, named after it (`sipf-<pid>-…`) and removed when its owner is
//! dropped. Whatever a killed run left behind is removed by [`sweep`], which every run should call first.
//!
//! Traffic stays inside the namespaces made here, and every generator is bounded in count and in time.

pub mod capture;
pub mod client;
pub mod command;
pub mod counters;
pub mod decisions;
pub mod digest;
pub mod fail2ban;
pub mod frames;
pub mod interrupt;
pub mod kamailio;
pub mod kernel_table;
mod message;
pub mod netns;
pub mod offload;
pub mod process;
pub mod scanners;
pub mod sipp;
pub mod site;
pub mod spoof;
pub mod topology;
pub mod traffic;
pub mod usage;
pub mod wait;
pub mod wire;
pub mod workdir;

use anyhow::Result;

pub use counters::SourceCounters;
pub use kamailio::{Kamailio, KamailioConfig};
pub use netns::Netns;
pub use process::Process;
pub use site::Site;
pub use topology::Topology;
pub use workdir::WorkDir;

/// What every name of a namespace or directory made here starts with; the process id follows.
pub const PREFIX: &str = "sipf";

/// Removes what runs of dead processes left behind: namespaces with the processes in them, and directories.
///
/// # Errors
/// If the namespaces can't be listed. A leftover that resists is left alone.
pub fn sweep() -> Result<()> {
    netns::sweep()?;
    workdir::sweep()
}

/// Set to `1` where tests that need a real kernel and real programs must fail rather than skip themselves.
pub const REQUIRE_KERNEL: &str = "SIP_FILTER_REQUIRE_KERNEL";

/// Whether the lab can be used here: by root, and with these programs beside `ip`. For tests, which return
/// early otherwise, having said why.
///
/// # Panics
/// If the lab can't be used but [`REQUIRE_KERNEL`] is set.
#[must_use]
pub fn usable(programs: &[&str]) -> bool {
    let missing: Vec<&str> = ["ip"]
        .iter()
        .chain(programs)
        .copied()
        .filter(|p| !command::exists(p))
        .collect();
    let problem = if !nix::unistd::geteuid().is_root() {
        "not root".to_owned()
    } else if !missing.is_empty() {
        format!("missing: {}", missing.join(", "))
    } else {
        return true;
    };
    let required = std::env::var_os(REQUIRE_KERNEL).is_some_and(|value| value == "1");
    assert!(!required, "the lab can't be used: {problem}");
    eprint(&format!("skipped: {problem}"));
    false
}

#[expect(
    clippy::print_stderr,
    reason = "whoever runs a test must see that it was skipped"
)]
fn eprint(line: &str) {
    eprintln!("{line}");
}

/// Whether `name` is `sipf-<pid>-…` of a process that no longer runs.
fn is_orphan(name: &str) -> bool {
    owner(name).is_some_and(|pid| !std::path::Path::new("/proc").join(pid.to_string()).exists())
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?
        .strip_prefix('-')?
        .split('-')
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_of_dead_runs_are_orphans() {
        assert!(
            is_orphan("sipf-4194305-edge"),
            "no process has an id above the kernel's limit"
        );
        assert!(!is_orphan(&format!("sipf-{}-edge", std::process::id())));
        assert!(!is_orphan("sipf-edge"));
        assert!(!is_orphan("somebody-4194305-edge"));
    }
}
