//! fail2ban over Kamailio's log, set up as it comes.

use std::{net::IpAddr, path::Path, process::Command, time::Duration};

use anyhow::{Context as _, Result};

use super::{Process, Site, workdir::path_str};

/// Failures that it takes until it bans, within ten minutes and for ten minutes.
pub const MAX_RETRY: usize = 5;

/// Values as fail2ban comes with them: 5 failures in 600 s, ban of 600 s. It would look up its own host's name to
/// spare itself, for five seconds where no DNS answers, as in a namespace: hence no `ignoreself`.
const JAIL: &str = "[kamailio]
enabled = true
backend = auto
usedns = no
ignoreself = false
ignoreip = @ALLOWED@
logpath = @LOG@
filter = kamailio
maxretry = 5
findtime = 600
bantime = 600
banaction = nftables
action = nftables[type=multiport, name=kamailio, port=\"5060,5061\", protocol=\"udp,tcp\"]
";
const FILTER: &str = "[Definition]
failregex = authentication of .* failed from <HOST>$
            unknown user .* from <HOST>$
ignoreregex =
";
const SERVER: &str = "[DEFAULT]
loglevel = INFO
logtarget = STDOUT
syslogsocket = auto
socket = @DIR@/f2b.sock
pidfile = @DIR@/f2b.pid
dbfile = None
dbpurgeage = 1d
dbmaxmatches = 10

[Definition]
";

/// Starts fail2ban beside the server of `site`, over its log, and waits until it watches it. It bans by nftables, and
/// never `allowed`.
///
/// # Errors
/// If it isn't installed or doesn't come up.
pub fn start(site: &Site, allowed: Option<IpAddr>) -> Result<Process> {
    let dir = site.dir.path().join("fail2ban");
    let own = path_str(&dir)?.to_owned();
    for sub in ["filter.d", "action.d"] {
        std::fs::create_dir_all(dir.join(sub))?;
    }
    let log = path_str(site.kamailio.log_file())?;
    let allowed = allowed.map_or(String::new(), |address| address.to_string());
    site.dir
        .write("fail2ban/fail2ban.conf", &SERVER.replace("@DIR@", &own))?;
    site.dir.write(
        "fail2ban/jail.conf",
        &JAIL.replace("@LOG@", log).replace("@ALLOWED@", &allowed),
    )?;
    site.dir.write("fail2ban/filter.d/kamailio.conf", FILTER)?;
    let action = "action.d/nftables.conf";
    let original = Path::new("/etc/fail2ban").join(action);
    std::fs::copy(&original, dir.join(action)).with_context(|| format!("no {}", original.display()))?;
    let mut command = Command::new("fail2ban-server");
    command.args(["-f", "-c", &own, "start"]);
    let mut process = Process::spawn(&site.topology.edge, "fail2ban", site.dir.path(), command)?;
    process.wait_for_line("Jail 'kamailio' started", Duration::from_secs(15))?;
    Ok(process)
}
