//! `sip-filter`: see the library.

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;
use sip_filter::{
    cli::{self, Cli, Verb},
    logging,
};

fn main() -> ExitCode {
    let cli = Cli::parse();
    if !matches!(cli.verb, Verb::Run(_)) {
        logging::start("warn", cli.global.verbose, false);
    }
    match cli::run(cli) {
        Ok(exit) => exit.into(),
        Err(error) => {
            let exit = error.exit();
            if !error.is_broken_pipe() {
                report(error);
            }
            exit.into()
        }
    }
}

fn report(error: cli::Error) {
    let hint = error.hint();
    // anyhow prints the whole chain of causes.
    let mut text = format!("error: {:#}\n", anyhow::Error::from(error));
    if let Some(hint) = hint {
        text.push_str(&format!("hint: {hint}\n"));
    }
    // eprintln! would panic if standard error is closed; then nobody is there to tell.
    let _ = std::io::stderr().lock().write_all(text.as_bytes());
}
