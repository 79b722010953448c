//! Waiting with a limit.

use std::{
    net::{SocketAddr, TcpStream},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::{Netns, interrupt};

/// Waits until somebody accepts TCP connections at `address` inside `netns`.
///
/// # Errors
/// If nobody does within `limit`.
pub fn for_port(netns: &Netns, address: SocketAddr, limit: Duration) -> Result<()> {
    until(&format!("TCP at {address}"), limit, || {
        netns.enter(|| TcpStream::connect_timeout(&address, Duration::from_millis(200)).is_ok())
    })
}

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
