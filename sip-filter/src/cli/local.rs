//! What this process does itself, without the daemon: the daemon among them.

use std::path::Path;

use super::{
    args::{AnalyzeArgs, DetachArgs, Format, Global, RunArgs},
    exit::{Error, Exit},
    out::Out,
};
use crate::{api::types::SchemaVersion, dataplane};

/// Not part of this build yet.
#[derive(Debug, thiserror::Error)]
#[error("`{0}` is not part of this build")]
struct Missing(&'static str);

fn missing(verb: &'static str) -> Result<Exit, Error> {
    Err(Error::Local(Box::new(Missing(verb))))
}

/// `run`: `daemon::run` with what the command line says. The log's level comes from the configuration, so the daemon
/// starts it, with [`super::logging::start`].
pub(super) fn run(_global: &Global, _args: RunArgs) -> Result<Exit, Error> {
    missing("run")
}

/// `analyze`: `analyze::run`, which writes to `out`.
pub(super) fn analyze(_args: &AnalyzeArgs, _out: &mut Out) -> Result<Exit, Error> {
    missing("analyze")
}

/// `detach`: takes the program and its pins off an interface, whatever version of sip-filter left them there.
pub(super) fn detach(args: &DetachArgs, out: &mut Out) -> Result<Exit, Error> {
    let DetachArgs { interface, pin_root } = args;
    let found = dataplane::detach(interface, pin_root).map_err(|error| Error::Local(Box::new(error)))?;
    let outcome = if found { "detached" } else { "not-attached" };
    match out.format {
        Format::Human if found => out.changed(format_args!("detached the filter from {interface}"))?,
        Format::Human => out.changed(format_args!(
            "no filter is attached to {interface}; nothing changed"
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
pub(super) fn check_config(_file: &Path, _out: &mut Out) -> Result<Exit, Error> {
    missing("config check")
}
