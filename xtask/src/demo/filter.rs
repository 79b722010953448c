//! The filter under demonstration: built, started, asked.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, Result, ensure};
use ipnet::IpNet;
use serde_json::Value;
use sip_filter_common::abi::ABI_VERSION;
use xtask::lab::{
    Netns, Process, WorkDir, command,
    decisions::{self, Decisions},
    process::tail,
    topology::EDGE_INTERFACE,
    wait,
    workdir::path_str,
};

use super::verdict::Ban;

const METRICS: &str = "127.0.0.1:9798";

/// Builds the binary with a profile of cargo and returns where it is.
pub(crate) fn build(profile: &str) -> Result<PathBuf> {
    let package = ["build", "--profile", profile, "--package", "sip-filter"];
    let mut child = crate::process::cargo(package)
        .arg("--message-format=json-render-diagnostics")
        .stdout(Stdio::piped())
        .spawn()
        .context("can't start cargo")?;
    // Cargo itself says where it put the program: the target directory is the user's choice.
    let messages = BufReader::new(child.stdout.take().context("no output of cargo")?);
    let mut binary = None;
    for line in messages.lines() {
        let message: Value = serde_json::from_str(&line?).unwrap_or_default();
        if message["target"]["name"] == "sip-filter"
            && let Some(path) = message["executable"].as_str()
        {
            binary = Some(PathBuf::from(path));
        }
    }
    ensure!(child.wait()?.success(), "sip-filter doesn't build");
    binary.context("cargo built no sip-filter")
}

/// One entry of `sip-filter list`.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) target: IpNet,
    /// How long it will last, unless for good.
    pub(crate) left: Option<Duration>,
    pub(crate) ban: Ban,
}

impl Listed {
    pub(crate) fn covers(&self, address: IpAddr) -> bool {
        self.target.contains(&address)
    }
}

/// The running daemon.
#[derive(Debug)]
pub(crate) struct Filter {
    process: Process,
    binary: PathBuf,
    socket: PathBuf,
    config: PathBuf,
    /// What of its configuration says where everything is.
    place: String,
    pins: PathBuf,
}

impl Filter {
    /// Starts the daemon on the edge's interface and waits until it protects it. `settings` are tables of its
    /// configuration, where it is not to have the defaults.
    pub(crate) fn start(edge: &Netns, dir: &WorkDir, binary: PathBuf, settings: &str) -> Result<Self> {
        let socket = dir.path().join("api.sock");
        let bpf = dir.mount_bpf()?;
        let place = format!(
            "interfaces = [\"{EDGE_INTERFACE}\"]\n\
             state_dir = \"{state}\"\n\
             socket = \"{socket}\"\n\
             \n[metrics]\nlisten = \"{METRICS}\"\n\
             \n[bpf]\npin_root = \"{bpf}/sip-filter\"\n\n",
            state = dir.path().join("state").display(),
            socket = socket.display(),
            bpf = bpf.display(),
        );
        let config = dir.write("sip-filter.toml", &format!("{place}{settings}\n"))?;
        let mut command = Command::new(&binary);
        command.args(["run", "--config", path_str(&config)?]);
        let process = Process::spawn(edge, "sip-filter", dir.path(), command)?;
        let mut filter = Self {
            process,
            binary,
            socket,
            config,
            place,
            pins: bpf.join(format!("sip-filter/v{ABI_VERSION}/{EDGE_INTERFACE}")),
        };
        wait::until("the filter", Duration::from_secs(15), || {
            filter.check()?;
            // Its own word, and the kernel's.
            Ok(filter.ask(&["status", "-o", "json"]).is_ok()
                && edge
                    .ip(&["-details", "link", "show", "dev", EDGE_INTERFACE])?
                    .contains("prog/xdp"))
        })?;
        Ok(filter)
    }

    /// Fails if the daemon ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// The bans in force.
    pub(crate) fn bans(&self) -> Result<Vec<Listed>> {
        let json = self.ask(&["list", "-o", "json"])?;
        parse_list(&json, SystemTime::now()).with_context(|| format!("in `sip-filter list`: {json}"))
    }

    /// What its rules decided so far.
    pub(crate) fn decisions(&self) -> Result<Decisions> {
        decisions::of_events(&self.ask(&["events", "-n", "1000", "-o", "json"])?)
    }

