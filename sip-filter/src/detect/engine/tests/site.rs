//! Conversations between sources and a server, as the engine sees them.

use super::*;

/// A server and its engine.
pub(super) struct Site {
    pub(super) engine: Engine,
    pub(super) now: Duration,
    pub(super) said: Vec<Conclusion>,
    serial: u64,
    pub(super) protocol: u8,
    /// Port and hop limit of what is sent.
    pub(super) place: (u16, u8),
}

/// A request that was sent.
#[derive(Clone)]
pub(super) struct Asked {
    from: IpAddr,
    head: String,
    pub(super) nonce: String,
}

impl Site {
    pub(super) fn new() -> Self {
        Self::with(DetectConfig::default())
    }

    pub(super) fn with(config: DetectConfig) -> Self {
        Self {
            engine: Engine::new(config, 64),
            now: ms(0),
            said: Vec::new(),
            serial: 0,
            protocol: 17,
            place: (5060, 64),
        }
    }

    pub(super) fn wait(&mut self, millis: u64) {
        self.now += Duration::from_millis(millis);
    }

    fn observe(&mut self, from: IpAddr, class: Class, kind: EventKind, text: &str) {
        let observation = Observation {
            kind,
            payload: text.as_bytes(),
            protocol: self.protocol,
            source_port: self.place.0,
            hops: self.place.1,
            ..packet(self.now, from, class)
        };
        self.engine.observe(&observation, &mut self.said);
    }

    /// A packet that stands for others that were not shown.
    pub(super) fn missed(&mut self, from: IpAddr, kind: EventKind, class: Class, count: u32) {
        let observation = Observation {
            kind,
            count,
            payload: b"",
            ..packet(self.now, from, class)
        };
        self.engine.observe(&observation, &mut self.said);
    }

    /// A request of `user` for `to`, with credentials that answer `nonce`.
    pub(super) fn ask(
        &mut self,
        from: IpAddr,
        method: &str,
        (user, to): (&str, &str),
        nonce: Option<&str>,
        more: &str,
    ) -> Asked {
        self.serial += 1;
        let serial = self.serial;
        let class = match method {
            "REGISTER" => Class::Register,
            "INVITE" => Class::Invite,
            "OPTIONS" => Class::Options,
            _ => Class::OtherRequest,
        };
        let head = format!(
            "Via: SIP/2.0/UDP 10.9.9.9;branch=z9hG4bK{serial}\r\nFrom: <sip:{user}@example.org>;tag=f{serial}\r\n\
             To: <sip:{to}@example.org>\r\nCall-ID: {from}-{user}-{to}\r\nCSeq: {serial} {method}\r\n"
        );
        let credentials = nonce.map_or(String::new(), |nonce| {
            format!(
                "Authorization: Digest username=\"{user}\", realm=\"example.org\", nonce=\"{nonce}\", \
                 uri=\"sip:example.org\", response=\"r{serial}\"\r\n"
            )
        });
        let text = format!("{method} sip:{to}@example.org SIP/2.0\r\n{head}{credentials}{more}\r\n");
        self.observe(from, class, EventKind::Snapshot, &text);
        Asked {
            from,
            head,
            nonce: format!("n{serial}"),
        }
    }

    pub(super) fn answer(&mut self, asked: &Asked, status: u16, more: &str) {
        let text = format!("SIP/2.0 {status} Whatever\r\n{}{more}\r\n", asked.head);
        self.observe(asked.from, Class::Response, EventKind::Response, &text);
    }

    pub(super) fn challenge(&mut self, asked: &Asked) {
        let more = format!(
            "WWW-Authenticate: Digest realm=\"example.org\", nonce=\"{}\"\r\n",
            asked.nonce
        );
        self.answer(asked, 401, &more);
    }

    /// A REGISTER that is challenged.
    pub(super) fn begin(&mut self, from: IpAddr, user: &str) -> Asked {
        let asked = self.ask(from, "REGISTER", (user, user), None, CONTACT);
        self.challenge(&asked);
        asked
    }

    /// The REGISTER that answers the challenge; whether its password is right.
    pub(super) fn finish(&mut self, from: IpAddr, user: &str, challenged: &Asked, right: bool) {
        let asked = self.ask(from, "REGISTER", (user, user), Some(&challenged.nonce), CONTACT);
        match right {
            true => self.answer(&asked, 200, "Contact: <sip:x@10.9.9.9>;expires=3600\r\n"),
            false => self.challenge(&asked),
        }
    }

    pub(super) fn register(&mut self, from: IpAddr, user: &str, right: bool) {
        let challenged = self.begin(from, user);
        self.finish(from, user, &challenged, right);
    }

    /// A REGISTER that differs from others only in its credentials.
    pub(super) fn guess(&mut self, from: IpAddr, user: &str, challenged: &Asked, response: u32) -> Asked {
        let nonce = challenged.nonce.clone();
        let head = format!(
            "From: <sip:{user}@example.org>;tag=1\r\nTo: <sip:{user}@example.org>\r\nCall-ID: 1\r\n\
             CSeq: 2 REGISTER\r\n{CONTACT}"
        );
        let text = format!(
            "REGISTER sip:example.org SIP/2.0\r\n{head}Authorization: Digest username=\"{user}\", \
             nonce=\"{nonce}\", response=\"{response}\"\r\n\r\n"
        );
        self.observe(from, Class::Register, EventKind::Snapshot, &text);
        Asked { from, head, nonce }
    }

    /// A call without credentials, and the answer to it.
    pub(super) fn dial(&mut self, from: IpAddr, number: &str, status: u16) {
        let asked = self.ask(from, "INVITE", ("caller", number), None, "");
        match status {
            407 => self.challenge(&asked),
            status => self.answer(&asked, status, ""),
        }
    }

    /// The bans since the last call: rule, count, proven.
    pub(super) fn bans(&mut self) -> Vec<(Rule, u64, bool)> {
        let bans = decisions(std::mem::take(&mut self.said)).into_iter();
        bans.map(|ban| (ban.rule, ban.evidence.count, ban.proven))
            .collect()
    }
}

/// Contact of a phone.
pub(super) const CONTACT: &str = "Contact: <sip:x@10.9.9.9>\r\n";
