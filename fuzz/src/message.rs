//! Heads of SIP messages: every reader of a header.

mod cuts;

use std::ops::Range;

use sip_filter_common::sip::{Message, NameAddr, Uri, host_address, unfold};

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
        cuts::makes_nothing_up(&bytes[..cut], bytes);
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

/// Start line, and unfolded names and values of the headers.
fn lines(message: &Message<'_>) -> Lines {
    let headers = message
        .headers()
        .map(|header| (unfold(header.name).collect(), unfold(header.value).collect()));
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
        let (name, value) = (text[..colon].trim_ascii(), text[colon + 1..].trim_ascii());
        headers.push((plain_unfold(name), plain_unfold(value)));
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
