extern crate std;

use std::{vec, vec::Vec};

use super::*;

const REGISTER: &[u8] = b"REGISTER sip:example.com SIP/2.0\r\n\
    Via: SIP/2.0/UDP 192.0.2.1:5061;branch=z9hG4bK1;rport, SIP/2.0/TCP [2001:db8::1]:5060;received=192.0.2.9\r\n\
    f: \"A, \\\"B\\\" <x>\" <sip:100:secret@example.com:5070;transport=udp>;x=\"a;tag=no\";Tag=abc\r\n\
    t: sip:101@[2001:db8::2];tag=def\r\n\
    i: 7@a\r\n\
    CSeq: 0042 REGISTER\r\n\
    m: <sip:100@192.0.2.1:5061>;expires=60, \"B, C\" <sip:b@[2001:db8::3]:9>\r\n\
    Contact: *\r\n\
    Expires: 3600\r\n\
    User-Agent: phone 1\r\n\
    Authorization: Digest username=\"100\", realm=\"a, b\",nonce = \"n=1\",uri=\"sip:example.com\",response=\"00\"\r\n\
    Proxy-Authorization: Digest Username=200 , realm=r\r\n\
    l: 4\r\n\r\nbody";

#[test]
fn a_request_in_full() {
    let message = Message::new(REGISTER);
    let request = message.request().unwrap();
    assert_eq!(
        (request.method, request.uri, request.complete),
        (&b"REGISTER"[..], &b"sip:example.com"[..], true)
    );
    assert_eq!(message.status(), None);
    assert_eq!(
        message.cseq(),
        Some(CSeq {
            number: 42,
            method: b"REGISTER"
        })
    );
    assert_eq!(message.call_id(), Some(&b"7@a"[..]));
    let from = message.from().unwrap();
    assert_eq!(from.uri, b"sip:100:secret@example.com:5070;transport=udp");
    assert_eq!(from.user, Some(&b"100"[..]));
    assert_eq!((from.host, from.port), (&b"example.com"[..], Some(5070)));
    assert_eq!(from.tag, Some(&b"abc"[..]));
    let to = message.to().unwrap();
    assert_eq!((to.user, to.host), (Some(&b"101"[..]), &b"2001:db8::2"[..]));
    assert_eq!(to.tag, Some(&b"def"[..]));
    assert_eq!(message.expires(), Some(3600));
    assert_eq!(message.content_length(), Some(4));
    assert_eq!(message.user_agent(), Some(&b"phone 1"[..]));
}

#[test]
fn lists() {
    let message = Message::new(REGISTER);
    let contacts: Vec<_> = message.contacts().collect();
    let hosts: Vec<_> = contacts
        .iter()
        .map(|contact| contact.address.map(|address| address.host))
        .collect();
    assert_eq!(
        hosts,
        vec![Some(&b"192.0.2.1"[..]), Some(&b"2001:db8::3"[..]), None]
    );
    let expires: Vec<_> = contacts.iter().map(|contact| contact.expires).collect();
    assert_eq!(expires, vec![Some(60), None, None]);
    let stars: Vec<_> = contacts.iter().map(|contact| contact.is_star).collect();
    assert_eq!(stars, vec![false, false, true]);

    let vias: Vec<_> = message.vias().collect();
    assert_eq!(vias.len(), 2);
    assert_eq!(vias[0].transport, b"UDP");
    assert_eq!((vias[0].host, vias[0].port), (&b"192.0.2.1"[..], Some(5061)));
    assert_eq!(vias[0].branch, Some(&b"z9hG4bK1"[..]));
    assert_eq!(vias[0].rport, Some(&b""[..]));
    assert_eq!((vias[1].host, vias[1].port), (&b"2001:db8::1"[..], Some(5060)));
    assert_eq!(vias[1].received, Some(&b"192.0.2.9"[..]));
    assert_eq!(vias[1].rport, None);
}

#[test]
fn credentials() {
    let credentials: Vec<_> = Message::new(REGISTER).credentials().collect();
    assert_eq!(credentials.len(), 2);
    assert_eq!(credentials[0].scheme, b"Digest");
    assert_eq!(credentials[0].username, Some(&b"100"[..]));
    assert_eq!(credentials[0].realm, Some(&b"a, b"[..]));
    assert_eq!(credentials[0].nonce, Some(&b"n=1"[..]));
    assert_eq!(credentials[0].response, Some(&b"00"[..]));
    assert_eq!(credentials[1].username, Some(&b"200"[..]));
    assert_eq!(credentials[1].realm, Some(&b"r"[..]));
}

#[test]
fn a_response_with_its_challenge() {
    let message = Message::new(
        b"SIP/2.0 401 Unauthorized\r\nCSeq: 1 INVITE\r\n\
        WWW-Authenticate: Digest realm=\"r\", nonce=\"abc\", stale=TRUE\r\n\
        Proxy-Authenticate: Digest nonce=\"d\\\"e\", realm=\"s\"\r\n\r\n",
    );
    assert_eq!(message.request(), None);
    assert_eq!(message.status(), Some(401));
    let challenges: Vec<_> = message.challenges().collect();
    assert_eq!(challenges[0].nonce, Some(&b"abc"[..]));
    assert!(challenges[0].stale);
    assert_eq!(challenges[1].nonce, Some(&b"d\\\"e"[..]));
    assert_eq!(challenges[1].realm, Some(&b"s"[..]));
    assert!(!challenges[1].stale);
}

/// A cut anywhere gives the same value as the whole message, or none.
#[test]
fn a_cut_changes_no_value() {
    let whole = Message::new(REGISTER);
    let user = whole.from().unwrap().user;
    for length in 0..=REGISTER.len() {
        let cut = Message::new(REGISTER.split_at(length).0);
        assert!(cut.from().is_none_or(|from| from.user == user));
        assert!(
            cut.from()
                .is_none_or(|from| from.tag.is_none_or(|tag| tag == b"abc"))
        );
        for (part, all) in cut.credentials().zip(whole.credentials()) {
            assert!(part.username.is_none() || part.username == all.username);
            assert!(part.nonce.is_none() || part.nonce == all.nonce);
        }
        assert!(cut.call_id().is_none_or(|id| id == b"7@a"));
        assert!(cut.cseq().is_none() || cut.cseq() == whole.cseq());
        assert!(cut.expires().is_none() || cut.expires() == whole.expires());
    }
}

/// A header at the very end goes on in a message cut short; servers read it in one that is sent so.
#[test]
fn the_end_of_a_whole_message_ends_its_last_header() {
    for end in ["", "\r", "\n", "\r\n"] {
        let text = std::format!("REGISTER sip:h SIP/2.0\r\nAuthorization: Digest nonce=n, username=a{end}");
        let username =
            |message: Message<'_>| message.credentials().next().and_then(|it| it.username).is_some();
        assert!(!username(Message::new(text.as_bytes())), "{end:?}");
        assert!(username(Message::whole(text.as_bytes())), "{end:?}");
    }
    assert_eq!(Message::new(b"SIP/2.0 200").status(), None);
    assert_eq!(Message::whole(b"SIP/2.0 200").status(), Some(200));
    assert!(
        Message::new(b"INVITE sip:a")
            .request()
            .is_some_and(|line| !line.complete)
    );
    assert_eq!(Message::whole(b"INVITE sip:a").request(), None);
    assert_eq!(Message::new(b"INVITE sip:a\r\n").request(), None);
}
