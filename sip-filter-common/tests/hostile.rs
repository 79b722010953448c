//! Input made to hurt: whatever comes, reading it neither panics nor leaves the input nor takes long.

use std::{
    ops::Range,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use sip_filter_common::sip::{HeaderName, Message, NameAddr, Uri, host_address, unfold};

/// Everything that can be read from a message.
fn slices<'a>(message: &Message<'a>) -> Vec<&'a [u8]> {
    let mut all = vec![message.start_line()];
    for header in message.headers() {
        all.extend([header.name, header.value, header.whole_part()]);
        all.extend(header.whole());
    }
    if let Some(line) = message.request() {
        all.extend([line.method, line.uri]);
        if let Some(uri) = Uri::new(line.uri) {
            all.extend([uri.scheme, uri.host]);
            all.extend(uri.user);
            let _ = host_address(uri.host);
        }
    }
    all.extend(message.cseq().map(|cseq| cseq.method));
    all.extend(message.call_id());
    all.extend(message.user_agent());
    let mut address = |address: Option<NameAddr<'a>>| {
        if let Some(address) = address {
            all.extend([address.uri, address.host]);
            all.extend(address.user);
            all.extend(address.tag);
        }
    };
    address(message.from());
    address(message.to());
    for contact in message.contacts() {
        address(contact.address);
    }
    for via in message.vias() {
        all.extend([via.transport, via.host]);
        all.extend([via.branch, via.received, via.rport].into_iter().flatten());
    }
    for it in message.credentials() {
        all.push(it.scheme);
        all.extend(
            [it.username, it.realm, it.nonce, it.uri, it.response]
                .into_iter()
                .flatten(),
        );
    }
    for it in message.challenges() {
        all.push(it.scheme);
        all.extend([it.realm, it.nonce].into_iter().flatten());
    }
    let _ = (message.status(), message.expires(), message.content_length());
    all
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let range = bytes.as_ptr_range();
    range.start as usize..range.end as usize
}

/// Messages and what is nearly one, glued together from what the slicer looks for.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "\r\n", "\n", "\r", " ", "\t", ":", ";", ",", "=", "\"", "\\", "<", ">", "@", "[", "]", "/", "*", "?", "\0",
            "\r\n ", "INVITE sip:a@b SIP/2.0\r\n", "SIP/2.0 401 x\r\n", "sip:", "tel:", ":::", "SIP/2.0/UDP h", "1",
        ]),
        4 => prop::sample::select(vec![
            "\nf:", "\nTo: ", "\nm:", "\nVia: ", "\ni: ", "\nCSeq: 1 X", "\nExpires: 9", "\nl: 4294967296",
            "\nUser-Agent: a", "\nAuthorization: Digest ", "\nProxy-Authorization: Digest ",
            "\nWWW-Authenticate: Digest ", "\nProxy-Authenticate: Digest ",
        ]),
        2 => prop::sample::select(vec![
            "username=\"a\"", "realm=b", "nonce=\"c", "tag=d", "branch=e", "received=[::1]", "rport", "expires=1",
            "stale=true",
        ]),
    ];
    prop_oneof![
        8 => prop::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat().into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..200),
    ]
}

