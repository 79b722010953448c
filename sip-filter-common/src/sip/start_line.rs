//! Start lines: what is asked, or what is answered (RFC 3261 §7.1, §7.2).

use super::text::{is_token, number, split_once, trim};

/// A request's first line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLine<'a> {
    /// The method. Its case matters.
    pub method: &'a [u8],
    /// The Request-URI; one that was cut short where `complete` is false.
    pub uri: &'a [u8],
    /// Whether the end of the line was seen.
    pub complete: bool,
}

impl<'a> RequestLine<'a> {
    /// Reads a line. White space around the URI is not legal, but some senders put it there.
    pub(super) fn parse(line: &'a [u8], ended: bool) -> Option<Self> {
        let (method, rest) = split_once(line, b' ')?;
        if !is_token(method) {
            return None;
        }
        let rest = trim(rest);
        let uri = match rest.iter().rposition(|byte| *byte == b' ') {
            Some(space) => {
                let (uri, version) = rest.split_at(space);
                if is_version(trim(version)) {
                    uri
                } else if ended {
                    return None;
                } else {
                    rest
                }
            }
            None if ended => return None,
            None => rest,
        };
        let uri = trim(uri);
        (!uri.is_empty()).then_some(Self {
            method,
            uri,
            complete: ended,
        })
    }
}

/// The status code of a response's first line, if it is seen whole.
pub(super) fn status(line: &[u8], ended: bool) -> Option<u16> {
    let (version, rest) = split_once(line, b' ')?;
    if !is_version(version) {
        return None;
    }
    let rest = trim(rest);
    let (code, beyond) = rest.split_at_checked(3)?;
    if beyond.first().map_or(!ended, u8::is_ascii_digit) {
        return None;
    }
    let code = u16::try_from(number(code)?).ok()?;
    (100..700).contains(&code).then_some(code)
}

/// `SIP/` and a version, whichever: some future one is SIP as well.
fn is_version(text: &[u8]) -> bool {
    text.split_at_checked(4)
        .is_some_and(|(name, _)| name.eq_ignore_ascii_case(b"SIP/"))
}
