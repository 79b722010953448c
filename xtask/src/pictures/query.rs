//! Prometheus, and what it answers.

use std::{net::SocketAddr, process::Command, time::Duration};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use xtask::lab::{Netns, Process, WorkDir, wait};

use super::{Line, Shown};
use crate::mixin::{self, Panel};

const ADDRESS: &str = "127.0.0.1:9090";

/// Seconds between two points.
const STEP: u32 = 2;

/// What Grafana would take for a scrape each second, rounded up: rates over five scrapes.
const RATE_INTERVAL: &str = "5s";

/// Starts Prometheus, which scrapes the daemon's endpoint each second.
///
/// # Errors
/// If it does not come up.
pub(super) fn start(edge: &Netns, dir: &WorkDir) -> Result<Process> {
    let config = dir.write(
        "prometheus.yml",
        "global: {scrape_interval: 1s}\n\
         scrape_configs:\n\
         - job_name: sip-filter\n\
        \x20 static_configs: [{targets: ['127.0.0.1:9798'], labels: {instance: edge1}}]\n",
    )?;
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!(
            "--storage.tsdb.path={}",
            dir.path().join("tsdb").display()
        ))
        .arg(format!("--web.listen-address={ADDRESS}"));
    let process = Process::spawn(edge, "prometheus", dir.path(), command)?;
    let address: SocketAddr = ADDRESS.parse()?;
    wait::for_port(edge, address, Duration::from_secs(30))?;
    Ok(process)
}

/// Asks each query of a panel for the time from `start` (Unix time) on, `seconds` long.
///
/// # Errors
/// If Prometheus objects, or no query of the panel has an answer.
pub(super) fn show(edge: &Netns, panel: Panel, start: f64, seconds: u32) -> Result<Shown> {
    let mut lines = Vec::new();
    for (expression, legend) in &panel.queries {
        let query = mixin::without_variables(expression, RATE_INTERVAL);
        let answer = edge
            .run(
                "curl",
                &[
                    "--silent",
                    "--get",
                    "--data-urlencode",
                    &format!("query={query}"),
                    "--data",
                    &format!("start={start}&end={}&step={STEP}", start + f64::from(seconds)),
                    &format!("http://{ADDRESS}/api/v1/query_range"),
                ],
            )
            .with_context(|| format!("{}: {query}", panel.title))?;
        let answer: Value = serde_json::from_str(&answer)?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        lines.extend(parse(&answer, legend, start)?);
    }
    Ok(Shown { panel, lines })
}

/// The lines of an answer, as a legend names them.
fn parse(answer: &Value, legend: &str, start: f64) -> Result<Vec<Line>> {
    let results = answer["data"]["result"].as_array().context("no result")?;
    results
        .iter()
        .map(|result| {
            let mut name = legend.to_owned();
            for (label, value) in result["metric"].as_object().into_iter().flatten() {
                name = name.replace(&format!("{{{{{label}}}}}"), value.as_str().unwrap_or_default());
            }
            // A label that is empty is not in the answer.
            while let Some((before, rest)) = name.split_once("{{") {
                name = before.to_owned() + rest.split_once("}}").map_or("", |(_, after)| after);
            }
            let points = result["values"].as_array().context("no values")?.iter();
            let points = points
                .map(|point| {
                    let value: f64 = point[1].as_str().context("no value")?.parse()?;
                    Ok((point[0].as_f64().context("no time")? - start, value))
                })
                .collect::<Result<Vec<_>>>()?;
            // A division by zero is a gap.
            let points = points.into_iter().filter(|point| point.1.is_finite()).collect();
            Ok(Line {
                legend: name.trim().to_owned(),
                points,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_becomes_lines_with_their_labels() {
        let answer = serde_json::json!({"status": "success", "data": {"result": [
            {"metric": {"origin": "detector", "rule": "garbage"}, "values": [[100.0, "1"], [102.0, "NaN"], [104.0, "2.5"]]},
            {"metric": {"origin": "manual"}, "values": []}
        ]}});
        assert_eq!(
            parse(&answer, "{{origin}} {{rule}}", 100.0).unwrap(),
            [
                Line {
                    legend: "detector garbage".to_owned(),
                    points: vec![(0.0, 1.0), (4.0, 2.5)]
                },
                Line {
                    legend: "manual".to_owned(),
                    points: Vec::new()
                }
            ]
        );
        assert!(parse(&serde_json::json!({}), "", 0.0).is_err());
    }
}
