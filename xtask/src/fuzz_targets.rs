//! `cargo xtask fuzz-targets`: libFuzzer on whatever reads what others wrote. The same targets run over their corpora in
//! the ordinary tests (`fuzz/tests/corpus.rs`).

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    nightly,
    process::{cargo, output, run, workspace},
    toolchain_record::ToolchainRecord,
};

const CARGO_FUZZ: &str = "0.13.2";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this target (repeatable)
    #[arg(long)]
    target: Vec<String>,

    /// How long each runs
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,

    /// Without AddressSanitizer: faster, and blind to wrong memory accesses
    #[arg(long)]
    no_sanitizer: bool,
}

/// Runs the targets one after the other. What is found on the way, and what breaks a target, is kept under
/// `target/fuzz`.
pub(crate) fn run_task(args: &Args) -> anyhow::Result<()> {
    let targets = chosen(&targets()?, &args.target)?;
    let fuzzer = Fuzzer {
        cargo_fuzz: cargo_fuzz()?,
        toolchain: nightly::with(&[])?,
        sanitizer: if args.no_sanitizer { "none" } else { "address" },
    };
    let mut broken = Vec::new();
    for target in &targets {
        if let Err(error) = fuzzer.run(target, args.seconds) {
            eprintln!("error: {target}: {error:#}");
            broken.push(target.as_str());
        }
    }
    if !broken.is_empty() {
        bail!(
            "broken: {}; the inputs lie under {}; mend it, and commit the input to fuzz/corpus with a name that says \
             what it is",
            broken.join(", "),
            scratch("artifacts", "").display()
        );
    }
    println!(
        "{} targets ran for {} s each, and nothing was found",
        targets.len(),
        args.seconds
    );
    Ok(())
}

/// Every target has a file.
fn targets() -> anyhow::Result<Vec<String>> {
    let directory = workspace().join("fuzz/fuzz_targets");
    let mut names = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

fn chosen(all: &[String], wanted: &[String]) -> anyhow::Result<Vec<String>> {
    if let Some(unknown) = wanted.iter().find(|name| !all.contains(name)) {
        bail!("there is no target `{unknown}`; there are {}", all.join(", "));
    }
    let keep = |name: &&String| wanted.is_empty() || wanted.contains(name);
    Ok(all.iter().filter(keep).cloned().collect())
}

/// A directory for what a run leaves behind.
fn scratch(kind: &str, target: &str) -> PathBuf {
    workspace().join("target/fuzz").join(kind).join(target)
}

struct Fuzzer {
    cargo_fuzz: PathBuf,
    toolchain: String,
    sanitizer: &'static str,
}

impl Fuzzer {
    fn run(&self, target: &str, seconds: u32) -> anyhow::Result<()> {
        let (found, artifacts) = (scratch("corpus", target), scratch("artifacts", target));
        for directory in [&found, &artifacts] {
            fs::create_dir_all(directory).with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let mut command = Command::new("rustup");
        command
            .current_dir(workspace())
            .args(["run", &self.toolchain])
            .arg(&self.cargo_fuzz)
            .args(["fuzz", "run", "--fuzz-dir", "fuzz", "--features", "libfuzzer"])
            .args([
                "--sanitizer",
                self.sanitizer,
                "--target-dir",
                "target/fuzz",
                target,
            ])
            // New inputs go to the first of them.
            .args([found, workspace().join("fuzz/corpus").join(target)])
            .arg("--")
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-artifact_prefix={}/", artifacts.display()))
            .args([
                "-max_len=16384",
                "-timeout=20",
                "-rss_limit_mb=3072",
                "-print_final_stats=1",
            ]);
        Self::environment(&mut command);
        run(&mut command)
    }

    /// Optimized enough to be fast, and not so much that the build takes longer than the run.
    fn environment(command: &mut Command) {
        command
            .env_remove("CARGO")
            .env_remove("RUSTC")
            .env("CARGO_INCREMENTAL", "0")
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1")
            .env("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only");
    }
}

/// Our cargo-fuzz, built on first use.
fn cargo_fuzz() -> anyhow::Result<PathBuf> {
    let cache =
        ToolchainRecord::cache_dir().context("neither XDG_CACHE_HOME nor HOME says where the cache is")?;
    let root = cache.join(format!("cargo-fuzz-{CARGO_FUZZ}"));
    let binary = root.join("bin/cargo-fuzz");
    if !works(&binary) {
        let mut install = cargo([
            "install",
            "cargo-fuzz",
            "--version",
            CARGO_FUZZ,
            "--locked",
            "--quiet",
            "--force",
        ]);
        run(install.arg("--root").arg(&root))?;
    }
    Ok(binary)
}

fn works(binary: &Path) -> bool {
    output(Command::new(binary).arg("--version")).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_chosen_by_its_name() {
        let all = targets().unwrap();
        assert!(all.iter().any(|name| name == "packet"));
        assert_eq!(chosen(&all, &[]).unwrap(), all);
        assert_eq!(chosen(&all, &["packet".to_owned()]).unwrap(), ["packet"]);
        let error = chosen(&all, &["packets".to_owned()]).unwrap_err().to_string();
        assert!(
            error.starts_with("there is no target `packets`; there are analysis, api"),
            "{error}"
        );
    }
}
