//! The verifier's budget: what the kernel tests measured becomes what they allow.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, bail};
use toml::{Table, Value};

use crate::process::{self, workspace};

/// Where the budget lies, from the root of the source tree.
const PATH: &str = "sip-filter-ebpf/verifier-budget.toml";
/// What a test of the verifier leaves in its directory.
const MEASURED: &str = "verifier.toml";

const HEAD: &str = "\
# What the kernel's verifier looks at, by kernel and program: instructions of a million that it allows, and bytes of
# stack of 512. A tenth more fails. Written by `cargo xtask kernels --renew-budget`; don't edit.
";

/// Measures on this machine's kernel, adds what the guests left in `directories`, and writes it all down. What is known
/// of other kernels stays.
pub(super) fn renew(directories: &[PathBuf]) -> anyhow::Result<()> {
    let here = workspace().join("target/kernels/here");
    fs::create_dir_all(&here).with_context(|| format!("cannot create {}", here.display()))?;
    let test = "verifier::the_verifier_has_no_more_work_than_its_budget";
    process::run(
        process::cargo([
            "test",
            "--package",
            "sip-filter",
            "--test",
            "kernel",
            "--",
            "--exact",
            test,
        ])
        .env("SIP_FILTER_REQUIRE_KERNEL", "1")
        .env("SIP_FILTER_VERIFIER_DIR", &here)
        .env("SIP_FILTER_RENEW_BUDGET", "1"),
    )?;
    let path = workspace().join(PATH);
    let mut budget = match fs::read_to_string(&path) {
        Ok(text) => parse(&text).with_context(|| format!("cannot read {}", path.display()))?,
        Err(_) => Table::new(),
    };
    let mut kernels = 0;
    for directory in [&[here], directories].concat() {
        let Ok(text) = fs::read_to_string(directory.join(MEASURED)) else {
            continue;
        };
        let measured = parse(&text).with_context(|| format!("cannot read {}", directory.display()))?;
        kernels += measured.len();
        budget.extend(measured);
    }
    if kernels == 0 {
        bail!("no kernel measured anything");
    }
    fs::write(&path, text(&budget)).with_context(|| format!("cannot write {}", path.display()))?;
    println!("{PATH}: {kernels} kernels renewed; look at the difference before you commit it");
    Ok(())
}

fn parse(text: &str) -> anyhow::Result<Table> {
    text.parse::<Table>().context("it is not TOML")
}

/// One section for each kernel, oldest first, one line for each program.
fn text(budget: &Table) -> String {
    let mut kernels: Vec<&String> = budget.keys().collect();
    kernels.sort_by_key(|kernel| {
        let numbers = kernel.split('.').map(|number| number.parse().unwrap_or(0));
        numbers.collect::<Vec<u32>>()
    });
    let mut text = HEAD.to_owned();
    for kernel in kernels {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n[\"{kernel}\"]\n");
        let Some(Value::Table(programs)) = budget.get(kernel) else {
            continue;
        };
        let mut programs: Vec<_> = programs.iter().collect();
        programs.sort_by_key(|(name, _)| *name);
        for (name, work) in programs {
            let number = |key| work.get(key).and_then(Value::as_integer).unwrap_or(0);
            let _ = writeln!(
                text,
                "\"{name}\" = {{ instructions = {}, stack = {} }}",
                number("instructions"),
                number("stack")
            );
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_budget_is_written_as_it_is_read_in_the_order_of_kernels() {
        let measured = "[\"6.12\"]\n\"ingress\" = { instructions = 5, stack = 6 }\n\
                        [\"6.1\"]\n\"egress\" = { instructions = 3, stack = 4 }\n\"ingress\" = { instructions = 1, stack = 2 }\n";
        let written = text(&parse(measured).unwrap());
        assert!(
            written.find("[\"6.1\"]") < written.find("[\"6.12\"]"),
            "{written}"
        );
        assert_eq!(parse(&written).unwrap(), parse(measured).unwrap());
        assert_eq!(text(&parse(&written).unwrap()), written);
    }
}
