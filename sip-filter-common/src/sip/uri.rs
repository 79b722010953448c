//! URIs: who is meant, and where.

use core::net::{IpAddr, Ipv6Addr};

use super::text::{number, split_once, trim};

/// The parts of a URI that tell who is meant and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uri<'a> {
    /// What stands before the first colon.
    pub scheme: &'a [u8],
    /// The user of a `sip:` or `sips:` URI without password, or the number of a `tel:` URI. Escapes (`%41`) stand
    /// in it as they came.
    pub user: Option<&'a [u8]>,
    /// The host of a `sip:` or `sips:` URI, an IPv6 address without its brackets; empty for other schemes.
    pub host: &'a [u8],
    /// The port, where one is named.
    pub port: Option<u16>,
}

impl<'a> Uri<'a> {
    /// Takes a URI apart. What has no scheme is none.
    #[must_use]
    pub fn new(text: &'a [u8]) -> Option<Self> {
        let (scheme, rest) = split_once(trim(text), b':')?;
        if !is_scheme(scheme) {
            return None;
        }
        let mut uri = Self {
            scheme,
            user: None,
            host: &[],
            port: None,
        };
        if scheme.eq_ignore_ascii_case(b"sip") || scheme.eq_ignore_ascii_case(b"sips") {
            let mut place = rest;
            // Neither parameters nor headers may hold an `@`, a user may hold `;` and `?`.
            if let Some((user, host)) = split_once(rest, b'@') {
                uri.user = some(before(user, b":"));
                place = host;
            }
            (uri.host, uri.port) = host_and_port(before(place, b";?"));
        } else if scheme.eq_ignore_ascii_case(b"tel") {
            uri.user = some(before(rest, b";"));
        }
        Some(uri)
    }
}

/// The address that a host is, without brackets; none if it is a name. An IPv4 address mapped into IPv6 is the IPv4
/// address. The three colons that RFC 3261's grammar asks for by mistake are tolerated (RFC 5118 §4.10).
#[must_use]
pub fn host_address(host: &[u8]) -> Option<IpAddr> {
    if let Some(address) = parse::<IpAddr>(host) {
        return Some(address.to_canonical());
    }
    // No address is longer.
    let mut text = [0; 46];
    let colons = host.windows(3).position(|window| window == b":::")?;
    let kept = host.iter().enumerate().filter(|(index, _)| *index != colons);
    let mut length = 0;
    for (_, byte) in kept {
        *text.get_mut(length)? = *byte;
        length += 1;
    }
    let address: Ipv6Addr = parse(text.get(..length)?)?;
    Some(IpAddr::V6(address).to_canonical())
}

fn parse<T: core::str::FromStr>(text: &[u8]) -> Option<T> {
    core::str::from_utf8(text).ok()?.parse().ok()
}

/// RFC 3261 §25.1: `scheme = ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )`.
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte))
}

/// Host, an IPv6 address without its brackets, and port.
pub(super) fn host_and_port(text: &[u8]) -> (&[u8], Option<u16>) {
    let text = trim(text);
    let (host, rest) = match text.strip_prefix(b"[") {
        Some(inner) => split_once(inner, b']').unwrap_or((inner, &[])),
        None => {
            let host = before(text, b":");
            (host, text.get(host.len()..).unwrap_or_default())
        }
    };
    let port = trim(rest)
        .strip_prefix(b":")
        .and_then(number)
        .and_then(|port| u16::try_from(port).ok());
    (trim(host), port)
}

/// Everything before the first of these bytes.
pub(super) fn before<'a>(text: &'a [u8], ends: &[u8]) -> &'a [u8] {
    let end = text
        .iter()
        .position(|byte| ends.contains(byte))
        .unwrap_or(text.len());
    text.split_at(end).0
}

fn some(text: &[u8]) -> Option<&[u8]> {
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, user: Option<&str>, host: &str, port: Option<u16>) {
        let uri = Uri::new(text.as_bytes()).unwrap();
        assert_eq!(uri.user, user.map(str::as_bytes), "{text}");
        assert_eq!(uri.host, host.as_bytes(), "{text}");
        assert_eq!(uri.port, port, "{text}");
    }

    #[test]
    fn parts() {
        check("sip:example.com", None, "example.com", None);
        check("SIPS:a@example.com:5061", Some("a"), "example.com", Some(5061));
        check("sip:a:b:c@h;x=y:z?q=1:2", Some("a"), "h", None);
        check("sip:a;b?c@h", Some("a;b?c"), "h", None);
        check("sip:@h", None, "h", None);
        check("sip::secret@h", None, "h", None);
        check("sip:a@[2001:db8::1]:5060;x", Some("a"), "2001:db8::1", Some(5060));
        check("sip:a@[2001:db8::1", Some("a"), "2001:db8::1", None);
        check("sip:[::1]", None, "::1", None);
        check("sip:h:", None, "h", None);
        check("sip:h:65536", None, "h", None);
        check("sip:", None, "", None);
        check("tel:+1-555;phone-context=x", Some("+1-555"), "", None);
        check("urn:service:sos", None, "", None);
        check(" sip:a@h ", Some("a"), "h", None);
    }

    #[test]
    fn what_has_no_scheme_is_none() {
        for text in ["", "a@h", ":", "<sip:a@h>", "1a:b", "\"sip:a@h", "s p:a", "sip"] {
            assert_eq!(Uri::new(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn addresses() {
        let address = |text: &str| host_address(text.as_bytes());
        assert_eq!(address("192.0.2.1"), "192.0.2.1".parse().ok());
        assert_eq!(address("2001:DB8:0::1"), "2001:db8::1".parse().ok());
        assert_eq!(address("::ffff:192.0.2.1"), "192.0.2.1".parse().ok());
        assert_eq!(
            address("2001:db8:::192.0.2.1"),
            "2001:db8::192.0.2.1".parse().ok()
        );
        for text in ["", "example.com", "::::", ":::", "1.2.3", "a:::b", "\u{e4}"] {
            let expected = match text {
                // Without one colon, this is an address.
                ":::" => "::".parse().ok(),
                "a:::b" => "a::b".parse().ok(),
                _ => None,
            };
            assert_eq!(address(text), expected, "{text}");
        }
        assert_eq!(host_address(&[b':'; 1000]), None);
        assert_eq!(host_address(b"\xff:::\xff"), None);
    }
}
