//! The SIP torture tests of RFC 4475 and RFC 5118: what is made of each message, whole and cut short.
//!
//! `torture/` holds the messages, `torture/expected.txt` what each should be understood as. A block of that file
//! begins with the message's name, its class, and whether the RFC calls the message valid.

use std::{collections::BTreeMap, fs, path::PathBuf};

use sip_filter_common::sip::{Class, HEAD, Message, NameAddr, classify};

const RFC_4475: usize = 49;
const RFC_5118: usize = 12;

struct Case {
    name: String,
    class: String,
    valid: bool,
    summary: String,
    bytes: Vec<u8>,
}

fn folder() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "torture"].iter().collect()
}

fn cases() -> Vec<Case> {
    let expected = fs::read_to_string(folder().join("expected.txt")).expect("the expectations");
    expected
        .split("\n\n")
        .map(|block| {
            let (first, summary) = block.split_once('\n').expect("a line for each field");
            let [name, class, validity] = first.split(' ').collect::<Vec<_>>()[..] else {
                panic!("{first}");
            };
            Case {
                name: name.to_owned(),
                class: class.to_owned(),
                valid: validity == "valid",
                summary: summary.trim_end().to_owned(),
                bytes: fs::read(folder().join(format!("{name}.dat"))).expect("the message"),
            }
        })
        .collect()
}

fn class_of(payload: &[u8]) -> Class {
    let mut head = [0; HEAD];
    for (to, from) in head.iter_mut().zip(payload) {
        *to = *from;
    }
    classify(&sip_filter_common::packet::Head::new(&head), payload.len())
}

/// `Message`, a line for each field that it has.
#[derive(Default)]
struct Summary(String);

impl Summary {
    fn of(message: &Message<'_>) -> String {
        let mut lines = Self::default();
        if let Some(line) = message.request() {
            lines.add("request", &[Some(line.method), Some(line.uri)]);
        }
        if let Some(status) = message.status() {
            lines.number("status", status.into());
        }
        if let Some(cseq) = message.cseq() {
            lines.add(
                "cseq",
                &[Some(cseq.number.to_string().as_bytes()), Some(cseq.method)],
            );
        }
        lines.add("call-id", &[message.call_id()]);
        lines.address("from", message.from());
        lines.address("to", message.to());
        for contact in message.contacts() {
            lines.address("contact", contact.address);
            if let Some(seconds) = contact.expires {
                lines.number("contact-expires", seconds);
            }
            assert!(!contact.is_star, "no torture message has one");
        }
        for via in message.vias() {
            let port = via.port.map(|port| port.to_string());
            lines.add(
                "via",
                &[
                    Some(via.transport),
                    Some(via.host),
                    port.as_deref().map(str::as_bytes),
                ],
            );
            lines.add("branch", &[via.branch]);
            lines.add("received", &[via.received]);
            lines.add("rport", &[via.rport]);
        }
        if let Some(seconds) = message.expires() {
            lines.number("expires", seconds);
        }
        lines.add("user-agent", &[message.user_agent()]);
        for credentials in message.credentials() {
            lines.add("credentials", &[Some(credentials.scheme), credentials.username]);
        }
        if let Some(length) = message.content_length() {
            lines.number("content-length", length);
        }
        lines.0.trim_end().to_owned()
    }

    /// A line, unless there is nothing to put into it.
    fn add(&mut self, name: &str, parts: &[Option<&[u8]>]) {
        if parts.iter().all(Option::is_none) {
            return;
        }
        self.0.push_str(name);
        for part in parts.iter().flatten().filter(|part| !part.is_empty()) {
            // Rust has no `escape_ascii` that leaves quotes alone.
            let text = part
                .escape_ascii()
                .to_string()
                .replace("\\\"", "\"")
                .replace("\\'", "'");
            self.0.push(' ');
            self.0.push_str(&text);
        }
        self.0.push('\n');
    }

    fn number(&mut self, name: &str, value: u32) {
        self.add(name, &[Some(value.to_string().as_bytes())]);
    }

