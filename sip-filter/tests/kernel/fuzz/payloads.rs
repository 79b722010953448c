//! What packets carry: SIP as it is, as it should not be, and what else comes to a SIP port.

use std::{fs, path::Path};

use super::random::Random;
use crate::frames;

/// Payloads to begin with.
pub(super) struct Corpus {
    /// Messages of phones, and those of RFC 4475 and RFC 5118.
    messages: Vec<Vec<u8>>,
    /// What is no SIP.
    others: Vec<Vec<u8>>,
    /// Whole frames.
    frames: Vec<Vec<u8>>,
}

const METHODS: [&str; 15] = [
    "REGISTER",
    "INVITE",
    "OPTIONS",
    "SUBSCRIBE",
    "MESSAGE",
    "NOTIFY",
    "PUBLISH",
    "ACK",
    "BYE",
    "CANCEL",
    "INFO",
    "PRACK",
    "REFER",
    "UPDATE",
    "register",
];

/// The messages of RFC 4475 and RFC 5118, by name.
pub(crate) fn torture() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../sip-filter-common/tests/torture");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dat"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    found.sort_unstable();
    found
}

impl Corpus {
    pub(super) fn new() -> Self {
        let mut messages: Vec<Vec<u8>> = METHODS.iter().map(|method| frames::request(method)).collect();
        for status in [
            "100 Trying",
            "180 Ringing",
            "200 OK",
            "401 Unauthorized",
            "486 Busy Here",
            "604 x",
        ] {
            let head = format!("SIP/2.0 {status}\r\n");
            let request = frames::request("INVITE");
            let from = request.iter().position(|byte| *byte == b'V').unwrap_or_default();
            messages.push([head.as_bytes(), &request[from..]].concat());
        }
        messages.extend(torture().into_iter().map(|(_, bytes)| bytes));
        let stun = [
            0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
        ];
        let others: [&[u8]; 13] = [
            b"",
            b"\0",
            b"\r\n",
            b"\r\n\r\n",
            b"\n",
            b"\0\0\0\0",
            &stun,
            &[0x80; 172],
            &[0xa5; 40],
            &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
            b"SIP/2.0",
            b"jaK",
        ];
        Self {
            messages,
            others: others.iter().map(|payload| payload.to_vec()).collect(),
            frames: frames::all().into_iter().map(|fixture| fixture.frame).collect(),
        }
    }

    /// One of the named frames.
    pub(super) fn frame(&self, random: &mut Random) -> Vec<u8> {
        random.pick(&self.frames).clone()
    }

    /// A payload, often as it should be.
    pub(super) fn payload(&self, random: &mut Random) -> Vec<u8> {
        let from = if random.once_in(4) {
            &self.others
        } else {
            &self.messages
        };
        // The usual methods, on which the limits act, come more often than the long tail.
        let usual = from.len().min(if random.once_in(3) { from.len() } else { 5 });
        let mut payload = from[random.below(usual)].clone();
        if random.once_in(12) {
            payload = {
                let count = random.below(80);
                random.bytes(count)
            };
        }
        if random.once_in(4) {
            mutate(random, &mut payload);
        }
        if random.once_in(50) {
            let longer = random.below(8_900);
            payload.resize(payload.len().max(longer), b'x');
        }
        payload
    }
}

/// Changes a message as a careless or malicious sender might.
pub(super) fn mutate(random: &mut Random, payload: &mut Vec<u8>) {
    for _ in 0..=random.below(3) {
        match random.below(8) {
            0 => payload.truncate(random.below(payload.len() + 1)),
            1 => {
                let cut = random.below(payload.len().min(40) + 1);
                payload.drain(..cut);
            }
            2 => payload
                .splice(0..0, b"\r\n\r\n\r\n"[..random.below(7)].iter().copied())
                .for_each(drop),
            3 => {
                let at = random.below(payload.len().min(40) + 1);
                let byte = *random.pick(b"\r\n \t:/\0\x7f\xffS");
                payload.insert(at, byte);
            }
            4 => {
                let at = random.below(payload.len().min(40));
                payload[at.min(random.below(8))..]
                    .iter_mut()
                    .take(random.below(8))
                    .for_each(|byte| {
                        *byte = byte.to_ascii_lowercase();
                    });
            }
            5 => {
                let count = random.below(9);
                let head = random.bytes(count);
                for (to, from) in payload.iter_mut().zip(head) {
                    *to = from;
                }
            }
            _ => {
                // Mostly in the start line.
                let within = if random.once_in(3) {
                    payload.len()
                } else {
                    payload.len().min(32)
                };
                if within > 0 {
                    let at = random.below(within);
                    payload[at] = if random.once_in(2) {
                        random.byte()
                    } else {
                        payload[at] ^ 1 << random.below(8)
                    };
                }
            }
        }
    }
}
