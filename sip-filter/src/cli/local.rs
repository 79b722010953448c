//! What this process does itself, without the daemon: the daemon among them.

use std::path::Path;

use super::{
    args::{AnalyzeArgs, DetachArgs, Format, Global, RunArgs},
    capture,
    exit::{Error, Exit},
    logging,
    out::Out,
};
use crate::{
    api::types::SchemaVersion,
    config::{Config, ConfigError, LogFormat, Overrides, Source},
    dataplane, service,
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
    service::run(source, config).map_err(|error| Error::Local(Box::new(error)))?;
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
    let DetachArgs { interface, pin_root } = args;
    let found = dataplane::detach(interface, pin_root).map_err(|error| Error::Local(Box::new(error)))?;
    let outcome = if found { "detached" } else { "not-attached" };
    match out.format {
        Format::Human if found => out.changed(format_args!("detached the filter from {interface}"))?,
        Format::Human => out.changed(format_args!(
            "nothing is pinned for {interface} under {}; nothing changed (`ip link show dev {interface}` shows programs \
             from elsewhere)",
            pin_root.display()
        ))?,
        Format::Json => out.json(&Detached {
            schema_version: SchemaVersion,
            interface,
            outcome,
        })?,
        Format::Raw => out.raw(&[outcome, interface])?,
    }
    Ok(Exit::Done)
}

/// Answer of `detach -o json`.
#[derive(serde::Serialize)]
struct Detached<'a> {
    schema_version: SchemaVersion,
    interface: &'a str,
    outcome: &'static str,
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
    out.changed(format_args!("{} is a valid configuration", file.display()))?;
    Ok(Exit::Done)
}
