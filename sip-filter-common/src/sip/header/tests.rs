extern crate std;

use std::{string::String, vec::Vec};

use proptest::prelude::*;

use super::*;
use crate::sip::{HeaderName, Message};

fn agent(message: &[u8]) -> Option<&[u8]> {
    Message::new(message)
        .header(HeaderName::USER_AGENT)
        .map(|header| header.value)
}

#[test]
fn finds_headers_by_full_and_compact_name() {
    let message = Message::new(
        b"OPTIONS sip:a@b SIP/2.0\r\nVia: x\r\ni: 7\r\nF:<sip:a>\r\nuser-AGENT : friendly-scanner \r\n\r\nbody",
    );
    assert_eq!(message.start_line(), b"OPTIONS sip:a@b SIP/2.0");
    let value = |name| message.header(name).map(|header| header.value);
    assert_eq!(value(HeaderName::CALL_ID), Some(&b"7"[..]));
    assert_eq!(value(HeaderName::FROM), Some(&b"<sip:a>"[..]));
    assert_eq!(value(HeaderName::USER_AGENT), Some(&b"friendly-scanner"[..]));
    assert_eq!(value(HeaderName::SERVER), None);
    // A letter is not the beginning of a name, and User-Agent has no compact form.
    assert_eq!(value(HeaderName::TO), None);
    assert_eq!(agent(b"OPTIONS a\r\nu: x\r\n\r\n"), None);
}

#[test]
fn the_first_of_several_counts_and_all_can_be_seen() {
    let message = Message::new(b"X\nUser-Agent: a\nUser-Agent: b\n\n");
    assert_eq!(message.header(HeaderName::USER_AGENT).unwrap().value, b"a");
    assert_eq!(message.headers().count(), 2);
}

#[test]
fn never_looks_beyond_the_blank_line() {
    for end in ["\r\n\r\n", "\n\n", "\r\n\n", "\n\r\n"] {
        let text = std::format!("INVITE sip:a SIP/2.0\r\nTo: b{end}User-Agent: sipvicious\r\n\r\n");
        assert_eq!(agent(text.as_bytes()), None, "{end:?}");
    }
    assert_eq!(agent(b"INVITE sip:a SIP/2.0\r\n\r\nUser-Agent: x\r\n\r\n"), None);
    // Leading line ends are not the blank line.
    assert_eq!(
        agent(b"\r\n\r\nINVITE a\r\nUser-Agent: x\r\n\r\n"),
        Some(&b"x"[..])
    );
}

#[test]
fn lf_only_folding_and_other_bytes() {
    assert_eq!(agent(b"O a\nUser-Agent: x\n\n"), Some(&b"x"[..]));
    assert_eq!(agent(b"O a\r\nUser-Agent:\r\n x\r\n\r\n"), Some(&b"x"[..]));
    assert_eq!(
        agent(b"O a\r\nUser-Agent: a\r\n\tb\r\n  c\r\nTo: d\r\n\r\n"),
        Some(&b"a\r\n\tb\r\n  c"[..])
    );
    assert_eq!(
        agent(b"O a\r\nNo colon\r\nUser-Agent: \xff\0\xfe\r\n\r\n"),
        Some(&b"\xff\0\xfe"[..])
    );
    // A folded value of another header does not make a header.
    assert_eq!(agent(b"O a\r\nSubject: b\r\n User-Agent: x\r\n\r\n"), None);
    // Nor does a substring.
    assert_eq!(agent(b"O a\r\nX-User-Agent: x\r\n\r\n"), None);
}

#[test]
fn unfolding() {
    let unfolded = |value: &[u8]| String::from_utf8(unfold(value).collect()).unwrap();
    assert_eq!(unfolded(b"a\r\n\tb \n  c"), "a b c");
    assert_eq!(unfolded(b"a  b\tc"), "a  b\tc");
    assert_eq!(unfolded(b""), "");
}

#[test]
fn a_value_that_may_go_on_is_not_complete() {
    let complete = |message: &[u8]| {
        Message::new(message)
            .header(HeaderName::USER_AGENT)
            .unwrap()
            .complete
    };
    assert!(complete(b"O a\r\nUser-Agent: x\r\n\r\n"));
    assert!(complete(b"O a\r\nUser-Agent: x\r\nTo"));
    for cut in ["", "\r", "\r\n", "\r\n y"] {
        assert!(
            !complete(std::format!("O a\r\nUser-Agent: x{cut}").as_bytes()),
            "{cut:?}"
        );
    }
}

fn message() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(std::vec![
            &b"\r\n"[..],
            b"\n",
            b"\r",
            b" ",
            b"\t",
            b":",
            b"User-Agent",
            b"u",
            b"x: y",
            b"\0",
            b"INVITE a",
        ])
        .prop_map(<[u8]>::to_vec),
        prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat())
}

#[test]
fn a_cut_value_ends_at_a_delimiter_that_is_one() {
    let part = |value: &'static str| {
        Header {
            name: b"To",
            value: value.as_bytes(),
            complete: false,
        }
        .whole_part()
    };
    for (value, kept) in [
        ("\"a\" <sip:b@h>;tag=1", "\"a\" <sip:b@h>"),
        ("<sip:b@h>;tag=1;x", "<sip:b@h>;tag=1"),
        ("<sip:b@h>x", "<sip:b@h>"),
        // These close nothing, so the rest of the name may be missing.
        ("sip:>b@h", ""),
        ("<sip:b@h>;tag=1>2", "<sip:b@h>"),
        ("\"<x>\\\" <y>", ""),
    ] {
        assert_eq!(part(value), kept.as_bytes(), "{value}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 4 } else { 2048 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn everything_found_lies_in_the_head(bytes in message()) {
        let message = Message::new(&bytes);
        let mut length = message.start_line().len();
        prop_assert!(!message.start_line().contains(&b'\n'));
        for header in message.headers() {
            length += header.name.len() + header.value.len() + 1;
            prop_assert!(!header.name.contains(&b':'));
            let unfolded: Vec<u8> = unfold(header.value).collect();
            prop_assert!(!unfolded.contains(&b'\n') && unfolded.len() <= header.value.len());
            // What was read from a longer message is read the same from this one alone.
            let blank = b"\n\n";
            let alone = [b"x\n", header.name, b":", header.value, blank].concat();
            let again = Message::new(&alone).headers().next();
            if !header.name.is_empty() && !header.name.contains(&b'\n') {
                prop_assert_eq!(again.map(|again| again.value), Some(header.value));
            }
        }
        prop_assert!(length <= bytes.len());
    }
}
