//! What sip-filter decided: read from the events of a running daemon and from an analysis of a capture, to be compared.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// One decision. Times and lengths are no part of it: a capture has a clock of its own, and whoever goes on is decided
/// upon again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Decision {
    /// Whom it is about: a source or a network; of an alarm, the account if there is no source.
    pub target: String,
    /// The rule.
    pub rule: String,
    /// What was done.
    pub action: Action,
}

/// What a rule did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// A full ban: the source had proven that its address is its own.
    Ban,
    /// A short ban, since anybody could have sent it.
    ShortBan,
    /// What would have been a ban, of a rule that only rehearses.
    WouldBan,
    /// An alarm.
    Alarm,
}

/// Different decisions.
pub type Decisions = BTreeSet<Decision>;

/// The decisions in the output of `sip-filter events -o json`.
///
/// # Errors
/// If it isn't that.
pub fn of_events(lines: &str) -> Result<Decisions> {
    let mut decisions = Decisions::new();
    for line in lines.lines() {
        let event: Value = serde_json::from_str(line).with_context(|| format!("an event: {line}"))?;
        if event["origin"] != "detector" {
            continue;
        }
        let action = match event["kind"].as_str() {
            Some("ban-added" | "ban-extended") => banned(&event["evidence"]),
            Some("would-ban") => Action::WouldBan,
            Some("alarm") => Action::Alarm,
            _ => continue,
        };
        decisions.insert(decision(event["target"].as_str(), &event, action)?);
    }
    Ok(decisions)
}

/// The decisions in the output of `sip-filter analyze -o json`.
///
/// # Errors
/// If it isn't that, or the capture was broken.
pub fn of_analysis(json: &str) -> Result<Decisions> {
    let report: Value = serde_json::from_str(json).context("the analysis")?;
    anyhow::ensure!(
        report["error"].is_null(),
        "the capture is broken: {}",
        report["error"]
    );
    let list = |value: &Value| -> Result<Vec<Value>> {
        let list = value.as_array().context("the analysis has another form")?;
        Ok(list.clone())
    };
    let mut decisions = Decisions::new();
    for source in list(&report["sources"])? {
        for ban in list(&source["bans"])? {
            let action = if ban["shadow"] == true {
                Action::WouldBan
            } else {
                banned(&ban["evidence"])
            };
            decisions.insert(decision(source["source"].as_str(), &ban, action)?);
        }
    }
    for alarm in list(&report["alarms"])? {
        decisions.insert(decision(alarm["source"].as_str(), &alarm, Action::Alarm)?);
    }
    Ok(decisions)
}

fn banned(evidence: &Value) -> Action {
    if evidence["proven"] == true {
        Action::Ban
    } else {
        Action::ShortBan
    }
}

fn decision(target: Option<&str>, of: &Value, action: Action) -> Result<Decision> {
    let target = target
        .or_else(|| of["account"].as_str())
        .context("a decision on nobody")?;
    let rule = of["rule"].as_str().context("a decision without a rule")?;
    Ok(Decision {
        target: target.to_owned(),
        rule: rule.to_owned(),
        action,
    })
}

/// What is in one of two sets only, for people; empty if they are the same.
#[must_use]
pub fn difference(live: &Decisions, analysis: &Decisions) -> Vec<String> {
    let only = |of: &Decisions, other: &Decisions, whose: &str| -> Vec<String> {
        of.difference(other)
            .map(|Decision { target, rule, action }| format!("{whose}: {action:?} of {target} by {rule}"))
            .collect()
    };
    let mut lines = only(live, analysis, "only live");
    lines.extend(only(analysis, live, "only by analyze"));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    const EVENTS: &str = r#"{"kind":"ban-added","origin":"detector","target":"192.0.2.1","rule":"auth-failure","evidence":{"proven":true}}
{"kind":"ban-added","origin":"manual","target":"192.0.2.9","rule":null}
{"kind":"flood","origin":null,"target":"192.0.2.3"}
{"kind":"ban-extended","origin":"detector","target":"192.0.2.2","rule":"garbage","evidence":{"proven":false}}
{"kind":"alarm","origin":"detector","target":null,"account":"1001","rule":"distributed-auth"}
"#;

    fn analysis(proven: bool) -> String {
        format!(
            r#"{{"error":null,"sources":[
                {{"source":"192.0.2.1","bans":[{{"rule":"auth-failure","shadow":false,"evidence":{{"proven":{proven}}}}}]}},
                {{"source":"192.0.2.2","bans":[{{"rule":"garbage","shadow":false,"evidence":{{"proven":false}}}}]}},
                {{"source":"192.0.2.3","bans":[]}}],
              "alarms":[{{"source":null,"account":"1001","rule":"distributed-auth"}}]}}"#
        )
    }

    #[test]
    fn the_same_decisions_are_the_same_in_either_form() {
        let live = of_events(EVENTS).unwrap();
        assert_eq!(live.len(), 3);
        assert_eq!(live, of_analysis(&analysis(true)).unwrap());
        let other = of_analysis(&analysis(false)).unwrap();
        assert_eq!(
            difference(&live, &other),
            [
                "only live: Ban of 192.0.2.1 by auth-failure",
                "only by analyze: ShortBan of 192.0.2.1 by auth-failure"
            ]
        );
        assert!(of_analysis(r#"{"error":"cut short","sources":[],"alarms":[]}"#).is_err());
        assert!(of_analysis("{}").is_err());
    }
}
