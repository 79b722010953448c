//! `cargo xtask reproducible`: the kernel program is the same, byte for byte, wherever it is built. What is in the daemon
//! can so be compared with what anybody builds from the same sources with the same compiler.

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, ensure};

use crate::{
    demo::filter,
    ebpf,
    process::{cargo, output, run, workspace},
};

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Also build the daemon twice, in release, and say whether both are the same (long)
    #[arg(long)]
    daemon: bool,
}

/// A copy of the sources elsewhere, with another way to the registry's sources.
struct Copy {
    dir: tempfile::TempDir,
    tree: PathBuf,
}

/// Where cargo has its home in a copy.
const HOME: &str = "cargo-elsewhere";

/// Builds here and elsewhere, and compares.
///
/// # Errors
/// If the two differ, name where they were built, or if the daemon holds another one.
pub(crate) fn run_task(args: &Args) -> Result<()> {
    let here = object(&mut ebpf::cargo("build")?, &ebpf::target_dir())?;
    let copy = Copy::new("elsewhere")?;
    let there = object(
        copy.place(&mut ebpf::cargo_in("build", &copy.tree, &copy.target())?),
        &copy.target(),
    )?;
    println!("{}  here", digest(&here)?);
    println!("{}  in {}", digest(&there)?, copy.tree.display());
    let (here, there) = (fs::read(here)?, fs::read(there)?);
    same(&here, &there)?;
    names_no_place(&here, &[workspace(), copy.dir.path(), &cargo_home()?])?;
    let daemon = filter::build("dev")?;
    ensure!(
        contains(&fs::read(&daemon)?, &here),
        "{} holds another kernel program: build it anew",
        daemon.display()
    );
    println!(
        "the kernel program is reproducible, and it is the one in {}",
        daemon.display()
    );
    if args.daemon {
        daemons()?;
    }
    Ok(())
}

/// Builds the daemon in two places.
fn daemons() -> Result<()> {
    let mut digests = Vec::new();
    for name in ["one", "another-place"] {
        let copy = Copy::new(name)?;
        let mut build = cargo([
            "build",
            "--release",
            "--locked",
            "-p",
            "sip-filter",
            "--target-dir",
        ]);
        build.arg(copy.target()).current_dir(&copy.tree);
        run(copy.place(&mut build))?;
        let binary = copy.target().join("release/sip-filter");
        digests.push(digest(&binary)?);
        println!("{}  the daemon, in {}", digest(&binary)?, copy.tree.display());
    }
    let verdict = if digests.windows(2).all(|pair| pair[0] == pair[1]) {
        "the same"
    } else {
        "NOT the same"
    };
    println!("two release builds of the daemon are {verdict}");
    Ok(())
}

impl Copy {
    /// Copies what git knows of the sources.
    fn new(name: &str) -> Result<Self> {
        let dir = tempfile::Builder::new().prefix("sip-filter-").tempdir()?;
        let tree = dir.path().join(name);
        let mut git = Command::new("git");
        git.current_dir(workspace())
            .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"]);
        let list = output(&mut git).context("`git ls-files` failed: a git checkout is needed")?;
        for path in list.split_terminator('\0') {
            let (from, to) = (workspace().join(path), tree.join(path));
            // One that was removed and is still tracked is no part of the sources.
            if from.is_file() {
                fs::create_dir_all(to.parent().context("a file without directory")?)?;
                fs::copy(&from, &to).with_context(|| format!("can't copy {path}"))?;
            }
        }
        // All that cargo keeps, but for the unpacked sources: it unpacks them here.
        let home = dir.path().join(HOME);
        for (kept, unpacked) in [("", "registry"), ("registry", "src")] {
            fs::create_dir_all(home.join(kept))?;
            let entries = fs::read_dir(cargo_home()?.join(kept)).context("cargo's registry")?;
            for entry in entries.flatten().filter(|entry| entry.file_name() != unpacked) {
                symlink(entry.path(), home.join(kept).join(entry.file_name()))?;
            }
        }
        Ok(Self { dir, tree })
    }

    fn target(&self) -> PathBuf {
        self.dir.path().join("target")
    }

    /// Lets a build find the registry by another path.
    fn place<'a>(&self, command: &'a mut Command) -> &'a mut Command {
        command.env("CARGO_HOME", self.dir.path().join(HOME))
    }
}

fn cargo_home() -> Result<PathBuf> {
    let home = env::var_os("CARGO_HOME").map(PathBuf::from);
    home.or_else(|| Some(PathBuf::from(env::var_os("HOME")?).join(".cargo")))
        .context("neither CARGO_HOME nor HOME says where cargo keeps its registry")
}

/// Builds the object and returns where it lies.
fn object(build: &mut Command, target: &Path) -> Result<PathBuf> {
    run(build)?;
    Ok(ebpf::built_in(target))
}

fn digest(file: &Path) -> Result<String> {
    let line = output(Command::new("sha256sum").arg(file)).context("`sha256sum` failed")?;
    let digest = line
        .split_whitespace()
        .next()
        .context("`sha256sum` says nothing")?;
    Ok(digest.to_owned())
}

fn same(here: &[u8], there: &[u8]) -> Result<()> {
    let first = here.iter().zip(there).position(|(left, right)| left != right);
    ensure!(
        here == there,
        "the kernel programs differ: {} and {} bytes, first at byte {}",
        here.len(),
        there.len(),
        first.unwrap_or(here.len().min(there.len()))
    );
    ensure!(!here.is_empty(), "the kernel program is empty");
    Ok(())
}

/// Fails if one of the places can be read in the object.
fn names_no_place(object: &[u8], places: &[&Path]) -> Result<()> {
    for place in places {
        let text = place.to_str().context("a path that isn't UTF-8")?;
        ensure!(
            !contains(object, text.as_bytes()),
            "the kernel program names `{text}`"
        );
    }
    Ok(())
}

fn contains(whole: &[u8], part: &[u8]) -> bool {
    let Some(first) = part.first() else {
        return true;
    };
    let mut from = 0;
    while let Some(found) = whole
        .get(from..)
        .and_then(|rest| rest.iter().position(|byte| byte == first))
    {
        if whole
            .get(from + found..)
            .is_some_and(|rest| rest.starts_with(part))
        {
            return true;
        }
        from += found + 1;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_byte_makes_a_difference() {
        assert!(same(b"object", b"object").is_ok());
        let error = same(b"object", b"obiect").unwrap_err().to_string();
        assert!(error.contains("first at byte 2"), "{error}");
        assert!(same(b"object", b"object and more").is_err());
        assert!(same(b"", b"").is_err());
    }

    #[test]
    fn a_place_in_the_object_is_found() {
        let object = b"\x7fELF /home/so/home/somebody/src/main.rs";
        assert!(names_no_place(object, &[Path::new("/home/nobody")]).is_ok());
        assert!(names_no_place(object, &[Path::new("/home/nobody"), Path::new("/home/somebody")]).is_err());
        assert!(contains(object, b"main.rs") && !contains(object, b"main.rsx"));
    }
}
