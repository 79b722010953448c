//! Debian's package manager, without questions and without starting anybody's services.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::process::{self, Privilege, output, which};

/// Installs packages given as arguments.
///
/// Some packages of the lab start a server when they are installed. On the machine of a developer or, worse, on
/// a real SIP server, that must not happen, so `policy-rc.d` forbids it for as long as we install. Packages are
/// never removed to make room for ours.
const INSTALL: &str = r#"
set -e
guard=/usr/sbin/policy-rc.d
if [ ! -e "$guard" ]; then
    trap 'rm -f "$guard"' EXIT
    trap 'exit 1' HUP INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$guard"
    chmod 755 "$guard"
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install --yes --quiet --no-install-recommends --no-remove \
    -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold -o Dpkg::Use-Pty=0 "$@" </dev/null
"#;

pub(super) struct Apt {
    pub(super) privilege: Privilege,
    present: bool,
    updated: bool,
}

impl Apt {
    pub(super) fn look(privilege: Privilege) -> Self {
        Self {
            privilege,
            present: which("apt-get").is_some(),
            updated: false,
        }
    }

    /// Whether [`Apt::install`] has a chance.
    pub(super) fn usable(&self) -> bool {
        self.present && self.privilege != Privilege::Missing
    }

    /// The version `apt-get install` would give, if any, with the package lists as they are.
    pub(super) fn known_candidate(package: &str) -> Option<String> {
        let policy = output(
            Command::new("apt-cache")
                .env("LC_ALL", "C")
                .args(["policy", package]),
        )?;
        let version = policy
            .lines()
            .find_map(|line| line.trim().strip_prefix("Candidate: "))?;
        (version != "(none)").then(|| version.to_owned())
    }

    /// Like [`Apt::known_candidate`], after one update of the lists if they don't know the package.
    pub(super) fn candidate(&mut self, package: &str) -> Option<String> {
        if !self.present {
            return None;
        }
        Self::known_candidate(package).or_else(|| {
            // Lists that cannot be updated are no reason to give up: there may be another way.
            self.update().ok()?;
            Self::known_candidate(package)
        })
    }

    /// Updates the package lists, once.
    pub(super) fn update(&mut self) -> anyhow::Result<()> {
        if self.updated {
            return Ok(());
        }
        if !self.usable() {
            bail!("no apt, or neither root nor sudo to use it with");
        }
        let mut update = self
            .privilege
            .command("apt-get", ["update", "--quiet"])
            .context("neither root nor sudo")?;
        quietly(&mut update, "apt-get update")?;
        self.updated = true;
        Ok(())
    }

    /// Installs packages, or says what has to be typed to do it.
    pub(super) fn install(&mut self, packages: &[&str]) -> anyhow::Result<()> {
        let by_hand = format!("apt-get install --no-install-recommends {}", packages.join(" "));
        if !self.present {
            bail!(
                "there is no apt here; install what Debian calls: {}",
                packages.join(" ")
            );
        }
        if self.privilege == Privilege::Missing {
            bail!("neither root nor sudo; as root, run: {by_hand}");
        }
        if packages
            .iter()
            .any(|package| Self::known_candidate(package).is_none())
        {
            self.update()?;
        }
        let first = self.try_install(packages);
        if first.is_err() && !self.updated {
            // Stale lists name files that the mirror no longer has.
            self.update()?;
            return self.try_install(packages);
        }
        first
    }

    fn try_install(&self, packages: &[&str]) -> anyhow::Result<()> {
        let args = ["-c", INSTALL, "apt-get"].iter().chain(packages);
        let mut install = self
            .privilege
            .command("sh", args)
            .context("neither root nor sudo")?;
        quietly(&mut install, &format!("apt-get install {}", packages.join(" ")))
    }

    /// Keeps services that came with packages *we* installed from starting at the next boot.
    pub(super) fn disable_services(&self, services: &[&str]) -> anyhow::Result<()> {
        if services.is_empty() || which("systemctl").is_none() {
            return Ok(());
        }
        let args = ["disable", "--quiet"].iter().chain(services);
        process::run(
            &mut self
                .privilege
                .command("systemctl", args)
                .context("neither root nor sudo")?,
        )
    }
}

/// Runs a command whose pages of output are of interest only if it fails.
fn quietly(command: &mut Command, shown_as: &str) -> anyhow::Result<()> {
    println!("$ {shown_as}");
    let output = command
        .output()
        .with_context(|| format!("cannot start `{shown_as}`"))?;
    if !output.status.success() {
        eprint!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
        bail!("`{shown_as}` failed ({})", output.status);
    }
    Ok(())
}
