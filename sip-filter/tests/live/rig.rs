//! A server with the filter on its one interface, and a host that sends to it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Once,
    time::Duration,
};

use nix::sys::signal::Signal;
use serde_json::Value;
use xtask::lab::{self, Netns, Process, WorkDir, netns, wait, workdir::path_str};

/// The server's interface.
pub(crate) const INTERFACE: &str = "sip0";
/// The other end of it, at the sender.
pub(crate) const SENDER: &str = "eth0";

pub(crate) const SERVER4: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1));
pub(crate) const SERVER6: IpAddr = IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xffff, 0, 0, 0, 0, 1));

const BINARY: &str = env!("CARGO_BIN_EXE_sip-filter");

/// How long a start may take on a busy machine.
const START: Duration = Duration::from_secs(30);

/// Whether live tests can run here; see [`lab::usable`].
pub(crate) fn usable(programs: &[&str]) -> bool {
    static SWEEP: Once = Once::new();
    if !lab::usable(programs) {
        return false;
    }
    SWEEP.call_once(|| lab::sweep().unwrap());
    true
}

/// What a run of the binary left.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl Ran {
    /// Asserts that it failed with this code and a message of one sentence with all of `words` in it.
    #[track_caller]
    pub(crate) fn refused(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{self:?}");
        let errors: Vec<&str> = self
            .stderr
            .lines()
            .filter(|line| line.starts_with("error: "))
            .collect();
        assert_eq!(errors.len(), 1, "{self:?}");
        for word in words {
            assert!(errors[0].contains(word), "no `{word}` in {self:?}");
        }
    }
}

/// The binary with arguments, the rest as in a plain shell.
pub(crate) fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(BINARY);
    command
        .args(arguments)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

/// Runs the binary without a daemon.
pub(crate) fn run(arguments: &[&str]) -> Ran {
    command(arguments).output().unwrap().into()
}

/// The network, and a directory for everything the daemon writes.
pub(crate) struct Rig {
    pub(crate) server: Netns,
    pub(crate) sender: Netns,
    pub(crate) dir: WorkDir,
    bpf: PathBuf,
}

impl Rig {
    pub(crate) fn new(role: &str) -> Self {
        let dir = WorkDir::new(role).unwrap();
        let (server, sender) = (Netns::new("server").unwrap(), Netns::new("sender").unwrap());
        netns::connect((&server, INTERFACE), (&sender, SENDER)).unwrap();
        server.add_address(INTERFACE, "192.0.2.1/24").unwrap();
        server.add_address(INTERFACE, "2001:db8:ffff::1/64").unwrap();
        sender.add_address(SENDER, "192.0.2.2/24").unwrap();
        sender.add_address(SENDER, "2001:db8:ffff::2/64").unwrap();
        // Everybody else lives behind the sender.
        server.add_route("default", "192.0.2.2").unwrap();
        server.add_route("default", "2001:db8:ffff::2").unwrap();
        let bpf = dir.mount_bpf().unwrap();
        Self {
            server,
            sender,
            dir,
            bpf,
        }
    }

    /// Makes the connection of [`Self::new`] anew after it was deleted; the server's end stays down.
    pub(crate) fn connect_down(&self) {
        netns::connect((&self.server, INTERFACE), (&self.sender, SENDER)).unwrap();
        self.server
            .ip(&["link", "set", "dev", INTERFACE, "down"])
            .unwrap();
        self.server.add_address(INTERFACE, "192.0.2.1/24").unwrap();
        self.sender.add_address(SENDER, "192.0.2.2/24").unwrap();
    }

