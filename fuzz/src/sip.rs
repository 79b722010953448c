//! The first bytes of payloads: word arithmetic against plain Rust.

use sip_filter_common::{
    packet::Packet as _,
    sip::{Class, HEAD, known_method},
};

#[path = "../../sip-filter-common/src/sip/classify/plain.rs"]
mod plain;

/// Names the class of a payload.
pub fn classify(payload: &[u8]) {
    let head = payload.head(0, payload.len());
    let class = sip_filter_common::sip::classify(&head, payload.len());
    assert_eq!(class, plain::reference(payload), "{}", payload.escape_ascii());
    let known = known_method(head.0);
    assert!(
        known == Class::Garbage || known == class,
        "the shortcut says {known:?}"
    );
    // Nothing beyond the head counts but that something is there.
    let mut other = payload.to_vec();
    for byte in other.iter_mut().skip(HEAD) {
        *byte = !*byte;
    }
    assert_eq!(
        sip_filter_common::sip::classify(&other.as_slice().head(0, other.len()), other.len()),
        class
    );
}
