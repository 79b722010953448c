//! The first file system of a guest: test binaries as built here, what they link to, tools, modules, and `init.sh`.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::BufWriter,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::{cpio::Archive, debian::Fetched, step::Step};
use crate::process::{cargo, display, output, which};

/// What is built: test binaries by name, and the program itself.
pub(super) struct Programs {
    /// Name in the guest's `/programs`, and where it lies here. It lies there in the guest, too: tests know the path of
    /// the program they try.
    files: Vec<(String, PathBuf)>,
}

/// Other programs that tests start. The shell brings the rest.
const TOOLS: [&str; 2] = ["ip", "tc"];

const INIT: &str = include_str!("init.sh");

/// Where the shell lies in the guest.
const SHELL: &str = "/bin/busybox";

/// Builds the tests without running them.
pub(super) fn build() -> anyhow::Result<Programs> {
    let mut command = cargo(["test", "--no-run", "--package", "sip-filter"]);
    command.args(["--test", "kernel", "--test", "live"]);
    println!("$ {}", display(&command));
    let output = command
        .arg("--message-format=json-render-diagnostics")
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    if !output.status.success() {
        bail!("the tests cannot be built; was `cargo xtask setup` run?");
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let files: Vec<_> = text.lines().filter_map(executable).collect();
    for wanted in ["kernel", "live", "sip-filter"] {
        if !files.iter().any(|(name, _)| name == wanted) {
            bail!("cargo did not say where it put `{wanted}`");
        }
    }
    Ok(Programs { files })
}

/// Name and place of what was built, if this line of cargo's is about an executable.
fn executable(line: &str) -> Option<(String, PathBuf)> {
    let message: Value = serde_json::from_str(line).ok()?;
    let path = message["executable"].as_str()?;
    let kind = message["target"]["kind"][0].as_str()?;
    if !["test", "bin"].contains(&kind) {
        return None;
    }
    Some((message["target"]["name"].as_str()?.to_owned(), path.into()))
}

/// Writes the archive.
pub(super) fn write(
    to: &Path,
    programs: &Programs,
    kernel: &Fetched,
    steps: &[&Step],
    renew: bool,
) -> anyhow::Result<()> {
    let file = File::create(to).with_context(|| format!("cannot create {}", to.display()))?;
    let mut archive = Archive::new(BufWriter::new(file));
    let cannot = || format!("cannot write {}", to.display());
    for directory in [
        "/proc",
        "/sys",
        "/dev",
        "/tmp",
        "/out",
        "/run/netns",
        "/var",
        "/modules",
    ] {
        archive.directory(directory).with_context(cannot)?;
    }
    // Before devices are mounted there must be somewhere to complain to.
    archive.device("/dev/console", 5, 1).with_context(cannot)?;
    archive.link("/var/run", "/run").with_context(cannot)?;
    archive
        .file("/init", 0o755, INIT.as_bytes())
        .with_context(cannot)?;
    archive
        .file("/etc/passwd", 0o644, b"root:x:0:0:root:/:/bin/sh\n")
        .with_context(cannot)?;
    archive
        .file("/etc/group", 0o644, b"root:x:0:\n")
        .with_context(cannot)?;
    let lines: String = steps
        .iter()
        .map(|step| format!("{} {} {}\n", step.name, step.seconds, step.command))
        .collect();
    archive
        .file("/steps", 0o644, lines.as_bytes())
        .with_context(cannot)?;
    if renew {
        archive.file("/renew", 0o644, b"").with_context(cannot)?;
    }
    for module in &kernel.modules {
        let name = module
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        let contents = read(module)?;
        archive
            .file(&format!("/modules/{name}"), 0o644, &contents)
            .with_context(cannot)?;
    }

    let mut libraries = BTreeSet::new();
    let busybox = which("busybox").context("no busybox")?;
    libraries.extend(linked(&busybox));
    archive
        .file(SHELL, 0o755, &read(&busybox)?)
        .with_context(cannot)?;
    for tool in TOOLS {
        let path = which(tool).with_context(|| format!("no `{tool}`; run `cargo xtask setup`"))?;
        libraries.extend(linked(&path));
        archive
            .file(&format!("/sbin/{tool}"), 0o755, &read(&path)?)
            .with_context(cannot)?;
    }
    for (name, path) in &programs.files {
        libraries.extend(linked(path));
        let place = path.display().to_string();
        archive
            .file(&place, 0o755, &stripped(path)?)
            .with_context(cannot)?;
        archive
            .link(&format!("/programs/{name}"), &place)
            .with_context(cannot)?;
    }
    for library in libraries {
        let contents = read(&library)?;
        archive
            .file(&library.display().to_string(), 0o755, &contents)
            .with_context(cannot)?;
    }
    archive.finish().with_context(cannot)
}

fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

/// A binary without debug information, most of what it is.
fn stripped(path: &Path) -> anyhow::Result<Vec<u8>> {
    let copy = tempfile::NamedTempFile::new().context("cannot create a temporary file")?;
    let mut strip = Command::new("strip");
    strip.arg("--strip-debug").arg("-o").arg(copy.path()).arg(path);
    match output(&mut strip) {
        Some(_) => read(copy.path()),
        // It is only larger.
        None => read(path),
    }
}

/// The libraries a binary is linked to, the loader among them; none if it is static.
fn linked(path: &Path) -> Vec<PathBuf> {
    let text = output(Command::new("ldd").arg(path)).unwrap_or_default();
    text.lines().filter_map(library).collect()
}

/// The path in a line of `ldd`.
fn library(line: &str) -> Option<PathBuf> {
    let line = line.trim();
    let path = line.split_once("=> ").map_or(line, |(_, path)| path);
    let path = path.split(" (").next()?;
    path.starts_with('/').then(|| path.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_found_in_what_ldd_says() {
        let text = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\
                    \t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n";
        let found: Vec<_> = text.lines().filter_map(library).collect();
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(found, expected.map(PathBuf::from));
        assert_eq!(library("\tstatically linked"), None);
    }

    #[test]
    fn executables_are_found_in_what_cargo_says() {
        let line = r#"{"reason":"compiler-artifact","target":{"kind":["test"],"name":"live"},"executable":"/t/live-1"}"#;
        assert_eq!(executable(line), Some(("live".to_owned(), "/t/live-1".into())));
        let library =
            r#"{"reason":"compiler-artifact","target":{"kind":["lib"],"name":"x"},"executable":null}"#;
        assert_eq!(executable(library), None);
        let script = r#"{"reason":"compiler-artifact","target":{"kind":["custom-build"],"name":"b"},"executable":"/t/b"}"#;
        assert_eq!(executable(script), None);
    }
}
