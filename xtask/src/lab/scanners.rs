//! SIPVicious, the scanner that most SIP servers meet every day.
//!
//! Its option to bind to an address has no effect in two of the three tools: give each its own namespace.

use std::{net::IpAddr, process::Command, time::Duration};

use anyhow::Result;

use super::{Netns, Process, WorkDir};

/// One scan.
#[derive(Debug, Clone)]
pub enum Scan {
    /// `svmap`: looks for SIP servers at `targets`, an address or a range such as `192.0.2.0/28`.
    Map {
        /// Where to look.
        targets: String,
    },
    /// `svwar`: looks for extensions on `server` by REGISTER.
    War {
        /// The server.
        server: IpAddr,
        /// The extensions, as in `100-999`.
        extensions: String,
    },
    /// `svcrack`: tries passwords for `user` on `server`.
    Crack {
        /// The server.
        server: IpAddr,
        /// The account.
        user: String,
        /// The numbers to try, as in `1000-9999`.
        passwords: String,
    },
}

impl Scan {
    fn command(&self) -> Command {
        let (program, arguments) = match self {
            Self::Map { targets } => ("svmap", vec![targets.clone()]),
            // By force: it would give up on a server that treats known and unknown extensions alike.
            Self::War { server, extensions } => (
                "svwar",
                vec![
                    "--force".to_owned(),
                    "-e".to_owned(),
                    extensions.clone(),
                    host(*server),
                ],
            ),
            Self::Crack {
                server,
                user,
                passwords,
            } => (
                "svcrack",
                vec![
                    "-u".to_owned(),
                    user.clone(),
                    "-r".to_owned(),
                    passwords.clone(),
                    host(*server),
                ],
            ),
        };
        let mut command = Command::new(program);
        command.args(arguments);
        command
    }

    fn is_ipv6(&self) -> bool {
        match self {
            Self::Map { targets } => targets.contains(':'),
            Self::War { server, .. } | Self::Crack { server, .. } => server.is_ipv6(),
        }
    }

    /// Starts the scan; it is ended after `limit` if it doesn't end by itself.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start(&self, netns: &Netns, dir: &WorkDir, name: &str, limit: Duration) -> Result<Process> {
        let scan = self.command();
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", &limit.as_secs().max(1).to_string()]);
        command.arg(scan.get_program()).args(scan.get_args());
        if self.is_ipv6() {
            command.arg("-6");
        }
        // Sessions and logs would go to the user's home.
        command.env("HOME", dir.path()).current_dir(dir.path());
        Process::spawn(netns, name, dir.path(), command)
    }
}

fn host(address: IpAddr) -> String {
    address.to_string()
}
