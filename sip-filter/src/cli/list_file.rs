//! Reads lists of bans from files: pure, so that a file is judged whole before anything is done with it.

use std::time::SystemTime;

use serde::{Deserialize, Deserializer};

use super::args::ImportFormat;
use crate::{
    api::{
        Lifetime,
        types::{ImportEntry, SchemaVersion},
    },
    bans::{Scope, Target},
    units,
};

/// What holds for entries that don't say otherwise.
#[derive(Clone, Debug)]
pub struct Defaults {
    /// How long; without it, as the daemon is configured.
    pub lifetime: Option<Lifetime>,
    /// Why.
    pub reason: String,
    /// What is stopped.
    pub scope: Scope,
}

/// What a file says.
#[derive(Debug, Default)]
pub struct Parsed {
    /// What the numbers count: "line" or "entry".
    pub unit: &'static str,
    /// Numbers of the entries, and the entries.
    pub numbers: Vec<usize>,
    /// See `numbers`.
    pub entries: Vec<ImportEntry>,
    /// Numbers of what makes no sense, and why.
    pub bad: Vec<(usize, String)>,
    /// Bans that ended before now.
    pub expired: usize,
}

impl Parsed {
    fn take(&mut self, number: usize, entry: Result<ImportEntry, String>, now: SystemTime) {
        match entry {
            Ok(entry) if matches!(entry.lifetime, Some(Lifetime::Until(end)) if end <= now) => {
                self.expired += 1
            }
            Ok(entry) => {
                self.numbers.push(number);
                self.entries.push(entry);
            }
            Err(message) => self.bad.push((number, message)),
        }
    }
}

/// Reads `text`.
///
/// # Errors
/// What is wrong, if it is no list at all.
pub fn parse(
    text: &str,
    format: ImportFormat,
    defaults: &Defaults,
    now: SystemTime,
) -> Result<Parsed, String> {
    // Editors on Windows leave a byte order mark.
    let text = text.trim_start_matches('\u{feff}');
    match format {
        ImportFormat::Auto => parse(text, guess(text), defaults, now),
        ImportFormat::Json => parse_json(text, defaults, now),
        ImportFormat::Plain => Ok(parse_lines(text, now, |line| plain(line, defaults))),
        ImportFormat::Csv => Ok(parse_lines(text, now, |line| csv(line, defaults))),
    }
}

fn guess(text: &str) -> ImportFormat {
    if text.trim_start().starts_with(['{', '[']) {
        return ImportFormat::Json;
    }
    match text.lines().map(without_comment).find(|line| !line.is_empty()) {
        Some(line) if line.contains(',') => ImportFormat::Csv,
        _ => ImportFormat::Plain,
    }
}

fn parse_lines(
    text: &str,
    now: SystemTime,
    read: impl Fn(&str) -> Option<Result<ImportEntry, String>>,
) -> Parsed {
    let mut parsed = Parsed {
        unit: "line",
        ..Parsed::default()
    };
    for (index, line) in text.lines().enumerate() {
        if let Some(entry) = read(line) {
            parsed.take(index + 1, entry, now);
        }
    }
    parsed
}

/// `#` as in most lists, `;` as in Spamhaus DROP.
fn without_comment(line: &str) -> &str {
    line.split(['#', ';']).next().unwrap_or_default().trim()
}

fn entry(target: &str, defaults: &Defaults) -> Result<ImportEntry, String> {
    Ok(ImportEntry {
        target: target.parse::<Target>().map_err(|error| error.to_string())?,
        lifetime: defaults.lifetime,
        reason: defaults.reason.clone(),
        scope: defaults.scope,
        origin: None,
        rule: None,
        created: None,
    })
}

fn plain(line: &str, defaults: &Defaults) -> Option<Result<ImportEntry, String>> {
    let target = without_comment(line);
    (!target.is_empty()).then(|| entry(target, defaults))
}

fn csv(line: &str, defaults: &Defaults) -> Option<Result<ImportEntry, String>> {
    let line = line.trim();
    // A header, as spreadsheets want it.
    let heading = line
        .split(',')
        .next()
        .is_some_and(|first| first.trim().eq_ignore_ascii_case("target"));
    if line.is_empty() || line.starts_with('#') || heading {
        return None;
    }
    Some(csv_entry(line, defaults))
}

