//! Why an operation was not carried out.

use std::{error::Error, sync::Arc};

use crate::{
    bans::{Refusal, StoreError},
    config::ConfigError,
    dataplane::{DataplaneError, ImageError},
};

/// Why an operation was not carried out. Nothing was changed then.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// It would lock somebody out, or have no effect.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// An entry of an import, by its position from 0, would.
    #[error("entry {}: {refusal}", index + 1)]
    EntryRefused {
        /// Position, from 0.
        index: usize,
        /// Why.
        refusal: Refusal,
    },
    /// A kernel table has no room, or cannot be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// It could not be saved.
    #[error("{0}; the change was taken back")]
    NotSaved(Arc<StoreError>),
    /// An entry of the configuration's allow-list cannot be removed by command.
    #[error("{0} is allow-listed by the configuration; take it out of `allow.networks` and reload")]
    FixedInConfig(crate::bans::Target),
    /// Nothing would be dropped any more.
    #[error("{0} would exempt everybody; to drop nothing, use `sip-filter mode simulate`")]
    ExemptsAll(crate::bans::Target),
    /// A configuration that filters nowhere.
    #[error("`interfaces` is empty: nothing would be filtered; to stop filtering, stop the daemon")]
    NoInterfaces,
    /// The configuration cannot be used; the one before stays in force.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The program cannot be attached, or its events not be read.
    #[error("cannot filter on {interface}")]
    Attach {
        /// Which interface.
        interface: String,
        /// Why.
        source: DataplaneError,
    },
    /// An interface does not take new settings; the ones before stay in force.
    #[error("cannot change the settings of {interface}")]
    Configure {
        /// Which.
        interface: String,
        /// Why.
        source: DataplaneError,
    },
}

/// The kinds of [`ControlError`], as the exit codes of the command line tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorCode {
    /// 4
    Refused,
    /// 5
    Full,
    /// 1
    Internal,
}

impl ErrorCode {
    /// The exit code.
    #[must_use]
    pub const fn exit(self) -> u8 {
        match self {
            Self::Refused => 4,
            Self::Full => 5,
            Self::Internal => 1,
        }
    }
}

impl ControlError {
    /// Its kind.
    #[must_use]
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(_)
            | Self::EntryRefused { .. }
            | Self::FixedInConfig(_)
            | Self::ExemptsAll(_)
            | Self::Image(ImageError::NotASource(_)) => ErrorCode::Refused,
            Self::Image(ImageError::Full { .. }) => ErrorCode::Full,
            Self::Image(ImageError::Kernel { .. })
            | Self::NotSaved(_)
            | Self::Config(_)
            | Self::NoInterfaces
            | Self::Attach { .. }
            | Self::Configure { .. } => ErrorCode::Internal,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Refused(refusal) | Self::EntryRefused { refusal, .. } => Some(refusal.hint()),
            _ => None,
        }
    }
}

/// An error with all its causes in one line, for logs and for operators.
#[must_use]
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let part = error.to_string();
        // Transparent errors repeat their cause.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_names_every_cause_once() {
        let error = ControlError::from(ImageError::Kernel {
            interface: "eth0".to_owned(),
            table: "network",
            source: std::io::Error::other("no memory"),
        });
        assert_eq!(chain(&error), "cannot write the network table of eth0: no memory");
    }
}
