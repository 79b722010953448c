//! The alerting rules at work: what the daemon finds wrong comes by the distribution's Prometheus to its Alertmanager,
//! and goes; so does the end of the daemon itself.

use std::{collections::BTreeMap, path::Path, process::Command, time::Duration};

use serde_json::Value;
use xtask::lab::{Process, wait};

use crate::{
    alarms::{ALERTMANAGER, alertmanager, firing},
    rig::{Rig, usable},
};

const PROMETHEUS: &str = "127.0.0.1:9090";

/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// The rules as they are shipped, but in a hurry.
fn rules(rig: &Rig) {
    let mixin = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/mixin.libsonnet");
    for part in ["prometheusAlerts", "prometheusRules"] {
        let expression = format!(
            "((import '{}') + {{ _config+:: {{ holdUp: '1s', holdDown: '2s' }} }}).{part}",
            mixin.display()
        );
        let output = Command::new("jsonnet")
            .args(["--exec", &expression])
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        // JSON is YAML.
        let text = String::from_utf8(output.stdout).unwrap();
        rig.dir.write(&format!("{part}.yml"), &text).unwrap();
    }
}

fn prometheus(rig: &Rig) -> Process {
    rules(rig);
    let config = format!(
        "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\n\
         rule_files: ['prometheus*.yml']\n\
         alerting: {{alertmanagers: [{{static_configs: [{{targets: ['{ALERTMANAGER}']}}]}}]}}\n\
         scrape_configs:\n\
         - job_name: sip-filter\n\
        \x20 static_configs: [{{targets: ['127.0.0.1:9798'], labels: {{instance: 'edge1:9798'}}}}]\n"
    );
    let config = rig.dir.write("scrape.yml", &config).unwrap();
    let mut command = Command::new("prometheus");
    command
        .arg(format!("--config.file={}", config.display()))
        .arg(format!("--storage.tsdb.path={}", rig.path("tsdb").display()))
        .arg(format!("--web.listen-address={PROMETHEUS}"));
    let process = Process::spawn(&rig.server, "prometheus", rig.dir.path(), command).unwrap();
    wait::for_port(&rig.server, PROMETHEUS.parse().unwrap(), PATIENCE).unwrap();
    process
}

/// What the API answers.
fn get(rig: &Rig, path: &str) -> Value {
    let url = format!("http://{PROMETHEUS}/api/v1/{path}");
    let json = rig.server.run("curl", &["--silent", "--fail", &url]).unwrap();
    serde_json::from_str(&json).unwrap()
}

/// Health of each rule, by name.
fn health(rig: &Rig) -> BTreeMap<String, String> {
    let answer = get(rig, "rules");
    let groups = answer["data"]["groups"].as_array().unwrap();
    let rules = groups.iter().flat_map(|group| group["rules"].as_array().unwrap());
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    rules
        .map(|rule| (text(&rule["name"]), text(&rule["health"])))
        .collect()
}

#[test]
fn an_alert_comes_by_prometheus_and_goes() {
    if !usable(&["prometheus", "prometheus-alertmanager", "jsonnet", "curl"]) {
        return;
    }
    let rig = Rig::new("prometheus");
    rig.config(
        "main",
        "simulate = true\n",
        "[conditions]\nsimulate_max = \"1s\"\n",
    );
    let _alertmanager = alertmanager(&rig.server, &rig.dir);
    let daemon = rig.start("main", &[]);
    let mut prometheus = prometheus(&rig);
    let mut fires = |name: &str| {
        wait::until(name, PATIENCE, || {
            prometheus.check()?;
            Ok(firing(&rig.server).contains_key(name))
        })
        .unwrap();
        firing(&rig.server).remove(name).unwrap()
    };
    let ends = |name: &str| {
        let gone = || Ok(!firing(&rig.server).contains_key(name));
        wait::until("its end", PATIENCE, gone).unwrap();
    };

    let alert = fires("SipFilterSimulateTooLong");
    for (label, value) in [
        ("severity", "warning"),
        ("service", "sip-filter"),
        ("host", "edge1"),
    ] {
        assert_eq!(alert["labels"][label], value, "{alert}");
    }
    assert_eq!(alert["annotations"]["mode"], "simulate", "{alert}");
    let description = alert["annotations"]["description"].as_str().unwrap();
    assert!(description.contains("`sip-filter mode enforce`"), "{alert}");
    daemon.done(&["mode", "enforce"]);
    ends("SipFilterSimulateTooLong");

    daemon.kill();
    let alert = fires("SipFilterDown");
    assert_eq!(alert["labels"]["severity"], "critical", "{alert}");
    assert_eq!(alert["labels"]["host"], "edge1", "{alert}");
    let _daemon = rig.start("main", &[]);
    ends("SipFilterDown");

    // `simulate` is in the configuration, so the daemon simulates again; nothing else is wrong.
    let others: Vec<String> = firing(&rig.server)
        .into_keys()
        .filter(|name| !["SipFilterSimulateTooLong", "SipFilterAbsent"].contains(&name.as_str()))
        .collect();
    assert!(others.is_empty(), "{others:?}");
    let health = health(&rig);
    assert!(health.len() > 20, "{health:?}");
    assert!(health.values().all(|health| health == "ok"), "{health:?}");
    let recorded = get(&rig, "query?query=instance:sip_filter_processed_packets:rate5m");
    assert_eq!(
        recorded["data"]["result"][0]["metric"]["instance"], "edge1:9798",
        "{recorded}"
    );
}
