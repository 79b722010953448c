//! `analyze` on captures of real programs.

use std::path::PathBuf;

use serde_json::Value;
use xtask::lab::WorkDir;

use crate::rig::{Ran, run};

fn capture(name: &str) -> String {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", "captures", name]
        .iter()
        .collect();
    path.to_str().unwrap().to_owned()
}

fn analyze(arguments: &[&str]) -> (Ran, Value) {
    let ran = run(&[&["analyze", "-o", "json", "--own", "192.0.2.0/28"], arguments].concat());
    let json = serde_json::from_str(&ran.stdout).unwrap_or_else(|error| panic!("{error}: {ran:?}"));
    (ran, json)
}

/// Source and rule of each ban, those of shadow rules excepted.
fn bans(report: &Value) -> Vec<(&str, &str)> {
    let sources = report["sources"].as_array().unwrap_or_else(|| panic!("{report}"));
    sources
        .iter()
        .flat_map(|source| {
            let bans = source["bans"].as_array().unwrap();
            bans.iter()
                .filter(|ban| ban["shadow"] == false)
                .map(|ban| (source["source"].as_str().unwrap(), ban["rule"].as_str().unwrap()))
        })
        .collect()
}

#[test]
fn scanners_are_found_and_phones_are_not() {
    let dir = WorkDir::new("captures").unwrap();
    let config = dir.write("defaults.toml", "").unwrap();
    let defaults = ["--config", config.to_str().unwrap()];
    for name in ["svmap", "svwar", "svcrack"] {
        let (ran, report) = analyze(&[&defaults[..], &[&capture(&format!("{name}.pcap"))]].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(bans(&report), [("203.0.113.21", "scanner-signature")], "{name}");
    }
    for name in ["phone", "sipp-register-flood"] {
        let (ran, report) = analyze(&[&defaults[..], &[&capture(&format!("{name}.pcap"))]].concat());
        assert_eq!(ran.code, Some(0), "{ran:?}");
        assert_eq!(bans(&report), [], "{name}");
    }
}

#[test]
fn thresholds_are_those_of_the_configuration() {
    let dir = WorkDir::new("captures").unwrap();
    let config = dir
        .write("low.toml", "[detect.flood-register]\nthreshold = 100\n")
        .unwrap();
    let (ran, report) = analyze(&[
        "--config",
        config.to_str().unwrap(),
        &capture("sipp-register-flood.pcap"),
    ]);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert_eq!(bans(&report), [("203.0.113.21", "flood-register")]);
    let shadow = "[detect.flood-register]\nthreshold = 100\nshadow = true\n";
    let config = dir.write("shadow.toml", shadow).unwrap();
    let (_, report) = analyze(&[
        "--config",
        config.to_str().unwrap(),
        &capture("sipp-register-flood.pcap"),
    ]);
    assert_eq!(bans(&report), []);
}

#[test]
fn a_truncated_capture_fails_with_what_could_be_read() {
    let dir = WorkDir::new("captures").unwrap();
    let whole = std::fs::read(capture("svcrack.pcap")).unwrap();
    let cut = dir.path().join("cut.pcap");
    std::fs::write(&cut, &whole[..whole.len() - 100]).unwrap();
    let config = dir.write("defaults.toml", "").unwrap();
    let (ran, report) = analyze(&["--config", config.to_str().unwrap(), cut.to_str().unwrap()]);
    assert_eq!(ran.code, Some(1), "{ran:?}");
    ran.refused(1, &["cut.pcap"]);
    assert_eq!(bans(&report), [("203.0.113.21", "scanner-signature")]);
    let none = run(&["analyze", dir.path().join("none.pcap").to_str().unwrap()]);
    none.refused(1, &["none.pcap"]);
}
