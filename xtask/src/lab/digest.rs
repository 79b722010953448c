//! Digest authentication as SIP phones do it (RFC 2617, MD5).

use md5::{Digest as _, Md5};

/// The value of the (Proxy-)Authorization header that answers `challenge`, the value of the server's; `None` if
/// that is no digest challenge.
#[must_use]
pub fn answer(challenge: &str, method: &str, uri: &str, user: &str, password: &str) -> Option<String> {
    let parameters = challenge.trim().strip_prefix("Digest ")?;
    let (realm, nonce) = (parameter(parameters, "realm")?, parameter(parameters, "nonce")?);
    let account = hash(&format!("{user}:{realm}:{password}"));
    let request = hash(&format!("{method}:{uri}"));
    let (response, quality) = if parameter(parameters, "qop").is_some() {
        let response = hash(&format!("{account}:{nonce}:00000001:lab:auth:{request}"));
        (response, ", qop=auth, nc=00000001, cnonce=\"lab\"")
    } else {
        (hash(&format!("{account}:{nonce}:{request}")), "")
    };
    Some(format!(
        "Digest username=\"{user}\", realm=\"{realm}\", nonce=\"{nonce}\", uri=\"{uri}\", \
         response=\"{response}\", algorithm=MD5{quality}"
    ))
}

/// A parameter's value without its quotes.
fn parameter<'a>(parameters: &'a str, name: &str) -> Option<&'a str> {
    parameters.split(',').find_map(|each| {
        let (key, value) = each.trim().split_once('=')?;
        (key == name).then(|| value.trim_matches('"'))
    })
}

fn hash(text: &str) -> String {
    Md5::digest(text.as_bytes())
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_md5() {
        assert_eq!(hash(""), "d41d8cd98f00b204e9800998ecf8427e");
    }

    #[test]
    fn the_answer_repeats_the_challenge() {
        let value = answer("Digest realm=\"r\", nonce=\"n\"", "REGISTER", "sip:h", "u", "p").unwrap();
        assert!(
            value.starts_with("Digest username=\"u\", realm=\"r\", nonce=\"n\", uri=\"sip:h\""),
            "{value}"
        );
        assert!(!value.contains("qop"));
        assert!(
            answer(
                "Digest realm=\"r\", nonce=\"n\", qop=\"auth\"",
                "REGISTER",
                "sip:h",
                "u",
                "p"
            )
            .unwrap()
            .contains("qop=auth")
        );
        assert!(answer("Basic realm=\"r\"", "REGISTER", "sip:h", "u", "p").is_none());
    }
}
