//! The log: standard error, which systemd hands to the journal.

use std::{
    io::IsTerminal as _,
    os::unix::fs::MetadataExt as _,
    sync::{Mutex, PoisonError},
};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Layer as _,
    fmt::{
        self, FmtContext, FormatEvent, FormatFields,
        format::{Format, Writer},
    },
    layer::SubscriberExt as _,
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

/// Changes the filter of the log that was started; absent where the command line or `RUST_LOG` has fixed it.
static CHANGE: Mutex<Option<Change>> = Mutex::new(None);

type Change = Box<dyn Fn(EnvFilter) + Send>;

/// Starts logging. `json` is for machines. In the journal, lines begin with their priority, as sd-daemon(3) has it, and
/// have neither time nor colour. May be called more than once: the first call counts.
///
/// `RUST_LOG` names the filter, else `verbose` does, else `level`, as `log.level` of the configuration.
pub fn start(level: &str, verbose: u8, json: bool) {
    let named = EnvFilter::try_from_default_env().ok();
    let fixed = named.is_some() || verbose > 0;
    let level = match verbose {
        0 => level,
        1 => "debug",
        _ => "trace",
    };
    let filter = named
        .or_else(|| EnvFilter::try_new(level).ok())
        .unwrap_or_else(|| EnvFilter::new("info"));
    let colour =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let (filter, handle) = reload::Layer::new(filter);
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(colour);
    let lines = if json {
        lines.json().boxed()
    } else if in_journal() {
        let plain = Format::default()
            .without_time()
            .with_level(false)
            .with_ansi(false);
        lines.with_ansi(false).event_format(Prioritized(plain)).boxed()
    } else {
        lines.boxed()
    };
    let started = tracing_subscriber::registry().with(filter).with(lines).try_init();
    let change = Box::new(move |filter| {
        // Only fails if the log is gone.
        let _ = handle.reload(filter);
    });
    // Only fails if logging has been started already.
    if started.is_ok() && !fixed {
        *CHANGE.lock().unwrap_or_else(PoisonError::into_inner) = Some(change);
    }
}

/// Puts another `log.level` in force, unless the command line or `RUST_LOG` says how much is logged.
pub fn set_level(level: &str) {
    let change = CHANGE.lock().unwrap_or_else(PoisonError::into_inner);
    if let (Some(change), Ok(filter)) = (change.as_ref(), EnvFilter::try_new(level)) {
        change(filter);
    }
}

/// Whether standard error goes to the journal: systemd names the device and inode that does, and a service may have
/// redirected it since.
fn in_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
        return false;
    };
    std::fs::metadata("/proc/self/fd/2")
        .is_ok_and(|stderr| stream == format!("{}:{}", stderr.dev(), stderr.ino()))
}

/// Lines that begin with their priority.
struct Prioritized<F>(F);

impl<S, N, F> FormatEvent<S, N> for Prioritized<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// syslog(3)
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        Level::DEBUG | Level::TRACE => 7,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Arc, Mutex},
    };

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_for_the_journal_begin_with_their_priority_and_have_no_time() {
        let lines = Lines::default();
        let writer = lines.clone();
        let plain = Format::default()
            .without_time()
            .with_level(false)
            .with_ansi(false);
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .event_format(Prioritized(plain))
            .finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!(interface = "eth0", "first");
            tracing::warn!("second");
            tracing::info!("third");
        });
        let text = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
        let here = module_path!();
        assert_eq!(
            text,
            format!("<3>{here}: first interface=\"eth0\"\n<4>{here}: second\n<6>{here}: third\n")
        );
    }
}