fn csv_entry(line: &str, defaults: &Defaults) -> Result<ImportEntry, String> {
    let fields = csv_fields(line)?;
    if fields.len() > 3 {
        return Err("more than target, duration and reason; put a reason with commas into quotes".to_owned());
    }
    let mut fields = fields.into_iter();
    let mut ban = entry(&fields.next().unwrap_or_default(), defaults)?;
    let duration = fields.next().unwrap_or_default();
    if !duration.trim().is_empty() {
        let duration = units::parse_duration(&duration).map_err(|error| error.to_string())?;
        ban.lifetime = Some(Lifetime::from_duration(duration));
    }
    match fields.next() {
        Some(reason) if !reason.trim().is_empty() => reason.trim().clone_into(&mut ban.reason),
        _ => {}
    }
    Ok(ban)
}

/// RFC 4180, without line ends in fields.
fn csv_fields(line: &str) -> Result<Vec<String>, String> {
    let mut fields = Vec::new();
    let mut rest = line;
    loop {
        let mut field = String::new();
        if let Some(quoted) = rest.trim_start().strip_prefix('"') {
            rest = quoted;
            loop {
                let end = rest.find('"').ok_or("a quote is not closed")?;
                field.push_str(&rest[..end]);
                rest = &rest[end + 1..];
                let Some(more) = rest.strip_prefix('"') else { break };
                field.push('"');
                rest = more;
            }
            rest = rest.trim_start();
        } else {
            let end = rest.find(',').unwrap_or(rest.len());
            field.push_str(rest[..end].trim());
            rest = &rest[end..];
        }
        fields.push(field);
        if rest.is_empty() {
            return Ok(fields);
        }
        rest = rest
            .strip_prefix(',')
            .ok_or("there is text after a closing quote")?;
    }
}

/// A field that an import reads back.
#[must_use]
pub fn csv_field(text: &str) -> String {
    // One line per ban: a line end within would make two of it.
    let text = text.replace(['\n', '\r'], " ");
    if text.contains([',', '"'])
        || text.starts_with(char::is_whitespace)
        || text.ends_with(char::is_whitespace)
    {
        format!("\"{}\"", text.replace('"', "\"\""))
    } else {
        text
    }
}

/// What `export` writes. Texts stay texts at first, so that a bad one spoils its entry and not the file.
#[derive(Deserialize)]
struct Document {
    #[serde(rename = "schema_version")]
    _schema_version: SchemaVersion,
    bans: Vec<JsonBan>,
}

#[derive(Deserialize)]
struct JsonBan {
    target: String,
    /// `null` is permanent; missing is not.
    #[serde(default, deserialize_with = "present")]
    expires: Option<Option<String>>,
    #[serde(default)]
    lifetime: Option<Lifetime>,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    scope: Option<String>,
    #[serde(default)]
    origin: Option<String>,
    #[serde(default)]
    rule: Option<String>,
    #[serde(default)]
    created: Option<String>,
}

fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<String>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

fn parse_json(text: &str, defaults: &Defaults, now: SystemTime) -> Result<Parsed, String> {
    let bans = if text.trim_start().starts_with('[') {
        serde_json::from_str(text)
    } else {
        serde_json::from_str(text).map(|document: Document| document.bans)
    }
    .map_err(|error| error.to_string())?;
    let mut parsed = Parsed {
        unit: "entry",
        ..Parsed::default()
    };
    for (index, ban) in bans.into_iter().enumerate() {
        parsed.take(index + 1, json_entry(ban, defaults), now);
    }
    Ok(parsed)
}

