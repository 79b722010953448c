//! `cargo xtask coverage`: which lines of the program all tests together run, those of daemons that tests start included.
//! A process that is killed writes nothing, so what only such a one ran counts as not run.

mod lcov;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::lcov::Lines;
use crate::process::{cargo, output, run, workspace};

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Run only tests with this in their names
    name: Option<String>,
    /// Use what earlier runs have left, and run nothing
    #[arg(long)]
    report: bool,
    /// Write the summary into docs/reliability.md
    #[arg(long)]
    record: bool,
}

const BEGIN: &str = "<!-- coverage:begin -->";
const END: &str = "<!-- coverage:end -->";
const DOCUMENT: &str = "docs/reliability.md";

/// Which programs were built, in the directory of it all.
const PROGRAMS: &str = "programs";

/// Lines whose share is below this are listed by number.
const LOW: f64 = 80.0;

/// Builds, runs and reports.
///
/// # Errors
/// If it can't be built, or LLVM's tools are missing.
pub(crate) fn run_task(args: &Args) -> Result<()> {
    let tools = tools()?;
    let dir = workspace().join("target/coverage");
    let raw = dir.join("raw");
    let programs = if args.report { earlier(&dir)? } else { build(&dir)? };
    if !args.report {
        if raw.exists() {
            fs::remove_dir_all(&raw)?;
        }
        run_tests(&programs, &raw, args.name.as_deref());
    }
    let profile = dir.join("all.profdata");
    let mut files: Vec<PathBuf> = fs::read_dir(&raw)
        .context("no test has run yet")?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    ensure!(!files.is_empty(), "no process has written what it ran");
    run(Command::new(tools.join("llvm-profdata"))
        .args(["merge", "--sparse", "--failure-mode=all", "-o"])
        .arg(&profile)
        .args(&files))?;
    let mut export = Command::new(tools.join("llvm-cov"));
    export
        .args(["export", "--format=lcov", "--instr-profile"])
        .arg(&profile);
    for program in &programs {
        export.arg("--object").arg(program);
    }
    let text = output(export.stderr(Stdio::inherit())).context("`llvm-cov export` failed")?;
    let source = |path: &str| fs::read_to_string(workspace().join(path)).ok();
    let files = lcov::parse(&text, workspace(), source);
    ensure!(!files.is_empty(), "nothing of sip-filter has run");
    let details = dir.join("missed.txt");
    fs::write(&details, missed(&files))?;
    let table = table(&files);
    println!("{table}\nLines that never ran: {}", details.display());
    if args.record {
        let page = workspace().join(DOCUMENT);
        let text = fs::read_to_string(&page)?;
        fs::write(&page, replaced(&text, &table)?)?;
    }
    Ok(())
}

/// LLVM's tools, of a version that reads what our compiler writes.
fn tools() -> Result<PathBuf> {
    let version = output(Command::new("rustc").arg("-vV")).context("no `rustc`")?;
    let line = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "));
    let major = line
        .and_then(|version| version.split('.').next())
        .context("rustc names no LLVM")?;
    let sysroot = output(Command::new("rustc").args(["--print", "sysroot"])).context("no sysroot")?;
    let host = version
        .lines()
        .find_map(|line| line.strip_prefix("host: "))
        .context("rustc names no host")?;
    let own = Path::new(sysroot.trim())
        .join("lib/rustlib")
        .join(host)
        .join("bin");
    let distribution = PathBuf::from(format!("/usr/lib/llvm-{major}/bin"));
    for dir in [own, distribution] {
        if ["llvm-cov", "llvm-profdata"]
            .iter()
            .all(|tool| dir.join(tool).is_file())
        {
            return Ok(dir);
        }
    }
    bail!(
        "LLVM {major}'s tools are missing: `rustup component add llvm-tools`, or `apt-get install llvm-{major}`"
    )
}

/// Builds tests and program; returns them all.
fn build(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut command = cargo(["test", "-p", "sip-filter", "-p", "sip-filter-common", "--no-run"]);
    command
        .args(["--message-format=json-render-diagnostics", "--target-dir"])
        .arg(dir)
        .env("RUSTFLAGS", "-Cinstrument-coverage")
        // Build scripts are instrumented, too; what they ran is of no interest.
        .env("LLVM_PROFILE_FILE", dir.join("build.profraw"))
        .env("CARGO_PROFILE_DEV_DEBUG", "0")
        .env("CARGO_INCREMENTAL", "0");
    let messages = output(command.stderr(Stdio::inherit())).context("the tests don't build")?;
    let mut programs: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect();
    programs.sort();
    programs.dedup();
    ensure!(!programs.is_empty(), "cargo built no tests");
    let list: Vec<&str> = programs.iter().filter_map(|program| program.to_str()).collect();
    fs::write(dir.join(PROGRAMS), list.join("\n"))?;
    Ok(programs)
}

