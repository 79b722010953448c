//! The names of the headers that the filter reads.

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
    /// Number and method of a request, repeated in its responses.
    pub const CSEQ: Self = Self::new("CSeq", None);
    /// The way a request came.
    pub const VIA: Self = Self::new("Via", Some(b'v'));
    /// Where the sender can be reached, or what it registers.
    pub const CONTACT: Self = Self::new("Contact", Some(b'm'));
    /// For how many seconds something is asked for.
    pub const EXPIRES: Self = Self::new("Expires", None);
    /// Length of the body in bytes.
    pub const CONTENT_LENGTH: Self = Self::new("Content-Length", Some(b'l'));
    /// Credentials for a server.
    pub const AUTHORIZATION: Self = Self::new("Authorization", None);
    /// Credentials for a proxy.
    pub const PROXY_AUTHORIZATION: Self = Self::new("Proxy-Authorization", None);
    /// A server's challenge.
    pub const WWW_AUTHENTICATE: Self = Self::new("WWW-Authenticate", None);
    /// A proxy's challenge.
    pub const PROXY_AUTHENTICATE: Self = Self::new("Proxy-Authenticate", None);

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
