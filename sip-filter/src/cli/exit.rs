//! How the program ends: exit codes, and the errors behind them.

use std::{io, process::ExitCode};

use crate::api::{ErrorKind, client::ClientError};

/// Exit codes; part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or already so.
    Done = 0,
    /// Failed, or the answer to a question is no.
    Failure = 1,
    /// The command line or a file makes no sense.
    Usage = 2,
    /// The daemon cannot be reached.
    Unreachable = 3,
    /// Refused, so that nobody is locked out by mistake.
    Refused = 4,
    /// A table is full.
    Full = 5,
    /// The daemon wants to be started again (`EX_TEMPFAIL`).
    StartAgain = 75,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Why a verb was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The daemon, or the way to it.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// Standard output.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// A file named on the command line.
    #[error("cannot {action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The input makes no sense; the details have been printed.
    #[error("{0}")]
    Input(String),
    /// The daemon refused some of the input; the details have been printed.
    #[error("{0}")]
    Refused(String),
    /// Part of an import was done before it failed.
    #[error("{done} of {total} entries were imported before it failed")]
    Partial {
        /// Entries done.
        done: usize,
        /// Entries in all.
        total: usize,
        /// Why it failed.
        #[source]
        source: ClientError,
    },
    /// The daemon ended in order to be started again.
    #[error(transparent)]
    StartAgain(Box<dyn std::error::Error + Send + Sync>),
    /// What this process does itself, without the daemon.
    #[error(transparent)]
    Local(Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// Whether only the reader of the output went away, as `head` does. That is no failure, and nobody to tell.
    #[must_use]
    pub fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The exit code.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Self::Client(error) | Self::Partial { source: error, .. } => client_exit(error),
            Self::Input(_) => Exit::Usage,
            Self::Refused(_) => Exit::Refused,
            Self::StartAgain(_) => Exit::StartAgain,
            Self::Output(_) if self.is_broken_pipe() => Exit::Done,
            Self::Output(_) | Self::File { .. } | Self::Local(_) => Exit::Failure,
        }
    }

    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Client(error) | Self::Partial { source: error, .. } => error.hint(),
            _ => None,
        }
    }
}

fn client_exit(error: &ClientError) -> Exit {
    match error {
        ClientError::Api(error) => match error.kind {
            ErrorKind::Refused => Exit::Refused,
            ErrorKind::Full => Exit::Full,
            ErrorKind::Usage => Exit::Usage,
            ErrorKind::NotFound | ErrorKind::Denied | ErrorKind::Busy | ErrorKind::Internal => Exit::Failure,
        },
        error if error.is_unreachable() => Exit::Unreachable,
        _ => Exit::Failure,
    }
}
