//! Challenges and the credentials that answer them (RFC 3261 §22, RFC 7616).

use super::text::{Params, first_word};

/// Value of Authorization or Proxy-Authorization.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials<'a> {
    /// The scheme, as `Digest`.
    pub scheme: &'a [u8],
    /// Whose credentials they are.
    pub username: Option<&'a [u8]>,
    /// The realm they are for.
    pub realm: Option<&'a [u8]>,
    /// The nonce of the challenge they answer.
    pub nonce: Option<&'a [u8]>,
    /// The URI they are for.
    pub uri: Option<&'a [u8]>,
    /// The proof itself.
    pub response: Option<&'a [u8]>,
}

impl<'a> Credentials<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let (scheme, params) = scheme_and_params(value)?;
        let mut credentials = Self {
            scheme,
            username: None,
            realm: None,
            nonce: None,
            uri: None,
            response: None,
        };
        for param in params {
            let field = match () {
                () if param.name.eq_ignore_ascii_case(b"username") => &mut credentials.username,
                () if param.name.eq_ignore_ascii_case(b"realm") => &mut credentials.realm,
                () if param.name.eq_ignore_ascii_case(b"nonce") => &mut credentials.nonce,
                () if param.name.eq_ignore_ascii_case(b"uri") => &mut credentials.uri,
                () if param.name.eq_ignore_ascii_case(b"response") => &mut credentials.response,
                () => continue,
            };
            field.get_or_insert(param.value);
        }
        Some(credentials)
    }
}

/// Value of WWW-Authenticate or Proxy-Authenticate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge<'a> {
    /// The scheme, as `Digest`.
    pub scheme: &'a [u8],
    /// What the credentials are wanted for.
    pub realm: Option<&'a [u8]>,
    /// What the answer has to be computed with.
    pub nonce: Option<&'a [u8]>,
    /// Whether the credentials were right but for the age of their nonce: no failure.
    pub stale: bool,
}

impl<'a> Challenge<'a> {
    pub(super) fn parse(value: &'a [u8]) -> Option<Self> {
        let (scheme, params) = scheme_and_params(value)?;
        Some(Self {
            scheme,
            realm: params.value_of("realm"),
            nonce: params.value_of("nonce"),
            stale: params
                .value_of("stale")
                .is_some_and(|value| value.eq_ignore_ascii_case(b"true")),
        })
    }
}

fn scheme_and_params(value: &[u8]) -> Option<(&[u8], Params<'_>)> {
    let (scheme, rest) = first_word(value);
    (!scheme.is_empty()).then(|| (scheme, Params::new(rest, b',')))
}
