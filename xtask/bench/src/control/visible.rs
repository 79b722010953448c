//! How soon a ban ordered through the API is in force: from the request to the entry in the kernel's table, and to the
//! answer, which waits for the disk.

use std::{
    hint,
    net::Ipv4Addr,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;

use crate::{
    figures::Sample,
    stage::{Daemon, Request},
    table::KernelTable,
};

/// Buckets of `BAN4` with the default configuration.
pub(crate) const BUCKETS: u32 = 262_144;
const PATIENCE: Duration = Duration::from_secs(5);

/// What one ban took.
#[derive(Debug, Default)]
pub(crate) struct Times {
    /// Milliseconds until the kernel heeds it.
    pub(crate) visible: Sample,
    /// Milliseconds until it is acknowledged.
    pub(crate) acknowledged: Sample,
}

/// Bans `count` addresses one after another; `base` is the first.
pub(crate) fn measure(daemon: &Daemon, base: Ipv4Addr, count: u32) -> Result<Times> {
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
        while !table.fate(address).exists() {
            ensure!(
                start.elapsed() < PATIENCE,
                "a ban does not appear in the kernel's table"
            );
            hint::spin_loop();
        }
        times.visible.push(milliseconds(start.elapsed()));
        pending.answer().context("a ban")?;
        times.acknowledged.push(milliseconds(start.elapsed()));
    }
    Ok(times)
}

pub(crate) fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
