//! The verbs of the command line.

mod allow;
mod args;
mod bans;
mod capture;
mod daemon;
mod exit;
mod import;
pub mod list_file;
mod local;
mod out;
mod pcap;
mod shell;
mod text;
mod top;
mod values;

pub use args::{AnalyzeArgs, Cli, Format, Global, ImportFormat, RunArgs, Verb};
pub use capture::judge;
pub use exit::{Error, Exit};
pub use out::Out;

use crate::api::{client::Client, socket};

/// Carries out a command line.
///
/// # Errors
/// [`Error`], which knows its exit code.
pub fn run(cli: Cli) -> Result<Exit, Error> {
    let mut out = Out::new(&cli.global);
    let exit = dispatch(cli, &mut out)?;
    out.flush()?;
    Ok(exit)
}

fn dispatch(cli: Cli, out: &mut Out) -> Result<Exit, Error> {
    let Cli { global, verb } = cli;
    let verb = match verb {
        Verb::Run(args) => return local::run(&global, args),
        Verb::Analyze(args) => return local::analyze(&args, out),
        Verb::Detach(args) => return local::detach(&args, out),
        Verb::Prepare(args) => return local::prepare(&args),
        Verb::Config(args::ConfigVerb::Check { file }) => return local::check_config(&file, out),
        Verb::Completions(args) => return shell::completions(args, out),
        Verb::Man(args) => return shell::man(&args, out),
        verb => verb,
    };
    let client = Client::new(global.socket.unwrap_or_else(|| socket::DEFAULT_PATH.into()));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Local(Box::new(error)))?;
    runtime.block_on(ask(&client, verb, out))
}

/// The verbs that talk to the daemon.
async fn ask(client: &Client, verb: Verb, out: &mut Out) -> Result<Exit, Error> {
    match verb {
        Verb::Ban(args) => bans::ban(client, args, out).await,
        Verb::Unban(args) => bans::unban(client, args, out).await,
        Verb::List(args) => bans::list(client, args, out).await,
        Verb::Check(args) => bans::check(client, args.address, out).await,
        Verb::Allow(verb) => allow::allow(client, verb, out).await,
        Verb::Import(args) => import::import(client, args, out).await,
        Verb::Export(args) => import::export(client, args.format, out).await,
        Verb::Status => daemon::status(client, out).await,
        Verb::Top(args) => top::top(client, args, out).await,
        Verb::Events(args) => daemon::events(client, args, out).await,
        Verb::Mode(args) => daemon::mode(client, args.mode, out).await,
        Verb::Config(args::ConfigVerb::Show) => daemon::show_config(client, out).await,
        Verb::Config(args::ConfigVerb::Reload) => daemon::reload(client, out).await,
        Verb::Health => daemon::health(client, out).await,
        // Taken care of without a daemon.
        Verb::Run(_)
        | Verb::Analyze(_)
        | Verb::Detach(_)
        | Verb::Prepare(_)
        | Verb::Config(args::ConfigVerb::Check { .. })
        | Verb::Completions(_)
        | Verb::Man(_) => Ok(Exit::Done),
    }
}
