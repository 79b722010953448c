//! Copies of dropped packets.

use std::{fmt::Write as _, time::SystemTime};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::SchemaVersion;

/// A packet that was dropped, or in simulate mode would have been: one line of `GET /v1/drops`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DroppedPacket {
    /// 1.
    pub schema_version: SchemaVersion,
    /// When.
    #[serde(with = "crate::units::rfc3339")]
    pub time: SystemTime,
    /// Why: the name of the reason, as in the counters.
    pub reason: String,
    /// Length of the whole frame.
    pub length: u32,
    /// Its first bytes from the Ethernet header on, in hexadecimal.
    pub frame: Frame,
    /// Packets missing before this one, because the client reads too slowly.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub missed: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde hands over a reference to the field"
)]
const fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// Bytes, in JSON as hexadecimal text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame(pub Vec<u8>);

impl Serialize for Frame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut text = String::with_capacity(self.0.len() * 2);
        for byte in &self.0 {
            // Writing to a string cannot fail.
            let _ = write!(text, "{byte:02x}");
        }
        serializer.serialize_str(&text)
    }
}

impl<'de> Deserialize<'de> for Frame {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let digit = |byte: u8| char::from(byte).to_digit(16);
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes = pairs
            .iter()
            .map(|[high, low]| u8::try_from(digit(*high)? << 4 | digit(*low)?).ok());
        match bytes.collect() {
            Some(bytes) if rest.is_empty() => Ok(Self(bytes)),
            _ => Err(D::Error::custom("the frame is not hexadecimal text")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_hexadecimal() {
        let all: Vec<u8> = (0..=255).collect();
        let text = serde_json::to_string(&Frame(all.clone())).unwrap();
        assert!(text.starts_with("\"000102"), "{text}");
        assert_eq!(serde_json::from_str::<Frame>(&text).unwrap(), Frame(all));
        for bad in ["\"0\"", "\"0g\"", "\"+1\"", "\"\u{e9}\"", "7"] {
            assert!(serde_json::from_str::<Frame>(bad).is_err(), "{bad}");
        }
        assert_eq!(serde_json::from_str::<Frame>("\"\"").unwrap(), Frame(Vec::new()));
    }
}
