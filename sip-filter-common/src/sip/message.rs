//! Borrowed view of a SIP message's head: start line and headers, nothing copied, nothing interpreted.
//!
//! The input is hostile and often cut short (a snapshot holds the first bytes of a payload only), so nothing here
//! fails: what cannot be read is skipped. It is at least as lenient as the servers behind the filter, because what
//! a server understands and the filter does not is a way around the filter: lines may end with LF alone, header
//! names have any case and optional space before the colon, values may be folded over lines and hold any bytes.

/// A header's name in its long and, where one is defined, compact form (RFC 3261 §7.3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderName {
    full: &'static str,
    compact: Option<u8>,
}

impl HeaderName {
    /// What sent a request. It has no compact form.
    pub const USER_AGENT: Self = Self::new("User-Agent", None);
    /// What sent a response. It has no compact form.
    pub const SERVER: Self = Self::new("Server", None);
    /// Who a request is from.
    pub const FROM: Self = Self::new("From", Some(b'f'));
    /// Who a request is for.
    pub const TO: Self = Self::new("To", Some(b't'));
    /// Identifies a call or a series of registrations.
    pub const CALL_ID: Self = Self::new("Call-ID", Some(b'i'));

    /// A name with its compact form, one letter.
    #[must_use]
    pub const fn new(full: &'static str, compact: Option<u8>) -> Self {
        Self { full, compact }
    }

    /// Whether `name`, as it stands in a message, is this header.
    #[must_use]
    pub fn matches(self, name: &[u8]) -> bool {
        match (name, self.compact) {
            ([letter], Some(compact)) => letter.eq_ignore_ascii_case(&compact),
            _ => name.eq_ignore_ascii_case(self.full.as_bytes()),
        }
    }
}

/// One header as it stands in the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header<'a> {
    /// The name, without the space that may stand before the colon.
    pub name: &'a [u8],
    /// The value without surrounding white space. A folded value still holds its line ends: see [`unfold`].
    pub value: &'a [u8],
    /// Whether the end of the value was seen; the last header of a message cut short may go on.
    pub complete: bool,
}

/// The head of a message: everything before the blank line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    start_line: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    /// Looks at the first bytes of a message. Leading line ends are skipped (RFC 3261 §7.5).
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        let begin = bytes
            .iter()
            .position(|byte| !is_line_end(*byte))
            .unwrap_or(bytes.len());
        let (_, bytes) = bytes.split_at(begin);
        let line = split_line(bytes);
        Self {
            start_line: line.text,
            rest: line.rest,
        }
    }

    /// The start line, without its end.
    #[must_use]
    pub const fn start_line(&self) -> &'a [u8] {
        self.start_line
    }

    /// The headers, in their order, up to the blank line.
    #[must_use]
    pub const fn headers(&self) -> Headers<'a> {
        Headers { rest: self.rest }
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<Header<'a>> {
        self.headers().find(|header| name.matches(header.name))
    }
}

/// Iterator over the headers of a [`Message`].
#[derive(Clone, Debug)]
pub struct Headers<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Headers<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        loop {
            let begin = self.rest;
            let mut line = split_line(begin);
            if line.text.is_empty() {
                // The blank line, or the end of what was captured.
                self.rest = &[];
                return None;
            }
            // A line that begins with white space continues the one before (§7.3.1).
            let mut length = line.text.len();
            while line.ended && line.rest.first().is_some_and(|byte| is_space(*byte)) {
                line = split_line(line.rest);
                length = begin.len() - line.rest.len() - line.end_length;
            }
            self.rest = line.rest;
            let (text, _) = begin.split_at(length.min(begin.len()));
            // Without a colon it is no header; servers skip such a line, and so do we.
            if let Some(colon) = text.iter().position(|byte| *byte == b':') {
                let (name, value) = text.split_at(colon);
                return Some(Header {
                    name: name.trim_ascii(),
                    value: value.get(1..).unwrap_or_default().trim_ascii(),
                    // After a line end, more of the value can still follow on a folded line.
                    complete: line.ended && !line.rest.is_empty(),
                });
            }
        }
    }
}

/// The bytes of a header's value with every fold (a line end and the white space around it) turned into one space.
pub fn unfold(value: &[u8]) -> impl Iterator<Item = u8> + '_ {
    let mut rest = value;
    core::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if !is_space(byte) && !is_line_end(byte) {
            return Some(byte);
        }
        let run = after
            .iter()
            .position(|byte| !is_space(*byte) && !is_line_end(*byte))
            .unwrap_or(after.len());
        let (space, beyond) = after.split_at(run);
        if is_line_end(byte) || space.iter().any(|byte| is_line_end(*byte)) {
            rest = beyond;
            return Some(b' ');
        }
        Some(byte)
    })
}

struct Line<'a> {
    /// The line without its end.
    text: &'a [u8],
    /// What follows the line's end.
    rest: &'a [u8],
    /// Length of the line's end: 2, 1, or 0 where the text ran out.
    end_length: usize,
    /// Whether there was an end.
    ended: bool,
}

/// Splits at the first LF, or CR LF.
fn split_line(bytes: &[u8]) -> Line<'_> {
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        // A CR whose LF was cut off belongs to the line's end.
        let text = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        return Line {
            text,
            rest: &[],
            end_length: bytes.len() - text.len(),
            ended: false,
        };
    };
    let (line, rest) = bytes.split_at(end);
    let text = line.strip_suffix(b"\r").unwrap_or(line);
    Line {
        text,
        rest: rest.get(1..).unwrap_or_default(),
        end_length: line.len() - text.len() + 1,
        ended: true,
    }
}

const fn is_line_end(byte: u8) -> bool {
    matches!(byte, b'\r' | b'\n')
}

