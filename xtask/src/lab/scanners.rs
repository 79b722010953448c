//! SIPVicious, the scanner that most SIP servers meet every day.
//!
//! Its option to bind to an address has no effect in two of the three tools: give each its own namespace.

use std::{net::IpAddr, process::Command, time::Duration};

use anyhow::Result;

use super::{Netns, Process, WorkDir};

/// How a scan hides what it is made with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Disguise {
    /// Not at all: `User-Agent: friendly-scanner`.
    #[default]
    None,
    /// The tool's own option: compact header names and no User-Agent.
    Compact,
    /// Another User-Agent, by one changed line in the tool, as attackers use it.
    Agent(&'static str),
}

/// Starts the tool named first with another default of `makeRequest` for the User-Agent named second.
const OTHER_AGENT: &str = "
import importlib, os, shutil, sys
tool, agent = sys.argv[1:3]
sys.argv = [tool] + sys.argv[3:]
sys.path.insert(0, os.path.dirname(os.path.realpath(shutil.which(tool))))
module = importlib.import_module('sipvicious.' + tool)
request = importlib.import_module('sipvicious.libs.svhelper').makeRequest
request.__defaults__ = tuple(agent if d == 'friendly-scanner' else d for d in request.__defaults__)
module.main()
";

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
        self.start_disguised(netns, dir, name, limit, Disguise::None)
    }

    /// Starts the scan in disguise.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn start_disguised(
        &self,
        netns: &Netns,
        dir: &WorkDir,
        name: &str,
        limit: Duration,
        disguise: Disguise,
    ) -> Result<Process> {
        let scan = self.command();
        let mut command = Command::new("timeout");
        command.args(["--kill-after=1", &limit.as_secs().max(1).to_string()]);
        if let Disguise::Agent(agent) = disguise {
            // The interpreter that Debian's package runs on, whatever else is in PATH.
            command.args(["/usr/bin/python3", "-c", OTHER_AGENT]);
            command.arg(scan.get_program()).arg(agent);
        } else {
            command.arg(scan.get_program());
        }
        command.args(scan.get_args());
        if disguise == Disguise::Compact {
            command.arg("-c");
        }
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
