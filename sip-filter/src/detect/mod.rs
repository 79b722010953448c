//! Pure detection: observations in, decisions out; time is passed in, nothing is read or written.

mod bounded;
mod config;
mod engine;
mod offences;
mod rule;
mod sample;
mod signature;
mod window;

use std::{net::IpAddr, time::Duration};

use sip_filter_common::{
    abi::{EventHeader, EventKind},
    sip::Class,
};

pub use self::{
    config::{DetectConfig, RuleSettings, SignatureSettings},
    engine::{Engine, EngineStats},
    rule::Rule,
};
use crate::bans::{Evidence, Target};

/// One thing seen on the wire, live from the kernel's ring buffer or from a capture.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Time of the packet on the clock of its source (boot time, or the capture's); not assumed to be monotonic.
    pub time: Duration,
    /// Source address.
    pub source: IpAddr,
    /// Source port.
    pub source_port: u16,
    /// Destination address.
    pub destination: IpAddr,
    /// Destination port.
    pub destination_port: u16,
    /// IP protocol number, 17 or 6.
    pub protocol: u8,
    /// Traffic class.
    pub class: Class,
    /// Admitted packet with payload, or packets over a limit.
    pub kind: EventKind,
    /// Packets this stands for, at least 1.
    pub count: u32,
    /// The first bytes of the payload.
    pub payload: &'a [u8],
}

impl<'a> Observation<'a> {
    /// What the data plane reported. `None` for an event of a kind or class this version does not know.
    #[must_use]
    pub fn from_event(header: &EventHeader, payload: &'a [u8]) -> Option<Self> {
        Some(Self {
            time: Duration::from_nanos(header.time),
            source: header.source.to_ip(),
            source_port: header.source_port,
            destination: header.destination.to_ip(),
            destination_port: header.destination_port,
            protocol: header.protocol,
            class: Class::from_number(header.class)?,
            kind: EventKind::from_number(header.kind)?,
            count: header.count.max(1),
            payload,
        })
    }
}

/// What a rule decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// When, on the clock of the observations.
    pub time: Duration,
    /// Whom it concerns.
    pub target: Target,
    /// Which rule.
    pub rule: Rule,
    /// How long to ban.
    pub ban_for: Duration,
    /// Decide and report only, do not enforce.
    pub shadow: bool,
    /// How often this target was banned before, within the memory of the engine.
    pub earlier_offences: u32,
    /// What the rule saw; its wall-clock times are those of [`Engine::wall`].
    pub evidence: Evidence,
}
