//! Configurations.

use sip_filter::config::{Config, ConfigError};

/// Reads a configuration.
pub fn config(file: &[u8]) {
    let Ok(text) = str::from_utf8(file) else { return };
    let config = match Config::parse(text, "fuzz.toml") {
        Ok(config) => config,
        Err(error) => return located(&error, text),
    };
    // What `config show` prints is a configuration, and the same one.
    let shown = config.to_toml().expect("what was read can be shown");
    let again = Config::parse(&shown, "shown").unwrap_or_else(|error| panic!("{error}\n{shown}"));
    assert_eq!(config, again, "{shown}");
    // What the kernel gets of it.
    let _ = config.kernel([1, 2]);
    let _ = config.tables.sizes();
}

/// Every problem has a line that the file has, and nothing of what is said grows beyond the file.
fn located(error: &ConfigError, text: &str) {
    let ConfigError::Invalid { file, problems } = error else {
        panic!("{error}");
    };
    assert!(file == "fuzz.toml" && !problems.is_empty());
    let lines = text.lines().count().max(1) + 1;
    for problem in problems {
        let line = problem.line.unwrap_or(1);
        assert!((1..=lines).contains(&line), "line {line} of {lines}: {problem}");
        assert!(problem.message.len() < 4_000 + 6 * text.len(), "{problem}");
        assert!(
            problem.line.is_some() || problem.key.is_some(),
            "no place at all: {problem}"
        );
    }
}
