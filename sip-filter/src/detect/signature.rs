//! Scanners that say who they are.

use sip_filter_common::sip::{HeaderName, Message};

/// User-Agents of attack tools, as `user_agents` in the configuration.
///
/// Only names whose sole use is scanning, cracking or fuzzing. Left out, although block-lists on the net have them,
/// because customers and operators really use them: `sipsak` and `SIPp` (monitoring and load tests), `eyeBeam`,
/// `Zoiper`, `PortSIP VoIP SDK`, `VaxSIPUserAgent`, `Conaito` and `sipsorcery` (softphones and the kits they are
/// built with), `Asterisk PBX` and `Cisco-SIPGateway` (every other PBX, although fraudsters borrow the names), and
/// short or unclear ones (`Gulp`, `SipReg`, `siptest`, `UsaAirport`). A request without User-Agent is ordinary.
pub(super) const DEFAULT: &[&str] = &[
    "friendly-scanner*", // SIPVicious, the one seen most
    "sipvicious*",
    "sundayddr*", // a worm that carries SIPVicious
    "sipcli*",    // command-line dialler of toll fraud
    "iWar*",      // war dialler
    "pplsip*",
    "SIPScan*",
    "smap", // the scanner, which also writes "smap 0.6"; a bare prefix could begin a product's name
    "smap *",
    "smap/*",
    "siparmyknife*", // fuzzer
    "sivus*",        // vulnerability scanner
    "Nsauditor*",    // network auditor
    "Nmap NSE*",
];

/// Fewest characters of a pattern.
pub(super) const SHORTEST: usize = 3;

/// The patterns, ready to compare.
#[derive(Clone, Debug, Default)]
pub(super) struct Signatures {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: Vec<u8>,
    prefix: bool,
}

impl Signatures {
    pub(super) fn new<'a>(patterns: impl IntoIterator<Item = &'a String>) -> Self {
        let pattern = |text: &String| {
            let (text, prefix) = match text.strip_suffix('*') {
                Some(text) => (text, true),
                None => (text.as_str(), false),
            };
            Pattern {
                text: text.as_bytes().to_vec(),
                prefix,
            }
        };
        Self {
            patterns: patterns.into_iter().map(pattern).collect(),
        }
    }

    /// Whether the request was sent by a scanner that says so.
    ///
    /// A request with more than one Via was relayed: its User-Agent names the program of somebody behind the
    /// sender. A carrier must not be banned for a caller of its customer's, so such a request is not judged.
    pub(super) fn match_request(&self, payload: &[u8]) -> bool {
        const VIA: HeaderName = HeaderName::new("Via", Some(b'v'));
        let message = Message::new(payload);
        let mut matched = false;
        let mut hops = 0;
        for header in message.headers() {
            if VIA.matches(header.name) {
                hops += 1 + header.value.iter().filter(|byte| **byte == b',').count();
            } else if HeaderName::USER_AGENT.matches(header.name) {
                matched |= self.match_agent(header.value, header.complete);
            }
        }
        matched && hops < 2
    }

    fn match_agent(&self, agent: &[u8], complete: bool) -> bool {
        self.patterns.iter().any(|pattern| {
            let length = pattern.text.len();
            // A value that was cut off may be longer, and cannot be called equal.
            let long_enough = if pattern.prefix {
                agent.len() >= length
            } else {
                complete && agent.len() == length
            };
            long_enough
                && agent
                    .iter()
                    .zip(&pattern.text)
                    .all(|(a, b)| a.eq_ignore_ascii_case(b))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn default() -> Signatures {
        let list: Vec<String> = DEFAULT.iter().map(|text| (*text).to_owned()).collect();
        Signatures::new(&list)
    }

    fn request(headers: &str) -> String {
        format!("OPTIONS sip:100@192.0.2.1 SIP/2.0\r\n{headers}\r\nTo: x\r\n\r\n")
    }

    #[test]
    fn scanners_are_recognised() {
        for agent in [
            "friendly-scanner",
            "Friendly-Scanner v2",
            "sipcli/v1.8",
            "sundayddr",
            "smap 0.6",
            "SMAP",
            "iWar",
            "Nmap NSE",
            "sipvicious",
        ] {
            for header in [
                "User-Agent: ",
                "user-agent:",
                "User-Agent  :\t",
                "User-Agent:\r\n ",
            ] {
                let text = request(&format!("Via: SIP/2.0/UDP 192.0.2.9\r\n{header}{agent}"));
                assert!(default().match_request(text.as_bytes()), "{text}");
            }
        }
    }

    #[test]
    fn phones_are_not() {
        for agent in [
            "",
            "Yealink SIP-T46S 66.85.0.5",
            "Zoiper rv2.10",
            "3CXPhoneSystem",
            "Asterisk PBX 20.1",
            "sipsak 0.9.8",
            "eyeBeam release 1102",
            "VaxSIPUserAgent/3.5",
            "smapphone 2",
            "not friendly-scanner",
            "SIPp",
        ] {
            let text = request(&format!("User-Agent: {agent}"));
            assert!(!default().match_request(text.as_bytes()), "{agent}");
        }
        assert!(!default().match_request(request("Subject: friendly-scanner").as_bytes()));
        assert!(!default().match_request(b"OPTIONS a SIP/2.0\r\n\r\nUser-Agent: friendly-scanner\r\n\r\n"));
    }

    #[test]
    fn whoever_relays_a_scanner_is_not_one() {
        for via in ["Via: a\r\nVia: b\r\n", "Via: a, b\r\n", "v: a\r\nVIA: b\r\n"] {
            let text = request(&format!("{via}User-Agent: friendly-scanner"));
            assert!(!default().match_request(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn a_value_cut_off_equals_nothing() {
        let exact = Signatures::new(&["scan".to_owned()]);
        assert!(exact.match_request(b"X\r\nUser-Agent: SCAN\r\n\r\n"));
        assert!(!exact.match_request(b"X\r\nUser-Agent: scan"));
        assert!(!exact.match_request(b"X\r\nUser-Agent: scanner\r\n\r\n"));
        assert!(default().match_request(b"X\r\nUser-Agent: friendly-scanner"));
    }
}
