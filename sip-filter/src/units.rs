//! Times, durations and rates as users write and read them.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

/// The longest duration that is not permanent: beyond it, `permanent` is what is meant, and clock arithmetic would
/// have to fear overflow.
pub const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// The text is not a duration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Not understood.
    #[error("`{0}` is not a duration such as `90s`, `1h30m`, `7d`, `3600` (seconds) or `permanent`")]
    Malformed(String),
    /// `M` would be a month beside `m` for a minute.
    #[error("`{0}`: `M` could be minutes or months; write `m` or a number of days")]
    Ambiguous(String),
    /// Longer than [`LONGEST`].
    #[error("`{0}` is longer than 100 years; write `permanent`")]
    TooLong(String),
    /// Permanent where an end is needed.
    #[error("`{0}`: this duration must have an end")]
    Endless(String),
}

/// Reads a duration: `90s`, `1h30m`, `7d`, bare seconds; `permanent` and `-1` (as in fail2ban) are `None`. Anything finer
/// than a millisecond is cut off, as [`format_duration`] does, so that what is read is what will be shown.
///
/// # Errors
/// [`DurationError`] if the text is none of these.
pub fn parse_duration(text: &str) -> Result<Option<Duration>, DurationError> {
    let trimmed = text.trim();
    if trimmed == "permanent" || trimmed == "-1" {
        return Ok(None);
    }
    if trimmed.contains('M') {
        return Err(DurationError::Ambiguous(trimmed.to_owned()));
    }
    let bare = !trimmed.is_empty() && trimmed.bytes().all(|byte| byte.is_ascii_digit());
    let parsed = if bare {
        trimmed.parse().ok().map(Duration::from_secs)
    } else {
        humantime::parse_duration(trimmed).ok()
    };
    match parsed {
        Some(duration) if duration <= LONGEST => {
            let fine = duration.subsec_nanos() % 1_000_000;
            Ok(Some(duration.saturating_sub(Duration::from_nanos(fine.into()))))
        }
        Some(_) => Err(DurationError::TooLong(trimmed.to_owned())),
        // All digits, and yet no number of seconds: it overflowed.
        None if bare => Err(DurationError::TooLong(trimmed.to_owned())),
        None => Err(DurationError::Malformed(trimmed.to_owned())),
    }
}

/// Like [`parse_duration`] where `permanent` makes no sense.
///
/// # Errors
/// [`DurationError`] if the text is no duration, or has no end.
pub fn parse_finite_duration(text: &str) -> Result<Duration, DurationError> {
    parse_duration(text)?.ok_or_else(|| DurationError::Endless(text.trim().to_owned()))
}

/// Writes a duration so that [`parse_duration`] reads the same: `1h30m`, `7d`, `250ms`. Anything finer than a
/// millisecond is cut off.
#[must_use]
pub fn format_duration(duration: Duration) -> String {
    use fmt::Write as _;
    let seconds = duration.as_secs();
    let parts = [
        (seconds / 86_400, "d"),
        (seconds / 3_600 % 24, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
        (u64::from(duration.subsec_millis()), "ms"),
    ];
    let mut text = String::new();
    for (value, unit) in parts.into_iter().filter(|(value, _)| *value != 0) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{value}{unit}");
    }
    if text.is_empty() {
        text.push_str("0s");
    }
    text
}

/// Like [`format_duration`], with `permanent` for a ban without end.
#[must_use]
pub fn format_ban_time(duration: Option<Duration>) -> String {
    duration.map_or_else(|| "permanent".to_owned(), format_duration)
}

/// So many packets in so much time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Packets, at least 1.
    pub count: u64,
    /// A second, minute or hour.
    pub per: Duration,
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            60 => "m",
            3_600 => "h",
            _ => "s",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// The text is not a rate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RateError {
    /// Not understood.
    #[error("\"{0}\" is not a rate such as \"20/s\", \"100/m\" or \"unlimited\"")]
    Malformed(String),
    /// A rate of nothing would stop a whole traffic class.
    #[error(
        "\"{0}\" would drop every packet; the slowest rate is \"1/h\", and \"unlimited\" switches the limit off"
    )]
    Zero(String),
}

