//! How soon a ban ordered through the API is in force: from the request to the entry in the kernel's table, and to the
//! answer, which waits for the disk.
//!
//! Who watches the table looks at nothing else and never sleeps. So it has a processor of its own and the daemon the
//! others: else the scheduler now and then wakes the daemon on the watcher's processor, where it waits up to two timer
//! ticks (8 ms) while another is idle, and that would be measured. What else runs on the machine still takes the
//! watcher's processor now and then, and a ban that came into force meanwhile is seen late; so it also says at which look
//! the ban was last missing.

use std::{
    fs, hint,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};
use serde_json::json;
use xtask::lab::kernel_table::KernelTable;

use crate::{
    figures::Sample,
    stage::{Daemon, Request},
};

/// Buckets of `BAN4` with the default configuration.
pub(crate) const BUCKETS: u32 = 262_144;
const PATIENCE: Duration = Duration::from_secs(5);

/// What one ban took.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// Milliseconds until it was seen in the kernel's table.
    pub(crate) visible: Sample,
    /// Milliseconds until the look before that one: how long it was missing for certain. The two lie apart where the
    /// watcher itself was kept from its processor.
    pub(crate) missing: Sample,
    /// Milliseconds until it is acknowledged.
    pub(crate) acknowledged: Sample,
}

/// Bans `count` addresses one after another, with a pause of 0 to 3 ms between them, so that whatever the daemon does
/// from time to time meets some of them; `base` is the first.
pub(crate) fn measure(daemon: &Daemon, base: Ipv4Addr, count: u32) -> Result<Times> {
    // On a thread of its own, with which its processor is free again.
    thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            apart(daemon)?;
            watch(daemon, base, count)
        });
        watcher.join().map_err(|_| anyhow!("the watcher panicked"))?
    })
}

/// Gives this thread the last processor and the daemon all others, if there are others.
fn apart(daemon: &Daemon) -> Result<()> {
    let all = sched_getaffinity(Pid::from_raw(0))?;
    let mut processors: Vec<usize> = (0..CpuSet::count())
        .filter(|processor| all.is_set(*processor).unwrap_or(false))
        .collect();
    let (own, others) = match (processors.pop(), &processors[..]) {
        (Some(own), others @ [_, ..]) => (own, others),
        _ => return Ok(()),
    };
    let set = |processors: &[usize]| -> Result<CpuSet> {
        let mut set = CpuSet::new();
        processors.iter().try_for_each(|processor| set.set(*processor))?;
        Ok(set)
    };
    sched_setaffinity(Pid::from_raw(0), &set(&[own])?)?;
    let others = set(others)?;
    for task in fs::read_dir(format!("/proc/{}/task", daemon.id()))? {
        let task = task?.file_name();
        let task: i32 = task
            .to_str()
            .and_then(|task| task.parse().ok())
            .context("a thread's number")?;
        // A thread may have ended meanwhile; new ones are where their makers are.
        let _ = sched_setaffinity(Pid::from_raw(task), &others);
    }
    Ok(())
}

fn watch(daemon: &Daemon, base: Ipv4Addr, count: u32) -> Result<Times> {
    let table = KernelTable::of_daemon(&daemon.pins, BUCKETS)?;
    let mut times = Times::default();
    for number in 0..count {
        let address = u32::from(base) + number;
        let body = json!({ "targets": [Ipv4Addr::from(address).to_string()], "lifetime": "permanent" });
        let request = Request::new("POST", "/v1/bans", body.to_string().as_bytes());
        ensure!(!table.fate(address).exists(), "{address:x} is banned already");
        let start = Instant::now();
        let pending = daemon.send(&request)?;
        // This core waits for the entry; the daemon has the others.
        let (mut missing, mut look) = (Duration::ZERO, start.elapsed());
        while !table.fate(address).exists() {
            ensure!(look < PATIENCE, "a ban does not appear in the kernel's table");
            hint::spin_loop();
            // When this look ended is when the next began.
            (missing, look) = (look, start.elapsed());
        }
        times.visible.push(milliseconds(start.elapsed()));
        times.missing.push(milliseconds(missing));
        pending.answer().context("a ban")?;
        times.acknowledged.push(milliseconds(start.elapsed()));
        thread::sleep(Duration::from_micros(
            u64::from(number.wrapping_mul(2_654_435_761) >> 20) % 3_000,
        ));
    }
    Ok(times)
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
