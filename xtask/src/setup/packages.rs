//! The programs that tests and demonstration use as real peers and real tools.

use anyhow::bail;

use super::{Outcome, apt::Apt};
use crate::process::which;

/// A program of the lab. It is looked for by its command, which any distribution may provide.
struct Program {
    command: &'static str,
    /// Debian's package.
    package: &'static str,
    /// A service that the package would start.
    service: Option<&'static str>,
    /// What not every release of a distribution has; we do without it there.
    optional: bool,
    /// Why we need it, for whoever has to install it by hand.
    reason: &'static str,
}

const fn program(command: &'static str, package: &'static str, reason: &'static str) -> Program {
    Program {
        command,
        package,
        service: None,
        optional: false,
        reason,
    }
}

const fn server(command: &'static str, package: &'static str, reason: &'static str) -> Program {
    Program {
        command,
        package,
        service: Some(package),
        optional: false,
        reason,
    }
}

const fn optional(command: &'static str, package: &'static str, reason: &'static str) -> Program {
    Program {
        optional: true,
        ..program(command, package, reason)
    }
}

static PROGRAMS: [Program; 23] = [
    program("ip", "iproute2", "network namespaces and virtual links"),
    program("nft", "nftables", "the firewall to compare with"),
    program("iptables", "iptables", "the older firewall to compare with"),
    optional("xdp-filter", "xdp-tools", "another XDP filter to compare with"),
    program(
        "bpftool",
        "bpftool",
        "an independent look at loaded programs and maps",
    ),
    program(
        "sipp",
        "sip-tester",
        "load and call scenarios of well-behaved SIP clients",
    ),
    program("sipsak", "sipsak", "single SIP requests"),
    program("svmap", "sipvicious", "the scanner that real servers see"),
    server("kamailio", "kamailio", "a real SIP server to protect"),
    server(
        "fail2ban-server",
        "fail2ban",
        "the protection that most operators use, to compare with",
    ),
    server(
        "prometheus-node-exporter",
        "prometheus-node-exporter",
        "a reader of the textfile metrics",
    ),
    server(
        "prometheus",
        "prometheus",
        "a reader of the metrics, and promtool, which tests the alerting rules",
    ),
    server(
        "prometheus-alertmanager",
        "prometheus-alertmanager",
        "a real receiver of alarms",
    ),
    server("rsyslogd", "rsyslog", "a real receiver of syslog messages"),
    program(
        "jsonnet",
        "jsonnet",
        "renders the alerting rules and the dashboard",
    ),
    program("tcpdump", "tcpdump", "captures"),
    program("tshark", "tshark", "an independent opinion on captures"),
    program(
        "curl",
        "curl",
        "any HTTP client, on the API's socket and the metrics endpoint",
    ),
    program(
        "faketime",
        "faketime",
        "shows the daemon another wall clock than the machine's",
    ),
    program("mkfs.ext4", "e2fsprogs", "a disk of its own, to be frozen"),
    program("jq", "jq", "a reader of our JSON"),
    program(
        "tmux",
        "tmux",
        "the panes of the demonstration, and a terminal for tests of `top`",
    ),
    program(
        "debootstrap",
        "debootstrap",
        "a Debian of its own to try the package in",
    ),
];

pub(super) fn find_or_install(apt: &mut Apt) -> anyhow::Result<Outcome> {
    let absent = absent(apt);
    if absent.is_empty() {
        return Ok(Outcome::Found(format!("all {}", PROGRAMS.len())));
    }
    if !apt.usable() {
        for Program {
            command,
            package,
            reason,
            ..
        } in &absent
        {
            println!("    {command:<26} Debian package {package:<26} {reason}");
        }
    }
    // One package that this distribution lacks must not keep the others away.
    let (known, unknown): (Vec<_>, Vec<_>) = absent
        .into_iter()
        .partition(|program| !apt.usable() || apt.candidate(program.package).is_some());
    let packages: Vec<_> = known.iter().map(|program| program.package).collect();
    if !packages.is_empty() {
        apt.install(&packages)?;
        let services: Vec<_> = known.iter().filter_map(|program| program.service).collect();
        apt.disable_services(&services)?;
    }
    if !unknown.is_empty() {
        let commands: Vec<_> = unknown.iter().map(|program| program.command).collect();
        bail!("apt has no package for: {}", commands.join(" "));
    }
    Ok(Outcome::Done(format!("installed {}", packages.join(" "))))
}

/// What is missing and can be had, or is needed all the same.
fn absent(apt: &Apt) -> Vec<&'static Program> {
    let wanted = |program: &&Program| {
        !program.optional || (apt.usable() && Apt::known_candidate(program.package).is_some())
    };
    PROGRAMS
        .iter()
        .filter(|program| which(program.command).is_none())
        .filter(wanted)
        .collect()
}
