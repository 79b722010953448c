//! The classifier's rules in plain Rust, to hold its word arithmetic against: in the tests beside it, and in the fuzz
//! target, which compiles this very file.

use super::{Class, HEAD};

/// Leading CR and LF bytes that are skipped before a start line.
const SKIP_MAX: usize = 8;

/// What [`super::classify`] must say of a payload.
pub(super) fn reference(payload: &[u8]) -> Class {
    let blank = |byte: &u8| matches!(byte, 0 | b' ' | b'\t' | b'\r' | b'\n');
    if payload.len() <= HEAD && payload.iter().all(blank) {
        return Class::KeepAlive;
    }
    // What reads as both is a request: STUN's framing is no way around a request's limits.
    let stun = payload.len() >= 20
        && payload[4..8] == [0x21, 0x12, 0xa4, 0x42]
        && payload[0] < 64
        && !matches!(payload[0], b'\r' | b'\n');
    match start_line(payload) {
        Class::Garbage if stun => Class::KeepAlive,
        class => class,
    }
}

/// What a payload is by its start line.
fn start_line(payload: &[u8]) -> Class {
    let mut head = payload[..payload.len().min(HEAD)].to_vec();
    let skip = head
        .iter()
        .take(SKIP_MAX)
        .take_while(|byte| matches!(byte, b'\r' | b'\n'))
        .count();
    head.drain(..skip);
    if head.len() >= 4 && head[..4].eq_ignore_ascii_case(b"SIP/") {
        return Class::Response;
    }
    let token = |text: &[u8]| {
        text.iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.!%*_+`'~".contains(byte))
    };
    let Some(space) = head.iter().position(|byte| *byte == b' ') else {
        return if payload.len() > HEAD && head.len() == HEAD && token(&head) {
            Class::OtherRequest
        } else {
            Class::Garbage
        };
    };
    let beyond = if payload.len() > HEAD && skip == 0 {
        b'a'
    } else {
        0
    };
    let next = head.get(space + 1).copied().unwrap_or(beyond);
    let method = &head[..space];
    let known = match method {
        b"REGISTER" => Some(Class::Register),
        b"INVITE" => Some(Class::Invite),
        b"OPTIONS" => Some(Class::Options),
        b"SUBSCRIBE" => Some(Class::Subscribe),
        _ => None,
    };
    match known {
        Some(class) if next != b' ' => class,
        None if space > 0 && token(method) && next.is_ascii_alphabetic() => Class::OtherRequest,
        _ => Class::Garbage,
    }
}
