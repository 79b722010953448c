//! Borrowed view of a SIP message's head: start line and headers, nothing copied, nothing interpreted.
//!
//! The input is hostile and often cut short (a snapshot holds the first bytes of a payload only), so nothing here
//! fails: what cannot be read is skipped. It is at least as lenient as the servers behind the filter, because what
//! a server understands and the filter does not is a way around the filter: lines may end with LF alone, header
//! names have any case and optional space before the colon, values may be folded over lines and hold any bytes.
//! What a cut may have changed is not reported at all.

use super::{
    address::{Contact, NameAddr},
    auth::{Challenge, Credentials},
    header::{Header, Headers, split_line},
    name::HeaderName,
    start_line::{self, RequestLine},
    text::{self, Items, is_line_end},
    via::Via,
};

/// The head of a message: everything before the blank line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    start_line: &'a [u8],
    start_line_ended: bool,
    rest: &'a [u8],
    whole: bool,
}

impl<'a> Message<'a> {
    /// Looks at the first bytes of a message, which may go on. Leading line ends are skipped (RFC 3261 §7.5).
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self::with_end(bytes, false)
    }

    /// Looks at a message of which nothing is missing. Its end ends the last header even without a line end or a
    /// blank line: some servers take it so.
    #[must_use]
    pub fn whole(bytes: &'a [u8]) -> Self {
        Self::with_end(bytes, true)
    }

    fn with_end(bytes: &'a [u8], whole: bool) -> Self {
        let begin = bytes
            .iter()
            .position(|byte| !is_line_end(*byte))
            .unwrap_or(bytes.len());
        let (_, bytes) = bytes.split_at(begin);
        let line = split_line(bytes);
        Self {
            start_line: line.text,
            start_line_ended: line.ended || whole,
            rest: line.rest,
            whole,
        }
    }

    /// The start line, without its end.
    #[must_use]
    pub const fn start_line(&self) -> &'a [u8] {
        self.start_line
    }

    /// The headers, in their order, up to the blank line.
    #[must_use]
    pub const fn headers(&self) -> Headers<'a> {
        Headers::new(self.rest, self.whole)
    }

    /// The first header of this name.
    #[must_use]
    pub fn header(&self, name: HeaderName) -> Option<Header<'a>> {
        self.headers().find(|header| name.matches(header.name))
    }

    /// The start line of a request.
    #[must_use]
    pub fn request(&self) -> Option<RequestLine<'a>> {
        RequestLine::parse(self.start_line, self.start_line_ended)
    }

    /// The status code of a response.
    #[must_use]
    pub fn status(&self) -> Option<u16> {
        start_line::status(self.start_line, self.start_line_ended)
    }

    /// Number and method.
    #[must_use]
    pub fn cseq(&self) -> Option<CSeq<'a>> {
        let (number, method) = text::first_word(self.complete(HeaderName::CSEQ)?);
        let number = text::number(number)?;
        (!method.is_empty()).then_some(CSeq { number, method })
    }

    /// The call's identity.
    #[must_use]
    pub fn call_id(&self) -> Option<&'a [u8]> {
        self.complete(HeaderName::CALL_ID)
    }

    /// Who the message says it is from.
    #[must_use]
    pub fn from(&self) -> Option<NameAddr<'a>> {
        NameAddr::parse(self.header(HeaderName::FROM)?.whole_part())
    }

    /// Who it is for.
    #[must_use]
    pub fn to(&self) -> Option<NameAddr<'a>> {
        NameAddr::parse(self.header(HeaderName::TO)?.whole_part())
    }

    /// All addresses in Contact.
    pub fn contacts(&self) -> impl Iterator<Item = Contact<'a>> + Clone {
        self.items(HeaderName::CONTACT).filter_map(Contact::parse)
    }

    /// The seconds in Expires.
    #[must_use]
    pub fn expires(&self) -> Option<u32> {
        text::number(self.complete(HeaderName::EXPIRES)?)
    }

    /// The way the message came, last hop first.
    pub fn vias(&self) -> impl Iterator<Item = Via<'a>> + Clone {
        self.items(HeaderName::VIA).filter_map(Via::parse)
    }

    /// What sent the request.
    #[must_use]
    pub fn user_agent(&self) -> Option<&'a [u8]> {
        self.complete(HeaderName::USER_AGENT)
    }

    /// The credentials for servers and proxies, in their order.
    pub fn credentials(&self) -> impl Iterator<Item = Credentials<'a>> + Clone {
        self.either(HeaderName::AUTHORIZATION, HeaderName::PROXY_AUTHORIZATION)
            .filter_map(|header| Credentials::parse(header.whole_part()))
    }

    /// The challenges of servers and proxies, in their order.
    pub fn challenges(&self) -> impl Iterator<Item = Challenge<'a>> + Clone {
        self.either(HeaderName::WWW_AUTHENTICATE, HeaderName::PROXY_AUTHENTICATE)
            .filter_map(|header| Challenge::parse(header.whole_part()))
    }

    /// The length that the body is said to have.
    #[must_use]
    pub fn content_length(&self) -> Option<u32> {
        text::number(self.complete(HeaderName::CONTENT_LENGTH)?)
    }

    /// The first value of this name, unless it is empty or cut off.
    fn complete(&self, name: HeaderName) -> Option<&'a [u8]> {
        self.header(name)?.whole()
    }

    /// The values in all headers of this name, separated by commas or not.
    fn items(&self, name: HeaderName) -> impl Iterator<Item = &'a [u8]> + Clone {
        self.either(name, name)
            .flat_map(|header| Items::new(header.whole_part()))
    }

    fn either(&self, name: HeaderName, other: HeaderName) -> impl Iterator<Item = Header<'a>> + Clone {
        self.headers()
            .filter(move |header| name.matches(header.name) || other.matches(header.name))
    }
}

/// Value of CSeq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CSeq<'a> {
    /// The number; one beyond 32 bits counts as the largest.
    pub number: u32,
    /// The method of the request.
    pub method: &'a [u8],
}

#[cfg(test)]
mod tests;
