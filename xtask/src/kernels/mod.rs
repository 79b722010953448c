//! `cargo xtask kernels`: the filter on other kernels than this machine's.
//!
//! Debian's kernels are booted by qemu, without hardware virtualization, with an initramfs of our own: the test binaries
//! as they are built here, what they link to, and a shell. A guest has no disk but a scratch one for what it has to say,
//! no network but the namespaces its tests make, and bounded time.

mod budget;
mod cpio;
mod debian;
mod guest;
mod image;
mod modules;
mod step;

use std::{fs, path::PathBuf, time::Duration};

use anyhow::{Context as _, bail};

use crate::process::workspace;
use debian::Kernel;
use guest::{Guest, Outcome};
use step::Step;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Only this kernel, as `--list` calls it; may be given several times
    #[arg(long, value_name = "VERSION")]
    only: Vec<String>,
    /// Only this step; may be given several times
    #[arg(long, value_name = "NAME")]
    step: Vec<String>,
    /// Only the steps that together take about two minutes, as CI does
    #[arg(long)]
    quick: bool,
    /// Say which kernels there are and what runs on each
    #[arg(long)]
    list: bool,
    /// Write what was measured, here and in the guests, into the verifier's budget
    #[arg(long)]
    renew_budget: bool,
    /// Fetch kernels anew instead of taking those in the cache
    #[arg(long)]
    refresh: bool,
    /// Seconds that a guest may take
    #[arg(long, value_name = "SECONDS", default_value_t = 1200, value_parser = clap::value_parser!(u64).range(1..))]
    timeout: u64,
}

/// `cargo xtask kernels`
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if args.list {
        list();
        return Ok(());
    }
    let kernels = chosen(&args.only)?;
    let directory = workspace().join("target/kernels");
    let programs = image::build()?;
    debian::find_or_install_qemu()?;
    let mut rows = Vec::new();
    for kernel in kernels {
        rows.push(boot(kernel, &programs, &directory, args)?);
    }
    print!("\n{}", table(&rows));
    let failed: Vec<_> = rows.iter().filter(|row| !row.outcome.passed()).collect();
    for row in &failed {
        println!("{}: {}", row.name, row.outcome.story(&row.directory));
    }
    if args.renew_budget {
        let measured: Vec<PathBuf> = rows.iter().map(|row| row.directory.clone()).collect();
        budget::renew(&measured)?;
        return Ok(());
    }
    if !failed.is_empty() {
        let names: Vec<_> = failed.iter().map(|row| row.name).collect();
        bail!("the filter failed on {}, see above", names.join(", "));
    }
    Ok(())
}

fn list() {
    for kernel in &debian::KERNELS {
        let steps: Vec<_> = kernel.steps().iter().map(|step| step.name).collect();
        println!(
            "{:<8} Debian {:<10} {}",
            kernel.name,
            kernel.suite,
            steps.join(", ")
        );
    }
}

fn chosen(only: &[String]) -> anyhow::Result<Vec<&'static Kernel>> {
    for name in only {
        if !debian::KERNELS.iter().any(|kernel| kernel.name == name) {
            bail!("there is no kernel `{name}`; see `cargo xtask kernels --list`");
        }
    }
    let wanted = |kernel: &&Kernel| only.is_empty() || only.iter().any(|name| name == kernel.name);
    Ok(debian::KERNELS.iter().filter(wanted).collect())
}

/// What became of one kernel.
struct Row {
    name: &'static str,
    release: String,
    directory: PathBuf,
    outcome: Outcome,
}

