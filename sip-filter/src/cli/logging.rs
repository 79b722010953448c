//! The log: standard error, which systemd hands to the journal.

use std::io::IsTerminal as _;

use tracing_subscriber::{EnvFilter, fmt};

/// The filter `RUST_LOG` names, else the one for this many `-v`, else `level`, as `log.level` of the configuration.
fn filter(level: &str, verbose: u8) -> EnvFilter {
    let level = match verbose {
        0 => level,
        1 => "debug",
        _ => "trace",
    };
    EnvFilter::try_from_default_env()
        .or_else(|_| EnvFilter::try_new(level))
        .unwrap_or_else(|_| EnvFilter::new("info"))
}

/// Starts logging. `json` is for machines; without it, times are left out where the journal adds them. May be called
/// more than once: the first call counts.
pub fn start(level: &str, verbose: u8, json: bool) {
    let to_stderr = fmt()
        .with_env_filter(filter(level, verbose))
        .with_writer(std::io::stderr)
        .with_ansi(
            std::io::stderr().is_terminal()
                && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
        );
    // Set by systemd when standard error goes to the journal.
    let journal = std::env::var_os("JOURNAL_STREAM").is_some();
    let started = if json {
        to_stderr.json().try_init()
    } else if journal {
        to_stderr.without_time().try_init()
    } else {
        to_stderr.try_init()
    };
    // Only fails if logging has been started already.
    drop(started);
}
