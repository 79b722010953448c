//! From, To and Contact: a URI, perhaps with a name before it, and parameters.

use super::{
    text::{Params, find_bare, number, split_around, split_once, trim},
    uri::{Uri, before},
};

/// A party of a message: `"Name" <uri>;parameters`, or the URI alone (RFC 3261 §20.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameAddr<'a> {
    /// The whole URI.
    pub uri: &'a [u8],
    /// Its user without password, or its telephone number.
    pub user: Option<&'a [u8]>,
    /// Its host, an IPv6 address without its brackets; empty where the scheme has none.
    pub host: &'a [u8],
    /// Its port, where one is named.
    pub port: Option<u16>,
    /// The tag of a dialog's side.
    pub tag: Option<&'a [u8]>,
}

impl<'a> NameAddr<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        Self::with_params(value).map(|(address, _)| address)
    }

    fn with_params(value: &'a [u8]) -> Option<(Self, Params<'a>)> {
        let value = trim(value);
        let (uri, rest) = match find_bare(value, b'<', false) {
            Some(open) => split_once(split_around(value, open).1, b'>')?,
            // Without brackets, every parameter is the header's (§20.10).
            None => split_once(value, b';').unwrap_or((value, &[])),
        };
        let uri = trim(uri);
        let parts = Uri::new(uri)?;
        let params = Params::new(rest, b';');
        let address = Self {
            uri,
            user: parts.user,
            host: parts.host,
            port: parts.port,
            tag: params.value_of("tag"),
        };
        Some((address, params))
    }
}

/// A value of Contact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Contact<'a> {
    /// The address; none for `*`.
    pub address: Option<NameAddr<'a>>,
    /// For how many seconds this address is to be registered, if the value says so itself.
    pub expires: Option<u32>,
    /// Whether it is `*`: all addresses, to be removed.
    pub is_star: bool,
}

impl<'a> Contact<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        if trim(before(value, b";")) == b"*" {
            return Some(Self {
                address: None,
                expires: None,
                is_star: true,
            });
        }
        let (address, params) = NameAddr::with_params(value)?;
        Some(Self {
            address: Some(address),
            expires: params.value_of("expires").and_then(number),
            is_star: false,
        })
    }
}