    /// Gives the sender another address.
    pub(crate) fn add_source(&self, address: &str) -> IpAddr {
        let source: IpAddr = address.parse().unwrap();
        let length = if source.is_ipv4() { 32 } else { 128 };
        self.sender
            .add_address(SENDER, &format!("{source}/{length}"))
            .unwrap();
        source
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The directory below which the daemon called `name` pins.
    pub(crate) fn pin_root(&self, name: &str) -> PathBuf {
        self.bpf.join(name)
    }

    /// Writes a configuration for the daemon called `name`, all of whose paths are its own. `top` are keys, `rest`
    /// are tables.
    pub(crate) fn config(&self, name: &str, top: &str, rest: &str) -> PathBuf {
        let interfaces = if top.contains("interfaces") {
            String::new()
        } else {
            format!("interfaces = [\"{INTERFACE}\"]\n")
        };
        let text = format!(
            "{interfaces}state_dir = \"{state}\"\nsocket = \"{socket}\"\n{top}\n\
             [bpf]\npin_root = \"{pins}\"\n{rest}\n",
            state = self.path(&format!("{name}-state")).display(),
            socket = self.path(&format!("{name}.sock")).display(),
            pins = self.pin_root(name).display(),
        );
        self.dir.write(&format!("{name}.toml"), &text).unwrap()
    }

    /// Starts the daemon called `name` with the configuration last written for it and waits until it protects.
    pub(crate) fn start(&self, name: &str, arguments: &[&str]) -> Daemon {
        Daemon::started(self.spawn(name, arguments), self.path(&format!("{name}.sock")))
    }

    pub(crate) fn spawn(&self, name: &str, arguments: &[&str]) -> Process {
        self.spawn_in(&self.server, name, arguments)
    }

    /// Starts the daemon called `name` in a namespace, without waiting for anything.
    pub(crate) fn spawn_in(&self, netns: &Netns, name: &str, arguments: &[&str]) -> Process {
        let config = self.path(&format!("{name}.toml"));
        let mut command = command(&["run", "--config", path_str(&config).unwrap()]);
        command.args(arguments);
        Process::spawn(netns, name, self.dir.path(), command).unwrap()
    }

    /// The daemon with the defaults.
    pub(crate) fn started(role: &str) -> (Self, Daemon) {
        let rig = Self::new(role);
        rig.config("main", "", "");
        let daemon = rig.start("main", &[]);
        (rig, daemon)
    }

    /// Runs `run` for the daemon called `name` where it is expected to fail.
    pub(crate) fn fail_to_start(&self, name: &str, arguments: &[&str]) -> Ran {
        self.fail_to_start_in(&self.server, name, arguments)
    }

    /// The same in a namespace.
    pub(crate) fn fail_to_start_in(&self, netns: &Netns, name: &str, arguments: &[&str]) -> Ran {
        let config = self.path(&format!("{name}.toml"));
        let mut command = command(&["run", "--config", path_str(&config).unwrap()]);
        command.args(arguments);
        output_in(netns, &command)
    }

    /// Runs a command inside the server's namespace; ended after some seconds, should it run on.
    pub(crate) fn output(&self, command: &Command) -> Ran {
        output_in(&self.server, command)
    }

    /// Every pin and directory of pins there is, of whatever daemon.
    pub(crate) fn pins(&self) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut open = vec![self.bpf.clone()];
        // The kernel's own, in every BPF file system.
        let own = ["maps.debug", "progs.debug"].map(|name| self.bpf.join(name));
        while let Some(directory) = open.pop() {
            for entry in fs::read_dir(directory).unwrap().map(Result::unwrap) {
                if own.contains(&entry.path()) {
                    continue;
                }
                found.push(entry.path());
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// What the kernel says of an interface's XDP: mode and id of the program.
    pub(crate) fn xdp(&self, interface: &str) -> Option<(String, u64)> {
        let json = self.server.ip(&["-j", "link", "show", "dev", interface]).unwrap();
        let links: Value = serde_json::from_str(&json).unwrap();
        let xdp = links[0].get("xdp")?;
        let mode = match xdp["mode"].as_u64().unwrap() {
            1 => "native",
            2 => "generic",
            other => panic!("mode {other}"),
        };
        Some((mode.to_owned(), xdp["prog"]["id"].as_u64().unwrap()))
    }
}

/// A running daemon.
pub(crate) struct Daemon {
    pub(crate) process: Process,
    socket: PathBuf,
}

impl Daemon {
    /// One whose process runs, as soon as it protects.
    pub(crate) fn started(process: Process, socket: PathBuf) -> Self {
        let mut daemon = Self { process, socket };
        wait::until("the daemon", START, || {
            daemon.process.check()?;
            Ok(daemon.ask(&["status", "-o", "json"]).code == Some(0))
        })
        .unwrap();
        daemon
    }

    /// Runs a verb against it.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Ran {
        ask(&self.socket, arguments)
    }

    /// Runs a verb that must work, and returns its output.
    #[track_caller]
    pub(crate) fn done(&self, arguments: &[&str]) -> String {
        let ran = self.ask(arguments);
        assert_eq!(ran.code, Some(0), "{arguments:?}: {ran:?}");
        ran.stdout
    }

    /// Runs a verb that must work, and returns its JSON.
    #[track_caller]
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let text = self.done(&[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    /// A number of `status`; what is not there is zero.
    #[track_caller]
    pub(crate) fn count(&self, of: &str, name: &str) -> u64 {
        self.json(&["status"])[of][name].as_u64().unwrap_or(0)
    }

    /// Packets by reason.
    #[track_caller]
    pub(crate) fn counter(&self, reason: &str) -> u64 {
        self.count("counters", reason)
    }

    /// Everything listed.
    #[track_caller]
    pub(crate) fn bans(&self) -> Vec<Value> {
        self.json(&["list"])["bans"].as_array().unwrap().clone()
    }

    /// SIGKILL, as the kernel does when memory is out.
    pub(crate) fn kill(mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.wait(Duration::from_secs(10)).unwrap();
    }

    /// SIGTERM, as systemd does; must end well.
    pub(crate) fn stop(mut self) -> String {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(Duration::from_secs(20)).unwrap();
        assert!(status.success(), "{status}: {}", self.process.log());
        self.process.log()
    }
}

/// Runs a verb against a socket.
pub(crate) fn ask(socket: &Path, arguments: &[&str]) -> Ran {
    let mut command = command(&["--socket", path_str(socket).unwrap()]);
    command.args(arguments).output().unwrap().into()
}

fn output_in(netns: &Netns, command: &Command) -> Ran {
    let mut timed = Command::new("timeout");
    timed
        .arg("20")
        .arg(command.get_program())
        .args(command.get_args());
    timed.env_remove("RUST_LOG").stdin(Stdio::null());
    netns.enter(|| timed.output()).unwrap().unwrap().into()
}
