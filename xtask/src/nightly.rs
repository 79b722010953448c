//! A nightly compiler for the checks that need one: Miri and libFuzzer.

use std::process::Command;

use anyhow::{Context as _, bail};

use crate::process::{output, run};

/// Looked for first; a nightly that is there is as good as another.
const ANY: &str = "nightly";
/// A nightly that is known to work, for machines that have none.
const PINNED: &str = "nightly-2026-05-20";

/// rustup's name of a nightly that has `components`; both are installed if they are missing.
///
/// # Errors
/// What is missing, and how to get it.
pub(crate) fn with(components: &[&str]) -> anyhow::Result<String> {
    let list = output(Command::new("rustup").args(["toolchain", "list"])).context(
        "this needs a nightly compiler, and rustup (https://rustup.rs) to get one: it is not installed",
    )?;
    let installed: Vec<&str> = list
        .lines()
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    let name = match choose(&installed) {
        Some(name) => name.to_owned(),
        None => {
            let mut install = Command::new("rustup");
            install.args(["toolchain", "install", PINNED, "--profile", "minimal"]);
            run(&mut install).with_context(|| {
                format!("this needs a nightly compiler, and rustup could not install {PINNED}")
            })?;
            PINNED.to_owned()
        }
    };
    let list =
        || output(Command::new("rustup").args(["component", "list", "--installed", "--toolchain", &name]));
    for component in components {
        if list().is_some_and(|list| has(&list, component)) {
            continue;
        }
        let mut add = Command::new("rustup");
        add.args(["component", "add", component, "--toolchain", &name]);
        if let Err(error) = run(&mut add) {
            bail!("this needs the component `{component}` of {name}, and rustup could not add it: {error}");
        }
    }
    Ok(name)
}

fn choose<'a>(installed: &[&'a str]) -> Option<&'a str> {
    let host = |name: &str, wanted: &str| name == wanted || name.starts_with(&format!("{wanted}-x86_64"));
    let find = |wanted| installed.iter().copied().find(|name| host(name, wanted));
    find(ANY).or_else(|| find(PINNED))
}

fn has(list: &str, component: &str) -> bool {
    let of_host = format!("{component}-x86_64");
    list.lines()
        .any(|line| line == component || line.starts_with(&of_host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_a_nightly_that_is_there() {
        let stable = "stable-x86_64-unknown-linux-gnu";
        let dated = "nightly-2026-05-20-x86_64-unknown-linux-gnu";
        let nightly = "nightly-x86_64-unknown-linux-gnu";
        assert_eq!(choose(&[stable, dated, nightly]), Some(nightly));
        assert_eq!(choose(&[stable, dated]), Some(dated));
        assert_eq!(
            choose(&[stable, "nightly-2020-01-01-x86_64-unknown-linux-gnu"]),
            None
        );
    }

    #[test]
    fn finds_components_with_and_without_a_host() {
        let list = "cargo-x86_64-unknown-linux-gnu\nmiri-x86_64-unknown-linux-gnu\nrust-src\n";
        assert!(has(list, "miri") && has(list, "rust-src"));
        assert!(!has(list, "rust") && !has(list, "clippy"));
    }
}
