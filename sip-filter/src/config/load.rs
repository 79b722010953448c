//! Reads the configuration file and turns whatever is wrong with it into lines an operator can act on.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use super::{
    Config, check,
    locate::{Located, line_at},
};

/// Where the configuration is looked for without `--config`. It may be missing: then the defaults hold.
pub const DEFAULT_PATH: &str = "/etc/sip-filter/config.toml";

/// Bytes of the longest configuration that is read: room for an allow-list of a hundred thousand networks.
const LONGEST: u64 = 4 << 20;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line, counted from 1, if it is known.
    pub line: Option<usize>,
    /// Dotted key, if the trouble lies with one.
    pub key: Option<String>,
    /// What is wrong, with the value.
    pub message: String,
}

/// The configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// Which file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Its contents are wrong.
    #[error("{}", lines(file, problems))]
    Invalid {
        /// Which file, or "command line".
        file: String,
        /// At least one.
        problems: Vec<Problem>,
    },
}

fn lines(file: &str, problems: &[Problem]) -> String {
    let line = |problem: &Problem| {
        let line = problem.line.map(|line| format!(":{line}")).unwrap_or_default();
        let key = problem
            .key
            .as_ref()
            .map(|key| format!("{key}: "))
            .unwrap_or_default();
        format!("{file}{line}: {key}{}", problem.message)
    };
    problems.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Settings of the command line, which win over the file, also at every reload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--interface`; none given leaves the file's.
    pub interfaces: Vec<String>,
    /// `--simulate`.
    pub simulate: bool,
    /// `--state-dir`.
    pub state_dir: Option<PathBuf>,
    /// `--socket`.
    pub socket: Option<PathBuf>,
}

impl Overrides {
    fn apply(&self, config: &mut Config) {
        if !self.interfaces.is_empty() {
            config.interfaces.clone_from(&self.interfaces);
        }
        config.simulate |= self.simulate;
        if let Some(dir) = &self.state_dir {
            config.state_dir.clone_from(dir);
        }
        if let Some(socket) = &self.socket {
            config.socket.clone_from(socket);
        }
    }
}

/// Where a configuration comes from; kept by the daemon, to read it again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Source {
    /// `--config`: must exist. Without it [`DEFAULT_PATH`] is read if it exists.
    pub path: Option<PathBuf>,
    /// From the command line.
    pub overrides: Overrides,
}

impl Source {
    /// Reads and checks it.
    ///
    /// # Errors
    /// [`ConfigError`] if the file cannot be read or anything in it is wrong.
    pub fn load(&self) -> Result<Config, ConfigError> {
        let path = self.path.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
        let mut config = match read(path) {
            Ok(text) => Config::parse(&text, &path.display().to_string())?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound && self.path.is_none() => {
                Config::default()
            }
            Err(source) => {
                return Err(ConfigError::Read {
                    path: path.display().to_string(),
                    source,
                });
            }
        };
        if self.overrides != Overrides::default() {
            self.overrides.apply(&mut config);
            let problems = findings(&config, |_| None);
            if !problems.is_empty() {
                return Err(ConfigError::Invalid {
                    file: "command line".to_owned(),
                    problems,
                });
            }
        }
        Ok(config)
    }
}

impl Config {
    /// Reads and checks a text; `file` is its name in errors.
    ///
    /// # Errors
    /// [`ConfigError::Invalid`] with every problem found.
    pub fn parse(text: &str, file: &str) -> Result<Self, ConfigError> {
        let invalid = |problems| ConfigError::Invalid {
            file: file.to_owned(),
            problems,
        };
        let problem = |error: &toml::de::Error, located: Option<&Located<'_>>| Problem {
            line: error.span().map(|span| match located {
                Some(located) => located.line_of_error(&span, error.message()),
                None => line_at(text, span.start),
            }),
            key: error.span().and_then(|span| located?.key_at(&span)),
            message: error.message().to_owned(),
        };
        let located = Located::parse(text).map_err(|error| invalid(vec![problem(&error, None)]))?;
        let config: Self =
            toml::from_str(text).map_err(|error| invalid(vec![problem(&error, Some(&located))]))?;
        let problems = findings(&config, |key| located.line_of(key));
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(invalid(problems))
        }
    }
}

/// Reads a file of bounded length: a device or a log given by mistake must not fill the memory.
fn read(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?
        .take(LONGEST + 1)
        .read_to_string(&mut text)?;
    if text.len() as u64 > LONGEST {
        let message = format!("it is longer than {} MiB, and no configuration", LONGEST >> 20);
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidData, message));
    }
    Ok(text)
}

fn findings(config: &Config, line_of: impl Fn(&str) -> Option<usize>) -> Vec<Problem> {
    check::check(config)
        .into_iter()
        .map(|(key, message)| Problem {
            line: line_of(&key),
            key: Some(key),
            message,
        })
        .collect()
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.key {
            Some(key) => write!(f, "{key}: {}", self.message),
            None => f.write_str(&self.message),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error_of(text: &str) -> String {
        Config::parse(text, "config.toml").unwrap_err().to_string()
    }

    #[test]
    fn what_has_no_end_is_not_read_to_it() {
        let source = Source {
            path: Some("/dev/zero".into()),
            ..Source::default()
        };
        let error = source.load().unwrap_err();
        assert!(matches!(error, ConfigError::Read { .. }), "{error}");
    }

    #[test]
    fn errors_name_file_line_key_and_value() {
        for (text, expected) in [
            (
                "\n[limits.register]\n# comment\nrate = \"20/x\"\n",
                r#"config.toml:4: limits.register.rate: "20/x" is not a rate such as "20/s", "100/m" or "unlimited""#,
            ),
            (
                "simulate = \"yes\"",
                r#"config.toml:1: simulate: invalid type: string "yes", expected a boolean"#,
            ),
            (
                "[allow]\nnetworks = [\n \"192.0.2.0/24\",\n \"192.0.2.0/33\",\n]",
                "config.toml:4: allow.networks: `192.0.2.0/33` is neither an IP address nor a network such as \
                 203.0.113.0/24 or 2001:db8::/64",
            ),
            (
                "[bans]\nhand_duration = \"5M\"",
                "config.toml:2: bans.hand_duration: `5M`: `M` could be minutes or months; write `m` or a number of days",
            ),
            (
                "[metrics]\nlisten = \"localhost\"",
                r#"config.toml:2: metrics.listen: "localhost": invalid socket address syntax"#,
            ),
            (
                "interfaces = [\"eth0\", \"eth0\"]\n[events]\nsnapshot_bytes = 5000",
                "config.toml:1: interfaces: \"eth0\" is listed twice\n\
                 config.toml:3: events.snapshot_bytes: 5000 is not between 64 and 1024",
            ),
            (
                "[limits]\ninvite.burst = 0",
                "config.toml:2: limits.invite.burst: 0 is not between 1 and 1000000",
            ),
            (
                "[log]\nlevel = \"inof\"",
                r#"config.toml:2: log.level: "inof" is not "error", "warn", "info", "debug", "trace" or "off""#,
            ),
            (
                "[allow]\nnetworks = [\"192.0.2.0/24\", \"::/0\"]",
                "config.toml:2: allow.networks: \"::/0\" would exempt everybody; to drop nothing, set `simulate = true`",
            ),
            (
                "[protect]\nudp_ports = []\ntcp_ports = []",
                "config.toml:2: protect.udp_ports: with no TCP port either, nothing would be protected",
            ),
        ] {
            assert_eq!(error_of(text), expected, "{text}");
        }
        // The wording of these is toml's; the place is ours.
        for (text, start) in [
            (
                "a = 1\n",
                "config.toml:1: a: unknown field `a`, expected one of `interfaces`",
            ),
            (
                "[log]\n\nlevle = 1\n",
                "config.toml:3: log.levle: unknown field `levle`",
            ),
            (
                "[limits.registre]\n",
                "config.toml:1: limits.registre: unknown field `registre`",
            ),
            (
                "simulate = true\nsimulate = true\n",
                "config.toml:2: duplicate key",
            ),
            ("x = \n", "config.toml:1: "),
        ] {
            let error = error_of(text);
            assert!(error.starts_with(start), "{error}");
        }
    }

    #[test]
    fn a_missing_default_file_is_fine_and_a_named_one_is_not() {
        let missing = Source {
            path: Some("/nonexistent/config.toml".into()),
            ..Source::default()
        };
        let error = missing.load().unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot read the configuration /nonexistent/config.toml"
        );
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.starts_with("No such file"), "{cause}");
        if !Path::new(DEFAULT_PATH).exists() {
            assert_eq!(Source::default().load().unwrap(), Config::default());
        }
    }

    #[test]
    fn the_command_line_wins_and_is_checked_too() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, "interfaces = [\"eth0\"]\n").unwrap();
        let mut source = Source {
            path: Some(path),
            ..Source::default()
        };
        assert_eq!(source.load().unwrap().interfaces, ["eth0"]);
        source.overrides = Overrides {
            interfaces: vec!["eth1".to_owned()],
            simulate: true,
            ..Overrides::default()
        };
        let config = source.load().unwrap();
        assert_eq!(config.interfaces, ["eth1"]);
        assert!(config.simulate);
        source.overrides.interfaces = vec!["no/such".to_owned()];
        assert_eq!(
            source.load().unwrap_err().to_string(),
            "command line: interfaces: \"no/such\" is not the name of a network interface"
        );
    }

    #[test]
    fn show_is_read_back_as_the_same() {
        let mut config = Config::default();
        config.allow.networks = vec!["192.0.2.1".parse().unwrap(), "2001:db8::/32".parse().unwrap()];
        config.bans.hand_duration = None;
        config.metrics.listen = None;
        config.limits.other.rate = super::super::LimitRate(None);
        let shown = config.to_toml().unwrap();
        assert_eq!(Config::parse(&shown, "shown").unwrap(), config);
    }
}
