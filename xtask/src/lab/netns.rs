//! Network namespaces, the veth pairs between them, and running things inside.

use std::{
    fs::{self, File},
    path::PathBuf,
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    thread,
};

use anyhow::{Context as _, Result, anyhow};
use nix::{
    sched::{CloneFlags, setns},
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{PREFIX, command, is_orphan, offload};

/// Where `ip netns` keeps its handles.
const RUN_DIR: &str = "/run/netns";

/// A network namespace of our own, deleted when dropped.
#[derive(Debug)]
pub struct Netns {
    name: String,
}

impl Netns {
    /// Creates a namespace for `role`, with its loopback up. The name is unique.
    ///
    /// # Errors
    /// If `ip` is missing or refuses, which mostly means that we aren't root.
    pub fn new(role: &str) -> Result<Self> {
        // A test binary makes the same roles many times over, at the same time.
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}-{}-{number}-{role}", std::process::id());
        command::run("ip", &["netns", "add", &name])
            .context("can't create a network namespace (root needed)")?;
        let netns = Self { name };
        netns.up("lo")?;
        // Interfaces made later inherit it. Detecting duplicate addresses mutes each for two seconds, `nodad`
        // on our own addresses doesn't spare the link-local ones, and neighbours are found through those.
        netns.sysctl("net/ipv6/conf/default/accept_dad", "0")?;
        Ok(netns)
    }

    /// The name that `ip netns` shows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip` on this namespace.
    ///
    /// # Errors
    /// If it fails.
    pub fn ip(&self, args: &[&str]) -> Result<String> {
        command::run("ip", &[&["-n", &self.name], args].concat())
    }

    /// Runs `f` on a thread inside the namespace: sockets that it opens belong there, also after it returned.
    ///
    /// # Errors
    /// If the namespace can't be entered, or `f` panicked.
    pub fn enter<T: Send>(&self, f: impl FnOnce() -> T + Send) -> Result<T> {
        let handle = File::open(self.handle()).with_context(|| format!("namespace {}", self.name))?;
        thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(&handle, CloneFlags::CLONE_NEWNET).context("can't enter the namespace")?;
                    Ok(f())
                })
                .join()
                .map_err(|_| anyhow!("a thread inside the namespace panicked"))?
        })
    }

    /// Runs a program inside the namespace to its end and returns its standard output.
    ///
    /// This isn't `ip netns exec`, which hides the machine's `/sys` behind a new one and with it every
    /// mounted BPF file system.
    ///
    /// # Errors
    /// If it can't be started or fails.
    pub fn run(&self, program: &str, args: &[&str]) -> Result<String> {
        let output = self.enter(|| command::prepare(program, args).output())?;
        command::finish(program, args, output)
    }

    /// Starts `command` inside the namespace. Prefer [`super::Process`], which also ends it.
    ///
    /// # Errors
    /// If it can't be started.
    pub fn spawn(&self, command: &mut Command) -> Result<std::process::Child> {
        // The child inherits the namespace of the thread that forks it.
        let program = command.get_program().to_string_lossy().into_owned();
        self.enter(|| command.spawn())?
            .with_context(|| format!("can't start `{program}`"))
    }

    /// Brings an interface up.
    ///
    /// # Errors
    /// If there is no such interface.
    pub fn up(&self, interface: &str) -> Result<()> {
        self.ip(&["link", "set", interface, "up"]).map(drop)
    }

    /// Adds an address with its prefix length, IPv4 or IPv6, usable at once.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn add_address(&self, interface: &str, address: &str) -> Result<()> {
        self.ip(&["address", "add", address, "dev", interface]).map(drop)
    }

    /// Adds a route; `destination` may be `default`. The family is that of the gateway.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn add_route(&self, destination: &str, gateway: &str) -> Result<()> {
        let family = if gateway.contains(':') { "-6" } else { "-4" };
        self.ip(&[family, "route", "add", destination, "via", gateway])
            .map(drop)
    }

    /// Adds a VLAN interface on top of `parent`, brings it up and returns its name. Some kernels can't; tagged
    /// frames can be sent on any by [`super::frames`].
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn add_vlan(&self, parent: &str, id: u16) -> Result<String> {
        let name = format!("{parent}.{id}");
        let id = id.to_string();
        self.ip(&[
            "link", "add", "link", parent, "name", &name, "type", "vlan", "id", &id,
        ])?;
        self.up(&name)?;
        Ok(name)
    }

    /// Lets the namespace forward IPv4 and IPv6 between its interfaces.
    ///
    /// # Errors
    /// If the settings can't be written.
    pub fn forward(&self) -> Result<()> {
        self.sysctl("net/ipv4/ip_forward", "1")?;
        self.sysctl("net/ipv6/conf/all/forwarding", "1")
    }

    /// Sets a `net/…` kernel parameter of the namespace.
    ///
    /// # Errors
    /// If it can't be written.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let path = format!("/proc/sys/{key}");
        self.enter(|| fs::write(&path, value))?
            .with_context(|| path.clone())
    }

    fn handle(&self) -> PathBuf {
        PathBuf::from(RUN_DIR).join(&self.name)
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        delete(&self.name);
    }
}

/// Connects two namespaces with a veth pair, both ends up.
///
/// Transmit checksum offload is off at both ends. A veth would otherwise hand over packets whose checksum
/// nobody computed, which matters as soon as an XDP program sends one on or a capture is kept.
///
/// # Errors
/// If the kernel refuses it.
pub fn connect(left: (&Netns, &str), right: (&Netns, &str)) -> Result<()> {
    let ((left_ns, left_if), (right_ns, right_if)) = (left, right);
    let link = ["link", "add", left_if, "netns", &left_ns.name, "type", "veth"];
    let peer = ["peer", "name", right_if, "netns", &right_ns.name];
    command::run("ip", &[&link[..], &peer[..]].concat())?;
    for (netns, interface) in [left, right] {
        netns.enter(|| offload::disable_tx_checksum(interface))??;
        netns.up(interface)?;
    }
    Ok(())
}

/// Deletes the namespaces of dead runs and ends what still runs in them.
pub(super) fn sweep() -> Result<()> {
    let listed = command::run("ip", &["netns", "list"])?;
    // Lines are `name` or `name (id: 3)`.
    for name in listed.lines().filter_map(|line| line.split_whitespace().next()) {
        if is_orphan(name) {
            delete(name);
        }
    }
    Ok(())
}

/// Best effort: this runs in `drop`, where nobody could handle an error.
fn delete(name: &str) {
    // The namespace is ours alone, so whoever is left in it is a child of ours that outlived its owner; it
    // would keep the namespace and its interfaces alive, out of sight.
    let own = Pid::this();
    let pids = command::run("ip", &["netns", "pids", name]).unwrap_or_default();
    for pid in pids
        .lines()
        .filter_map(|line| line.trim().parse().ok())
        .map(Pid::from_raw)
    {
        if pid != own {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
    let _ = command::run("ip", &["netns", "delete", name]);
}
