//! The Debian package, by dpkg-deb from the staged tree.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::Release;
use crate::process::{run, workspace};

const SCRIPTS: [&str; 3] = ["postinst", "prerm", "postrm"];

/// Makes the package and returns its path.
pub(super) fn build(release: &Release, tree: &Path, version: &str) -> anyhow::Result<PathBuf> {
    let control = tree.join("DEBIAN");
    fs::create_dir_all(&control)?;
    let template = fs::read_to_string(workspace().join("packaging/debian/control.in"))?;
    let glibc =
        newest_glibc(&fs::read(&release.binary)?).context("the binary names no version of the C library")?;
    let text = template
        .replace("@VERSION@", version)
        .replace("@ARCHITECTURE@", &release.architecture)
        .replace("@SIZE@", &(size(tree)? / 1024).to_string())
        .replace("@GLIBC@", &format!("2.{glibc}"));
    ensure!(
        !text.contains('@') || text.matches('@').count() == 1,
        "control.in has an unknown field"
    );
    fs::write(control.join("control"), text)?;
    fs::write(control.join("conffiles"), "/etc/sip-filter/config.toml\n")?;
    for script in SCRIPTS {
        let to = control.join(script);
        fs::copy(workspace().join("packaging/debian").join(script), &to)?;
        fs::set_permissions(&to, fs::Permissions::from_mode(0o755))?;
    }
    let package = release
        .out
        .join(format!("sip-filter_{version}_{}.deb", release.architecture));
    run(Command::new("dpkg-deb")
        .env("SOURCE_DATE_EPOCH", release.epoch.to_string())
        .args(["--root-owner-group", "-Zxz", "--build"])
        .arg(format!("-z{}", release.compression))
        .args([tree, &package]))?;
    fs::remove_dir_all(control)?;
    Ok(package)
}

/// The newest `GLIBC_2.N` that a binary asks for.
fn newest_glibc(binary: &[u8]) -> Option<u32> {
    const PREFIX: &[u8] = b"GLIBC_2.";
    let number = |at: usize| {
        let digits = binary[at + PREFIX.len()..]
            .iter()
            .take_while(|byte| byte.is_ascii_digit());
        String::from_utf8(digits.copied().collect()).ok()?.parse().ok()
    };
    let starts = binary.windows(PREFIX.len()).enumerate();
    starts
        .filter(|(_, window)| *window == PREFIX)
        .filter_map(|(at, _)| number(at))
        .max()
}

/// Bytes of all files below a directory.
fn size(directory: &Path) -> anyhow::Result<u64> {
    let mut bytes = 0;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        bytes += if entry.file_type()?.is_dir() {
            size(&entry.path())?
        } else {
            entry.metadata()?.len()
        };
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_counts_as_a_number() {
        let binary = b"\0GLIBC_2.9\0GLIBC_2.34\0GLIBC_2.4\0GLIBC_PRIVATE\0";
        assert_eq!(newest_glibc(binary), Some(34));
        assert_eq!(newest_glibc(b"none"), None);
    }
}
