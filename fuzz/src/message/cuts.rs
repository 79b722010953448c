//! What may be read from the first bytes of a message: what its end cannot change.

use sip_filter_common::sip::{
    CSeq, Challenge, Contact, Credentials, Header, HeaderName, Message, NameAddr, Via,
};

/// A cut hides values, and makes none up. Of a header that ends before the cut this holds whatever stands in it; of the
/// last one, which the cut goes through, if it is written as RFC 3261 has it: what else may follow in garbage (a `<`
/// that makes all before it a name, the quote that closes another) nobody can know.
pub(super) fn makes_nothing_up(cut: &[u8], bytes: &[u8]) {
    let (part, whole) = (Message::new(cut), Message::whole(bytes));
    start_line(&part, &whole);

    let (read, all) = (Readings::of(&part), Readings::of(&whole));
    let mut last = None;
    let mut ended = 0;
    for (header, original) in part.headers().zip(whole.headers()) {
        assert_eq!(header.name.as_ptr_range(), original.name.as_ptr_range());
        if header.complete {
            assert_eq!(header, original);
            ended = offset(cut, header.value) + header.value.len();
        } else {
            last = Some(original);
        }
    }
    assert!(part.headers().count() <= whole.headers().count());
    if last.is_some() || ended > 0 {
        // The headers that ended, and no others.
        let known = Readings::of(&Message::whole(&cut[..ended.max(start_line_end(cut, &part))]));
        known.begins(&read);
        known.begins(&all);
    }
    read.values_are_whole(&all);
    match last {
        Some(header) if is_well_formed(&header) => read.shortens_nothing_of(&all),
        Some(_) => {}
        None => read.begins(&all),
    }
}

fn start_line(part: &Message<'_>, whole: &Message<'_>) {
    assert!(part.status().is_none() || part.status() == whole.status());
    if let Some((part, whole)) = part.request().zip(whole.request()) {
        assert_eq!(part.method, whole.method);
        assert!(!part.complete || part == whole);
    }
}

/// Where a slice of `text` begins in it.
fn offset(text: &[u8], slice: &[u8]) -> usize {
    slice.as_ptr() as usize - text.as_ptr() as usize
}

fn start_line_end(text: &[u8], message: &Message<'_>) -> usize {
    offset(text, message.start_line()) + message.start_line().len()
}

/// All that the filter reads of the headers.
#[derive(Debug)]
struct Readings<'a> {
    from: Option<NameAddr<'a>>,
    to: Option<NameAddr<'a>>,
    call_id: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    cseq: Option<CSeq<'a>>,
    expires: Option<u32>,
    content_length: Option<u32>,
    contacts: Vec<Contact<'a>>,
    vias: Vec<Via<'a>>,
    credentials: Vec<Credentials<'a>>,
    challenges: Vec<Challenge<'a>>,
}

impl<'a> Readings<'a> {
    fn of(message: &Message<'a>) -> Self {
        Self {
            from: message.from(),
            to: message.to(),
            call_id: message.call_id(),
            user_agent: message.user_agent(),
            cseq: message.cseq(),
            expires: message.expires(),
            content_length: message.content_length(),
            contacts: message.contacts().collect(),
            vias: message.vias().collect(),
            credentials: message.credentials().collect(),
            challenges: message.challenges().collect(),
        }
    }

    /// The other one has all of this, and perhaps more after it.
    fn begins(&self, other: &Self) {
        assert!(self.from.is_none() || self.from == other.from);
        assert!(self.to.is_none() || self.to == other.to);
        self.values_are_whole(other);
        assert!(
            other.contacts.starts_with(&self.contacts),
            "{self:?} and {other:?}"
        );
        assert!(other.vias.starts_with(&self.vias), "{self:?} and {other:?}");
        assert!(
            other.credentials.starts_with(&self.credentials),
            "{self:?} and {other:?}"
        );
        assert!(
            other.challenges.starts_with(&self.challenges),
            "{self:?} and {other:?}"
        );
    }

    /// What is read of a header that ended only.
    fn values_are_whole(&self, other: &Self) {
        assert!(self.call_id.is_none() || self.call_id == other.call_id);
        assert!(self.user_agent.is_none() || self.user_agent == other.user_agent);
        assert!(self.cseq.is_none() || self.cseq == other.cseq);
        assert!(self.expires.is_none() || self.expires == other.expires);
        assert!(self.content_length.is_none() || self.content_length == other.content_length);
    }

