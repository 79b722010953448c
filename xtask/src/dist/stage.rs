//! The tree that package and archive hold: files where they lie once installed.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use super::Release;
use crate::process::{run, workspace};

/// Files of the source tree, where they go, and whether they are compressed there.
const FILES: [(&str, &str, bool); 10] = [
    ("packaging/config.toml", "etc/sip-filter/config.toml", false),
    (
        "packaging/systemd/sip-filter.service",
        "usr/lib/systemd/system/sip-filter.service",
        false,
    ),
    (
        "packaging/systemd/sip-filter-prepare.service",
        "usr/lib/systemd/system/sip-filter-prepare.service",
        false,
    ),
    (
        "packaging/sysusers/sip-filter.conf",
        "usr/lib/sysusers.d/sip-filter.conf",
        false,
    ),
    ("README.md", "usr/share/doc/sip-filter/README.md", true),
    ("SECURITY.md", "usr/share/doc/sip-filter/SECURITY.md", true),
    ("CHANGELOG.md", "usr/share/doc/sip-filter/changelog", true),
    ("docs/alarms.md", "usr/share/doc/sip-filter/alarms.md", true),
    ("docs/detection.md", "usr/share/doc/sip-filter/detection.md", true),
    ("docs/metrics.md", "usr/share/doc/sip-filter/metrics.md", true),
];

/// Directories all of whose files of a kind are installed, as far as they are there.
const COLLECTIONS: [(&str, &str, &str); 2] = [
    ("packaging/grafana", "json", "usr/share/sip-filter/grafana"),
    ("packaging/prometheus", "yml", "usr/share/sip-filter/prometheus"),
];

/// Lays the tree out and returns its root.
pub(super) fn stage(release: &Release) -> anyhow::Result<PathBuf> {
    let root = release.out.join(release.name());
    let binary = root.join("usr/bin/sip-filter");
    install(&release.binary, &binary, 0o755)?;
    // Names of functions stay, for backtraces.
    run(Command::new("strip").arg("--strip-debug").arg(&binary))?;
    for (from, to, compress) in FILES {
        let to = root.join(to);
        install(&workspace().join(from), &to, 0o644)?;
        if compress {
            gzip(&[to])?;
        }
    }
    for (from, extension, to) in COLLECTIONS {
        let Ok(entries) = fs::read_dir(workspace().join(from)) else {
            continue;
        };
        for entry in entries.flatten() {
            if entry.path().extension().is_some_and(|found| found == extension) {
                install(&entry.path(), &root.join(to).join(entry.file_name()), 0o644)?;
            }
        }
    }
    write(&root.join("usr/share/doc/sip-filter/copyright"), &copyright()?)?;
    manual(release, &root)?;
    completions(release, &root)?;
    Ok(root)
}

fn install(from: &Path, to: &Path, mode: u32) -> anyhow::Result<()> {
    let contents = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    write(to, &contents)?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(mode))?)
}

fn write(to: &Path, contents: &[u8]) -> anyhow::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(to, contents).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(fs::set_permissions(to, fs::Permissions::from_mode(0o644))?)
}

/// Without name and time in the header, so that equal contents give equal bytes.
fn gzip(files: &[PathBuf]) -> anyhow::Result<()> {
    let status = Command::new("gzip")
        .args(["-9", "--no-name"])
        .args(files)
        .status()
        .context("cannot start `gzip`")?;
    anyhow::ensure!(status.success(), "`gzip` failed ({status})");
    Ok(())
}

/// In the machine-readable form of Debian.
fn copyright() -> anyhow::Result<Vec<u8>> {
    let indented = |file: &str| -> anyhow::Result<String> {
        let text = fs::read_to_string(workspace().join(file))?;
        let line = |line: &str| format!(" {}\n", if line.trim().is_empty() { "." } else { line });
        Ok(text.lines().map(line).collect())
    };
    let text = format!(
        "Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/\nUpstream-Name: sip-filter\n\n\
         Files: *\nCopyright: the contributors of sip-filter\nLicense: MIT or Apache-2.0\n\n\
         License: MIT\n{}\nLicense: Apache-2.0\n On Debian systems, the full text is in\n \
         /usr/share/common-licenses/Apache-2.0.\n",
        indented("LICENSE-MIT")?
    );
    Ok(text.into_bytes())
}

/// One page for each verb, as the binary itself writes them.
fn manual(release: &Release, root: &Path) -> anyhow::Result<()> {
    let pages = root.join("usr/share/man/man1");
    run(Command::new(&release.binary)
        .args(["--quiet", "man", "--dir"])
        .arg(&pages))?;
    let mut files = Vec::new();
    for page in fs::read_dir(&pages)? {
        let page = page?.path();
        fs::set_permissions(&page, fs::Permissions::from_mode(0o644))?;
        files.push(page);
    }
    gzip(&files)
}

fn completions(release: &Release, root: &Path) -> anyhow::Result<()> {
    for (shell, to) in [
        ("bash", "usr/share/bash-completion/completions/sip-filter"),
        ("zsh", "usr/share/zsh/vendor-completions/_sip-filter"),
        ("fish", "usr/share/fish/vendor_completions.d/sip-filter.fish"),
    ] {
        let output = Command::new(&release.binary)
            .args(["completions", shell])
            .output()?;
        anyhow::ensure!(output.status.success(), "`sip-filter completions {shell}` failed");
        write(&root.join(to), &output.stdout)?;
    }
    Ok(())
}
