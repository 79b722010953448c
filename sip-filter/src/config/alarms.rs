//! `[alarms]`: who is told of conditions, and when.

use std::{fmt, net::SocketAddr, path::PathBuf, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::text;

/// `[alarms]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alarms {
    /// How long a condition must last before anybody is told.
    #[serde(with = "crate::units::duration")]
    pub hold_up: Duration,
    /// How long it must be gone before it is said to be over.
    #[serde(with = "crate::units::duration")]
    pub hold_down: Duration,
    /// What alarms call this host; `None`: its host name.
    #[serde(with = "text::or_empty")]
    pub host: Option<String>,
    /// Alertmanager.
    pub alertmanager: Alertmanager,
    /// An HTTP endpoint.
    pub webhook: Webhook,
    /// Syslog.
    pub syslog: Syslog,
    /// A program.
    pub exec: Exec,
}

/// `[alarms.alertmanager]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alertmanager {
    /// Where it listens, without `/api/v2/alerts`.
    #[serde(with = "text::or_empty")]
    pub url: Option<String>,
    /// File whose first line goes into the `Authorization` header.
    #[serde(with = "text::or_empty_path")]
    pub authorization_file: Option<PathBuf>,
    /// How often what goes on is told again: Alertmanager forgets what it does not hear of.
    #[serde(with = "crate::units::duration")]
    pub repeat: Duration,
    /// How long one delivery may take.
    #[serde(with = "crate::units::duration")]
    pub timeout: Duration,
}

/// `[alarms.webhook]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Webhook {
    /// Where to post to.
    #[serde(with = "text::or_empty")]
    pub url: Option<String>,
    /// See [`Alertmanager::authorization_file`].
    #[serde(with = "text::or_empty_path")]
    pub authorization_file: Option<PathBuf>,
    /// How long one delivery may take.
    #[serde(with = "crate::units::duration")]
    pub timeout: Duration,
}

/// `[alarms.syslog]`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Syslog {
    /// Where to send to.
    #[serde(with = "text::or_empty")]
    pub target: Option<SyslogTarget>,
}

/// `[alarms.exec]`
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Exec {
    /// The program and its arguments; empty: none. No shell is involved.
    pub command: Vec<String>,
    /// How long it may run for one alarm.
    #[serde(with = "crate::units::duration")]
    pub timeout: Duration,
}

/// A syslog daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SyslogTarget {
    /// A datagram socket of this host.
    Unix(PathBuf),
    /// UDP (RFC 5426).
    Udp(SocketAddr),
    /// TCP with octet counting (RFC 6587 §3.4.1).
    Tcp(SocketAddr),
}

/// Not the name of a syslog daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is not `unix:/dev/log`, `udp://ADDRESS:PORT` or `tcp://ADDRESS:PORT`")]
pub struct SyslogTargetError;

impl FromStr for SyslogTarget {
    type Err = SyslogTargetError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let address = |text: &str| text.parse().map_err(|_| SyslogTargetError);
        if let Some(path) = text.strip_prefix("unix:") {
            let path = PathBuf::from(path);
            return path
                .is_absolute()
                .then_some(Self::Unix(path))
                .ok_or(SyslogTargetError);
        }
        if let Some(rest) = text.strip_prefix("udp://") {
            return address(rest).map(Self::Udp);
        }
        let rest = text.strip_prefix("tcp://").ok_or(SyslogTargetError)?;
        address(rest).map(Self::Tcp)
    }
}

impl fmt::Display for SyslogTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Udp(address) => write!(f, "udp://{address}"),
            Self::Tcp(address) => write!(f, "tcp://{address}"),
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(10);

impl Default for Alarms {
    fn default() -> Self {
        Self {
            hold_up: Duration::from_secs(10),
            hold_down: Duration::from_secs(60),
            host: None,
            alertmanager: Alertmanager::default(),
            webhook: Webhook::default(),
            syslog: Syslog::default(),
            exec: Exec::default(),
        }
    }
}

impl Default for Alertmanager {
    fn default() -> Self {
        Self {
            url: None,
            authorization_file: None,
            repeat: Duration::from_secs(60),
            timeout: TIMEOUT,
        }
    }
}

impl Default for Webhook {
    fn default() -> Self {
        Self {
            url: None,
            authorization_file: None,
            timeout: TIMEOUT,
        }
    }
}

impl Default for Exec {
    fn default() -> Self {
        Self {
            command: Vec::new(),
            timeout: TIMEOUT,
        }
    }
}

impl Alarms {
    /// What is wrong, by key below `alarms`.
    pub(super) fn problems(&self) -> Vec<(&'static str, String)> {
        let mut problems = Vec::new();
        let urls = [
            ("alertmanager.url", &self.alertmanager.url),
            ("webhook.url", &self.webhook.url),
        ];
        for (key, url) in urls {
            if let Some(url) = url
                && let Err(problem) = check_url(url)
            {
                problems.push((key, problem));
            }
        }
        let files = [
            (
                "alertmanager.authorization_file",
                &self.alertmanager.authorization_file,
            ),
            ("webhook.authorization_file", &self.webhook.authorization_file),
        ];
        for (key, file) in files {
            if let Some(file) = file
                && !file.is_absolute()
            {
                problems.push((key, format!("\"{}\" must be an absolute path", file.display())));
            }
        }
        if let Some(program) = self.exec.command.first()
            && !program.starts_with('/')
        {
            problems.push((
                "exec.command",
                format!("\"{program}\" must be an absolute path: there is no shell that would look for it"),
            ));
        }
        let times = [
            ("alertmanager.repeat", self.alertmanager.repeat),
            ("alertmanager.timeout", self.alertmanager.timeout),
            ("webhook.timeout", self.webhook.timeout),
            ("exec.timeout", self.exec.timeout),
        ];
        for (key, time) in times {
            if !(Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&time) {
                problems.push((key, "is not between 1s and 1h".to_owned()));
            }
        }
        problems
    }
}

fn check_url(url: &str) -> Result<(), String> {
    let uri: ureq::http::Uri = url
        .parse()
        .map_err(|error| format!("\"{url}\" is no URL: {error}"))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
        return Err(format!("\"{url}\" is not a URL such as http://host:port/path"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syslog_targets_are_read_and_written() {
        for text in ["unix:/dev/log", "udp://192.0.2.1:514", "tcp://[2001:db8::1]:601"] {
            assert_eq!(text.parse::<SyslogTarget>().unwrap().to_string(), text);
        }
        for text in [
            "",
            "unix:log",
            "udp://host",
            "udp://192.0.2.1",
            "/dev/log",
            "tls://192.0.2.1:6514",
        ] {
            assert_eq!(text.parse::<SyslogTarget>(), Err(SyslogTargetError), "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_named() {
        let mut alarms = Alarms::default();
        assert!(alarms.problems().is_empty());
        alarms.alertmanager.url = Some("alertmanager:9093".into());
        alarms.webhook.url = Some("http://".into());
        alarms.webhook.authorization_file = Some("token".into());
        alarms.exec.command = vec!["notify".into()];
        alarms.exec.timeout = Duration::ZERO;
        let keys: Vec<_> = alarms.problems().into_iter().map(|(key, _)| key).collect();
        assert_eq!(
            keys,
            [
                "alertmanager.url",
                "webhook.url",
                "webhook.authorization_file",
                "exec.command",
                "exec.timeout"
            ]
        );
    }
}