/// What the last run has built.
fn earlier(dir: &Path) -> Result<Vec<PathBuf>> {
    let list = fs::read_to_string(dir.join(PROGRAMS)).context("nothing has been built yet")?;
    Ok(list.lines().map(PathBuf::from).collect())
}

/// Runs what is a test. Some of them fail when everything is slower; what they ran counts nevertheless.
fn run_tests(programs: &[PathBuf], raw: &Path, name: Option<&str>) {
    let is_test = |program: &&PathBuf| program.parent().is_some_and(|dir| dir.ends_with("deps"));
    for program in programs.iter().filter(is_test) {
        let package = if program.to_string_lossy().contains("sip_filter_common") {
            "sip-filter-common"
        } else {
            "sip-filter"
        };
        let mut test = Command::new(program);
        test.args(name)
            .current_dir(workspace().join(package))
            .env("SIP_FILTER_REQUIRE_KERNEL", "1")
            // Processes of one program add to the same few files.
            .env("LLVM_PROFILE_FILE", raw.join("%8m.profraw"));
        if let Err(error) = run(&mut test) {
            println!("{error:#}; what ran counts");
        }
    }
}

/// Percentages by crate and module.
fn table(files: &BTreeMap<String, Lines>) -> String {
    let mut groups: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (path, lines) in files {
        let module = lcov::module(path);
        let name = module.split(' ').next().unwrap_or(&module).to_owned();
        for group in [name, module] {
            let (ran, total) = groups.entry(group).or_default();
            *ran += lines.ran;
            *total += lines.total();
        }
    }
    let mut text = String::from("| Crate, module | Lines | Run by tests |\n|---|---|---|\n");
    for (group, (ran, total)) in groups {
        let name = group
            .split_once(' ')
            .map_or_else(|| format!("**{group}**"), |(_, module)| format!("`{module}`"));
        let percent = ran as f64 * 100.0 / total.max(1) as f64;
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {name} | {total} | {percent:.1} % |");
    }
    text
}

/// Files by the number of lines that never ran, and those lines where there are many.
fn missed(files: &BTreeMap<String, Lines>) -> String {
    let mut by_number: Vec<_> = files
        .iter()
        .filter(|(_, lines)| !lines.missed.is_empty())
        .collect();
    by_number.sort_by_key(|(_, lines)| std::cmp::Reverse(lines.missed.len()));
    let mut text = String::new();
    for (path, lines) in by_number {
        let mark = if lines.percent() < LOW { "low " } else { "" };
        let _ = writeln!(
            text,
            "{mark}{path}: {} of {} ({:.0} % run): {}",
            lines.missed.len(),
            lines.total(),
            lines.percent(),
            lines.ranges()
        );
    }
    text
}

/// The page with another table between its marks.
fn replaced(page: &str, table: &str) -> Result<String> {
    let (before, rest) = page
        .split_once(BEGIN)
        .with_context(|| format!("{DOCUMENT} lacks {BEGIN}"))?;
    let (_, after) = rest
        .split_once(END)
        .with_context(|| format!("{DOCUMENT} lacks {END}"))?;
    Ok(format!("{before}{BEGIN}\n\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> BTreeMap<String, Lines> {
        let lines = |ran, missed: &[usize]| Lines {
            ran,
            missed: missed.iter().copied().collect(),
        };
        BTreeMap::from([
            ("sip-filter/src/api/server.rs".to_owned(), lines(3, &[7])),
            ("sip-filter/src/api/socket.rs".to_owned(), lines(1, &[1, 2, 3])),
            ("sip-filter/src/units.rs".to_owned(), lines(2, &[])),
        ])
    }

    #[test]
    fn modules_and_crates_add_up() {
        let table = table(&files());
        for row in [
            "| **sip-filter** | 10 | 60.0 % |",
            "| `api` | 8 | 50.0 % |",
            "| `units` | 2 | 100.0 % |",
        ] {
            assert!(table.contains(row), "{row}: {table}");
        }
    }

    #[test]
    fn the_most_missed_comes_first() {
        let text = missed(&files());
        let first = text.lines().next().unwrap();
        assert_eq!(first, "low sip-filter/src/api/socket.rs: 3 of 4 (25 % run): 1–3");
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn the_page_keeps_what_stands_around_the_table() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = replaced(&page, "| new |\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\n| new |\n\n{END}\nafter\n"));
        assert!(replaced("no marks", "").is_err());
        let committed = fs::read_to_string(workspace().join(DOCUMENT)).unwrap();
        assert!(replaced(&committed, "").is_ok());
    }
}
