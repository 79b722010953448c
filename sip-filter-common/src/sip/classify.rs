//! Start-line classifier: what kind of traffic a payload is, from its first bytes alone.

use crate::packet::Head;

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

    /// The class whose number the lowest three bits are.
    #[inline(always)]
    #[must_use]
    pub const fn from_low_bits(number: u64) -> Self {
        match number & 7 {
            0 => Self::Register,
            1 => Self::Invite,
            2 => Self::Options,
            3 => Self::Subscribe,
            4 => Self::OtherRequest,
            5 => Self::Response,
            6 => Self::KeepAlive,
            _ => Self::Garbage,
        }
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

/// Leading CR and LF bytes that are skipped before a start line.
const SKIP_MAX: usize = 8;

/// Classifies a payload of `len` bytes from its first [`HEAD`] bytes; `head` is filled with zeros beyond `len`.
///
/// Methods are case-sensitive (RFC 3261 §7.1), the version of a response is not. Up to 8 bytes of
/// leading CRLFs before a start line are skipped (§7.5). The Request-URI may be of any length, so its end and the
/// version are not looked for. A known method counts when exactly one space follows; an unknown one counts as a
/// request if it is a token (§25.1) followed by one space and a URI's first letter. What of this lies beyond the
/// head is taken to be there (but not after leading CRLFs), so a token that fills the head of a longer payload is a
/// request: RFC 4475 §3.1.1.2 has a method of 44 characters, and no binary protocol looks like that. A keep-alive
/// is an empty payload, at most [`HEAD`] bytes of nothing but NUL, space, tab, CR and LF (phones send all of these
/// to hold a NAT binding open), or a STUN message with the cookie of RFC 5389 §6, unless it begins as a request does.
///
/// Written for the kernel's verifier: every step works on the four words of the head in registers. Nothing is indexed,
/// so nothing can be out of bounds and nothing has to be proven to be within.
#[inline(always)]
#[must_use]
pub fn classify(head: &Head, len: usize) -> Class {
    let words = head.0;
    if len == 0 {
        return Class::KeepAlive;
    }
    let first = words[0] & 0xff;
    if first == CR || first == LF {
        if len <= HEAD && all_blank(words) {
            return Class::KeepAlive;
        }
        return start_line(without_leading_line_ends(words), len > HEAD);
    }
    if first == 0 || first == SP || first == TAB {
        if len <= HEAD && all_blank(words) {
            return Class::KeepAlive;
        }
        // No start line begins so; a STUN request (0x0001) does.
    } else {
        let class = start_line(words, len > HEAD);
        if !matches!(class, Class::Garbage) {
            return class;
        }
    }
    if is_stun(words[0], len) {
        Class::KeepAlive
    } else {
        Class::Garbage
    }
}

const CR: u64 = b'\r' as u64;
const LF: u64 = b'\n' as u64;
const SP: u64 = b' ' as u64;
const TAB: u64 = b'\t' as u64;

/// The byte `byte` in all eight places.
const fn splat(byte: u64) -> u64 {
    byte * 0x0101_0101_0101_0101
}

const HIGH_BITS: u64 = splat(0x80);

/// Word of up to eight characters, first character lowest, as `words` makes them.
const fn word(text: &[u8]) -> u64 {
    let mut value = 0;
    let mut index = text.len();
    while index > 0 {
        index -= 1;
        value = value << 8 | text[index] as u64;
    }
    value
}

/// The high bit of every byte of `word` that equals `byte`, and no other bit. (The shorter folklore form also
/// marks bytes above a match; this one is exact.)
#[inline(always)]
const fn bytes_equal(word: u64, byte: u64) -> u64 {
    let difference = word ^ splat(byte);
    !(((difference & !HIGH_BITS).wrapping_add(!HIGH_BITS)) | difference | !HIGH_BITS)
}

/// Whether all bytes are NUL, space, tab, CR or LF. The zeros beyond the payload count as NUL.
#[inline(always)]
const fn is_blank(word: u64) -> bool {
    word == 0
        || bytes_equal(word, 0)
            | bytes_equal(word, CR)
            | bytes_equal(word, LF)
            | bytes_equal(word, SP)
            | bytes_equal(word, TAB)
            == HIGH_BITS
}

#[inline(always)]
const fn all_blank(words: [u64; 4]) -> bool {
    is_blank(words[0]) && is_blank(words[1]) && is_blank(words[2]) && is_blank(words[3])
}

/// Shifts out up to [`SKIP_MAX`] leading CR and LF bytes.
#[inline(always)]
const fn without_leading_line_ends(words: [u64; 4]) -> [u64; 4] {
    let [mut a, mut b, mut c, mut d] = words;
    let mut skipped = 0;
    while skipped < SKIP_MAX {
        let first = a & 0xff;
        if first != CR && first != LF {
            break;
        }
        a = a >> 8 | b << 56;
        b = b >> 8 | c << 56;
        c = c >> 8 | d << 56;
        d >>= 8;
        skipped += 1;
    }
    [a, b, c, d]
}

/// RFC 5389 §6: the two top bits are zero and the magic cookie stands at bytes 4 to 7 of a header of 20 bytes.
#[inline(always)]
const fn is_stun(first: u64, len: usize) -> bool {
    const COOKIE: u64 = 0x2112_a442_u32.swap_bytes() as u64;
    len >= 20 && first >> 32 == COOKIE && first & 0xc0 == 0
}

/// The class of a request whose method has one of its own; for anything else [`Class::Garbage`].
#[inline(always)]
#[must_use]
pub const fn known_method(words: [u64; 4]) -> Class {
    const REGISTER: u64 = word(b"REGISTER");
    const INVITE: u64 = word(b"INVITE ");
    const OPTIONS: u64 = word(b"OPTIONS ");
    const SUBSCRIBE: u64 = word(b"SUBSCRIB");

    let [a, b, _, _] = words;
    if a == REGISTER && b & 0xff == SP && b >> 8 & 0xff != SP {
        return Class::Register;
    }
    if a & (u64::MAX >> 8) == INVITE && a >> 56 != SP {
        return Class::Invite;
    }
    if a == OPTIONS && b & 0xff != SP {
        return Class::Options;
    }
    if a == SUBSCRIBE && b & 0xffff == word(b"E ") && b >> 16 & 0xff != SP {
        return Class::Subscribe;
    }
    Class::Garbage
}

/// What begins with this word and has no method of [`known_method`] most likely is. Not all is looked at: it serves to
/// read ahead what is needed if it is right, and nothing else.
#[inline(always)]
#[must_use]
pub const fn likely_class(first: u64) -> Class {
    const VERSION: u64 = word(b"SIP/");

    if first & 0xffff_ffff == VERSION {
        Class::Response
    } else if (first & 0xff).wrapping_sub(b'A' as u64) < 26 {
        Class::OtherRequest
    } else {
        Class::Garbage
    }
}

/// Classifies what begins with a start line: a request, a response, or [`Class::Garbage`].
#[inline(always)]
const fn start_line(words: [u64; 4], longer: bool) -> Class {
    const VERSION: u64 = word(b"sip/");
    const LETTERS_TO_LOWER: u64 = word(b"\x20\x20\x20");

    let known = known_method(words);
    if !matches!(known, Class::Garbage) {
        return known;
    }
    let [a, ..] = words;
    // No method reads so: `/` is no token character.
    if (a | LETTERS_TO_LOWER) & 0xffff_ffff == VERSION {
        return Class::Response;
    }
    other_request(words, longer)
}

/// The high bit of every byte of `word` from `low` (not 0) to `high` (below 128), and no other bit.
#[inline(always)]
const fn bytes_within(word: u64, low: u8, high: u8) -> u64 {
    let ascii = word & !HIGH_BITS;
    let from_low = ascii + splat(0x80 - low as u64);
    let above_high = ascii + splat(0x7f - high as u64);
    from_low & !above_high & !word & HIGH_BITS
}

/// The high bit of every letter.
#[inline(always)]
const fn letters(word: u64) -> u64 {
    // Setting bit 5 makes a letter lower-case.
    bytes_within(word | splat(0x20), b'a', b'z')
}

/// The high bit of every byte that is no character of a token: see [`super::text::is_token_char`].
#[inline(always)]
const fn not_token(word: u64) -> u64 {
    !(letters(word)
        | bytes_within(word, b'0', b'9')
        | bytes_within(word, b'-', b'.')
        | bytes_within(word, b'*', b'+')
        | bytes_within(word, b'_', b'`')
        | bytes_equal(word, b'!' as u64)
        | bytes_equal(word, b'%' as u64)
        | bytes_equal(word, b'\'' as u64)
        | bytes_equal(word, b'~' as u64))
        & HIGH_BITS
}

/// The high bits of four words' bytes side by side: bit 0 for the first byte of the head, bit 31 for the last.
#[inline(always)]
const fn gathered(words: [u64; 4]) -> u64 {
    const fn eight(high_bits: u64) -> u64 {
        // Moves bit 8n of the one factor to bit 56 + n of the product; no two of its terms meet.
        (high_bits >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56
    }
    let [a, b, c, d] = words;
    eight(a) | eight(b) << 8 | eight(c) << 16 | eight(d) << 24
}

/// A token, one space, a letter; or nothing but a token, where the payload goes on beyond the head. One bit for
/// each byte, and no loop that the verifier would follow for every length of the token.
#[inline(always)]
const fn other_request(words: [u64; 4], longer: bool) -> Class {
    let [a, b, c, d] = words;
    let not_token = gathered([not_token(a), not_token(b), not_token(c), not_token(d)]);
    let spaces = gathered([
        bytes_equal(a, SP),
        bytes_equal(b, SP),
        bytes_equal(c, SP),
        bytes_equal(d, SP),
    ]);
    let letters = gathered([letters(a), letters(b), letters(c), letters(d)]);
    // Of what lies beyond the head, the best is thought: there are a space and a letter.
    let beyond = if longer { 1 << HEAD } else { 0 };
    let end = (not_token | beyond) & (not_token | beyond).wrapping_neg();
    let ends_well = (spaces | beyond) & ((letters | beyond | beyond << 1) >> 1);
    if end & ends_well != 0 && not_token & 1 == 0 {
        Class::OtherRequest
    } else {
        Class::Garbage
    }
}

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;
