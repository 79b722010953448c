//! Kamailio as the server under attack: a registrar and proxy with digest authentication.

use std::{
    fmt::Write as _,
    io::ErrorKind,
    net::{IpAddr, SocketAddr, UdpSocket},
    path::Path,
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{Netns, Process, WorkDir, wait, workdir::path_str};

const TEMPLATE: &str = include_str!("templates/kamailio.cfg");

/// What the server listens on, whom it knows, and where calls go.
#[derive(Debug, Clone)]
pub struct KamailioConfig {
    /// Addresses to listen on, UDP and TCP port 5060.
    pub listen: Vec<IpAddr>,
    /// Digest realm.
    pub realm: String,
    /// User names and passwords.
    pub users: Vec<(String, String)>,
    /// Where authenticated calls go, one per address family at most. Without one they get 404.
    pub call_targets: Vec<SocketAddr>,
    /// Whether a REGISTER for an unknown user gets 404 at once, as careless servers do, instead of a challenge
    /// that tells nothing.
    pub reveal_unknown_users: bool,
    /// Whether it defends itself.
    pub guard: Guard,
}

/// Kamailio's own means against attackers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Guard {
    /// None.
    #[default]
    None,
    /// What the `kamailio.cfg` it comes with does with `WITH_ANTIFLOOD`: pike, a ban of 300 s, and silence
    /// towards the User-Agents of some scanners.
    Stock,
}

/// What Kamailio logs when [`Guard::Stock`] bans an address, up to that address.
pub const PIKE_ALERT: &str = "ALERT: pike blocking ";

/// Modules and parameters of the stock configuration, and the tests at the head of its routing.
const STOCK_MODULES: &str = "loadmodule \"pike.so\"
modparam(\"pike\", \"sampling_time_unit\", 2)
modparam(\"pike\", \"reqs_density_per_unit\", 16)
modparam(\"pike\", \"remove_latency\", 4)
modparam(\"htable\", \"htable\", \"ipban=>size=8;autoexpire=300;\")
";
const STOCK_GUARD: &str = "\tif (src_ip != myself) {
		if ($sht(ipban=>$si) != $null) exit;
		if (!pike_check_req()) {
			xlog(\"L_ALERT\", \"ALERT: pike blocking $si ($rm from $fu)\\n\");
			$sht(ipban=>$si) = 1;
			exit;
		}
	}
	if ($ua =~ \"friendly|scanner|sipcli|sipvicious|VaxSIPUserAgent|pplsip\") exit;
";

impl KamailioConfig {
    /// The configuration file.
    #[must_use]
    pub fn render(&self) -> String {
        let mut listen = String::new();
        for address in &self.listen {
            let socket = SocketAddr::new(*address, 5060);
            let _ = writeln!(listen, "listen=udp:{socket}\nlisten=tcp:{socket}");
        }
        let mut users = String::new();
        for (name, password) in &self.users {
            let _ = writeln!(users, "\t$sht(users=>{name}) = \"{password}\";");
        }
        let unknown = if self.reveal_unknown_users {
            "\t\tif ($sht(users=>$tU) == $null) {\n\t\t\txlog(\"L_NOTICE\", \"$Tf: unknown user $tU from $si\\n\");\n\t\t\tsl_send_reply(\"404\", \"Not Found\");\n\t\t\texit;\n\t\t}"
        } else {
            ""
        };
        let mut forward = String::new();
        for target in &self.call_targets {
            let family = if target.is_ipv4() { "INET" } else { "INET6" };
            let _ = writeln!(forward, "\t\tif (af == {family}) $du = \"sip:{target}\";");
        }
        forward.push_str(
            "\t\tif ($du == $null) {\n\t\t\tsl_send_reply(\"404\", \"Not Found\");\n\t\t\texit;\n\t\t}",
        );
        let (modules, guard) = match self.guard {
            Guard::None => ("", ""),
            Guard::Stock => (STOCK_MODULES, STOCK_GUARD),
        };
        TEMPLATE
            .replace("@MODULES@", modules)
            .replace("@GUARD@", guard)
            .replace("@LISTEN@", &listen)
            .replace("@USERS@", &users)
            .replace("@UNKNOWN@", unknown)
            .replace("@FORWARD@", &forward)
            .replace("@REALM@", &self.realm)
    }
}

/// A running server.
#[derive(Debug)]
pub struct Kamailio {
    process: Process,
}

impl Kamailio {
    /// Starts the server in `netns` and waits until it answers OPTIONS on each of its addresses.
    ///
    /// # Errors
    /// If it can't be started or doesn't answer in time.
    pub fn start(netns: &Netns, dir: &WorkDir, config: &KamailioConfig) -> Result<Self> {
        let file = dir.write("kamailio.cfg", &config.render())?;
        let run = dir.path().join("kamailio");
        std::fs::create_dir_all(&run)?;
        let mut process = Process::spawn(netns, "kamailio", dir.path(), command(&file, &run)?)?;
        for address in &config.listen {
            let server = SocketAddr::new(*address, 5060);
            wait::until("kamailio answering OPTIONS", Duration::from_secs(10), || {
                process.check()?;
                netns.enter(|| answers_options(server))?
            })?;
        }
        Ok(Self { process })
    }

    /// Fails if the server ended.
    ///
    /// # Errors
    /// If it isn't running.
    pub fn check(&mut self) -> Result<()> {
        self.process.check()
    }

    /// Where its log is.
    #[must_use]
    pub fn log_file(&self) -> &Path {
        self.process.log_file()
    }

    /// What it logged.
    #[must_use]
    pub fn log(&self) -> String {
        self.process.log()
    }
}

fn command(file: &Path, run: &Path) -> Result<Command> {
    let mut command = Command::new("kamailio");
    // In the foreground, on little memory, with every file it makes in a directory of its own.
    command.args(["-DD", "-E", "-m", "32", "-M", "4", "-f", path_str(file)?]);
    command
        .args(["-w", path_str(run)?, "-Y", path_str(run)?, "-P"])
        .arg(run.join("pid"));
    Ok(command)
}

/// Sends one OPTIONS from the calling thread's namespace and reports whether `server` said 200.
///
/// # Errors
/// If no socket can be had.
pub fn answers_options(server: SocketAddr) -> Result<bool> {
    let any = if server.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = UdpSocket::bind(any).context("a socket for OPTIONS")?;
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    socket.connect(server)?;
    let local = socket.local_addr()?;
    let request = format!(
        "OPTIONS sip:{server} SIP/2.0\r\nVia: SIP/2.0/UDP {local};branch=z9hG4bK-lab-{port}\r\n\
         Max-Forwards: 70\r\nFrom: <sip:probe@{local}>;tag=lab\r\nTo: <sip:{server}>\r\n\
         Call-ID: lab-{port}@{ip}\r\nCSeq: 1 OPTIONS\r\nContent-Length: 0\r\n\r\n",
        port = local.port(),
        ip = local.ip(),
    );
    let mut buffer = [0; 2048];
    // Nobody there shows as "refused" on either call.
    match socket
        .send(request.as_bytes())
        .and_then(|_| socket.recv(&mut buffer))
    {
        Ok(length) => Ok(buffer
            .get(..length)
            .unwrap_or_default()
            .starts_with(b"SIP/2.0 200")),
        Err(error) => match error.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::WouldBlock | ErrorKind::TimedOut => Ok(false),
            _ => Err(error).context("can't send OPTIONS"),
        },
    }
}
