//! UDP packets with any source address, sent as frames from an attackers' host to its router.

use std::{
    net::{IpAddr, SocketAddr},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};

use super::{
    Netns,
    frames::Link,
    interrupt,
    traffic::{Burst, Sent},
};

/// An Ethernet address.
pub type Mac = [u8; 6];

/// Hop limit of a packet that says nothing else: the Linux default.
pub const HOPS: u8 = 64;

/// A link on which anybody's name may be used.
#[derive(Debug)]
pub struct Forger {
    link: Link,
    ends: [Mac; 2],
    hops: u8,
}

impl Forger {
    /// Opens `interface` of `host`, whose frames go to `gateway`'s `port`.
    ///
    /// # Errors
    /// If there are no such interfaces.
    pub fn new((host, interface): (&Netns, &str), (gateway, port): (&Netns, &str)) -> Result<Self> {
        Ok(Self {
            link: Link::open(host, interface)?,
            ends: [mac(gateway, port)?, mac(host, interface)?],
            hops: HOPS,
        })
    }

    /// Sends with this time to live or hop limit, as from another distance.
    #[must_use]
    pub const fn hops(mut self, hops: u8) -> Self {
        self.hops = hops;
        self
    }

    /// Sends `burst`; `packet` writes the payload of each number and says from whom it pretends to come. Ends
    /// early when `stop` says so.
    pub fn send(
        &mut self,
        to: SocketAddr,
        burst: Burst,
        stop: impl Fn() -> bool,
        mut packet: impl FnMut(u64, &mut Vec<u8>) -> SocketAddr,
    ) -> Sent {
        let start = Instant::now();
        let mut sent = Sent {
            packets: 0,
            refused: 0,
            elapsed: Duration::ZERO,
        };
        let (mut payload, mut frame) = (Vec::new(), Vec::new());
        for number in 0..burst.count {
            if let Some(rate) = burst.rate {
                let due = Duration::from_secs_f64(number as f64 / f64::from(rate));
                let ahead = due.saturating_sub(start.elapsed());
                if !ahead.is_zero() {
                    thread::sleep(ahead);
                }
            }
            if start.elapsed() >= burst.limit || interrupt::requested() || stop() {
                break;
            }
            payload.clear();
            let from = packet(number, &mut payload);
            render(&mut frame, (self.ends, self.hops), from, to, &payload);
            match self.link.send(&frame) {
                Ok(()) => sent.packets += 1,
                Err(_) => sent.refused += 1,
            }
        }
        sent.elapsed = start.elapsed();
        sent
    }
}

/// The Ethernet address of an interface.
///
/// # Errors
/// If there is no such interface.
pub fn mac(netns: &Netns, interface: &str) -> Result<Mac> {
    let json = netns.ip(&["-json", "link", "show", "dev", interface])?;
    let value: serde_json::Value = serde_json::from_str(&json).context("ip's JSON")?;
    let text = value[0]["address"]
        .as_str()
        .context("an interface without address")?;
    let bytes: Vec<u8> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16))
        .collect::<std::result::Result<_, _>>()?;
    bytes
        .try_into()
        .ok()
        .with_context(|| format!("{text} is no MAC address"))
}

/// One frame; both addresses are of one family.
fn render(
    frame: &mut Vec<u8>,
    (ends, hops): ([Mac; 2], u8),
    from: SocketAddr,
    to: SocketAddr,
    payload: &[u8],
) {
    frame.clear();
    frame.extend(ends.as_flattened());
    let length = 8 + payload.len() as u16;
    let mut udp = Vec::with_capacity(payload.len() + 8);
    for word in [from.port(), to.port(), length, 0] {
        udp.extend(word.to_be_bytes());
    }
    udp.extend(payload);
    let addresses: Vec<u8> = [from.ip(), to.ip()].into_iter().flat_map(octets).collect();
    let pseudo = u32::from(length) + u32::from(libc::IPPROTO_UDP as u16);
    // Zero would mean that there is none.
    let sum = match checksum(pseudo, &[&addresses, &udp]) {
        0 => 0xffff,
        sum => sum,
    };
    udp[6..8].copy_from_slice(&sum.to_be_bytes());
    if from.is_ipv4() {
        frame.extend([0x08, 0x00]);
        let total = (20 + length).to_be_bytes();
        let mut header = vec![
            0x45,
            0,
            total[0],
            total[1],
            0,
            0,
            0x40,
            0,
            hops,
            libc::IPPROTO_UDP as u8,
            0,
            0,
        ];
        header.extend(&addresses);
        let sum = checksum(0, &[&header]).to_be_bytes();
        header[10..12].copy_from_slice(&sum);
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(length.to_be_bytes());
        frame.extend([libc::IPPROTO_UDP as u8, hops]);
        frame.extend(addresses);
    }
    frame.extend(udp);
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The Internet checksum; every part but the last has even length.
fn checksum(start: u32, parts: &[&[u8]]) -> u16 {
    let mut sum = start;
    for pair in parts.iter().flat_map(|part| part.chunks(2)) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksums_verify() {
        for (from, to) in [
            ("198.51.100.11:5060", "192.0.2.10:5060"),
            ("[2001:db8::1]:1", "[2001:db8::2]:5060"),
        ] {
            let (from, to): (SocketAddr, SocketAddr) = (from.parse().unwrap(), to.parse().unwrap());
            let mut frame = Vec::new();
            render(&mut frame, ([[1; 6], [2; 6]], 57), from, to, b"odd");
            assert_eq!(frame[if from.is_ipv4() { 22 } else { 21 }], 57);
            let (ip, udp, addresses) = if from.is_ipv4() {
                (&frame[14..34], &frame[34..], &frame[26..34])
            } else {
                (&frame[14..54], &frame[54..], &frame[22..54])
            };
            if from.is_ipv4() {
                assert_eq!(checksum(0, &[ip]), 0);
            }
            assert_eq!(udp.len(), 11);
            assert_eq!(checksum(11 + 17, &[addresses, udp]), 0);
        }
    }
}
