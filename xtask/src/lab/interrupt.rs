//! Ctrl-C as a flag: the run notices it, unwinds, and so cleans up.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Turns SIGINT, SIGTERM and SIGHUP into the flag that [`check`] reads.
///
/// By a handler, not by a blocked mask and a waiting thread: children inherit a mask, and one that blocks
/// SIGTERM makes them deaf to our own attempts to end them.
///
/// # Errors
/// If the handler can't be installed.
pub fn install() -> Result<()> {
    extern "C" fn note(_: libc::c_int) {
        REQUESTED.store(true, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing but store to an atomic, which is allowed at any point.
        unsafe { sigaction(signal, &action) }.context("can't handle signals")?;
    }
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
