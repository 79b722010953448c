//! Via: the way a request came (RFC 3261 §20.42).

use super::{
    text::{Params, first_word, split_once, trim},
    uri::{before, host_and_port},
};

/// A value of Via.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Via<'a> {
    /// The transport, as `UDP`.
    pub transport: &'a [u8],
    /// Where the sender says it is, an IPv6 address without its brackets.
    pub host: &'a [u8],
    /// The port it says it has, if it says one.
    pub port: Option<u16>,
    /// Identifies the transaction.
    pub branch: Option<&'a [u8]>,
    /// Where the next hop saw it come from, without brackets.
    pub received: Option<&'a [u8]>,
    /// The port the next hop saw, empty while the sender only asks for it (RFC 3581); none without the parameter.
    pub rport: Option<&'a [u8]>,
}

impl<'a> Via<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let sent = before(value, b";");
        let params = Params::new(value.get(sent.len()..).unwrap_or_default(), b';');
        let (_, version) = split_once(sent, b'/')?;
        let (_, rest) = split_once(version, b'/')?;
        let (transport, place) = first_word(trim(rest));
        let (host, port) = host_and_port(place);
        Some(Self {
            transport,
            host,
            port,
            branch: params.value_of("branch"),
            received: params.value_of("received").map(without_brackets),
            rport: params.value_of("rport"),
        })
    }
}

/// The host alone. An IPv6 address without brackets is none with a port (RFC 5118 §4.5 tells of both forms).
fn without_brackets(text: &[u8]) -> &[u8] {
    match text.strip_prefix(b"[") {
        Some(_) => host_and_port(text).0,
        None => text,
    }
}