    /// Half a name is never taken for a name.
    fn shortens_nothing_of(&self, whole: &Self) {
        let parties = [(self.from, whole.from), (self.to, whole.to)];
        for (part, whole) in parties.into_iter().filter_map(|(part, whole)| part.zip(whole)) {
            address(part, whole);
        }
        assert!(self.contacts.len() <= whole.contacts.len());
        for (part, whole) in self.contacts.iter().zip(&whole.contacts) {
            assert_eq!(part.is_star, whole.is_star);
            assert!(part.expires.is_none() || part.expires == whole.expires);
            if let Some((part, whole)) = part.address.zip(whole.address) {
                address(part, whole);
            }
        }
        assert!(self.vias.len() <= whole.vias.len());
        for (part, whole) in self.vias.iter().zip(&whole.vias) {
            assert_eq!((part.transport, part.host), (whole.transport, whole.host));
            assert!(part.port == whole.port);
            same_if_known(part.branch, whole.branch);
            same_if_known(part.received, whole.received);
            same_if_known(part.rport, whole.rport);
        }
        assert!(self.credentials.len() <= whole.credentials.len());
        for (part, whole) in self.credentials.iter().zip(&whole.credentials) {
            assert_eq!(part.scheme, whole.scheme);
            same_if_known(part.username, whole.username);
            same_if_known(part.realm, whole.realm);
            same_if_known(part.nonce, whole.nonce);
            same_if_known(part.uri, whole.uri);
            same_if_known(part.response, whole.response);
        }
        assert!(self.challenges.len() <= whole.challenges.len());
        for (part, whole) in self.challenges.iter().zip(&whole.challenges) {
            assert_eq!(part.scheme, whole.scheme);
            same_if_known(part.realm, whole.realm);
            same_if_known(part.nonce, whole.nonce);
            assert!(!part.stale || whole.stale);
        }
    }
}

fn address(part: NameAddr<'_>, whole: NameAddr<'_>) {
    assert_eq!(
        (part.uri, part.user, part.host, part.port),
        (whole.uri, whole.user, whole.host, whole.port)
    );
    same_if_known(part.tag, whole.tag);
}

fn same_if_known(part: Option<&[u8]>, whole: Option<&[u8]>) {
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| bytes.escape_ascii().to_string());
    assert!(
        part.is_none() || part == whole,
        "{:?} of {:?}",
        text(part),
        text(whole)
    );
}

/// Whether a value is one that RFC 3261 has for its header, roughly: one address with or without brackets, one hop, or
/// a scheme with its parameters.
fn is_well_formed(header: &Header<'_>) -> bool {
    let is = |names: &[HeaderName]| names.iter().any(|name| name.matches(header.name));
    if is(&[HeaderName::FROM, HeaderName::TO, HeaderName::CONTACT]) {
        return is_address(header.value);
    }
    if is(&[HeaderName::VIA]) {
        return !header.value.iter().any(|byte| b"<>,\"".contains(byte));
    }
    if is(&[
        HeaderName::AUTHORIZATION,
        HeaderName::PROXY_AUTHORIZATION,
        HeaderName::WWW_AUTHENTICATE,
        HeaderName::PROXY_AUTHENTICATE,
    ]) {
        return is_scheme_with_parameters(header.value);
    }
    true
}

/// `name <uri>;parameters`, or `uri;parameters`.
fn is_address(value: &[u8]) -> bool {
    let count = |wanted: u8| value.iter().filter(|byte| **byte == wanted).count();
    if count(b'"') + count(b',') > 0 || count(b'@') > 1 {
        return false;
    }
    let place = |wanted: u8| value.iter().position(|byte| *byte == wanted);
    match (place(b'<'), place(b'>')) {
        (None, None) => true,
        (Some(open), Some(close)) => {
            let name = &value[..open];
            open < close
                && count(b'<') == 1
                && count(b'>') == 1
                && !name.iter().any(|byte| b";:".contains(byte))
        }
        _ => false,
    }
}

/// `scheme name=token, name="quoted"`.
fn is_scheme_with_parameters(value: &[u8]) -> bool {
    let is_white = |byte: &u8| b" \t\r\n".contains(byte);
    let Some(space) = value.iter().position(is_white) else {
        return false;
    };
    let (scheme, mut rest) = value.split_at(space);
    if !scheme.iter().all(|byte| byte.is_ascii_alphanumeric()) {
        return false;
    }
    loop {
        rest = rest.trim_ascii_start();
        let Some(sign) = rest.iter().position(|byte| *byte == b'=') else {
            return false;
        };
        let (name, text) = (&rest[..sign], &rest[sign + 1..]);
        if name.is_empty() || !name.iter().all(u8::is_ascii_alphanumeric) {
            return false;
        }
        let length = match text.split_first() {
            Some((b'"', text)) => match quoted_length(text) {
                Some(length) => length + 2,
                None => return false,
            },
            _ => text
                .iter()
                .position(|byte| is_white(byte) || b",;<>\"".contains(byte))
                .unwrap_or(text.len()),
        };
        rest = text[length..].trim_ascii_start();
        match rest.split_first() {
            None => return true,
            Some((b',', more)) => rest = more,
            Some(_) => return false,
        }
    }
}

/// Up to the quote that closes.
fn quoted_length(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let closes = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        closes
    })
}
