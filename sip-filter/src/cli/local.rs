//! What this process does itself, without the daemon: the daemon among them.

use std::path::Path;

use super::{
    args::{AnalyzeArgs, DetachArgs, Format, Global, PrepareArgs, RunArgs},
    capture,
    exit::{Error, Exit},
    out::Out,
};
use crate::{
    api::{access, types::SchemaVersion},
    config::{Config, ConfigError, LogFormat, Overrides, Source},
    dataplane, logging,
    service::{self, RunError},
};

/// `run`: the daemon. The log's level comes from the configuration, so it starts here.
pub(super) fn run(global: &Global, args: RunArgs) -> Result<Exit, Error> {
    let source = Source {
        path: args.config,
        overrides: Overrides {
            interfaces: args.interfaces,
            simulate: args.simulate,
            state_dir: args.state_dir,
            socket: global.socket.clone(),
        },
    };
    let config = load(&source)?;
    logging::start(
        &config.log.level,
        global.verbose,
        config.log.format == LogFormat::Json,
    );
    service::run(source, config).map_err(|error| match error {
        RunError::StartAgain { .. } => Error::StartAgain(Box::new(error)),
        error => Error::Local(Box::new(error)),
    })?;
    Ok(Exit::Done)
}

/// Reads a configuration; nonsense in it is bad input, a file that cannot be read a failure.
fn load(source: &Source) -> Result<Config, Error> {
    source.load().map_err(|error| match error {
        ConfigError::Invalid { .. } => Error::Input(error.to_string()),
        ConfigError::Read { .. } => Error::Local(Box::new(error)),
    })
}

/// `analyze`: a capture through the same pipeline and the same engine as live packets, in its own time.
pub(super) fn analyze(args: &AnalyzeArgs, out: &mut Out) -> Result<Exit, Error> {
    let source = Source {
        path: args.config.clone(),
        overrides: Overrides::default(),
    };
    let config = load(&source)?;
    let name = args.file.display().to_string();
    let file_error = |source| Error::File {
        action: "read",
        path: name.clone(),
        source,
    };
    let report = if args.file.as_os_str() == "-" {
        capture::judge(&name, std::io::stdin().lock(), &config, &args.own)?
    } else {
        let file = std::fs::File::open(&args.file).map_err(file_error)?;
        capture::judge(&name, std::io::BufReader::new(file), &config, &args.own)?
    };
    match out.format {
        Format::Human => out.text(&report.human(args.limit, out.width()))?,
        Format::Json => out.json(&report.json())?,
        Format::Raw => out.text(&report.raw())?,
    }
    match &report.error {
        None => Ok(Exit::Done),
        Some(error) => {
            out.warn(format_args!("error: {name}: {error}"));
            Ok(Exit::Failure)
        }
    }
}

/// `detach`: takes the program and its pins off an interface, whatever version of sip-filter left them there.
pub(super) fn detach(args: &DetachArgs, out: &mut Out) -> Result<Exit, Error> {
    let local = |error| Error::Local(Box::new(error));
    let interfaces = match &args.interface {
        Some(interface) => vec![interface.clone()],
        None => dataplane::pinned(&args.pin_root)
            .map_err(local)?
            .into_iter()
            .collect(),
    };
    if interfaces.is_empty() {
        out.note(format_args!(
            "nothing is pinned under {}",
            args.pin_root.display()
        ));
    }
    let mut outcomes = Vec::new();
    for interface in interfaces {
        let found = dataplane::detach(&interface, &args.pin_root).map_err(local)?;
        let outcome = if found == dataplane::Detached::default() {
            "not-attached"
        } else {
            "detached"
        };
        match out.format {
            Format::Human if outcome == "detached" => {
                if found.filter {
                    out.changed(format_args!("detached the filter from {interface}"))?;
                }
                if found.classifier {
                    out.changed(format_args!(
                        "took off {interface} the classifier of answers that a stopped daemon had left there"
                    ))?;
                }
            }
            Format::Human => out.changed(format_args!(
                "nothing is pinned for {interface} under {}; nothing changed (`ip link show dev {interface}` shows \
                 programs from elsewhere)",
                args.pin_root.display()
            ))?,
            Format::Json => {}
            Format::Raw => out.raw(&[outcome, &interface])?,
        }
        outcomes.push(Detached { interface, outcome });
    }
    if out.format == Format::Json {
        match (args.all, outcomes.pop()) {
            (false, Some(one)) => out.json(&DetachedOne {
                schema_version: SchemaVersion,
                one,
            })?,
            (_, last) => {
                outcomes.extend(last);
                out.json(&DetachedAll {
                    schema_version: SchemaVersion,
                    interfaces: outcomes,
                })?;
            }
        }
    }
    Ok(Exit::Done)
}

/// What became of an interface.
#[derive(serde::Serialize)]
struct Detached {
    interface: String,
    outcome: &'static str,
}

/// Answer of `detach IFACE -o json`.
#[derive(serde::Serialize)]
struct DetachedOne {
    schema_version: SchemaVersion,
    #[serde(flatten)]
    one: Detached,
}

/// Answer of `detach --all -o json`.
#[derive(serde::Serialize)]
struct DetachedAll {
    schema_version: SchemaVersion,
    interfaces: Vec<Detached>,
}

/// `prepare`: the directory of pins, for a daemon that is not root.
pub(super) fn prepare(args: &PrepareArgs) -> Result<Exit, Error> {
    let user = match nix::unistd::User::from_name(&args.user) {
        Ok(Some(user)) => user,
        Ok(None) => return Err(Error::Input(format!("there is no user `{}`", args.user))),
        Err(error) => return Err(Error::Local(Box::new(error))),
    };
    dataplane::prepare(&args.pin_root, (user.uid.as_raw(), user.gid.as_raw()))
        .map_err(|error| Error::Local(Box::new(error)))?;
    Ok(Exit::Done)
}

/// What is valid, and would not do on this host, or surely is a slip. The file may be meant for another host.
fn doubts(config: &Config) -> Vec<String> {
    let mut doubts = Vec::new();
    for (key, group) in [
        ("socket_group", &config.socket_group),
        ("admin_group", &config.admin_group),
    ] {
        if let Some(group) = group
            && let Err(error) = access::group_id(group)
        {
            doubts.push(format!(
                "{key}: {error}; on this host `sip-filter run` would not start"
            ));
        }
    }
    if let Err(error) = dataplane::check_pin_root(&config.bpf.pin_root) {
        doubts.push(format!(
            "bpf.pin_root: {error}; on this host `sip-filter run` would not start"
        ));
    }
    for (key, ports) in [
        ("protect.udp_ports", &config.protect.udp_ports),
        ("protect.tcp_ports", &config.protect.tcp_ports),
    ] {
        let mut seen = std::collections::HashSet::new();
        for port in ports.iter().filter(|port| !seen.insert(**port)) {
            doubts.push(format!("{key}: {port} is listed twice"));
        }
    }
    doubts
}

/// `config check`: reads a configuration and says what is wrong with it.
pub(super) fn check_config(file: &Path, out: &mut Out) -> Result<Exit, Error> {
    let config = load(&Source {
        path: Some(file.to_owned()),
        overrides: Overrides::default(),
    })?;
    if config.interfaces.is_empty() {
        // Valid, since `run --interface` can name them.
        out.warn(format_args!(
            "warning: {} names no interface; `sip-filter run` will need `--interface`",
            file.display()
        ));
    }
    for doubt in doubts(&config) {
        out.warn(format_args!("warning: {doubt}"));
    }
    out.changed(format_args!("{} is a valid configuration", file.display()))?;
    Ok(Exit::Done)
}