fn json_entry(ban: JsonBan, defaults: &Defaults) -> Result<ImportEntry, String> {
    let time =
        |text: &str| humantime::parse_rfc3339(text).map_err(|_| format!("`{text}` is not an RFC 3339 time"));
    let mut entry = entry(&ban.target, defaults)?;
    match (ban.expires, ban.lifetime) {
        (Some(Some(end)), _) => entry.lifetime = Some(Lifetime::Until(time(&end)?)),
        (Some(None), None) => entry.lifetime = Some(Lifetime::Permanent),
        (_, Some(lifetime)) => entry.lifetime = Some(lifetime),
        (None, None) => {}
    }
    if let Some(scope) = ban.scope {
        entry.scope = serde_json::from_value(scope.as_str().into())
            .map_err(|_| format!("`{scope}` is neither the scope `sip` nor `all`"))?;
    }
    if let Some(reason) = ban.reason {
        entry.reason = reason;
    }
    entry.origin = ban.origin;
    entry.rule = ban.rule;
    entry.created = ban.created.as_deref().map(time).transpose()?;
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn defaults() -> Defaults {
        Defaults {
            lifetime: Some(Lifetime::For(Duration::from_secs(60))),
            reason: "list".to_owned(),
            scope: Scope::Sip,
        }
    }

    fn now() -> SystemTime {
        humantime::parse_rfc3339("2026-11-24T06:00:00Z").unwrap()
    }

    fn read(text: &str) -> Parsed {
        parse(text, ImportFormat::Auto, &defaults(), now()).unwrap()
    }

    #[test]
    fn plain_lists() {
        let parsed = read(
            "\u{feff}# head\n\n203.0.113.7\r\n  2001:db8::/64 # office\n1.10.16.0/20 ; SBL256894\nrubbish\n",
        );
        assert_eq!(parsed.numbers, [3, 4, 5]);
        let targets: Vec<_> = parsed
            .entries
            .iter()
            .map(|entry| entry.target.to_string())
            .collect();
        assert_eq!(targets, ["203.0.113.7", "2001:db8::/64", "1.10.16.0/20"]);
        assert_eq!(parsed.entries[0].lifetime, defaults().lifetime);
        assert_eq!(parsed.entries[0].reason, "list");
        assert_eq!(parsed.bad.len(), 1);
        assert_eq!(parsed.bad[0].0, 6);
        assert!(parsed.bad[0].1.contains("`rubbish` is neither"));
        assert!(read("").entries.is_empty());
    }

    #[test]
    fn comma_separated_lists() {
        let parsed = read(
            "target,duration,reason\n203.0.113.7,1h,scanner\n203.0.113.8,permanent,\"one, \"\"two\"\"\"\n203.0.113.9\n\
             203.0.113.10,,why\n203.0.113.11,soon,x\n203.0.113.12,1h,a,b\n203.0.113.13,1h,\"open\n",
        );
        assert_eq!(parsed.numbers, [2, 3, 4, 5]);
        let entries = &parsed.entries;
        assert_eq!(
            entries[0].lifetime,
            Some(Lifetime::For(Duration::from_secs(3600)))
        );
        assert_eq!(entries[1].lifetime, Some(Lifetime::Permanent));
        assert_eq!(entries[1].reason, "one, \"two\"");
        assert_eq!(entries[2].lifetime, defaults().lifetime);
        assert_eq!(entries[2].reason, "list");
        assert_eq!(entries[3].reason, "why");
        let numbers: Vec<_> = parsed.bad.iter().map(|(number, _)| *number).collect();
        assert_eq!(numbers, [6, 7, 8]);
        assert!(parsed.bad[0].1.contains("`soon` is not a duration"));
    }

    #[test]
    fn fields_survive_writing_and_reading() {
        for text in ["plain", "a,b", "say \"hi\"", " padded ", ""] {
            let line = format!("x,{}", csv_field(text));
            assert_eq!(csv_fields(&line).unwrap()[1], text, "{line}");
        }
        assert_eq!(csv_field("two\nlines"), "two lines");
    }

    #[test]
    fn json_documents() {
        let parsed = read(
            r#"{"schema_version":1,"bans":[
            {"target":"203.0.113.7","origin":"detector","rule":"flood-register","reason":"r","scope":"all",
             "created":"2026-11-24T05:00:00Z","expires":"2026-11-24T07:00:00.5Z","expires_in_seconds":1,"hits":5,"last_hit":null},
            {"target":"203.0.113.8","expires":null},
            {"target":"203.0.113.9"},
            {"target":"203.0.113.10","lifetime":"2h"},
            {"target":"203.0.113.11","expires":"2026-11-24T05:59:59Z"},
            {"target":"nobody"},
            {"target":"203.0.113.12","scope":"half"}]}"#,
        );
        assert_eq!(parsed.unit, "entry");
        assert_eq!(parsed.numbers, [1, 2, 3, 4]);
        assert_eq!(parsed.expired, 1);
        assert_eq!(
            parsed.bad.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
            [6, 7]
        );
        let full = &parsed.entries[0];
        let end = now() + Duration::from_millis(3_600_500);
        assert_eq!(full.lifetime, Some(Lifetime::Until(end)));
        assert_eq!(full.scope, Scope::All);
        assert_eq!(full.origin.as_deref(), Some("detector"));
        assert_eq!(full.created, Some(now() - Duration::from_secs(3600)));
        assert_eq!(parsed.entries[1].lifetime, Some(Lifetime::Permanent));
        assert_eq!(parsed.entries[2].lifetime, defaults().lifetime);
        assert_eq!(
            parsed.entries[3].lifetime,
            Some(Lifetime::For(Duration::from_secs(7200)))
        );

        assert_eq!(read(r#"[{"target":"::1"}]"#).entries.len(), 1);
        for (text, words) in [
            (r#"{"schema_version":2,"bans":[]}"#, "schema version 2"),
            ("[{]", "line 1 column 3"),
            (r#"[{"adress":"::1"}]"#, "target"),
        ] {
            let error = parse(text, ImportFormat::Auto, &defaults(), now()).unwrap_err();
            assert!(error.contains(words), "{error}");
        }
    }
}
