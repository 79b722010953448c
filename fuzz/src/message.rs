//! Heads of SIP messages: every reader of a header.

use std::ops::Range;

use sip_filter_common::sip::{HeaderName, Message, NameAddr, Uri, host_address, unfold};

/// Reads all there is to be read from a message.
pub fn message(bytes: &[u8]) {
    let whole = Message::whole(bytes);
    for message in [whole, Message::new(bytes)] {
        let within = addresses(bytes);
        for slice in slices(&message) {
            let slice = addresses(slice);
            assert!(slice.is_empty() || within.start <= slice.start && slice.end <= within.end);
        }
        let count = message.headers().count();
        assert!(count <= bytes.iter().filter(|byte| **byte == b':').count());
    }
    assert_eq!(
        lines(&whole),
        plain_lines(bytes),
        "the slicer and the plain one disagree"
    );
    let cuts = [
        bytes.len() / 3,
        bytes.len() / 2,
        bytes.len().saturating_sub(1),
        bytes.len(),
    ];
    for cut in cuts {
        makes_nothing_up(&Message::new(&bytes[..cut]), &whole);
    }
}

/// Everything that can be read from a message.
fn slices<'a>(message: &Message<'a>) -> Vec<&'a [u8]> {
    let mut all = vec![message.start_line()];
    for header in message.headers() {
        all.extend([header.name, header.value, header.whole_part()]);
        all.extend(header.whole());
        assert!(unfold(header.value).count() <= header.value.len());
    }
    if let Some(line) = message.request() {
        all.extend([line.method, line.uri]);
        uri(line.uri, &mut all);
    }
    all.extend(message.cseq().map(|cseq| cseq.method));
    all.extend(message.call_id());
    all.extend(message.user_agent());
    for party in [message.from(), message.to()].into_iter().flatten() {
        address(party, &mut all);
    }
    for contact in message.contacts() {
        assert_eq!(contact.is_star, contact.address.is_none());
        contact
            .address
            .into_iter()
            .for_each(|party| address(party, &mut all));
    }
    for via in message.vias() {
        all.extend([via.transport, via.host]);
        all.extend([via.branch, via.received, via.rport].into_iter().flatten());
    }
    for it in message.credentials() {
        all.push(it.scheme);
        let fields = [it.username, it.realm, it.nonce, it.uri, it.response];
        all.extend(fields.into_iter().flatten());
    }
    for it in message.challenges() {
        all.push(it.scheme);
        all.extend([it.realm, it.nonce].into_iter().flatten());
    }
    assert!(message.status().is_none_or(|code| (100..700).contains(&code)));
    assert!(message.status().is_none() || message.request().is_none());
    let _ = (message.expires(), message.content_length());
    all
}

fn address<'a>(party: NameAddr<'a>, all: &mut Vec<&'a [u8]>) {
    all.extend([party.uri, party.host]);
    all.extend(party.user);
    all.extend(party.tag);
    uri(party.uri, all);
}

fn uri<'a>(text: &'a [u8], all: &mut Vec<&'a [u8]>) {
    if let Some(uri) = Uri::new(text) {
        all.extend([uri.scheme, uri.host]);
        all.extend(uri.user);
        if let Some(host) = host_address(uri.host) {
            assert_eq!(host_address(host.to_string().as_bytes()), Some(host));
        }
    }
}

fn addresses(bytes: &[u8]) -> Range<usize> {
    let range = bytes.as_ptr_range();
    range.start as usize..range.end as usize
}

type Lines = (Vec<u8>, Vec<(Vec<u8>, Vec<u8>)>);

/// Start line, and names and unfolded values of the headers.
fn lines(message: &Message<'_>) -> Lines {
    let headers = message
        .headers()
        .map(|header| (header.name.to_vec(), unfold(header.value).collect()));
    (message.start_line().to_vec(), headers.collect())
}

/// The same by splitting the text into lines first.
fn plain_lines(bytes: &[u8]) -> Lines {
    let begin = bytes
        .iter()
        .position(|byte| !b"\r\n".contains(byte))
        .unwrap_or(bytes.len());
    let mut lines = bytes[begin..]
        .split(|byte| *byte == b'\n')
        .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
        .peekable();
    let start_line = lines.next().unwrap_or_default().to_vec();
    let mut headers = Vec::new();
    while let Some(line) = lines.next().filter(|line| !line.is_empty()) {
        let mut text = line.to_vec();
        while let Some(more) = lines.next_if(|line| line.starts_with(b" ") || line.starts_with(b"\t")) {
            text.extend(b"\r\n");
            text.extend(more);
        }
        let Some(colon) = text.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let value = text[colon + 1..].trim_ascii();
        headers.push((text[..colon].trim_ascii().to_vec(), plain_unfold(value)));
    }
    (start_line, headers)
}

fn plain_unfold(value: &[u8]) -> Vec<u8> {
    let is_white = |byte: u8| b" \t\r\n".contains(&byte);
    let mut unfolded = Vec::new();
    for run in value.chunk_by(|a, b| is_white(*a) == is_white(*b)) {
        if is_white(run[0]) && run.iter().any(|byte| b"\r\n".contains(byte)) {
            unfolded.push(b' ');
        } else {
            unfolded.extend(run);
        }
    }
    unfolded
}

/// A cut hides values, and makes none up.
fn makes_nothing_up(part: &Message<'_>, whole: &Message<'_>) {
    let same = |part: Option<&[u8]>, whole: Option<&[u8]>| assert!(part.is_none() || part == whole);
    same(part.call_id(), whole.call_id());
    same(part.user_agent(), whole.user_agent());
    assert!(part.cseq().is_none() || part.cseq() == whole.cseq());
    assert!(part.status().is_none() || part.status() == whole.status());
    assert!(part.expires().is_none() || part.expires() == whole.expires());
    assert!(part.content_length().is_none() || part.content_length() == whole.content_length());
    let parties = [(part.from(), whole.from()), (part.to(), whole.to())];
    for (part, whole) in parties.into_iter().filter_map(|(part, whole)| part.zip(whole)) {
        // Of several `@`, which none may have, the last one counts: a cut may hide it.
        if whole
            .user
            .is_none_or(|user| !user.contains(&b'@') && !user.contains(&b','))
        {
            not_shortened(part.user, whole.user);
        }
        not_shortened(part.tag, whole.tag);
    }
    for (part, whole) in part.credentials().zip(whole.credentials()) {
        assert_eq!(part.scheme, whole.scheme);
        not_shortened(part.username, whole.username);
        not_shortened(part.nonce, whole.nonce);
    }
    for (part, whole) in part.challenges().zip(whole.challenges()) {
        not_shortened(part.realm, whole.realm);
        not_shortened(part.nonce, whole.nonce);
    }
    let first = |message: &Message<'_>| message.header(HeaderName::USER_AGENT).map(|it| it.name.to_vec());
    assert!(first(part).is_none() || first(part) == first(whole));
}

/// Half a name is never taken for a name. (A comma in an address without brackets may shorten its host; what comes after
/// a cut may well turn an address into none, or into another one further on; that nobody can know.)
fn not_shortened(part: Option<&[u8]>, whole: Option<&[u8]>) {
    let Some((part, whole)) = part.zip(whole) else {
        return;
    };
    if part.as_ptr() == whole.as_ptr() {
        assert_eq!(part.escape_ascii().to_string(), whole.escape_ascii().to_string());
    }
}