/// Reads a rate: `20/s`, `100/m`, `1000/h`; `unlimited` is `None`.
///
/// # Errors
/// [`RateError`] if the text is none of these.
pub fn parse_rate(text: &str) -> Result<Option<Rate>, RateError> {
    let trimmed = text.trim();
    if trimmed == "unlimited" {
        return Ok(None);
    }
    let malformed = || RateError::Malformed(trimmed.to_owned());
    let (count, unit) = trimmed.split_once('/').ok_or_else(malformed)?;
    // Nobody counts packets beyond this, and 1 ns between packets is the finest the limiter knows.
    let count = count.trim().parse::<u32>().map_err(|_| malformed())?;
    let per = match unit.trim() {
        "s" | "sec" | "second" => 1,
        "m" | "min" | "minute" => 60,
        "h" | "hour" => 3_600,
        _ => return Err(malformed()),
    };
    if count == 0 {
        return Err(RateError::Zero(trimmed.to_owned()));
    }
    Ok(Some(Rate {
        count: u64::from(count),
        per: Duration::from_secs(per),
    }))
}

/// A time that RFC 3339 can express, with four digits for the year: one before 1970 or after 9999 becomes the first or
/// the last there is. Captures may claim any.
#[must_use]
pub fn within_rfc3339(time: SystemTime) -> SystemTime {
    const LAST: Duration = Duration::from_millis(253_402_300_799_999);
    time.clamp(SystemTime::UNIX_EPOCH, SystemTime::UNIX_EPOCH + LAST)
}

/// Serialises a [`std::time::SystemTime`] as RFC 3339 in UTC.
pub mod rfc3339 {
    use std::time::SystemTime;

    use serde::{Deserialize, Deserializer, Serializer};

    /// Writes it with millisecond precision; what cannot be expressed, as [`super::within_rfc3339`] has it.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_rfc3339_millis(super::within_rfc3339(*time)))
    }

    /// Reads it.
    ///
    /// # Errors
    /// If the text is not RFC 3339.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SystemTime, D::Error> {
        let text = String::deserialize(deserializer)?;
        humantime::parse_rfc3339(&text).map_err(serde::de::Error::custom)
    }
}

/// Reads text or a whole number of seconds, for the two serde modules below.
struct DurationText;

impl serde::de::Visitor<'_> for DurationText {
    type Value = Option<Duration>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a duration such as \"90s\", \"1h30m\" or a number of seconds")
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Self::Value, E> {
        parse_duration(text).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, seconds: u64) -> Result<Self::Value, E> {
        self.visit_str(&seconds.to_string())
    }

    fn visit_i64<E: serde::de::Error>(self, seconds: i64) -> Result<Self::Value, E> {
        self.visit_str(&seconds.to_string())
    }
}

/// A [`Duration`] as text or seconds, for `#[serde(with = "…")]`; `permanent` is refused.
pub mod duration {
    use std::time::Duration;

    use serde::{Deserializer, Serializer, de::Error as _};

    /// Writes it as [`super::format_duration`] does.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_duration(*duration))
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it is no duration, or has no end.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
        deserializer
            .deserialize_any(super::DurationText)?
            .ok_or_else(|| D::Error::custom(super::DurationError::Endless("permanent".to_owned())))
    }
}

/// The length of a ban as text or seconds, for `#[serde(with = "…")]`; `None` is `permanent`.
pub mod ban_time {
    use std::time::Duration;

    use serde::{Deserializer, Serializer};

