//! `cargo xtask mixin`: alerts, recording rules and dashboard, rendered from `packaging/prometheus/mixin.libsonnet`.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use crate::process::{display, run, workspace};

const DIRECTORY: &str = "packaging/prometheus";

/// The dashboard for Grafana, from the root of the source tree.
pub(crate) const DASHBOARD: &str = "packaging/grafana/sip-filter.json";

/// What is rendered: the file, and the expression that makes its text.
const RENDERED: [(&str, &str); 3] = [
    (
        "packaging/prometheus/sip-filter-alerts.yml",
        "std.manifestYamlDoc((import 'mixin.libsonnet').prometheusAlerts) + '\\n'",
    ),
    (
        "packaging/prometheus/sip-filter-rules.yml",
        "std.manifestYamlDoc((import 'mixin.libsonnet').prometheusRules) + '\\n'",
    ),
    (
        DASHBOARD,
        "std.manifestJsonEx((import 'mixin.libsonnet').grafanaDashboards['sip-filter.json'], '  ') + '\\n'",
    ),
];

/// Options of the task.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Change nothing; fail if a rendered file is not what it should be, or if promtool or a test of the rules objects
    #[arg(long)]
    check: bool,
}

/// Renders, or checks.
///
/// # Errors
/// If jsonnet or promtool is missing or objects, or a file differs.
pub(crate) fn run_task(args: &Args) -> Result<()> {
    if args.check {
        return check();
    }
    for (file, expression) in RENDERED {
        fs::write(workspace().join(file), render(expression)?)
            .with_context(|| format!("cannot write {file}"))?;
        println!("{file}");
    }
    Ok(())
}

/// All that can be checked without Prometheus itself.
///
/// # Errors
/// The first objection.
pub(crate) fn check() -> Result<()> {
    for (file, expression) in RENDERED {
        let there = fs::read_to_string(workspace().join(file)).unwrap_or_default();
        ensure!(
            there == render(expression)?,
            "{file} is not what {DIRECTORY}/mixin.libsonnet says: run `cargo xtask mixin` and commit it"
        );
    }
    let dir = tempfile::tempdir()?;
    let mut files = Vec::new();
    for (file, _) in RENDERED.iter().filter(|(file, _)| file.ends_with(".yml")) {
        let copy = dir.path().join(Path::new(file).file_name().context("no name")?);
        fs::copy(workspace().join(file), &copy)?;
        files.push(copy);
    }
    let tests = dir.path().join("tests.yml");
    fs::write(&tests, render("std.manifestJson(import 'tests.jsonnet')")?)?;
    files.push(dashboard_as_rules(dir.path())?);
    promtool("rules", "check", &files)?;
    promtool("rules", "test", &[tests])
}

fn promtool(what: &str, verb: &str, files: &[PathBuf]) -> Result<()> {
    run(Command::new("promtool").args([verb, what]).args(files))
}

/// The text that an expression makes, which may import the files of the mixin.
fn render(expression: &str) -> Result<String> {
    let mut jsonnet = Command::new("jsonnet");
    jsonnet
        .current_dir(workspace().join(DIRECTORY))
        .args(["--string", "--exec", expression]);
    let line = display(&jsonnet);
    let output = jsonnet
        .output()
        .with_context(|| format!("cannot start `{line}`; `cargo xtask setup` installs it"))?;
    if !output.status.success() {
        bail!("`{line}`: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// A panel of the dashboard.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Panel {
    /// The row it is in.
    pub(crate) row: String,
    pub(crate) title: String,
    /// `timeseries` or `stat`.
    pub(crate) kind: String,
    pub(crate) unit: String,
    pub(crate) stacked: bool,
    /// Expression and legend of each query, the variables of the dashboard still in it.
    pub(crate) queries: Vec<(String, String)>,
    /// Words for values, where it shows words.
    pub(crate) words: Vec<(String, String)>,
}

/// The panels of the committed dashboard, in their order.
///
/// # Errors
/// If it can't be read.
pub(crate) fn panels() -> Result<Vec<Panel>> {
    let text = fs::read_to_string(workspace().join(DASHBOARD)).with_context(|| format!("no {DASHBOARD}"))?;
    let dashboard: Value = serde_json::from_str(&text)?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (mut row, mut panels) = (String::new(), Vec::new());
    for panel in dashboard["panels"].as_array().context("no panels")? {
        if panel["type"] == "row" {
            row = text(&panel["title"]);
            continue;
        }
        let defaults = &panel["fieldConfig"]["defaults"];
        let targets = panel["targets"].as_array().into_iter().flatten();
        let words = defaults["mappings"][0]["options"]
            .as_object()
            .into_iter()
            .flatten();
        panels.push(Panel {
            row: row.clone(),
            title: text(&panel["title"]),
            kind: text(&panel["type"]),
            unit: text(&defaults["unit"]),
            stacked: defaults["custom"]["stacking"]["mode"] == "normal",
            queries: targets
                .map(|target| (text(&target["expr"]), text(&target["legendFormat"])))
                .collect(),
            words: words
                .map(|(value, word)| (value.clone(), text(&word["text"])))
                .collect(),
        });
    }
    Ok(panels)
}

/// An expression with what Grafana would put in for its variables when everything is chosen.
pub(crate) fn without_variables(expression: &str, rate_interval: &str) -> String {
    expression
        .replace("$__rate_interval", rate_interval)
        .replace("$instance", ".*")
        .replace("$interface", ".*")
}

/// The dashboard's queries in the form of recording rules, which promtool can check.
fn dashboard_as_rules(dir: &Path) -> Result<PathBuf> {
    let panels = panels()?;
    let queries = panels.iter().flat_map(|panel| &panel.queries);
    let rules: Vec<Value> = queries
        .enumerate()
        .map(|(number, (expression, _))| json!({"record": format!("dashboard:query{number}"), "expr": without_variables(expression, "1m")}))
        .collect();
    ensure!(!rules.is_empty(), "{DASHBOARD} has no queries");
    let file = dir.join("dashboard.yml");
    let groups = json!({"groups": [{"name": "dashboard", "rules": rules}]});
    fs::write(&file, groups.to_string())?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panels_are_read_with_their_queries() {
        let panels = panels().unwrap();
        let dropped = panels
            .iter()
            .find(|panel| panel.title == "Dropped by reason")
            .unwrap();
        assert_eq!((dropped.row.as_str(), dropped.stacked), ("Verdicts", true));
        assert_eq!(dropped.queries[0].1, "{{reason}}");
        let mode = panels.iter().find(|panel| panel.title == "Mode").unwrap();
        assert_eq!(mode.kind, "stat");
        assert_eq!(mode.words[1], ("1".to_owned(), "simulate".to_owned()));
        for (expression, _) in panels.iter().flat_map(|panel| &panel.queries) {
            let plain = without_variables(expression, "1m");
            assert!(!plain.contains('$'), "{plain}");
        }
    }
}
