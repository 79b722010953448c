//! The bitmap of protected ports.

use std::collections::BTreeMap;

use sip_filter_common::{
    packet::{TCP, UDP},
    pipeline::{PORT_BITMAP_WORDS, port_bit},
};

/// Calls `set` with every word of the bitmap.
pub(crate) fn port_bitmap(udp: &[u16], tcp: &[u16], mut set: impl FnMut(u32, u64)) {
    let mut words = BTreeMap::new();
    let ports = udp
        .iter()
        .map(|port| (UDP, port))
        .chain(tcp.iter().map(|port| (TCP, port)));
    for (protocol, port) in ports {
        let (word, bit) = port_bit(protocol, *port);
        *words.entry(word).or_default() |= 1_u64 << bit;
    }
    for index in 0..PORT_BITMAP_WORDS {
        set(index, words.get(&index).copied().unwrap_or_default());
    }
}
