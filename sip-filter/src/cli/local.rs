//! What this process does itself, without the daemon: the daemon among them.

use std::path::Path;

use super::{
    args::{AnalyzeArgs, Global, RunArgs},
    exit::{Error, Exit},
    out::Out,
};

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

/// `detach`: takes the program and its pins off an interface.
pub(super) fn detach(_interface: &str, _out: &mut Out) -> Result<Exit, Error> {
    missing("detach")
}

/// `config check`: reads a configuration and says what is wrong with it.
pub(super) fn check_config(_file: &Path, _out: &mut Out) -> Result<Exit, Error> {
    missing("config check")
}
