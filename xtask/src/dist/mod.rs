//! `cargo xtask dist`: the Debian package, an archive for everybody else, and their checksums, under `target/dist`. The
//! same tree gives the same bytes.

mod archive;
mod audit;
mod deb;
mod host;
mod stage;
mod trial;

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, bail, ensure};

use crate::process::{cargo, output, run, workspace};

/// `cargo xtask dist`
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Then install, upgrade, remove and purge the package under systemd in a Debian 12 of its own (root)
    #[arg(long)]
    test: bool,
    /// Package the unoptimized build: quicker, to test packaging alone
    #[arg(long)]
    dev: bool,
    /// Fail if the compilers are not those that releases are built with
    #[arg(long)]
    pinned: bool,
}

/// What a package is made of and named after.
struct Release {
    version: String,
    /// Debian's name of the architecture.
    architecture: String,
    /// Seconds since 1970 that all files carry.
    epoch: u64,
    /// How hard to compress, 0 to 9.
    compression: u8,
    binary: PathBuf,
    out: PathBuf,
}

impl Release {
    /// The archive's name without its ending.
    fn name(&self) -> String {
        format!("sip-filter-{}-linux-{}", self.version, self.architecture)
    }
}

/// `cargo xtask dist`
pub(crate) fn run_task(args: &Args) -> anyhow::Result<()> {
    let build_of = audit::Build::look()?;
    for difference in &build_of.differences {
        eprintln!("warning: {difference}");
    }
    ensure!(
        !args.pinned || build_of.differences.is_empty(),
        "these are not the compilers that releases are built with"
    );
    let release = build(args.dev)?;
    let tree = stage::stage(&release)?;
    build_of.write(&tree)?;
    if !args.dev {
        // In the tree, after it was stripped.
        audit::check(&tree.join("usr/bin/sip-filter"))?;
    }
    let package = deb::build(&release, &tree, &release.version)?;
    let newer = match args.test {
        true => Some(deb::build(
            &release,
            &tree,
            &format!("{}+upgrade", release.version),
        )?),
        false => None,
    };
    let archive = archive::build(&release, &tree)?;
    let sums = archive::checksums(&release, &[&package, &archive])?;
    for file in [&package, &archive, &sums] {
        println!("{}", file.display());
    }
    if let Some(newer) = newer {
        trial::run(&package, &newer)?;
        fs::remove_file(newer)?;
    }
    Ok(())
}

fn build(dev: bool) -> anyhow::Result<Release> {
    let args = ["build", "--locked", "-p", "sip-filter"];
    // Only what is released says what it was built from: the wrapper would have cargo compile everything anew.
    run(&mut match dev {
        true => cargo(args),
        false => {
            let mut auditable = audit::cargo()?;
            auditable.args(args).arg("--release");
            auditable
        }
    })?;
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let binary = target
        .join(if dev { "debug" } else { "release" })
        .join("sip-filter");
    let out = target.join("dist");
    if out.exists() {
        fs::remove_dir_all(&out)?;
    }
    fs::create_dir_all(&out)?;
    let architecture = output(Command::new("dpkg").arg("--print-architecture"))
        .context("`dpkg` is needed to make a Debian package")?;
    Ok(Release {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        architecture: architecture.trim().to_owned(),
        epoch: epoch()?,
        compression: if dev { 0 } else { 6 },
        binary,
        out,
    })
}

/// `SOURCE_DATE_EPOCH`, else the time of the last commit.
fn epoch() -> anyhow::Result<u64> {
    let text = match env::var("SOURCE_DATE_EPOCH") {
        Ok(text) => text,
        Err(_) => {
            let args = ["log", "-1", "--format=%ct"];
            output(Command::new("git").current_dir(workspace()).args(args))
                .context("no SOURCE_DATE_EPOCH, and git does not tell the time of the last commit")?
        }
    };
    match text.trim().parse() {
        Ok(epoch) => Ok(epoch),
        Err(_) => bail!("SOURCE_DATE_EPOCH is `{}`, not a number of seconds", text.trim()),
    }
}
