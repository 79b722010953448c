//! A SIP network in a box: network namespaces, real servers, phones and attackers.
//!
//! Everything here is made by this process, named after it (`sipf-<pid>-…`) and removed when its owner is
//! dropped. Whatever a killed run left behind is removed by [`sweep`], which every run should call first.
//!
//! Traffic stays inside the namespaces made here, and every generator is bounded in count and in time.

pub mod command;
pub mod counters;
pub mod interrupt;
pub mod kamailio;
pub mod netns;
pub mod offload;
pub mod process;
pub mod scanners;
pub mod sipp;
pub mod site;
pub mod topology;
pub mod traffic;
pub mod wait;
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
