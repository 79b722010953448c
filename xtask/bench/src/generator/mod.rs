//! Traffic: a frame, and how each one differs from the last.

mod frame;
#[path = "../../../../sip-filter-ebpf/src/bench/plan.rs"]
pub(super) mod plan;

use std::net::{Ipv4Addr, Ipv6Addr};

pub(super) use frame::{Payload, Shape, arp};
use plan::{Plan, address};

/// The upper half of the IPv4 addresses, where banned networks lie. Addresses of sources have this bit clear unless
/// they are said to lie in such a network.
pub(super) const NETWORKS: u32 = 1 << 31;

/// Which sources send.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sources {
    /// Index of the first.
    pub(super) first: u32,
    /// How many.
    pub(super) count: u32,
    /// In networks: [`NETWORKS`].
    pub(super) base: u32,
    /// In random order.
    pub(super) random: bool,
}

impl Sources {
    /// So many from `first` on, one after the other.
    pub(super) const fn from(first: u32, count: u32) -> Self {
        Self {
            first,
            count,
            base: 0,
            random: false,
        }
    }

    pub(super) const fn random(self) -> Self {
        Self { random: true, ..self }
    }

    pub(super) const fn in_networks(self) -> Self {
        Self {
            base: NETWORKS,
            ..self
        }
    }
}

/// A frame and how it is varied.
#[derive(Debug, Clone)]
pub(super) struct Traffic {
    pub(super) frame: Vec<u8>,
    pub(super) plan: Plan,
    /// Variants of the first bytes of the payload.
    pub(super) heads: Vec<[u64; 4]>,
}

/// The IPv4 source of this index.
pub(super) fn source4(index: u32, base: u32) -> Ipv4Addr {
    Ipv4Addr::from(address(index) | base)
}

/// The /64 of the IPv6 source of this index.
pub(super) fn prefix6(index: u32, base: u32) -> Ipv6Addr {
    Ipv6Addr::from(u128::from(frame::PREFIX6) << 96 | u128::from(address(index) | base) << 64)
}
