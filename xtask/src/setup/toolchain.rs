//! A compiler for the kernel program.
//!
//! There is no ready-made `core` for the BPF target, so the compiler must come with its library's sources. Looked
//! for in this order: a toolchain that is usable as it is; the distribution's compiler, if its packages are new
//! enough and don't displace others; a nightly from rustup.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use super::{Outcome, apt::Apt, linker::SUPPORTED_LLVM};
use crate::{
    process::{output, run, which},
    toolchain_record::ToolchainRecord,
};

/// Our name for the distribution's compiler among rustup's toolchains.
const LINKED: &str = "sip-filter-ebpf";

/// A nightly that is known to build the kernel program. It has LLVM 22.
const NIGHTLY: &str = "nightly-2026-05-20";

/// The oldest compiler that builds the kernel program: `rust-version` of the workspace.
const OLDEST: (u32, u32) = (1, 95);

/// Compilers in Debian and its relatives: compiler, cargo, library sources, lints. The first set is the newer
/// one that Debian keeps for its browsers.
const DISTRIBUTION: [[&str; 4]; 2] = [
    ["rustc-web", "cargo-web", "rust-web-src", "rust-web-clippy"],
    ["rustc", "cargo", "rust-src", "rust-clippy"],
];

/// A compiler that can build the kernel program.
#[derive(Debug)]
pub(super) struct Toolchain {
    /// rustup's name for it; empty for the compiler on `PATH`.
    name: String,
    /// `rustc --version`
    rustc: String,
    nightly: bool,
    /// Major version of its LLVM.
    pub(super) llvm: u32,
    /// That LLVM, if it is a shared library.
    pub(super) llvm_library: Option<PathBuf>,
}

impl Toolchain {
    pub(super) fn record(&self, linker: PathBuf) -> ToolchainRecord {
        let Self {
            name, rustc, nightly, ..
        } = self;
        ToolchainRecord {
            toolchain: name.clone(),
            rustc: rustc.clone(),
            rustc_bootstrap: !nightly,
            linker,
        }
    }

    fn describe(&self) -> String {
        let name = if self.name.is_empty() {
            "on PATH"
        } else {
            &self.name
        };
        format!("{name}: {}, LLVM {}, with library sources", self.rustc, self.llvm)
    }

    /// Looks at rustup's toolchain of that name, or at the compiler on `PATH` if the name is empty.
    fn inspect(name: &str) -> Option<Self> {
        let rustc = |args: &[&str]| {
            let mut command = if name.is_empty() {
                Command::new("rustc")
            } else {
                Command::new("rustup")
            };
            if !name.is_empty() {
                command.args(["run", name, "rustc"]);
            }
            output(command.args(args))
        };
        let sysroot = PathBuf::from(rustc(&["--print", "sysroot"])?.trim());
        if !has_sources(&sysroot) || !sysroot.join("bin/cargo").exists() {
            return None;
        }
        let version = Version::parse(&rustc(&["-vV"])?)?;
        let libraries = output(Command::new("ldd").arg(sysroot.join("bin/rustc"))).unwrap_or_default();
        version.usable().then(|| Self {
            name: name.to_owned(),
            rustc: version.line,
            nightly: version.nightly,
            llvm: version.llvm,
            llvm_library: llvm_library(&libraries),
        })
    }
}

/// What `rustc -vV` says.
#[derive(Debug, PartialEq)]
struct Version {
    line: String,
    release: (u32, u32),
    nightly: bool,
    llvm: u32,
}

impl Version {
    fn parse(text: &str) -> Option<Self> {
        let field = |name: &str| {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
        };
        let release = field("release")?;
        let mut numbers = release.split('.').map(str::parse);
        Some(Self {
            line: text.lines().next()?.to_owned(),
            release: (numbers.next()?.ok()?, numbers.next()?.ok()?),
            nightly: release.ends_with("-nightly"),
            llvm: field("LLVM version")?.split('.').next()?.parse().ok()?,
        })
    }

    fn usable(&self) -> bool {
        self.release >= OLDEST && SUPPORTED_LLVM.contains(&self.llvm)
    }
}

pub(super) fn find_or_install(apt: &mut Apt) -> anyhow::Result<(Toolchain, Outcome)> {
    if let Some(toolchain) = find() {
        let detail = toolchain.describe();
        return Ok((toolchain, Outcome::Found(detail)));
    }
    let mut failures = Vec::new();
    for install in [from_distribution, from_rustup] {
        match install(apt) {
            Ok(toolchain) => {
                let detail = toolchain.describe();
                return Ok((toolchain, Outcome::Done(detail)));
            }
            Err(error) => failures.push(format!("{error:#}")),
        }
    }
    bail!("{}", failures.join("; "))
}

/// A toolchain that is usable as it is: the one used before, ours, or any other.
fn find() -> Option<Toolchain> {
    let installed = rustup_toolchains();
    let Some(installed) = installed else {
        return Toolchain::inspect("");
    };
    let before = ToolchainRecord::load().map(|record| record.toolchain);
    let preferred = [before.as_deref().unwrap_or(LINKED), LINKED];
    let preferred = preferred
        .into_iter()
        .filter(|name| installed.iter().any(|installed| installed == name));
    preferred
        .chain(installed.iter().map(String::as_str))
        .find_map(Toolchain::inspect)
}