/// Headers as a phone might send them, with folds where there may be white space.
fn folded() -> impl Strategy<Value = (String, String)> {
    let fold = prop::sample::select(vec![" ", "\r\n ", "\n\t", "  \r\n  "]);
    prop::collection::vec(fold, 8).prop_map(|fold| {
        let text = |fold: &[&str]| {
            let [a, b, c, d, e, f, g, h] = fold else { panic!("eight") };
            format!(
                "REGISTER sip:h SIP/2.0\r\nFrom:{a}\"A B\"{b}<sip:a@h>{c};{d}tag=1\r\nCSeq:{e}7{f}REGISTER\r\n\
                 Authorization:{g}Digest username=\"a\",{h}nonce=\"n\"\r\n\r\n"
            )
        };
        (text(&[" "; 8]), text(&fold))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 12 } else { 4096 }, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_slice_lies_in_the_input(bytes in bytes()) {
        let within = addresses(&bytes);
        for message in [Message::new(&bytes), Message::whole(&bytes)] {
            for slice in slices(&message) {
                let slice = addresses(slice);
                prop_assert!(slice.is_empty() || slice.start >= within.start && slice.end <= within.end);
            }
        }
    }

    /// A cut hides values, and makes none up.
    #[test]
    fn a_cut_makes_nothing_up(bytes in bytes(), cut in any::<prop::sample::Index>()) {
        let whole = Message::whole(&bytes);
        let part = Message::new(&bytes[..cut.index(bytes.len() + 1)]);
        let same = |part: Option<&[u8]>, whole: Option<&[u8]>| part.is_none() || part == whole;
        prop_assert!(same(part.call_id(), whole.call_id()));
        prop_assert!(same(part.user_agent(), whole.user_agent()));
        prop_assert!(part.cseq().is_none() || part.cseq() == whole.cseq());
        prop_assert!(part.status().is_none() || part.status() == whole.status());
        prop_assert!(part.expires().is_none() || part.expires() == whole.expires());
        prop_assert!(part.content_length().is_none() || part.content_length() == whole.content_length());
        if let Some(address) = part.from() {
            let all = whole.from();
            prop_assert_eq!(Some(address.uri), all.map(|all| all.uri));
            prop_assert!(same(address.tag, all.and_then(|all| all.tag)));
        }
        for (part, all) in part.credentials().zip(whole.credentials()) {
            prop_assert_eq!(part.scheme, all.scheme);
            prop_assert!(same(part.username, all.username));
            prop_assert!(same(part.nonce, all.nonce));
        }
    }

    #[test]
    fn folding_changes_nothing((plain, folded) in folded()) {
        let (plain, folded) = (Message::new(plain.as_bytes()), Message::new(folded.as_bytes()));
        prop_assert_eq!(plain.from(), folded.from());
        prop_assert_eq!(plain.from().and_then(|from| from.tag), Some(&b"1"[..]));
        prop_assert_eq!(plain.cseq(), folded.cseq());
        let of = |message: &Message<'_>| message.credentials().next().map(|it| format!("{it:?}"));
        prop_assert_eq!(of(&plain), of(&folded));
    }
}

/// The worst, and much of it. Were all of it read once for each byte, one message would take seconds.
#[test]
#[cfg_attr(miri, ignore = "Miri is too slow to judge times")]
fn reading_takes_time_in_proportion() {
    const LENGTH: usize = 1 << 15;
    let names = [
        "f:",
        "m:",
        "v:",
        "CSeq:",
        "Authorization: x ",
        "WWW-Authenticate: x ",
        "",
    ];
    let fills = [
        "\"",
        "<",
        "<,",
        "\"a\",",
        ",",
        ";",
        "=",
        " ",
        "\\",
        "\"\\",
        "a=\"",
        "a=\",",
        ":",
        "@",
        "[",
        "]",
        "/",
        "a;",
        "\n ",
        "\r\n\t",
        "\nf:",
        "\na",
        "\r",
        "0",
        "9",
        ":::",
        "a=\"b\"c,",
        "tag;",
        "*,",
        ">",
        "\n:",
        " ,",
        "\t;",
        "=\"\";",
    ];
    let mut messages = Vec::new();
    for fill in fills {
        let fill = fill.repeat(LENGTH / fill.len());
        messages.push(format!("INVITE {fill}"));
        for name in names {
            messages.push(format!("INVITE sip:a SIP/2.0\n{name}{fill}"));
        }
    }
    for text in messages {
        let begin = Instant::now();
        for message in [Message::new(text.as_bytes()), Message::whole(text.as_bytes())] {
            let _ = slices(&message).len();
            if let Some(header) = message.header(HeaderName::FROM) {
                let _ = unfold(header.value).count();
            }
        }
        let took = begin.elapsed();
        assert!(took < Duration::from_secs(1), "{took:?} for {}", &text[..50]);
    }
}
