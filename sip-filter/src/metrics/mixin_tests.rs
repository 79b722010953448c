//! The alerts and the dashboard in `packaging`, as committed: they must know every condition, and no metric that does
//! not exist. That they are what the mixin renders to, and that they parse, is checked by `cargo xtask mixin --check`.

use std::{collections::BTreeSet, fs, path::Path};

use serde_json::Value;

use super::{render, render::tests::snapshot};
use crate::conditions::{Kind, Severity};

fn file(path: &str) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What the rules say of each alert, by name. The renderer writes one `"key": value` a line.
fn alerts() -> Vec<(String, String)> {
    let text = file("packaging/prometheus/sip-filter-alerts.yml");
    text.split("- \"alert\": \"")
        .skip(1)
        .map(|alert| {
            let (name, rest) = alert.split_once('"').unwrap();
            (name.to_owned(), rest.to_owned())
        })
        .collect()
}

/// One line with one space between words.
fn unwrapped(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn every_condition_has_an_alert_with_its_severity_and_remedy() {
    let alerts = alerts();
    for kind in Kind::ALL {
        let name = kind.alert_name();
        let named: Vec<&String> = alerts
            .iter()
            .filter(|(alert, _)| *alert == name)
            .map(|(_, text)| text)
            .collect();
        let [text] = named[..] else {
            panic!("{} alerts called {name}", named.len());
        };
        assert!(
            text.contains(&format!(
                "sip_filter_condition{{name=\\\"{}\\\"}}) > 0",
                kind.name()
            )),
            "{name}: {text}"
        );
        let severity = format!("\"severity\": \"{}\"", kind.severity().name());
        assert!(text.contains(&severity), "{name} is not {severity}: {text}");
        let remedy = serde_json::to_string(kind.remedy()).unwrap();
        assert!(
            text.contains(remedy.trim_matches('"')),
            "{name} does not say {remedy}: {text}"
        );
        assert!(
            text.contains(&format!("docs/alarms.md#{}\"", kind.name())),
            "{text}"
        );
    }
}

#[test]
fn every_alert_has_its_place_in_the_documentation() {
    let page = file("docs/alarms.md");
    for (name, text) in alerts() {
        let anchor = text
            .split_once("\"runbook_url\": \"docs/alarms.md#")
            .and_then(|(_, rest)| rest.split_once('"'))
            .unwrap()
            .0;
        let section = page
            .split_once(&format!("\n### {anchor}\n"))
            .unwrap_or_else(|| panic!("docs/alarms.md has no section `{anchor}`"))
            .1;
        let section = unwrapped(section.split("\n### ").next().unwrap());
        let severity = [Severity::Critical, Severity::Warning]
            .map(Severity::name)
            .into_iter()
            .find(|severity| text.contains(&format!("\"severity\": \"{severity}\"")))
            .unwrap();
        assert!(
            section.starts_with(&format!("`{name}`, {severity}.")),
            "{section}"
        );
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.alert_name() == name) {
            assert!(section.contains(kind.remedy()), "{name}: {section}");
        }
    }
}

/// Names of ours in an expression, those that rules record (`level:metric:operation`) left out.
fn names(expression: &str) -> BTreeSet<String> {
    expression
        .split(|c: char| !c.is_ascii_alphanumeric() && c != '_' && c != ':')
        .filter(|word| word.starts_with("sip_filter_") && !word.contains(':'))
        .map(str::to_owned)
        .collect()
}

/// Every expression of rules and dashboard.
fn expressions() -> Vec<String> {
    let mut found = Vec::new();
    // Of the rules the whole text: only expressions and the query in an annotation name metrics.
    for rules in ["alerts", "rules"] {
        found.push(file(&format!("packaging/prometheus/sip-filter-{rules}.yml")));
    }
    let dashboard: Value = serde_json::from_str(&file("packaging/grafana/sip-filter.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.filter_map(|panel| panel["targets"].as_array()).flatten();
    found.extend(targets.map(|target| target["expr"].as_str().unwrap().to_owned()));
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    found.extend(
        variables
            .iter()
            .filter_map(|variable| Some(variable["query"]["query"].as_str()?.to_owned())),
    );
    found
}

#[test]
fn rules_and_dashboard_name_metrics_that_exist() {
    let ours = render(&snapshot()).unwrap();
    let ours: BTreeSet<String> = ours
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .map(|line| line.split(' ').next().unwrap().to_owned())
        .collect();
    let named: BTreeSet<String> = expressions()
        .iter()
        .flat_map(|expression| names(expression))
        .collect();
    assert!(named.len() > 30, "{named:?}");
    let unknown: Vec<_> = named.difference(&ours).collect();
    assert!(unknown.is_empty(), "no such metrics: {unknown:?}");
    // What nobody looks at need not be exported; these are for looking things up.
    let unseen: Vec<_> = ours.difference(&named).map(String::as_str).collect();
    assert_eq!(
        unseen,
        [
            "sip_filter_alarms_total",
            "sip_filter_config_threshold",
            "sip_filter_detector_max_sources",
            "sip_filter_drift_entries_total",
            "sip_filter_processed_bytes_total",
            "sip_filter_self_test_failures_total",
            "sip_filter_self_tests_total"
        ]
    );
}

/// Labels by which expressions group, or that legends show.
#[test]
fn panels_show_labels_that_their_metrics_have() {
    let text = render(&snapshot()).unwrap();
    let dashboard: Value = serde_json::from_str(&file("packaging/grafana/sip-filter.json")).unwrap();
    let mut looked_at = 0;
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            let (expression, legend) = (&target["expr"], target["legendFormat"].as_str().unwrap());
            for label in legend
                .split("{{")
                .skip(1)
                .map(|rest| rest.split_once("}}").unwrap().0)
            {
                looked_at += 1;
                if label == "instance" {
                    continue;
                }
                let name = names(expression.as_str().unwrap()).into_iter().next().unwrap();
                let has = |line: &str| {
                    line.starts_with(&format!("{name}{{")) && line.contains(&format!("{label}=\""))
                };
                assert!(
                    text.lines().any(has),
                    "{name} has no `{label}`: {}",
                    panel["title"]
                );
            }
        }
    }
    assert!(looked_at > 15);
}
