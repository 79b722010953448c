//! Lists of bans: plain, comma-separated, JSON.

use std::time::{Duration, SystemTime};

use sip_filter::{
    api::Lifetime,
    bans::Scope,
    cli::{
        ImportFormat,
        list_file::{Defaults, Parsed, csv_field, parse},
    },
    units,
};

/// Reads a list in each format.
pub fn import(file: &[u8]) {
    // As the import does: what is not UTF-8 is reported with its line.
    let text = String::from_utf8_lossy(file);
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let defaults = Defaults {
        lifetime: None,
        reason: "list".to_owned(),
        scope: Scope::Sip,
    };
    let read = |text: &str, format| parse(text, format, &defaults, now);
    for format in [
        ImportFormat::Auto,
        ImportFormat::Plain,
        ImportFormat::Csv,
        ImportFormat::Json,
    ] {
        match read(&text, format) {
            Ok(parsed) => {
                numbered(&parsed, &text);
                exported(&parsed, &read);
            }
            Err(message) => assert!(message.len() < 1_000 + 6 * text.len(), "{message}"),
        }
    }
}

/// Every entry and every complaint has a number, in order, that the file has; nothing is reported twice.
fn numbered(parsed: &Parsed, text: &str) {
    assert_eq!(parsed.numbers.len(), parsed.entries.len());
    let most = match parsed.unit {
        "line" => text.lines().count(),
        "entry" => text.len(),
        other => panic!("a number of {other:?}"),
    };
    let bad: Vec<usize> = parsed.bad.iter().map(|(number, _)| *number).collect();
    for numbers in [&parsed.numbers, &bad] {
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        assert!(
            numbers.iter().all(|number| (1..=most).contains(number)),
            "{numbers:?} of {most}"
        );
    }
    assert!(bad.iter().all(|number| !parsed.numbers.contains(number)));
    assert!(parsed.entries.len() + bad.len() + parsed.expired <= most);
    for (number, message) in &parsed.bad {
        assert!(message.len() < 1_000 + 6 * text.len(), "{number}: {message}");
    }
}

/// What was read, written as `export` writes it, is read again as the same.
fn exported(parsed: &Parsed, read: &impl Fn(&str, ImportFormat) -> Result<Parsed, String>) {
    let mut csv = "target,duration,reason\n".to_owned();
    let mut plain = String::new();
    let mut expected = Vec::new();
    for entry in &parsed.entries {
        let duration = match entry.lifetime {
            Some(Lifetime::For(duration)) => units::format_duration(duration),
            Some(Lifetime::Permanent) => "permanent".to_owned(),
            Some(Lifetime::Until(_)) | None => String::new(),
        };
        csv += &format!("{},{duration},{}\n", entry.target, csv_field(&entry.reason));
        plain += &format!("{}\n", entry.target);
        let reason = entry.reason.replace(['\n', '\r'], " ");
        let reason = reason.trim();
        let reason = if reason.is_empty() { "list" } else { reason };
        expected.push((entry.target, duration, reason.to_owned()));
    }
    let again = read(&csv, ImportFormat::Csv).expect("lines are always a list");
    assert!(again.bad.is_empty(), "{:?} in {csv}", again.bad);
    let found = again.entries.iter().map(|entry| {
        let duration = match entry.lifetime {
            Some(Lifetime::For(duration)) => units::format_duration(duration),
            Some(Lifetime::Permanent) => "permanent".to_owned(),
            Some(Lifetime::Until(_)) | None => String::new(),
        };
        (entry.target, duration, entry.reason.clone())
    });
    assert_eq!(found.collect::<Vec<_>>(), expected, "{csv}");
    let again = read(&plain, ImportFormat::Plain).expect("lines are always a list");
    assert!(
        again.bad.is_empty() && again.entries.len() == expected.len(),
        "{plain}"
    );
    // As the API takes them.
    let request = serde_json::to_string(&parsed.entries).expect("entries can be written");
    let back: Vec<sip_filter::api::types::ImportEntry> =
        serde_json::from_str(&request).unwrap_or_else(|error| panic!("{error}: {request}"));
    assert_eq!(back.len(), parsed.entries.len());
}
