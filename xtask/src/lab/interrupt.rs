//! Ctrl-C as a flag: the run notices it, unwinds, and so cleans up.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SigSet, Signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Turns SIGINT, SIGTERM and SIGHUP into the flag that [`check`] reads.
///
/// Call it before the first thread starts: only then all threads leave the signals to the one that waits for
/// them. Children get a clean signal mask from the standard library.
///
/// # Errors
/// If the signals can't be blocked.
pub fn install() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGHUP);
    signals.thread_block().context("can't block signals")?;
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        while signals.wait().is_ok() {
            REQUESTED.store(true, Ordering::Relaxed);
        }
    })?;
    Ok(())
}

/// Whether one of the signals came.
#[must_use]
pub fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// Fails once one of the signals came.
///
/// # Errors
/// "interrupted".
pub fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}
