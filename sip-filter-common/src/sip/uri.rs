//! URIs: who is meant, and where.

use super::text::{number, split_once, trim};

/// The parts of a URI that tell who is meant and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// What stands before the first colon.
    pub scheme: &'a [u8],
    /// The user of a `sip:` or `sips:` URI without password, or the number of a `tel:` URI. Escapes (`%41`) stand
    /// in it as they came.
    pub user: Option<&'a [u8]>,
    /// The host of a `sip:` or `sips:` URI, an IPv6 address without its brackets; empty for other schemes.
    pub host: &'a [u8],
    /// The port, where one is named.
    pub port: Option<u16>,
}

impl<'a> Uri<'a> {
    /// Takes a URI apart. What has no scheme is none.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Option<Self> {
        let (scheme, rest) = split_once(trim(text), b':')?;
        let mut uri = Self {
            scheme,
            user: None,
            host: &[],
            port: None,
        };
        if scheme.eq_ignore_ascii_case(b"sip") || scheme.eq_ignore_ascii_case(b"sips") {
            let mut place = rest;
            // Neither parameters nor headers may hold an `@`, a user may hold `;` and `?`.
            if let Some((user, host)) = split_once(rest, b'@') {
                uri.user = some(before(user, b":"));
                place = host;
            }
            (uri.host, uri.port) = host_and_port(before(place, b";?"));
        } else if scheme.eq_ignore_ascii_case(b"tel") {
            uri.user = some(before(rest, b";"));
        }
        Some(uri)
    }
}

/// Host, an IPv6 address without its brackets, and port.
pub(super) fn host_and_port(text: &[u8]) -> (&[u8], Option<u16>) {
    let text = trim(text);
    let (host, rest) = match text.strip_prefix(b"[") {
        Some(inner) => split_once(inner, b']').unwrap_or((inner, &[])),
        None => {
            let host = before(text, b":");
            (host, text.get(host.len()..).unwrap_or_default())
        }
    };
    let port = trim(rest)
        .strip_prefix(b":")
        .and_then(number)
        .and_then(|port| u16::try_from(port).ok());
    (trim(host), port)
}

/// Everything before the first of these bytes.
pub(super) fn before<'a>(text: &'a [u8], ends: &[u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|byte| ends.contains(byte))
        .unwrap_or(text.len());
    text.split_at(end).0
}

fn some(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text)
}
