//! The choice of eBPF toolchain, as `cargo xtask setup` leaves it for `sip-filter/build.rs`.
//!
//! The build script includes this very file, so writer and reader cannot disagree. Only `std` here: whatever
//! this file needs, every user of sip-filter compiles before the first line of the program.

use std::{env, ffi::OsString, fmt, fs, path::PathBuf};

/// Everything a build needs to know about the eBPF toolchain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ToolchainRecord {
    /// Name for `rustup run`; empty when there is no rustup and the compiler on `PATH` is the one.
    pub(crate) toolchain: String,
    /// `rustc --version` of that toolchain, so that an upgrade under the same name is noticed.
    pub(crate) rustc: String,
    /// A stable compiler builds `core` from source only when told that it may.
    pub(crate) rustc_bootstrap: bool,
    /// A bpf-linker that reads this compiler's bitcode.
    pub(crate) linker: PathBuf,
}

impl ToolchainRecord {
    /// The directory in which sip-filter keeps what can be made again.
    pub(crate) fn cache_dir() -> Option<PathBuf> {
        let absolute = |name| {
            env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let base = absolute("XDG_CACHE_HOME").or_else(|| Some(absolute("HOME")?.join(".cache")))?;
        Some(base.join("sip-filter"))
    }

    /// Where the record lies.
    pub(crate) fn path() -> Option<PathBuf> {
        Some(Self::cache_dir()?.join("ebpf-toolchain"))
    }

    /// Reads the record; `None` if it is missing, unreadable or incomplete, which all mean "run set-up".
    pub(crate) fn load() -> Option<Self> {
        Self::parse(&fs::read_to_string(Self::path()?).ok()?)
    }

    /// Parses the `key=value` lines that [`fmt::Display`] writes. Unknown keys are left for newer versions.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let value = |key: &str| {
            text.lines()
                .find_map(|line| line.split_once('=').filter(|(k, _)| *k == key))
                .map(|(_, v)| v)
        };
        Some(Self {
            toolchain: value("toolchain")?.to_owned(),
            rustc: value("rustc")?.to_owned(),
            rustc_bootstrap: value("rustc_bootstrap")?.parse().ok()?,
            linker: OsString::from(value("linker").filter(|path| !path.is_empty())?).into(),
        })
    }

    /// Variables that the eBPF build needs in its environment.
    pub(crate) fn build_env(&self) -> Vec<(&'static str, OsString)> {
        let mut vars = vec![
            (
                "CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER",
                self.linker.clone().into_os_string(),
            ),
            // No path of this machine goes into the object: whoever builds it gets the same bytes.
            ("CARGO_UNSTABLE_TRIM_PATHS", "true".into()),
            ("CARGO_PROFILE_RELEASE_TRIM_PATHS", "all".into()),
        ];
        if self.rustc_bootstrap {
            vars.push(("RUSTC_BOOTSTRAP", "1".into()));
        }
        vars
    }
}

impl fmt::Display for ToolchainRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            toolchain,
            rustc,
            rustc_bootstrap,
            linker,
        } = self;
        writeln!(f, "toolchain={toolchain}")?;
        writeln!(f, "rustc={rustc}")?;
        writeln!(f, "rustc_bootstrap={rustc_bootstrap}")?;
        writeln!(f, "linker={}", linker.display())
    }
}