/// Names of rustup's toolchains; `None` if there is no rustup. Only these can be inspected: naming another
/// would have rustup download it.
fn rustup_toolchains() -> Option<Vec<String>> {
    let list = output(Command::new("rustup").args(["toolchain", "list"]))?;
    Some(
        list.lines()
            .filter_map(|line| line.split_whitespace().next())
            .map(str::to_owned)
            .collect(),
    )
}

fn from_distribution(apt: &mut Apt) -> anyhow::Result<Toolchain> {
    if !has_sources(Path::new("/usr")) {
        let offered = |apt: &mut Apt| {
            let new_enough = |version: String| debian_release(&version) >= Some(OLDEST);
            DISTRIBUTION
                .iter()
                .find(|set| apt.candidate(set[0]).is_some_and(new_enough))
        };
        // Old lists know old compilers.
        let set = offered(apt)
            .or_else(|| apt.update().ok().and_then(|()| offered(apt)))
            .with_context(|| {
                format!(
                    "no distribution package of rustc {}.{} or later",
                    OLDEST.0, OLDEST.1
                )
            })?;
        apt.install(set)?;
    }
    if rustup_toolchains().is_none() {
        return Toolchain::inspect("").context("the compiler on PATH is not the distribution's");
    }
    let version = output(Command::new("/usr/bin/rustc").arg("-vV"))
        .as_deref()
        .and_then(Version::parse);
    if !version.is_some_and(|version| version.usable()) {
        bail!("the distribution's compiler is too old for us or its LLVM unknown to bpf-linker");
    }
    run(Command::new("rustup").args(["toolchain", "link", LINKED, "/usr"]))?;
    Toolchain::inspect(LINKED).context("the distribution's compiler does not work as a toolchain of rustup")
}

fn from_rustup(_: &mut Apt) -> anyhow::Result<Toolchain> {
    if which("rustup").is_none() {
        bail!("no rustup to install a nightly compiler with");
    }
    let install = [
        "toolchain",
        "install",
        NIGHTLY,
        "--profile",
        "minimal",
        "--component",
        "rust-src,clippy",
    ];
    run(Command::new("rustup").args(install))?;
    // Under its full name, as later runs will find it.
    let installed = rustup_toolchains().unwrap_or_default();
    let name = installed.iter().find(|name| name.starts_with(NIGHTLY));
    name.and_then(|name| Toolchain::inspect(name))
        .with_context(|| format!("{NIGHTLY} was installed but is not usable"))
}

fn has_sources(sysroot: &Path) -> bool {
    sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .exists()
}

/// `1.96.0+dfsg1-1~deb12u2` is release 1.96.
fn debian_release(version: &str) -> Option<(u32, u32)> {
    let version = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    let mut numbers = version.split('.').map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// The LLVM among the libraries that `ldd` lists.
fn llvm_library(ldd: &str) -> Option<PathBuf> {
    ldd.lines().find_map(|line| {
        let (name, target) = line.trim().split_once(" => ")?;
        let (path, _address) = target.rsplit_once(" (")?;
        name.starts_with("libLLVM").then(|| PathBuf::from(path))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_a_nightlys_version() {
        let text = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)\nbinary: rustc\nhost: x86_64-unknown-linux-gnu\n\
                    release: 1.97.0-nightly\nLLVM version: 22.1.4\n";
        let version = Version::parse(text).unwrap();
        let line = "rustc 1.97.0-nightly (e50aa6fba 2026-05-19)".to_owned();
        assert_eq!(
            version,
            Version {
                line,
                release: (1, 97),
                nightly: true,
                llvm: 22
            }
        );
        assert!(version.usable());
    }

    #[test]
    fn refuses_what_cannot_build_the_kernel_program() {
        let version = |release: (u32, u32), llvm| Version {
            line: String::new(),
            release,
            nightly: false,
            llvm,
        };
        assert!(!version((1, 94), 22).usable());
        assert!(!version((1, 99), 24).usable());
        assert!(version((2, 0), 23).usable());
    }

    #[test]
    fn reads_the_release_in_a_debian_version() {
        assert_eq!(debian_release("1.96.0+dfsg1-1~deb12u2"), Some((1, 96)));
        assert_eq!(debian_release("2:1.63.0+dfsg1-2"), Some((1, 63)));
        assert_eq!(debian_release("(none)"), None);
    }

    #[test]
    fn finds_llvm_among_a_compilers_libraries() {
        let ldd = "\tlinux-vdso.so.1 (0x00007f00b1e00000)\n\
                   \tlibLLVM.so.22.1 => /lib/x86_64-linux-gnu/libLLVM.so.22.1 (0x00007f00b1e00000)\n";
        assert_eq!(
            llvm_library(ldd),
            Some(PathBuf::from("/lib/x86_64-linux-gnu/libLLVM.so.22.1"))
        );
        assert_eq!(llvm_library("\tlibc.so.6 => /lib/libc.so.6 (0x1)\n"), None);
    }
}
