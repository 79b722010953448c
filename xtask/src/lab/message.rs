//! A look at the headers of a message.

/// The values of the headers of a name, in order.
pub(super) fn headers_named<'a>(message: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    message
        .lines()
        .skip(1)
        .take_while(|line| !line.is_empty())
        .filter_map(|line| line.split_once(':'))
        .filter(move |(key, _)| key.trim().eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim())
}

/// The first of them.
pub(super) fn header<'a>(message: &'a str, name: &'a str) -> Option<&'a str> {
    headers_named(message, name).next()
}

/// The URI between angle brackets.
pub(super) fn uri_of(value: &str) -> Option<&str> {
    value.split_once('<')?.1.split_once('>').map(|(uri, _)| uri)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_found_in_order_and_not_in_the_body() {
        let message = "SIP/2.0 200 OK\r\nrecord-route: <sip:a;lr>\r\nRecord-Route: <sip:b;lr>\r\n\r\nTo: x";
        assert_eq!(
            headers_named(message, "Record-Route").collect::<Vec<_>>(),
            ["<sip:a;lr>", "<sip:b;lr>"]
        );
        assert_eq!(header(message, "To"), None);
        assert_eq!(uri_of("\"A\" <sip:a@b:5>;tag=1"), Some("sip:a@b:5"));
    }
}