    /// Writes it as [`super::format_ban_time`] does.
    ///
    /// # Errors
    /// Those of the serializer.
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&super::format_ban_time(*duration))
    }

    /// Reads it.
    ///
    /// # Errors
    /// If it is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
        deserializer.deserialize_any(super::DurationText)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_too_fine_to_be_shown_is_not_read() {
        for (text, milliseconds) in [("1us", 0), ("999us", 0), ("1ms 1ns", 1), ("2s 1500us", 2_001)] {
            assert_eq!(
                parse_duration(text),
                Ok(Some(Duration::from_millis(milliseconds))),
                "{text}"
            );
        }
    }

    #[test]
    fn a_time_beyond_four_digits_of_years_can_be_written() {
        let far = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let text = |time| humantime::format_rfc3339_millis(within_rfc3339(time)).to_string();
        assert_eq!(text(far(253_402_300_800)), "9999-12-31T23:59:59.999Z");
        assert_eq!(text(far(1 << 62)), "9999-12-31T23:59:59.999Z");
        assert_eq!(text(far(1_000_000_000)), "2001-09-09T01:46:40.000Z");
        let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(text(before), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn durations_as_users_write_them() {
        for (text, seconds) in [
            ("90s", 90),
            ("1h30m", 5_400),
            (" 1h 30m ", 5_400),
            ("1.5h", 5_400),
            ("7d", 604_800),
            ("2w", 1_209_600),
            ("3600", 3_600),
            ("0", 0),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Some(Duration::from_secs(seconds))),
                "{text}"
            );
        }
        assert_eq!(parse_duration("permanent"), Ok(None));
        assert_eq!(parse_duration("-1"), Ok(None));
        assert_eq!(
            parse_duration("5M"),
            Err(DurationError::Ambiguous("5M".to_owned()))
        );
        for text in ["", "-2", "1h-30m", "soon", "1x", "h"] {
            assert_eq!(
                parse_duration(text),
                Err(DurationError::Malformed(text.to_owned())),
                "{text}"
            );
        }
        for text in ["101years", "99999999999999999999999", "36501d"] {
            assert_eq!(
                parse_duration(text),
                Err(DurationError::TooLong(text.to_owned())),
                "{text}"
            );
        }
        assert_eq!(
            parse_finite_duration("permanent"),
            Err(DurationError::Endless("permanent".to_owned()))
        );
    }

    #[test]
    fn durations_as_users_read_them() {
        for (millis, text) in [
            (0, "0s"),
            (90_000, "1m30s"),
            (5_400_000, "1h30m"),
            (604_800_000, "7d"),
            (1_250, "1s250ms"),
        ] {
            assert_eq!(format_duration(Duration::from_millis(millis)), text);
        }
        assert_eq!(format_ban_time(None), "permanent");
    }

    #[test]
    fn rates() {
        let rate = |count, per| {
            Ok(Some(Rate {
                count,
                per: Duration::from_secs(per),
            }))
        };
        assert_eq!(parse_rate("20/s"), rate(20, 1));
        assert_eq!(parse_rate(" 100 / min "), rate(100, 60));
        assert_eq!(parse_rate("5/h"), rate(5, 3_600));
        assert_eq!(parse_rate("unlimited"), Ok(None));
        assert_eq!(parse_rate("0/s"), Err(RateError::Zero("0/s".to_owned())));
        for text in ["", "20", "20/x", "/s", "-1/s", "1.5/s", "4294967296/s"] {
            assert_eq!(
                parse_rate(text),
                Err(RateError::Malformed(text.to_owned())),
                "{text}"
            );
        }
        for text in ["20/s", "100/m", "5/h"] {
            assert_eq!(parse_rate(text).unwrap().unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(millis in 0..LONGEST.as_millis() as u64) {
            let duration = Duration::from_millis(millis);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(Some(duration)));
        }

        #[test]
        fn no_text_panics(text in ".{0,24}") {
            let _ = parse_duration(&text);
            let _ = parse_rate(&text);
        }
    }
}
