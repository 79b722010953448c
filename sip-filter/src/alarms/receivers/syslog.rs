//! Syslog messages (RFC 5424) with structured data.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    time::Duration,
};

use super::{DeliveryError, Receiver};
use crate::{
    alarms::{Alarm, Status},
    conditions::Severity,
    config::SyslogTarget,
};

/// RFC 5424 §6.2.1: facility 3, "system daemons".
const DAEMON: u8 = 3;

/// Private enterprise number that RFC 5612 reserves for documentation, since the project has none of its own.
const ENTERPRISE: u32 = 32473;

const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug)]
pub(super) struct Syslog {
    target: SyslogTarget,
    host: String,
}

impl Syslog {
    pub(super) fn new(target: SyslogTarget, host: &str) -> Self {
        Self {
            target,
            host: host.to_owned(),
        }
    }

    fn send(&self, messages: &[String]) -> io::Result<()> {
        match &self.target {
            SyslogTarget::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                socket.set_write_timeout(Some(TIMEOUT))?;
                let send = |message: &String| socket.send_to(message.as_bytes(), path).map(drop);
                messages.iter().try_for_each(send)
            }
            SyslogTarget::Udp(address) => {
                let any: SocketAddr = match address {
                    SocketAddr::V4(_) => ([0; 4], 0).into(),
                    SocketAddr::V6(_) => ([0; 16], 0).into(),
                };
                let socket = UdpSocket::bind(any)?;
                let send = |message: &String| socket.send_to(message.as_bytes(), address).map(drop);
                messages.iter().try_for_each(send)
            }
            SyslogTarget::Tcp(address) => {
                let mut stream = TcpStream::connect_timeout(address, TIMEOUT)?;
                stream.set_write_timeout(Some(TIMEOUT))?;
                let send = |message: &String| write!(stream, "{} {message}", message.len());
                messages.iter().try_for_each(send)
            }
        }
    }
}

impl Receiver for Syslog {
    fn name(&self) -> &'static str {
        "syslog"
    }

    fn deliver(&mut self, alarms: &[Alarm]) -> Result<(), DeliveryError> {
        let messages: Vec<String> = alarms.iter().map(|alarm| message(alarm, &self.host)).collect();
        self.send(&messages).map_err(|source| DeliveryError::Syslog {
            target: self.target.to_string(),
            source,
        })
    }
}

/// RFC 5424 §6. MSGID is the name of the condition; the severity is 2 (critical) or 4 (warning), and 5 (notice) when it
/// is over.
fn message(alarm: &Alarm, host: &str) -> String {
    let severity = match (alarm.status, alarm.severity) {
        (Status::Resolved, _) => 5,
        (Status::Firing, Severity::Critical) => 2,
        (Status::Firing, Severity::Warning) => 4,
    };
    let priority = DAEMON * 8 + severity;
    let time = humantime::format_rfc3339_millis(alarm.ends_at.unwrap_or(alarm.starts_at));
    let host = match printable(host, 255) {
        host if host.is_empty() => "-".to_owned(),
        host => host,
    };
    let over = match alarm.status {
        Status::Firing => "",
        Status::Resolved => "over: ",
    };
    format!(
        "<{priority}>1 {time} {host} sip-filter {} {} [alarm@{ENTERPRISE} status=\"{}\" subject=\"{}\" severity=\"{}\" \
         mode=\"{}\" since=\"{}\"] {over}{}; {}",
        std::process::id(),
        alarm.name.name(),
        alarm.status.name(),
        escaped(&alarm.subject),
        alarm.severity.name(),
        alarm.mode.name(),
        humantime::format_rfc3339_millis(alarm.starts_at),
        one_line(&alarm.summary),
        one_line(&alarm.remedy),
    )
}

/// RFC 5424 §6.2.4: printable ASCII without spaces.
fn printable(text: &str, most: usize) -> String {
    text.chars().filter(char::is_ascii_graphic).take(most).collect()
}

/// RFC 5424 §6.3.3.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in one_line(text).chars() {
        if matches!(letter, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(letter);
    }
    escaped
}

/// Texts can hold what somebody else wrote; a message is one line.
fn one_line(text: &str) -> String {
    text.chars()
        .map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{
        api::types::Mode,
        conditions::{Condition, Kind},
    };

    #[test]
    fn a_message_is_one_line_and_escapes_what_it_quotes() {
        let since = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let condition = Condition {
            name: Kind::MapNearlyFull,
            subject: "eth0/\"ban4\"]".into(),
            severity: Severity::Warning,
            since,
            text: "81 %\nused".into(),
            remedy: "look".into(),
        };
        let firing = Alarm::new(condition.clone(), None, "edge 1", Mode::Enforce);
        let text = message(&firing, "edge 1");
        assert_eq!(
            text.replace(&format!(" {} ", std::process::id()), " PID "),
            "<28>1 2001-09-09T01:46:40.000Z edge1 sip-filter PID map-nearly-full [alarm@32473 status=\"firing\" \
             subject=\"eth0/\\\"ban4\\\"\\]\" severity=\"warning\" mode=\"enforce\" since=\"2001-09-09T01:46:40.000Z\"] \
             81 % used; look"
        );
        let ended = since + Duration::from_secs(60);
        let resolved = Alarm::new(condition, Some(ended), "", Mode::Simulate);
        let text = message(&resolved, "");
        assert!(
            text.starts_with("<29>1 2001-09-09T01:47:40.000Z - sip-filter "),
            "{text}"
        );
        assert!(text.contains("] over: 81 % used"), "{text}");
    }
}