    /// What its rules decide on a capture from before the interface, with the same configuration. `own` are the
    /// server's addresses.
    pub(crate) fn analyze(&self, capture: &Path, own: &[IpAddr]) -> Result<Decisions> {
        let own: Vec<String> = own.iter().map(ToString::to_string).collect();
        let mut args = vec![
            "analyze",
            path_str(capture)?,
            "-o",
            "json",
            "--config",
            path_str(&self.config)?,
        ];
        for address in &own {
            args.extend(["--own", address]);
        }
        decisions::of_analysis(&command::run(path_str(&self.binary)?, &args)?)
    }

    /// What `sip-filter status` says, for people.
    pub(crate) fn status(&self) -> Result<String> {
        self.ask(&["status"])
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Where its tables are pinned.
    pub(crate) fn pins(&self) -> &Path {
        &self.pins
    }

    /// Where its log is.
    pub(crate) fn log_file(&self) -> &Path {
        self.process.log_file()
    }

    /// Writes other settings into its configuration; a reload puts them in force.
    pub(crate) fn configure(&self, settings: &str) -> Result<()> {
        fs::write(&self.config, format!("{}{settings}\n", self.place)).context("the configuration")
    }

    /// A verb against it, to be started.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg("--socket").arg(&self.socket).args(args);
        command
    }

    /// The end of the daemon's log.
    pub(crate) fn log(&self) -> String {
        tail(&self.process.log(), 20)
    }

    /// Runs a verb against it.
    pub(crate) fn ask(&self, args: &[&str]) -> Result<String> {
        let program = path_str(&self.binary)?;
        command::run(program, &[&["--socket", path_str(&self.socket)?], args].concat())
    }
}

/// Fetches the metrics inside the edge, as Prometheus would.
pub(crate) fn scrape(edge: &Netns) -> Result<String> {
    let address: SocketAddr = METRICS.parse()?;
    let limit = Duration::from_secs(2);
    edge.enter(|| -> Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, limit)?;
        stream.set_read_timeout(Some(limit))?;
        stream.write_all(
            format!("GET /metrics HTTP/1.1\r\nHost: {METRICS}\r\nConnection: close\r\n\r\n").as_bytes(),
        )?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        ensure!(
            response.starts_with("HTTP/1.1 200"),
            "no metrics: {}",
            response.lines().next().unwrap_or("")
        );
        Ok(response)
    })?
    .with_context(|| format!("metrics at {METRICS}"))
}

fn parse_list(json: &str, now: SystemTime) -> Result<Vec<Listed>> {
    let value: Value = serde_json::from_str(json)?;
    let bans = value["bans"].as_array().context("no `bans`")?;
    bans.iter()
        .map(|ban| {
            let text = |key: &str| ban[key].as_str().with_context(|| format!("a ban has no `{key}`"));
            let target = text("target")?;
            let target = target
                .parse()
                .or_else(|_| target.parse::<IpAddr>().map(IpNet::from))?;
            let created = text("created")?;
            let created_at = humantime::parse_rfc3339(created).context("`created`")?;
            // A time in whole seconds may lie up to one before the ban: then it counts from when we saw it.
            let at = if created.contains('.') { created_at } else { now };
            let rule = ban["rule"].as_str().unwrap_or("no rule").to_owned();
            let left = ban["expires_in_seconds"].as_u64().map(Duration::from_secs);
            Ok(Listed {
                target,
                left,
                ban: Ban { at, rule },
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = r#"{"schema_version":1,"bans":[
        {"target":"203.0.113.21","origin":"detector","rule":"account-scan","created":"2026-01-02T03:04:05.250Z"},
        {"target":"2001:db8:bad::/64","origin":"detector","rule":"flood-invite","created":"2026-01-02T03:04:05Z"}
    ]}"#;

    #[test]
    fn a_ban_covers_its_network_from_its_time_on() {
        let now = SystemTime::UNIX_EPOCH;
        let bans = parse_list(LIST, now).unwrap();
        assert!(bans[0].covers("203.0.113.21".parse().unwrap()));
        assert!(!bans[0].covers("203.0.113.22".parse().unwrap()));
        assert_eq!(
            bans[0].ban.at,
            humantime::parse_rfc3339("2026-01-02T03:04:05.250Z").unwrap()
        );
        assert!(bans[1].covers("2001:db8:bad::15".parse().unwrap()));
        assert_eq!(bans[1].ban.at, now);
    }

    #[test]
    fn a_list_of_another_form_is_an_error() {
        assert!(parse_list("{}", SystemTime::UNIX_EPOCH).is_err());
    }
}