const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t')
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::{string::String, vec::Vec};

    use proptest::prelude::*;

    use super::*;

    fn agent(message: &[u8]) -> Option<&[u8]> {
        Message::new(message)
            .header(HeaderName::USER_AGENT)
            .map(|header| header.value)
    }

    #[test]
    fn finds_headers_by_full_and_compact_name() {
        let message = Message::new(
            b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\ni: 7\r\nF:<sip:a>\r\nuser-AGENT : friendly-scanner \r\n\r\nbody",
        );
        assert_eq!(message.start_line(), b"OPTIONS sip:a@b SIP/2.0");
        let value = |name| message.header(name).map(|header| header.value);
        assert_eq!(value(HeaderName::CALL_ID), Some(&b"7"[..]));
        assert_eq!(value(HeaderName::FROM), Some(&b"<sip:a>"[..]));
        assert_eq!(value(HeaderName::USER_AGENT), Some(&b"friendly-scanner"[..]));
        assert_eq!(value(HeaderName::SERVER), None);
        // A letter is not the beginning of a name, and User-Agent has no compact form.
        assert_eq!(value(HeaderName::TO), None);
        assert_eq!(agent(b"OPTIONS a\r\nu: x\r\n\r\n"), None);
    }

    #[test]
    fn the_first_of_several_counts_and_all_can_be_seen() {
        let message = Message::new(b"X\nUser-Agent: a\nUser-Agent: b\n\n");
        assert_eq!(message.header(HeaderName::USER_AGENT).unwrap().value, b"a");
        assert_eq!(message.headers().count(), 2);
    }

    #[test]
    fn never_looks_beyond_the_blank_line() {
        for end in ["\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"] {
            let text = std::format!("INVITE sip:a SIP/2.0\r\nTo: b{end}User-Agent: sipvicious\r\n\r\n");
            assert_eq!(agent(text.as_bytes()), None, "{end:?}");
        }
        assert_eq!(agent(b"INVITE sip:a SIP/2.0\r\n\r\nUser-Agent: x\r\n\r\n"), None);
        // Leading line ends are not the blank line.
        assert_eq!(
            agent(b"\r\n\r\nINVITE a\r\nUser-Agent: x\r\n\r\n"),
            Some(&b"x"[..])
        );
    }

    #[test]
    fn lf_only_folding_and_other_bytes() {
        assert_eq!(agent(b"O a\nUser-Agent: x\n\n"), Some(&b"x"[..]));
        assert_eq!(agent(b"O a\r\nUser-Agent:\r\n x\r\n\r\n"), Some(&b"x"[..]));
        assert_eq!(
            agent(b"O a\r\nUser-Agent: a\r\n\tb\r\n  c\r\nTo: d\r\n\r\n"),
            Some(&b"a\r\n\tb\r\n  c"[..])
        );
        assert_eq!(
            agent(b"O a\r\nNo colon\r\nUser-Agent: \xff\0\xfe\r\n\r\n"),
            Some(&b"\xff\0\xfe"[..])
        );
        // A folded value of another header does not make a header.
        assert_eq!(agent(b"O a\r\nSubject: b\r\n User-Agent: x\r\n\r\n"), None);
        // Nor does a substring.
        assert_eq!(agent(b"O a\r\nX-User-Agent: x\r\n\r\n"), None);
    }

    #[test]
    fn unfolding() {
        let unfolded = |value: &[u8]| String::from_utf8(unfold(value).collect()).unwrap();
        assert_eq!(unfolded(b"a\r\n\tb \n  c"), "a b c");
        assert_eq!(unfolded(b"a  b\tc"), "a  b\tc");
        assert_eq!(unfolded(b""), "");
    }

    #[test]
    fn a_value_that_may_go_on_is_not_complete() {
        let complete = |message: &[u8]| {
            Message::new(message)
                .header(HeaderName::USER_AGENT)
                .unwrap()
                .complete
        };
        assert!(complete(b"O a\r\nUser-Agent: x\r\n\r\n"));
        assert!(complete(b"O a\r\nUser-Agent: x\r\nTo"));
        for cut in ["", "\r", "\r\n", "\r\n y"] {
            assert!(
                !complete(std::format!("O a\r\nUser-Agent: x{cut}").as_bytes()),
                "{cut:?}"
            );
        }
    }

    fn message() -> impl Strategy<Value = Vec<u8>> {
        let piece = prop_oneof![
            prop::sample::select(std::vec![
                &b"\r\n"[..],
                b"\n",
                b"\r",
                b" ",
                b"\t",
                b":",
                b"User-Agent",
                b"u",
                b"x: y",
                b"\0",
                b"INVITE a",
            ])
            .prop_map(<[u8]>::to_vec),
            prop::collection::vec(any::<u8>(), 0..4),
        ];
        prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2048, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn everything_found_lies_in_the_head(bytes in message()) {
            let message = Message::new(&bytes);
            let mut length = message.start_line().len();
            prop_assert!(!message.start_line().contains(&b'\n'));
            for header in message.headers() {
                length += header.name.len() + header.value.len() + 1;
                prop_assert!(!header.name.contains(&b':'));
                let unfolded: Vec<u8> = unfold(header.value).collect();
                prop_assert!(!unfolded.contains(&b'\n') && unfolded.len() <= header.value.len());
                // What was read from a longer message is read the same from this one alone.
                let blank = b"\n\n";
                let alone = [b"x\n", header.name, b":", header.value, blank].concat();
                let again = Message::new(&alone).headers().next();
                if !header.name.is_empty() && !header.name.contains(&b'\n') {
                    prop_assert_eq!(again.map(|again| again.value), Some(header.value));
                }
            }
            prop_assert!(length <= bytes.len());
        }
    }
}
