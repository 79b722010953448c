//! Who is told.

mod alertmanager;
mod exec;
mod http;
mod syslog;
mod webhook;

use std::{fmt, io, path::PathBuf, time::Duration};

use super::alarm::Alarm;
use crate::config;

/// Takes alarms, one way or another. It may block, for a bounded time.
pub trait Receiver: fmt::Debug + Send {
    /// Stable name, the value of the `receiver` label.
    fn name(&self) -> &'static str;

    /// After how long without news it wants to hear again of all that is firing.
    fn repeat(&self) -> Option<Duration> {
        None
    }

    /// Delivers all of them.
    ///
    /// # Errors
    /// [`DeliveryError`]; then all of them are delivered again, unless it is final.
    fn deliver(&mut self, alarms: &[Alarm]) -> Result<(), DeliveryError>;
}

/// Alarms were not delivered.
#[derive(Debug, thiserror::Error)]
pub enum DeliveryError {
    /// The request did not get through.
    #[error("cannot post to {url}")]
    Http {
        /// Where to.
        url: String,
        /// Why.
        #[source]
        source: Box<ureq::Error>,
    },
    /// The answer says that it may work later.
    #[error("{url} answered {status}")]
    Unavailable {
        /// Who.
        url: String,
        /// HTTP status.
        status: u16,
    },
    /// The answer says that this will never do.
    #[error("{url} answered {status}: {answer}")]
    Refused {
        /// Who.
        url: String,
        /// HTTP status.
        status: u16,
        /// Beginning of the answer.
        answer: String,
    },
    /// The file with the authorization.
    #[error("cannot read {path}")]
    Authorization {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Syslog.
    #[error("cannot send to {target}")]
    Syslog {
        /// Where to.
        target: String,
        /// Why.
        source: io::Error,
    },
    /// The hook could not be run.
    #[error("cannot run {program}")]
    Run {
        /// Which.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// The hook was ended since it took too long.
    #[error("{program} took longer than {} and was killed", crate::units::format_duration(*.limit))]
    TimeLimit {
        /// Which.
        program: String,
        /// What it had.
        limit: Duration,
    },
    /// The hook says that it failed.
    #[error("{program} failed ({status}): {message}")]
    Failed {
        /// Which.
        program: String,
        /// Its exit status.
        status: std::process::ExitStatus,
        /// Beginning of what it wrote to standard error.
        message: String,
    },
}

impl DeliveryError {
    /// Whether trying again is of no use.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        matches!(self, Self::Refused { .. })
    }
}

/// Those that are configured.
pub(super) fn configured(alarms: &config::Alarms, host: &str) -> Vec<Box<dyn Receiver>> {
    let mut receivers: Vec<Box<dyn Receiver>> = Vec::new();
    if let Some(url) = &alarms.alertmanager.url {
        receivers.push(Box::new(alertmanager::Alertmanager::new(
            url,
            &alarms.alertmanager,
        )));
    }
    if let Some(url) = &alarms.webhook.url {
        receivers.push(Box::new(webhook::Webhook::new(url, &alarms.webhook)));
    }
    if let Some(target) = &alarms.syslog.target {
        receivers.push(Box::new(syslog::Syslog::new(target.clone(), host)));
    }
    if let Some((program, arguments)) = alarms.exec.command.split_first() {
        receivers.push(Box::new(exec::Exec::new(program, arguments, alarms.exec.timeout)));
    }
    receivers
}

/// The first characters of something that somebody else wrote, in one line.
fn excerpt(text: &[u8]) -> String {
    const MOST: usize = 200;
    let text = String::from_utf8_lossy(text);
    let line = text.trim().chars().take(MOST);
    line.map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}