fn boot(
    kernel: &'static Kernel,
    programs: &image::Programs,
    directory: &std::path::Path,
    args: &Args,
) -> anyhow::Result<Row> {
    let fetched = kernel
        .fetch(args.refresh)
        .with_context(|| format!("cannot fetch kernel {} (Debian {})", kernel.name, kernel.suite))?;
    let directory = directory.join(kernel.name);
    // What an earlier run left.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let steps = wanted(kernel.steps(), args);
    let initramfs = directory.join("initramfs");
    image::write(&initramfs, programs, &fetched, &steps, args.renew_budget)?;
    println!("booting {} ({})", kernel.name, fetched.release);
    let guest = Guest {
        kernel: &fetched.image,
        initramfs: &initramfs,
        directory: &directory,
        time: Duration::from_secs(args.timeout),
    };
    let outcome = guest.run(&steps)?;
    // It is large and can be made again; a failure is told by console and logs.
    let _ = fs::remove_file(&initramfs);
    Ok(Row {
        name: kernel.name,
        release: fetched.release,
        directory,
        outcome,
    })
}

/// The steps that were asked for.
fn wanted(steps: &'static [Step], args: &Args) -> Vec<&'static Step> {
    let is_named = |step: &Step| args.step.is_empty() || args.step.iter().any(|name| name == step.name);
    let is_wanted = |step: &&Step| is_named(step) && (step.quick || !args.quick);
    steps.iter().filter(is_wanted).collect()
}

/// One line for each kernel, one column for each step that ran on any.
fn table(rows: &[Row]) -> String {
    let mut columns: Vec<&Step> = Vec::new();
    for row in rows {
        for (step, _) in &row.outcome.steps {
            if !columns.iter().any(|column| column.name == step.name) {
                columns.push(step);
            }
        }
    }
    let mut lines = vec![vec!["kernel".to_owned(), "boot".to_owned()]];
    lines[0].extend(columns.iter().map(|step| step.name.to_owned()));
    for row in rows {
        let mut line = vec![row.release.clone(), row.outcome.boot()];
        for column in &columns {
            let ran = row
                .outcome
                .steps
                .iter()
                .find(|(step, _)| step.name == column.name);
            line.push(ran.map_or_else(String::new, |(_, result)| result.to_string()));
        }
        lines.push(line);
    }
    aligned(&lines)
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column| {
        let cells = lines.iter().filter_map(|line: &Vec<String>| line.get(column));
        cells.map(String::len).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernels::step::StepResult;

    #[test]
    fn the_table_has_a_column_for_each_step_of_any_kernel() {
        let row = |name, steps: &[&'static Step], result: StepResult| Row {
            name,
            release: format!("{name}.0-cloud"),
            directory: PathBuf::new(),
            outcome: Outcome {
                booted: Some(Duration::from_secs(3)),
                steps: steps.iter().map(|step| (*step, result)).collect(),
                ended: true,
            },
        };
        let refusal = [&step::REFUSAL[0]];
        let usual: Vec<&Step> = step::FULL.iter().collect();
        let text = table(&[
            row("5.10", &refusal, StepResult::Passed(Duration::from_secs(1))),
            row("6.1", &usual, StepResult::Failed(Some(101))),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("kernel"), "{text}");
        assert!(
            lines[0].contains(refusal[0].name) && lines[0].contains(usual[0].name),
            "{text}"
        );
        assert!(
            lines[1].contains("ok 1 s") && !lines[1].contains("FAILED"),
            "{text}"
        );
        assert!(lines[2].contains("FAILED 101"), "{text}");
    }

    #[test]
    fn quick_leaves_steps_out_and_so_does_a_name() {
        let names = |step: &[&str], quick| {
            let args = Args {
                only: Vec::new(),
                step: step.iter().map(|name| (*name).to_owned()).collect(),
                quick,
                list: false,
                renew_budget: false,
                refresh: false,
                timeout: 1,
            };
            let steps = wanted(&step::FULL, &args);
            steps.iter().map(|step| step.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&[], false).len(), step::FULL.len());
        assert_eq!(names(&[], true), ["largest", "verifier", "packets", "live"]);
        assert_eq!(names(&["live", "bans"], true), ["live"]);
    }

    #[test]
    fn an_unknown_kernel_is_refused() {
        assert!(chosen(&["6.1".to_owned()]).is_ok_and(|kernels| kernels.len() == 1));
        assert!(chosen(&[]).is_ok_and(|kernels| kernels.len() == debian::KERNELS.len()));
        assert!(chosen(&["4.4".to_owned()]).is_err());
    }
}
