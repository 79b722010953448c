//! Packets that leave: the server's own answers tell what became of a request, without any log.
//!
//! Only observed: nothing is delayed, changed or dropped on the way out.

use super::{Content, Due, Subject, Tables, due, protection, send, source_key};
use crate::{
    abi::EventKind,
    packet::{self, Ip, Packet, Ports, Transport},
    sip::Class,
};

/// Reports a final response that leaves a protected port to its remote party.
#[inline(always)]
pub fn observe<P: Packet, T: Tables>(packet: &P, tables: &T) {
    let Some(config) = tables.config() else { return };
    let Ok(network) = packet::network(packet) else {
        return;
    };
    let Transport::Ports(ports) = packet::transport(packet, &network, tables) else {
        return;
    };
    // To the tables the remote party is the source, as it is for what it sends.
    let ports = Ports {
        protocol: tables.forget(ports.protocol as u64) as u8,
        source: tables.forget(ports.destination as u64) as u16,
        destination: tables.forget(ports.source as u64) as u16,
        payload: tables.forget(ports.payload as u64) as usize,
        payload_len: tables.forget(ports.payload_len as u64) as usize,
    };
    if protection(tables, ports.protocol, ports.destination) != Content::Protected {
        return;
    }
    let Some((remote, local)) = remote(packet, &network) else {
        return;
    };
    let packet = &packet.again();
    let head = packet.head(ports.payload, ports.payload_len);
    if tables.classify(&head, ports.payload_len) != Class::Response as u64 || is_provisional(&head) {
        return;
    }
    let remote = match remote {
        Ip::V4(address) => Ip::V4(tables.forget(address as u64) as u32),
        Ip::V6([high, low]) => Ip::V6([tables.forget(high), tables.forget(low)]),
    };
    let subject = Subject {
        open: true,
        class: 0,
        source: remote,
        destination: tables.forget(local as u64) as usize,
        content: Content::Protected,
        ports,
        reach: tables.forget(network.end as u64) as usize,
        hops: network.hops,
        now: tables.now(),
    };
    let key = source_key(config, remote, Class::Response);
    let due = due(
        tables,
        config,
        subject.now,
        (EventKind::Response, Class::Response, config.responses_per_source),
        (key, key.place(config.seed), 0),
    );
    if due != Due::NONE {
        send(packet, tables, config, &subject, due);
    }
}

/// The remote party, and where our own address lies.
#[inline(always)]
fn remote<P: Packet>(packet: &P, network: &packet::Network) -> Option<(Ip, usize)> {
    let offset = network.destination;
    match network.source {
        Ip::V4(_) => Some((Ip::V4(u32::from_be_bytes(packet.read(offset)?)), offset - 4)),
        Ip::V6(_) => {
            let high = u64::from_be_bytes(packet.read(offset)?);
            let low = u64::from_be_bytes(packet.read(offset + 8)?);
            Some((Ip::V6([high, low]), offset - 16))
        }
    }
}

/// `SIP/2.0 1xx`: more will follow.
#[inline(always)]
const fn is_provisional(head: &packet::Head) -> bool {
    head.byte(8) == b'1'
}
