//! What a release says of itself: the dependencies it was built from, inside the binary (`cargo auditable`), and the
//! compilers, in a file beside it.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::{
    ebpf,
    process::{output, run, workspace},
    tool::Tool,
    toolchain_record::ToolchainRecord,
};

const AUDITABLE: Tool = Tool {
    name: "cargo-auditable",
    version: "0.7.7",
    // As cargo would start it; alone it only says so.
    probe: &["auditable", "--version"],
};

/// The section that holds the list (zlib, JSON).
const SECTION: &str = ".dep-v0";

/// The compiler that releases are built with: `rust-version` of the workspace, any patch of it.
const COMPILER: &str = "rustc 1.95.";
/// The same for the kernel program: Debian's, and the nightly that `cargo xtask setup` installs.
const EBPF_COMPILERS: [&str; 2] = ["rustc 1.96.0 ", "rustc 1.97.0-nightly "];

/// `cargo auditable`, which takes the arguments of cargo.
pub(super) fn cargo() -> Result<Command> {
    let mut command = Command::new(AUDITABLE.binary()?);
    command.current_dir(workspace()).arg("auditable");
    Ok(command)
}

/// Reads the list back and fails unless it names what the lock file does.
pub(super) fn check(binary: &Path) -> Result<()> {
    let list = tempfile::NamedTempFile::new()?;
    let dump = format!("{SECTION}={}", list.path().display());
    run(Command::new("objcopy")
        .args(["--dump-section", &dump])
        .arg(binary)
        .arg("/dev/null"))
    .context("the binary does not say what it was built from")?;
    let lock = fs::read_to_string(workspace().join("Cargo.lock"))?;
    let count = audited(&fs::read(list.path())?, &lock)?;
    println!(
        "{} names the {count} packages it was built from",
        binary.display()
    );
    Ok(())
}

/// How many packages the section names, all of which the lock file has.
fn audited(section: &[u8], lock: &str) -> Result<usize> {
    let json = miniz_oxide::inflate::decompress_to_vec_zlib(section)
        .map_err(|error| anyhow::anyhow!("{SECTION} cannot be unpacked: {error}"))?;
    let list: Value = serde_json::from_slice(&json)?;
    let packages = list["packages"].as_array().context("no `packages`")?;
    for package in packages {
        let text = |key: &str| {
            package[key]
                .as_str()
                .with_context(|| format!("a package without `{key}`"))
        };
        let (name, version) = (text("name")?, text("version")?);
        let entry = format!("name = \"{name}\"\nversion = \"{version}\"\n");
        ensure!(lock.contains(&entry), "{name} {version} is not in Cargo.lock");
    }
    let has = |name: &str| packages.iter().any(|package| package["name"] == name);
    ensure!(
        has("sip-filter") && has("aya") && has("redb"),
        "the list is not that of sip-filter"
    );
    Ok(packages.len())
}

/// What the release was built with, and whether releases are to be.
pub(super) struct Build {
    text: String,
    /// What differs from a release's compilers.
    pub(super) differences: Vec<String>,
}

impl Build {
    /// Looks around; builds the kernel program if it isn't there.
    pub(super) fn look() -> Result<Self> {
        let rustc = output(Command::new("rustc").arg("--version")).context("no `rustc`")?;
        let record = ToolchainRecord::load().context("run `cargo xtask setup`")?;
        let linker = output(Command::new(&record.linker).arg("--version")).context("no bpf-linker")?;
        run(&mut ebpf::cargo("build")?)?;
        let object = ebpf::built_in(&ebpf::target_dir());
        let digest = output(Command::new("sha256sum").arg(&object)).context("no `sha256sum`")?;
        let commit = output(
            Command::new("git")
                .current_dir(workspace())
                .args(["rev-parse", "HEAD"]),
        );
        Ok(Self::of(
            rustc.trim(),
            &record.rustc,
            linker.trim(),
            digest.split_whitespace().next().unwrap_or_default(),
            commit.as_deref().unwrap_or("unknown").trim(),
        ))
    }

    fn of(rustc: &str, ebpf_rustc: &str, linker: &str, digest: &str, commit: &str) -> Self {
        let mut text = String::new();
        for (key, value) in [
            ("sources", commit),
            ("compiler", rustc),
            ("kernel program: compiler", ebpf_rustc),
            ("kernel program: linker", linker),
            ("kernel program: sha256", digest),
        ] {
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{key}: {value}");
        }
        let mut differences = Vec::new();
        if !rustc.starts_with(COMPILER) {
            differences.push(format!("{rustc}: releases are built with {COMPILER}x"));
        }
        if !EBPF_COMPILERS
            .iter()
            .any(|compiler| ebpf_rustc.starts_with(compiler))
        {
            let known = EBPF_COMPILERS.map(str::trim_end).join(" or ");
            differences.push(format!(
                "{ebpf_rustc}: releases' kernel program is built with {known}"
            ));
        }
        Self { text, differences }
    }

    /// Writes it into the tree.
    pub(super) fn write(&self, tree: &Path) -> Result<PathBuf> {
        let file = tree.join("usr/share/doc/sip-filter/build");
        fs::write(&file, &self.text).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(packages: &[(&str, &str)]) -> Vec<u8> {
        let packages: Vec<Value> = packages
            .iter()
            .map(|(name, version)| serde_json::json!({ "name": name, "version": version }))
            .collect();
        let json = serde_json::json!({ "packages": packages }).to_string();
        miniz_oxide::deflate::compress_to_vec_zlib(json.as_bytes(), 6)
    }

    #[test]
    fn a_list_that_differs_from_the_lock_file_is_found() {
        let lock = "[[package]]\nname = \"aya\"\nversion = \"1.2.3\"\n\n[[package]]\nname = \"redb\"\nversion = \
                    \"4.0.0\"\n\n[[package]]\nname = \"sip-filter\"\nversion = \"0.1.0\"\n";
        let all = [("aya", "1.2.3"), ("redb", "4.0.0"), ("sip-filter", "0.1.0")];
        assert_eq!(audited(&section(&all), lock).unwrap(), 3);
        assert!(audited(&section(&all[..2]), lock).is_err());
        let other = [("aya", "1.2.4"), all[1], all[2]];
        let error = audited(&section(&other), lock).unwrap_err().to_string();
        assert_eq!(error, "aya 1.2.4 is not in Cargo.lock");
        assert!(audited(b"no list", lock).is_err());
    }

    #[test]
    fn other_compilers_are_named() {
        let build = Build::of(
            "rustc 1.95.2 (a b)",
            "rustc 1.96.0 (c d)",
            "bpf-linker 0.13.0",
            "00",
            "11",
        );
        assert_eq!(build.differences, [""; 0]);
        assert!(build.text.contains("kernel program: sha256: 00\n"));
        let build = Build::of("rustc 1.99.0 (a b)", "rustc 1.98.0 (c d)", "", "", "");
        assert_eq!(build.differences.len(), 2);
    }
}
