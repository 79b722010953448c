//! Scanners that say who they are.

use std::net::IpAddr;

use sip_filter_common::sip::{Class, Contact, HeaderName, Message};

use super::SignatureSettings;

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
    from_tags: Vec<Vec<u8>>,
    addresses: Vec<Vec<u8>>,
}

#[derive(Clone, Debug)]
struct Pattern {
    text: Vec<u8>,
    prefix: bool,
}

/// Marks of a scanner in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mark {
    /// None.
    None,
    /// A phone set up wrongly could do it once or twice: its Contact is the server.
    OwnContact,
    /// Nothing else does it.
    Scanner,
}

impl Signatures {
    pub(super) fn new(settings: &SignatureSettings) -> Self {
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
        let bytes = |list: &[String]| list.iter().map(|text| text.as_bytes().to_vec()).collect();
        Self {
            patterns: settings
                .user_agents
                .iter()
                .chain(&settings.extra_user_agents)
                .map(pattern)
                .collect(),
            from_tags: bytes(&settings.from_tags),
            addresses: bytes(&settings.addresses),
        }
    }

    /// The marks of a request sent to `server`.
    ///
    /// A request with more than one Via was relayed: it tells about somebody behind the sender. A carrier must not
    /// be banned for a caller of its customer's, so such a request is not judged.
    pub(super) fn mark(&self, class: Class, payload: &[u8], server: IpAddr) -> Mark {
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
        if hops >= 2 {
            return Mark::None;
        }
        if matched || self.match_parties(&message) {
            return Mark::Scanner;
        }
        let own = |contact: Contact<'_>| contact.address.is_some_and(|address| is(address.host, server));
        if class == Class::Register && message.contacts().any(own) {
            return Mark::OwnContact;
        }
        Mark::None
    }

    fn match_parties(&self, message: &Message<'_>) -> bool {
        let Some(from) = message.from() else {
            return false;
        };
        if from
            .tag
            .is_some_and(|tag| self.from_tags.iter().any(|known| known == tag))
        {
            return true;
        }
        let (Some(user), Some(to)) = (from.user, message.to()) else {
            return false;
        };
        let listed = |address: &Vec<u8>| {
            let at = address.iter().position(|byte| *byte == b'@');
            at.is_some_and(|at| address[..at] == *user && address[at + 1..] == *from.host)
        };
        to.user == Some(user) && to.host == from.host && self.addresses.iter().any(listed)
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

/// Whether a host, as it stands in a URI, is this address.
fn is(host: &[u8], address: IpAddr) -> bool {
    let host = std::str::from_utf8(host)
        .ok()
        .and_then(|text| text.parse::<IpAddr>().ok());
    host.is_some_and(|host| host.to_canonical() == address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 10));

    impl Signatures {
        fn match_request(&self, payload: &[u8]) -> bool {
            self.mark(Class::Register, payload, SERVER) == Mark::Scanner
        }
    }

    fn default() -> Signatures {
        Signatures::new(&SignatureSettings::default())
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
        let exact = Signatures::new(&SignatureSettings {
            user_agents: vec!["scan".to_owned()],
            ..SignatureSettings::default()
        });
        assert!(exact.match_request(b"X\r\nUser-Agent: SCAN\r\n\r\n"));
        assert!(!exact.match_request(b"X\r\nUser-Agent: scan"));
        assert!(!exact.match_request(b"X\r\nUser-Agent: scanner\r\n\r\n"));
        assert!(default().match_request(b"X\r\nUser-Agent: friendly-scanner"));
    }

    #[test]
    fn marks_that_a_changed_user_agent_does_not_hide() {
        let mark = |class, headers: &str| {
            let text = format!("REGISTER sip:192.0.2.10 SIP/2.0\r\n{headers}\r\n\r\n");
            default().mark(class, text.as_bytes(), SERVER)
        };
        let register = |headers: &str| mark(Class::Register, headers);
        assert_eq!(register("f: <sip:1001@192.0.2.10>;tag=3206210844"), Mark::Scanner);
        assert_eq!(register("f: <sip:1001@192.0.2.10>;tag=32062108445"), Mark::None);
        let svmap = "\"sipvicious\"<sip:100@1.1.1.1>";
        assert_eq!(
            register(&format!("From: {svmap};tag=1\r\nTo: {svmap}")),
            Mark::Scanner
        );
        assert_eq!(
            register(&format!("From: {svmap};tag=1\r\nTo: <sip:101@1.1.1.1>")),
            Mark::None
        );
        for contact in ["sip:990@192.0.2.10", "<sip:990@192.0.2.10:5061>;expires=60"] {
            assert_eq!(
                register(&format!("Contact: {contact}")),
                Mark::OwnContact,
                "{contact}"
            );
            assert_eq!(mark(Class::Invite, &format!("Contact: {contact}")), Mark::None);
        }
        assert_eq!(register("Contact: <sip:990@192.0.2.101>"), Mark::None);
        assert_eq!(
            register("v: a\r\nv: b\r\nContact: sip:990@192.0.2.10"),
            Mark::None
        );
    }
}
