//! Messages made to mislead: whatever they say, what follows is held against nobody but who sent them.

use std::{fs, path::Path};

use sip_filter_common::{
    packet::Head,
    sip::{HEAD, classify},
};

use super::*;

/// Xorshift (G. Marsaglia, "Xorshift RNGs", 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

fn class_of(payload: &[u8]) -> Class {
    let mut head = [0; HEAD];
    for (to, from) in head.iter_mut().zip(payload) {
        *to = *from;
    }
    classify(&Head::new(&head), payload.len())
}

/// The messages of RFC 4475 and RFC 5118, and some that name others wherever an address may stand.
fn messages(innocent: IpAddr) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sip-filter-common/tests/torture");
    let mut paths: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dat"))
        .collect();
    paths.sort_unstable();
    let mut messages: Vec<_> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert_eq!(messages.len(), 61);
    for method in ["REGISTER", "INVITE", "OPTIONS"] {
        let text = format!(
            "{method} sip:1001@{innocent} SIP/2.0\r\nVia: SIP/2.0/UDP {innocent};maddr={innocent};received={innocent};\
             rport=5060;branch=z9hG4bK1\r\nFrom: <sip:1001@{innocent}>;tag=f1\r\nTo: <sip:1001@{innocent}>\r\n\
             Call-ID: {innocent}-1001-1001\r\nCSeq: 1 {method}\r\nContact: <sip:1001@{innocent}>\r\n\
             Authorization: Digest username=\"1001\", realm=\"example.org\", nonce=\"n1\", response=\"r1\"\r\n\r\n"
        );
        messages.extend([text.clone().into_bytes(), text.replace('1', "2").into_bytes()]);
    }
    messages
}

fn mutated(random: &mut Random, message: &[u8]) -> Vec<u8> {
    let mut bytes = message.to_vec();
    for _ in 0..random.below(6) {
        let at = random.below(bytes.len());
        match random.below(4) {
            0 => bytes.truncate(at),
            1 => bytes.insert(at, b"\r\n:;,<>\"@\0"[random.below(10)]),
            _ if bytes.is_empty() => {}
            2 => bytes[at] = random.below(256) as u8,
            _ => bytes[at] ^= 1 << random.below(8),
        }
    }
    bytes
}

/// Three attackers, five hundred names that are forged now and then, eight customers.
#[test]
fn hostile_messages_ban_nobody_but_their_senders() {
    let attacker = |number: usize| source(1 + number as u32 % 3);
    let forged = |number: usize| source(1_000 + number as u32 % 500);
    let customer = |number: usize| source(5_000 + number as u32 % 8);
    let mut random = Random(0x0123_4567_89ab_cdef);
    let mut site = Site::new();
    let all: Vec<Vec<u8>> = (0..8).flat_map(|number| messages(customer(number))).collect();
    for number in 0..30_000_usize {
        site.wait(40);
        let message = mutated(&mut random, &all[number % all.len()]);
        let from = if number % 2 == 0 {
            attacker(random.below(3))
        } else {
            forged(random.below(500))
        };
        let mut see = |from, class, kind, payload: &[u8]| {
            let observation = Observation {
                kind,
                payload,
                protocol: if number % 5 == 0 { 6 } else { 17 },
                source_port: 5060,
                ..packet(site.now, from, class)
            };
            site.engine.observe(&observation, &mut site.said);
        };
        let kind = if number % 11 == 0 {
            EventKind::OverLimit
        } else {
            EventKind::Snapshot
        };
        see(from, class_of(&message), kind, &message);
        // What the server answers, to the sender or to where the message says.
        let rest = message
            .iter()
            .position(|byte| *byte == b'\n')
            .map_or(&b"\r\n"[..], |at| &message[at + 1..]);
        let status = [401, 403, 404, 407, 486, 604][random.below(6)];
        let answer = [format!("SIP/2.0 {status} x\r\n").as_bytes(), rest].concat();
        let to = if number % 3 == 0 {
            customer(number / 3)
        } else {
            from
        };
        see(to, Class::Response, EventKind::Response, &answer);
        if number % 60 == 0 {
            site.register(customer(number / 60), "1001", true);
        }
    }
    let bans = decisions(std::mem::take(&mut site.said));
    let is_one_of = |ban: &Decision, some: &dyn Fn(usize) -> IpAddr, count| {
        (0..count).any(|number| ban.target == Target::address(some(number)))
    };
    for ban in &bans {
        // A name that is forged can be banned for moments, as SECURITY.md says.
        let allowed = is_one_of(ban, &attacker, 3)
            || is_one_of(ban, &forged, 500) && !ban.proven && ban.ban_for <= Duration::from_secs(30);
        assert!(allowed, "{ban:?}");
    }
    assert!(
        bans.iter().any(|ban| is_one_of(ban, &attacker, 3)),
        "the attackers themselves are banned: {bans:?}"
    );
}
