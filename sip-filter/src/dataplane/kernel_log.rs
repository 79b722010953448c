//! What the kernel program says about itself, for debugging it. Off unless asked for at load time: the verifier then
//! removes it, so that it costs nothing.

use std::io;

use aya_log::EbpfLogger;
use tokio::io::{Interest, unix::AsyncFd};

use super::{DataplaneError, Interface};

type Logger = EbpfLogger<&'static dyn log::Log>;

/// The log of one program.
pub struct KernelLog(AsyncFd<Logger>);

impl KernelLog {
    /// Opens the log of an interface's program, once. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If it was opened before, or the kernel refuses.
    pub fn open(interface: &mut Interface) -> Result<Self, DataplaneError> {
        let error = |source: io::Error| DataplaneError::Write { what: "log", source };
        let logger =
            EbpfLogger::init(interface.ebpf_mut()).map_err(|problem| error(io::Error::other(problem)))?;
        // SAFETY: the logger owns its descriptor, always names the same one, and closes it only when dropped, which
        // `AsyncFd` does after its registration ends.
        let logger = unsafe { AsyncFd::register_with_interest(logger, Interest::READABLE) }
            .map_err(|problem| error(problem.into()))?;
        Ok(Self(logger))
    }

    /// Writes records as they come, until the descriptor cannot be waited for any more. Safe to cancel.
    ///
    /// # Errors
    /// Then.
    pub async fn run(mut self) -> io::Result<()> {
        loop {
            let mut guard = self.0.readable_mut().await?;
            guard.get_inner_mut().flush();
            guard.clear_ready();
        }
    }
}
