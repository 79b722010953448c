//! Waiting with a limit.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::interrupt;

/// Asks `ready` until it says yes.
///
/// # Errors
/// If `limit` passes, `ready` fails, or the run is interrupted; `what` names the thing in the message.
pub fn until(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let start = Instant::now();
    while !ready()? {
        interrupt::check()?;
        if start.elapsed() > limit {
            bail!("{what}: not within {} s", limit.as_secs_f32());
        }
        thread::sleep(Duration::from_millis(20));
    }
    Ok(())
}
