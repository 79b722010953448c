//! What systemd is told, by the protocol of sd_notify(3); nothing if nobody wants to be told.

use std::{
    os::{
        linux::net::SocketAddrExt as _,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// The connection to whoever started the daemon.
#[derive(Debug, Default)]
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// The status line told last.
    status: Mutex<String>,
}

impl Notifier {
    /// As the environment says: `NOTIFY_SOCKET`.
    #[must_use]
    pub fn from_environment() -> Self {
        let name = std::env::var("NOTIFY_SOCKET").unwrap_or_default();
        Self::new(&name)
    }

    /// To the socket of this name, a path or, after `@`, abstract.
    fn new(name: &str) -> Self {
        let address = match name.strip_prefix('@') {
            Some(name) => SocketAddr::from_abstract_name(name),
            None if name.starts_with('/') => SocketAddr::from_pathname(name),
            None => return Self::default(),
        };
        let to = address.and_then(|address| Ok((UnixDatagram::unbound()?, address)));
        Self {
            to: to
                .inspect_err(|error| tracing::warn!(%error, name, "cannot tell systemd how it goes"))
                .ok(),
            status: Mutex::default(),
        }
    }

    /// The daemon serves; also after a reload.
    pub fn ready(&self) {
        self.tell("READY=1");
    }

    /// The configuration is read again; [`Self::ready`] is to follow.
    pub fn reloading(&self) {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC);
        let now = now.map(Duration::from).unwrap_or_default();
        self.tell(&format!("RELOADING=1\nMONOTONIC_USEC={}", now.as_micros()));
    }

    /// The daemon is about to end.
    pub fn stopping(&self) {
        self.tell("STOPPING=1\nSTATUS=stopping");
    }

    /// All is well: to be told more often than the time of [`watchdog`].
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// One line for `systemctl status`; told if it is another than before.
    pub fn status(&self, line: &str) {
        let mut told = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        if *told != line {
            line.clone_into(&mut told);
            self.tell(&format!("STATUS={}", line.replace('\n', " ")));
        }
    }

    fn tell(&self, what: &str) {
        if let Some((socket, address)) = &self.to
            && let Err(error) = socket.send_to_addr(what.as_bytes(), address)
        {
            tracing::debug!(%error, what, "systemd was not told");
        }
    }
}

/// The time within which systemd wants to hear of us, if it does: `WATCHDOG_USEC`, unless it is meant for another process.
#[must_use]
pub fn watchdog() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC")
        .filter(|time| *time > 0)
        .map(Duration::from_micros)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_as_systemd_reads_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let heard = || {
            let mut buffer = [0; 256];
            systemd.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let length = systemd.recv(&mut buffer).unwrap();
            String::from_utf8(buffer[..length].to_vec()).unwrap()
        };
        let notifier = Notifier::new(path.to_str().unwrap());
        notifier.ready();
        assert_eq!(heard(), "READY=1");
        notifier.status("1 ban\non eth0");
        notifier.status("1 ban\non eth0");
        notifier.alive();
        assert_eq!(
            (heard(), heard()),
            ("STATUS=1 ban on eth0".into(), "WATCHDOG=1".into())
        );
        notifier.reloading();
        let reloading = heard();
        let time = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
        assert!(time.parse::<u64>().unwrap() > 0);
        notifier.stopping();
        assert_eq!(heard(), "STOPPING=1\nSTATUS=stopping");

        let name = format!("sip-filter-test-{}", std::process::id());
        let systemd = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        Notifier::new(&format!("@{name}")).ready();
        assert_eq!(systemd.recv(&mut [0; 16]).unwrap(), 7);
        // Nobody there: nothing happens.
        Notifier::new("").ready();
        Notifier::new("/nonexistent/socket").ready();
    }
}
