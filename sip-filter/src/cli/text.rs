//! Words, times and tables for people.

use std::{borrow::Cow, fmt::Write as _, time::SystemTime};

pub(super) use crate::layout::{table, wrapped};

/// `text` without what could steer a terminal or mislead a reader: much of it comes from attackers.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(hazardous) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if hazardous(character) {
            // Writing to a string cannot fail.
            let _ = write!(safe, "{}", character.escape_unicode());
        } else {
            safe.push(character);
        }
    }
    Cow::Owned(safe)
}

fn hazardous(character: char) -> bool {
    character.is_control()
        // Line separators, and what changes the direction of text.
        || matches!(character, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A number of seconds in its largest unit, cut off: `59m`, `3d`.
pub(super) fn rough(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3_600 => format!("{}m", seconds / 60),
        3_600..172_800 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// How long ago: `3s ago`; a time that has yet to come is now, since clocks differ.
pub(super) fn ago(time: SystemTime, now: SystemTime) -> String {
    let seconds = now.duration_since(time).map_or(0, |past| past.as_secs());
    format!("{} ago", rough(seconds))
}

/// When a ban ends: `in 59m`, `never`.
pub(super) fn ends(expires_in_seconds: Option<u64>) -> String {
    expires_in_seconds.map_or_else(|| "never".to_owned(), |seconds| format!("in {}", rough(seconds)))
}

/// RFC 3339 to the second.
pub(super) fn stamp(time: SystemTime) -> String {
    humantime::format_rfc3339_seconds(crate::units::within_rfc3339(time)).to_string()
}

/// `1 ban`, `2 bans`.
pub(super) fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nothing_reaches_the_terminal_that_could_steer_it() {
        assert!(matches!(clean("friendly-scanner ü"), Cow::Borrowed(_)));
        assert_eq!(
            clean("a\x1b[31mb\n\u{202e}c\u{9b}"),
            "a\\u{1b}[31mb\\u{a}\\u{202e}c\\u{9b}"
        );
    }

    #[test]
    fn times_are_rough() {
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (3_599, "59m"),
            (90_000, "25h"),
            (700_000, "8d"),
        ] {
            assert_eq!(rough(seconds), text);
        }
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000);
        assert_eq!(ago(now - Duration::from_secs(3), now), "3s ago");
        assert_eq!(ago(now + Duration::from_secs(3), now), "0s ago");
        assert_eq!(ends(Some(3_540)), "in 59m");
        assert_eq!(ends(None), "never");
    }
}
