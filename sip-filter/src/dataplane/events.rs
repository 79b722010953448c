//! The stream of events from the kernel's ring buffer.

use std::io;

use aya::maps::{MapData, RingBuf};
use bytes::Bytes;
use sip_filter_common::{
    abi::EventKind,
    abi::{Address, EventHeader},
    sip::Class,
    verdict::Reason,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{DataplaneError, Interface};

/// Events of one interface.
pub struct EventStream {
    ring: AsyncFd<RingBuf<MapData>>,
}

/// Events handed over at once, so that the reader comes to other things between.
const BATCH: usize = 256;

impl EventStream {
    /// Opens the ring buffer of an interface; there should be one reader at a time. Must be called within a tokio
    /// runtime.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn open(interface: &Interface) -> Result<Self, DataplaneError> {
        let ring = interface.events()?;
        // SAFETY: the ring buffer owns its descriptor, always names the same one, and closes it only when dropped,
        // which `AsyncFd` does after its registration ends.
        let ring = unsafe { AsyncFd::register_with_interest(ring, Interest::READABLE) }.map_err(|error| {
            DataplaneError::Write {
                what: "event ring",
                source: error.into(),
            }
        })?;
        Ok(Self { ring })
    }

    /// Waits for events and returns up to a few hundred of them. Safe to cancel: none is lost.
    ///
    /// # Errors
    /// If the descriptor cannot be waited for any more.
    pub async fn next(&mut self) -> io::Result<Vec<(EventHeader, Bytes)>> {
        loop {
            let mut guard = self.ring.readable_mut().await?;
            let ring = guard.get_inner_mut();
            let mut batch = Vec::new();
            while batch.len() < BATCH {
                let Some(item) = ring.next() else { break };
                batch.extend(parse(&item));
            }
            if batch.len() < BATCH {
                guard.clear_ready();
            }
            if !batch.is_empty() {
                return Ok(batch);
            }
        }
    }
}

/// Takes an event apart; `None` if it is not one.
pub(super) fn parse(item: &[u8]) -> Option<(EventHeader, Bytes)> {
    let mut reader = Reader(item);
    let header = EventHeader {
        time: u64::from_ne_bytes(reader.take()?),
        source: Address(reader.take()?),
        destination: Address(reader.take()?),
        count: u32::from_ne_bytes(reader.take()?),
        source_port: u16::from_ne_bytes(reader.take()?),
        destination_port: u16::from_ne_bytes(reader.take()?),
        kind: u8::from_ne_bytes(reader.take()?),
        class: u8::from_ne_bytes(reader.take()?),
        protocol: u8::from_ne_bytes(reader.take()?),
        dropped: u8::from_ne_bytes(reader.take()?),
        payload_len: u16::from_ne_bytes(reader.take()?),
        captured: u16::from_ne_bytes(reader.take()?),
        hops: u8::from_ne_bytes(reader.take()?),
        stray: u8::from_ne_bytes(reader.take()?),
        reserved: reader.take()?,
    };
    match EventKind::from_number(header.kind)? {
        EventKind::Dropped => Reason::from_number(header.class).map(|_| ())?,
        _ => Class::from_number(header.class).map(|_| ())?,
    }
    let payload = reader.0.get(..usize::from(header.captured))?;
    Some((header, Bytes::copy_from_slice(payload)))
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_are_taken_apart_as_the_kernel_lays_them_out() {
        let header = EventHeader {
            time: 1,
            source: Address::v4([192, 0, 2, 1]),
            destination: Address([2; 16]),
            count: 3,
            source_port: 4,
            destination_port: 5060,
            kind: 1,
            class: 0,
            protocol: 17,
            dropped: 0,
            payload_len: 900,
            captured: 4,
            hops: 57,
            stray: 1,
            reserved: [0; 6],
        };
        // SAFETY: `repr(C)` without padding.
        let bytes: [u8; size_of::<EventHeader>()] = unsafe { std::mem::transmute(header) };
        let mut item = bytes.to_vec();
        item.extend(b"OPTI");
        assert_eq!(parse(&item), Some((header, Bytes::from_static(b"OPTI"))));
        assert_eq!(parse(&item[..item.len() - 1]), None, "shorter than it says");
        item[48] = 9;
        assert_eq!(parse(&item), None, "unknown kind");
        assert_eq!(parse(&[]), None);
    }
}
