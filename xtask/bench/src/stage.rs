//! A server with sip-filter on its one interface, a host that sends to it, and the daemon's API.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::Signal;
use serde_json::Value;
use sip_filter_common::abi::ABI_VERSION;
use xtask::lab::{Netns, Process, WorkDir, netns, wait, workdir::path_str};

/// The server's interface, the one to protect.
pub(crate) const INTERFACE: &str = "sip0";
/// The other end of it, at the sender.
pub(crate) const SENDER: &str = "eth0";
const SERVER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

/// Budgets so wide that what is dropped is dropped for its source alone.
pub(crate) const NO_BUDGETS: &str = "[budget]\nregister = { rate = \"unlimited\" }\ninvite = { rate = \"unlimited\" }\n\
    options = { rate = \"unlimited\" }\ngarbage = { rate = \"unlimited\" }\nother = { rate = \"unlimited\" }\n";

/// Two hosts with one link between them.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) server: Netns,
    pub(crate) sender: Netns,
    pub(crate) dir: WorkDir,
    bpf: PathBuf,
}

impl Stage {
    pub(crate) fn new(role: &str) -> Result<Self> {
        let dir = WorkDir::new(role)?;
        let (server, sender) = (Netns::new("server")?, Netns::new("sender")?);
        netns::connect((&server, INTERFACE), (&sender, SENDER))?;
        server.add_address(INTERFACE, "192.0.2.1/24")?;
        sender.add_address(SENDER, "192.0.2.2/24")?;
        // Everybody else lives behind the sender.
        server.add_route("default", "192.0.2.2")?;
        let bpf = dir.mount_bpf()?;
        Ok(Self {
            server,
            sender,
            dir,
            bpf,
        })
    }

    /// Where the server listens.
    pub(crate) fn target() -> SocketAddr {
        SocketAddr::new(IpAddr::V4(SERVER), 5060)
    }

    /// Starts the daemon, see [`Daemon::start`].
    pub(crate) fn start(&self, binary: &Path, rest: &str) -> Result<Daemon> {
        Daemon::start(binary, &self.server, &self.dir, &self.bpf, rest)
    }
}

/// A running daemon.
#[derive(Debug)]
pub(crate) struct Daemon {
    process: Process,
    socket: PathBuf,
    /// Where its tables are pinned.
    pub(crate) pins: PathBuf,
}

impl Daemon {
    /// Starts the daemon on [`INTERFACE`] of `server` and waits until it answers, which it does when it protects. `bpf`
    /// is a BPF file system, `rest` are tables of its configuration; those of `[metrics]` and `[bpf]` are given.
    pub(crate) fn start(
        binary: &Path,
        server: &Netns,
        dir: &WorkDir,
        bpf: &Path,
        rest: &str,
    ) -> Result<Self> {
        let (socket, pins) = (dir.path().join("api.sock"), bpf.join("sip-filter"));
        let config = format!(
            "interfaces = [\"{INTERFACE}\"]\nstate_dir = \"{state}\"\nsocket = \"{socket}\"\n\
             [metrics]\nlisten = \"\"\n[bpf]\npin_root = \"{pins}\"\n{rest}\n",
            state = dir.path().join("state").display(),
            socket = socket.display(),
            pins = pins.display(),
        );
        let config = dir.write("sip-filter.toml", &config)?;
        let mut command = Command::new(binary);
        command.args(["run", "--config", path_str(&config)?]);
        let process = Process::spawn(server, "sip-filter", dir.path(), command)?;
        let mut daemon = Self {
            process,
            socket,
            pins: pins.join(format!("v{ABI_VERSION}")).join(INTERFACE),
        };
        wait::until("sip-filter", Duration::from_secs(20), || {
            daemon.process.check()?;
            Ok(daemon.get("/v1/status").is_ok())
        })?;
        Ok(daemon)
    }

    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn get(&self, path: &str) -> Result<Value> {
        let answer = Request::new("GET", path, &[]).send(&self.socket)?.answer()?;
        serde_json::from_slice(&answer).with_context(|| format!("the answer to {path}"))
    }

    /// Sends a request that was made before; the answer is yet to be waited for.
    pub(crate) fn send(&self, request: &Request) -> Result<Pending> {
        request.send(&self.socket)
    }

    /// What it logged.
    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Ends it in order, as systemd does.
    pub(crate) fn stop(mut self) -> Result<()> {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(Duration::from_secs(20))?;
        ensure!(status.success(), "the daemon ended with {status}: {}", self.log());
        Ok(())
    }

    /// Bytes of the file the bans are kept in.
    pub(crate) fn stored(&self, stage: &Stage) -> Result<u64> {
        Ok(fs::metadata(stage.dir.path().join("state/bans.redb"))?.len())
    }
}

/// One HTTP request, ready to be sent. HTTP/1.0: its answer ends with the connection.
#[derive(Debug)]
pub(crate) struct Request(Vec<u8>);

impl Request {
    pub(crate) fn new(method: &str, path: &str, body: &[u8]) -> Self {
        let head = format!(
            "{method} {path} HTTP/1.0\r\nHost: sip-filter\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            body.len()
        );
        Self([head.as_bytes(), body].concat())
    }

    fn send(&self, socket: &Path) -> Result<Pending> {
        let mut stream = UnixStream::connect(socket).context("no daemon at its socket")?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        stream.write_all(&self.0).context("the daemon takes no request")?;
        Ok(Pending(stream))
    }
}

/// A request whose answer is not here yet.
#[derive(Debug)]
pub(crate) struct Pending(UnixStream);

impl Pending {
    /// Waits for the answer and returns its body.
    pub(crate) fn answer(mut self) -> Result<Vec<u8>> {
        let mut answer = Vec::new();
        self.0
            .read_to_end(&mut answer)
            .context("no answer of the daemon")?;
        let end = answer
            .windows(4)
            .position(|window| window == b"\r\n\r\n")
            .context("an answer without a head")?;
        let body = answer.split_off(end + 4);
        let status = answer.get(9..12).unwrap_or_default();
        ensure!(
            status == b"200",
            "the daemon says {}: {}",
            String::from_utf8_lossy(status),
            String::from_utf8_lossy(&body)
        );
        Ok(body)
    }
}
