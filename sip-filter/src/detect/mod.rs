//! Pure detection: observations in, conclusions out; time is passed in, nothing is read or written.

mod accounts;
mod bounded;
mod conclusion;
mod config;
mod engine;
mod exchanges;
mod keys;
mod networks;
mod offences;
mod rule;
mod sample;
mod signature;
mod standings;
mod trials;
mod window;

use std::{net::IpAddr, time::Duration};

use sip_filter_common::{
    abi::{EventHeader, EventKind},
    sip::Class,
};

pub use self::{
    conclusion::{Alarm, AtHome, Conclusion, Counter, Decision, Proof, Proven, Standing, Trusted},
    config::{
        AccountScanSettings, AuthFailureSettings, DetectConfig, DialplanSettings, DistributedSettings,
        NetworkSettings, RuleSettings, SignatureSettings,
    },
    engine::{Engine, EngineStats, counts},
    rule::Rule,
};

/// One thing seen on the wire, live from the kernel's ring buffer or from a capture.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Time of the packet on the clock of its source (boot time, or the capture's); not assumed to be monotonic.
    pub time: Duration,
    /// Address of the remote party, be it the sender or whom a response goes to.
    pub source: IpAddr,
    /// Its port.
    pub source_port: u16,
    /// Our address.
    pub destination: IpAddr,
    /// Our port.
    pub destination_port: u16,
    /// IP protocol number, 17 or 6.
    pub protocol: u8,
    /// Traffic class.
    pub class: Class,
    /// Admitted packet with payload, packets over a limit, or a response to the source.
    pub kind: EventKind,
    /// IPv4 time to live or IPv6 hop limit of the packet.
    pub hops: u8,
    /// The kernel program took the source for trusted, but this packet, as all that it stands for, did not come from an
    /// endpoint of the source that is known.
    pub stray: bool,
    /// Packets this stands for, at least 1.
    pub count: u32,
    /// The first bytes of the payload.
    pub payload: &'a [u8],
}

impl<'a> Observation<'a> {
    /// What the data plane reported. `None` for a copy of a dropped frame, which is for captures only, and for an
    /// event of a kind or class this version does not know.
    #[must_use]
    pub fn from_event(header: &EventHeader, payload: &'a [u8]) -> Option<Self> {
        let kind = EventKind::from_number(header.kind).filter(|kind| *kind != EventKind::Dropped)?;
        Some(Self {
            time: Duration::from_nanos(header.time),
            source: header.source.to_ip(),
            source_port: header.source_port,
            destination: header.destination.to_ip(),
            destination_port: header.destination_port,
            protocol: header.protocol,
            class: Class::from_number(header.class)?,
            kind,
            hops: header.hops,
            stray: header.stray != 0,
            count: header.count.max(1),
            payload,
        })
    }
}
