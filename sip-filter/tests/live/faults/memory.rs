//! Memory that runs out: for the tables at the start, and for the daemon while it runs.

use std::{
    fmt::Write as _,
    fs,
    net::Ipv4Addr,
    os::unix::process::ExitStatusExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use xtask::lab::wait;

use super::{interfaces::SMALL, witness::Witness};
use crate::rig::{INTERFACE, Rig, usable};

const SOON: Duration = Duration::from_secs(60);

/// A memory cgroup of our own, of whichever version this machine has.
struct Group {
    directory: PathBuf,
    limit: &'static str,
}

impl Group {
    /// `None` where memory cannot be limited so.
    fn new(role: &str) -> Option<Self> {
        let name = format!("sip-filter-{}-{role}", std::process::id());
        let places = [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ];
        places.into_iter().find_map(|(root, limit)| {
            let directory = Path::new(root).join(&name);
            fs::create_dir(&directory).ok()?;
            let group = Self { directory, limit };
            // In the second version only if the parent gives the controller away.
            group.file(limit).exists().then_some(group)
        })
    }

    fn file(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn limit(&self, bytes: u64) {
        fs::write(self.file(self.limit), bytes.to_string()).unwrap();
    }

    fn take(&self, process: u32) {
        fs::write(self.file("cgroup.procs"), process.to_string()).unwrap();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // Empty by now, or it stays until the machine is started anew.
        let _ = fs::remove_dir(&self.directory);
    }
}

#[test]
fn a_daemon_killed_for_want_of_memory_leaves_every_ban_in_force() {
    if !usable(&["tc"]) {
        return;
    }
    let Some(group) = Group::new("oom") else {
        println!(
            "no memory cgroup can be made here: what is left is the same as after any SIGKILL, see `kills`"
        );
        return;
    };
    let rig = Rig::new("oom");
    rig.config("main", "", "[tables]\nban4 = 200000");
    let mut daemon = rig.start("main", &[]);
    let witness = Witness::begin(&rig, &daemon, Duration::from_secs(300));
    daemon.done(&["ban", "203.0.113.99", "-d", "1h"]);
    group.take(daemon.process.id());
    // What it has is not charged to the group, only what it takes from now on.
    group.limit(8 << 20);
    let mut list = String::new();
    for number in 0..100_000_u32 {
        writeln!(list, "{}", Ipv4Addr::from(0x0b00_0000 + number)).unwrap();
    }
    let file = rig.dir.write("list.txt", &list).unwrap();
    let import = daemon.ask(&["import", file.to_str().unwrap()]);
    assert_ne!(
        import.code,
        Some(0),
        "it did not fit, and nobody may be told that it did"
    );
    let ended = daemon.process.wait(SOON).unwrap();
    assert_eq!(ended.signal(), Some(9), "{ended}: {}", daemon.process.log());
    println!("the import was told: {}", import.stderr.trim());
    witness.nothing_leaked("when the daemon was killed for want of memory");

    let daemon = rig.start("main", &[]);
    assert!(daemon.process.log().contains("without a gap"));
    let bans = daemon.bans();
    let by_hand = bans.iter().filter(|ban| ban["origin"] == "manual").count();
    assert_eq!(by_hand, 2, "what was acknowledged");
    println!("{} entries of the import are in force", bans.len() - by_hand);
    wait::until("health", SOON, || Ok(daemon.ask(&["health"]).code == Some(0))).unwrap();
    println!("{}", witness.end(&rig));
}

#[test]
fn tables_that_do_not_fit_the_limit_are_an_error_that_says_so() {
    if !usable(&["tc", "sh"]) {
        return;
    }
    let Some(group) = Group::new("tables") else {
        println!("no memory cgroup can be made here");
        return;
    };
    let rig = Rig::new("tables");
    rig.config("main", "", SMALL);
    let daemon = rig.start("main", &[]);
    let witness = Witness::begin(&rig, &daemon, Duration::from_secs(120));
    daemon.stop();
    let program = rig.xdp(INTERFACE);
    // Tables of 68 MB within 32.
    rig.config("main", "", "");
    group.limit(32 << 20);
    let script = format!(
        "echo $$ > {} && exec {} run --config {}",
        group.file("cgroup.procs").display(),
        env!("CARGO_BIN_EXE_sip-filter"),
        rig.path("main.toml").display()
    );
    let mut command = Command::new("sh");
    command.args(["-c", &script]);
    let ran = rig.output(&command);
    ran.refused(
        1,
        &["cannot filter on sip0", "no memory for the tables", "[tables]"],
    );
    assert_eq!(rig.xdp(INTERFACE), program, "the filter before is still in force");
    witness.nothing_leaked("when the next daemon had no memory");
    rig.config("main", "", SMALL);
    let daemon = rig.start("main", &[]);
    assert_eq!(daemon.ask(&["health"]).code, Some(0));
    println!("{}", witness.end(&rig));
}
