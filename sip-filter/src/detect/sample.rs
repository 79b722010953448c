//! One line about a payload, for people.

use sip_filter_common::sip::{HeaderName, Message, unfold};

/// Longest sample, in characters.
pub(super) const LONGEST: usize = 120;
/// Longest start line within it, so that there is room for the User-Agent.
const START_LINE: usize = 72;

/// Start line and User-Agent (of a response also Server), printable ASCII only: what cannot be printed becomes
/// `.`, so that no terminal or log is tricked. `None` if there is no payload.
pub(super) fn sample(payload: &[u8]) -> Option<String> {
    if payload.is_empty() {
        return None;
    }
    let message = Message::new(payload);
    let mut text = String::with_capacity(LONGEST);
    push(&mut text, message.start_line().iter().copied(), START_LINE);
    let agent = message
        .header(HeaderName::USER_AGENT)
        .or_else(|| message.header(HeaderName::SERVER));
    if let Some(agent) = agent {
        text.push_str("; User-Agent: ");
        push(&mut text, unfold(agent.value), LONGEST);
    }
    Some(text)
}

/// Appends `bytes`, the whole text to be at most `longest` characters.
fn push(text: &mut String, bytes: impl Iterator<Item = u8>, longest: usize) {
    for byte in bytes {
        if text.len() >= longest {
            // ASCII throughout, so any cut is at a character.
            text.truncate(longest - 3);
            text.push_str("...");
            return;
        }
        text.push(if byte == b' ' || byte.is_ascii_graphic() {
            char::from(byte)
        } else {
            '.'
        });
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn start_line_and_agent() {
        assert_eq!(sample(b""), None);
        assert_eq!(
            sample(b"OPTIONS sip:100@192.0.2.1 SIP/2.0\r\nUser-Agent: friendly-scanner\r\n\r\n").unwrap(),
            "OPTIONS sip:100@192.0.2.1 SIP/2.0; User-Agent: friendly-scanner"
        );
        assert_eq!(
            sample(b"SIP/2.0 200 OK\nServer: \x1b[31mred\n\n").unwrap(),
            "SIP/2.0 200 OK; User-Agent: .[31mred"
        );
        let long = format!(
            "INVITE sip:{0}@a SIP/2.0\r\nUser-Agent: {0}\r\n\r\n",
            "9".repeat(300)
        );
        let text = sample(long.as_bytes()).unwrap();
        assert_eq!(text.len(), LONGEST);
        assert!(
            text.contains("999...; User-Agent: 999") && text.ends_with("9..."),
            "{text}"
        );
    }

    proptest! {
        #[test]
        fn printable_and_short(payload in prop::collection::vec(any::<u8>(), 1..400)) {
            let text = sample(&payload).unwrap();
            prop_assert!(text.len() <= LONGEST);
            prop_assert!(text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()));
        }
    }
}