    fn address(&mut self, name: &str, address: Option<NameAddr<'_>>) {
        let Some(address) = address else { return };
        self.add(name, &[Some(address.uri)]);
        self.add(&format!("{name}-user"), &[address.user]);
        self.add(
            &format!("{name}-host"),
            &[(!address.host.is_empty()).then_some(address.host)],
        );
        if let Some(port) = address.port {
            self.number(&format!("{name}-port"), port.into());
        }
        self.add(&format!("{name}-tag"), &[address.tag]);
    }
}

#[test]
fn every_message_is_there_and_has_its_expectation() {
    let mut stored: Vec<_> = fs::read_dir(folder())
        .unwrap()
        .filter_map(|entry| {
            entry
                .unwrap()
                .file_name()
                .into_string()
                .unwrap()
                .strip_suffix(".dat")
                .map(str::to_owned)
        })
        .collect();
    stored.sort();
    let mut expected: Vec<_> = cases().into_iter().map(|case| case.name).collect();
    assert_eq!(expected.len(), RFC_4475 + RFC_5118);
    expected.sort();
    assert_eq!(stored, expected);
}

#[test]
fn every_message_is_understood_as_expected() {
    for case in cases() {
        let summary = Summary::of(&Message::whole(&case.bytes));
        assert_eq!(class_of(&case.bytes).name(), case.class, "{}", case.name);
        assert_eq!(summary, case.summary, "{}\n{summary}", case.name);
    }
}

/// A valid message is what it says it is, and everything that every message must have is found.
#[test]
fn valid_messages_are_understood() {
    for case in cases().iter().filter(|case| case.valid) {
        let name = &case.name;
        let message = Message::whole(&case.bytes);
        assert!(
            message.request().is_some() != message.status().is_some(),
            "{name}"
        );
        assert_eq!(
            class_of(&case.bytes).is_request(),
            message.request().is_some(),
            "{name}"
        );
        assert_ne!(class_of(&case.bytes), Class::Garbage, "{name}");
        assert!(message.cseq().is_some(), "{name}");
        assert!(message.vias().all(|via| !via.host.is_empty()), "{name}");
        assert!(message.vias().next().is_some(), "{name}");
        assert!(message.from().is_some() && message.to().is_some(), "{name}");
        assert!(message.call_id().is_some(), "{name}");
    }
}

/// Wherever a message is cut, every field is what it is in the whole message, or missing.
#[test]
fn every_truncation_says_nothing_else_than_the_whole() {
    for case in cases() {
        let mut whole: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, value) in case
            .summary
            .lines()
            .map(|line| line.split_once(' ').unwrap_or((line, "")))
        {
            whole.entry(name).or_default().push(value);
        }
        for length in 0..=case.bytes.len() {
            let message = Message::new(&case.bytes[..length]);
            if message.request().is_some_and(|line| !line.complete) {
                // The one field that may be cut says so.
                continue;
            }
            let summary = Summary::of(&message);
            for line in summary.lines() {
                let (name, value) = line.split_once(' ').unwrap_or((line, ""));
                let known = whole.get(name).is_some_and(|values| values.contains(&value));
                assert!(known, "{} cut to {length}: {line}", case.name);
            }
        }
    }
}

/// Servers accept LF for CR LF; what they would understand has to be understood.
#[test]
fn line_ends_without_cr_change_nothing() {
    for case in cases() {
        let bytes: Vec<u8> = case.bytes.iter().copied().filter(|byte| *byte != b'\r').collect();
        let summary = Summary::of(&Message::whole(&bytes));
        let without = |text: &str| text.replace("\\r", "");
        assert_eq!(without(&summary), without(&case.summary), "{}", case.name);
    }
}

#[test]
fn leading_line_ends_change_nothing() {
    for case in cases() {
        let bytes = [b"\r\n\n\r\n", &case.bytes[..]].concat();
        assert_eq!(
            Summary::of(&Message::whole(&bytes)),
            case.summary,
            "{}",
            case.name
        );
    }
}
