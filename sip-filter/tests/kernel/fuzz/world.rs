//! A world: sizes, ports and configuration to begin with, and then an endless stream of steps, all from one number.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use ipnet::IpNet;
use sip_filter::{
    bans::{Endpoint, Scope, Target},
    dataplane::TableSizes,
};
use sip_filter_common::abi::{Config, Limit, flags};

use super::{packets::Packets, payloads::Corpus, random::Random};

const SECOND: u64 = 1_000_000_000;
/// What certainly fits into the first buffer of a test frame: a page less room for others.
pub(super) const LINEAR: usize = 3_000;
/// Ethernet and IPv6.
pub(super) const SHORTEST_LEAVING: usize = 14 + 40;

/// What happens to both data planes.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    Ban(Target, Scope, Option<Duration>),
    Unban(Target),
    Allow(Vec<IpNet>),
    Trust(Target, Option<Duration>),
    Home(Endpoint, Option<Duration>),
    Configure(Box<Config>),
    Protect(Ports),
    Packet(Packet),
}

/// A frame and when it comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) frame: Vec<u8>,
    /// How much of it can be read directly; all of it if there is none.
    pub(crate) linear: Option<u32>,
    /// Boot time, nanoseconds.
    pub(crate) now: u64,
    /// Whether it leaves the server.
    pub(crate) leaves: bool,
}

/// Protected ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ports {
    pub(crate) udp: Vec<u16>,
    pub(crate) tcp: Vec<u16>,
}

impl Ports {
    fn random(random: &mut Random) -> Self {
        let mut some = |usual: &[u16]| {
            let mut ports = usual.to_vec();
            for _ in 0..random.below(3) {
                ports.push(random.half());
            }
            if random.once_in(16) {
                ports.clear();
            }
            ports
        };
        Self {
            udp: some(&[5060]),
            tcp: some(&[5060, 5061]),
        }
    }
}

/// The addresses of a world: few enough that packets meet entries.
pub(super) struct Pool {
    v4: Vec<u32>,
    v6: Vec<u128>,
    pub(super) ports: [u16; 3],
    pub(super) hops: [u8; 4],
}

impl Pool {
    fn random(random: &mut Random) -> Self {
        let (base4, base6) = (random.next() as u32, u128::from(random.next()) << 64);
        let v4 = (0..24).map(|_| base4 ^ (random.next() as u32 & ((1 << random.below(24)) - 1)));
        let mut v4: Vec<u32> = v4.collect();
        v4.extend([0, u32::MAX, 0x7f00_0001, 0xcb00_7107, 0xe000_0001]);
        let v6 = (0..24).map(|_| {
            let bits = random.below(100);
            let low = u128::from(random.next()) << 64 | u128::from(random.next());
            base6 ^ (low & ((1 << bits) - 1))
        });
        let mut v6: Vec<u128> = v6.collect();
        v6.extend([
            0,
            1,
            u128::MAX,
            0x2001_0db8_0001_0002_0000_0000_0000_0007,
            0xffff_cb00_7107,
        ]);
        Self {
            v4,
            v6,
            ports: [5060, 40_000, 1_024],
            hops: [64, 63, 255, 1],
        }
    }

    pub(super) fn v4(&self, random: &mut Random) -> u32 {
        match random.below(16) {
            0 => random.next() as u32,
            1 => random.pick(&self.v4) ^ 1 << random.below(32),
            _ => *random.pick(&self.v4),
        }
    }

    pub(super) fn v6(&self, random: &mut Random) -> u128 {
        match random.below(16) {
            0 => u128::from(random.next()) << 64 | u128::from(random.next()),
            1..4 => random.pick(&self.v6) ^ 1 << random.below(128),
            _ => *random.pick(&self.v6),
        }
    }

    fn address(&self, random: &mut Random) -> IpAddr {
        if random.once_in(2) {
            Ipv4Addr::from(self.v4(random)).into()
        } else {
            Ipv6Addr::from(self.v6(random)).into()
        }
    }
}

/// What a world begins with.
#[derive(Clone)]
pub(crate) struct Start {
    pub(crate) sizes: TableSizes,
    pub(crate) config: Config,
    pub(crate) ports: Ports,
}

/// A world, and the steps in it.
pub(super) struct World {
    pub(super) start: Start,
    pool: Pool,
    random: Random,
    now: u64,
    config: Config,
    ports: Ports,
}

impl World {
    /// World `number` of a seed. The same for the same two numbers, whatever the outcome of anything.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Random::of(seed, number);
        let prefix = random.weighted(&[
            (6, 64),
            (2, 56),
            (2, 48),
            (1, 32),
            (1, 33 + random_below(seed ^ number, 31)),
        ]);
        let config = config(
            &mut random,
            [seed.rotate_left(17) ^ number, number.wrapping_mul(0x9e37_79b9)],
            prefix,
        );
        let ports = Ports::random(&mut random);
        let sources = *random.pick(&[16, 256, 4_096]);
        let sizes = TableSizes {
            ban4: 300,
            ban6: 200,
            ban6_hosts: 100,
            networks: 1_024,
            sources,
            trust: 100,
            endpoints: 100,
        };
        let pool = Pool::random(&mut random);
        // Mostly soon after boot; sometimes where the numbers of windows and of units of time wrap.
        let now = match random.below(8) {
            0 => (1 << 58) - 5 * SECOND,
            1 => random.next() >> 8,
            _ => 1_000 * SECOND + (random.next() >> 34),
        };
        let start = Start {
            sizes,
            config,
            ports: ports.clone(),
        };
        Self {
            start,
            pool,
            random,
            now,
            config,
            ports,
        }
    }

    /// The next steps: some changes, then so many packets.
    pub(super) fn batch(&mut self, corpus: &Corpus, packets: usize) -> Vec<Step> {
        let mut steps = Vec::with_capacity(packets + 8);
        if self.random.once_in(40) {
            self.crowd(&mut steps);
        }
        for _ in 0..self.random.below(8) {
            let step = self.change();
            steps.push(step);
        }
        let mut source = Packets::new(corpus, &self.pool);
        let random = &mut self.random;
        for _ in 0..packets {
            self.now += forward(random);
            let leaves = random.once_in(8);
            let mut frame = source.next(random, &self.ports, leaves);
            if leaves {
                frame.truncate(LINEAR);
                // The kernel neither sends nor tests a packet without an IP header.
                frame.resize(frame.len().max(SHORTEST_LEAVING), 0);
            }
            let linear = part(random, frame.len()).filter(|_| !leaves);
            steps.push(Step::Packet(Packet {
                frame,
                linear,
                now: self.now,
                leaves,
            }));
        }
        steps
    }

    fn change(&mut self) -> Step {
        let random = &mut self.random;
        let until = expiry(random, self.now);
        let scope = if random.once_in(2) { Scope::Sip } else { Scope::All };
        let prefix = self.config.source_prefix6 as u8;
        match random.below(32) {
            0..12 => Step::Ban(target(random, &self.pool, prefix), scope, until),
            12..20 => Step::Unban(target(random, &self.pool, prefix)),
            20..22 => {
                let networks = (0..random.below(5)).map(|_| target(random, &self.pool, prefix).net());
                Step::Allow(networks.collect())
            }
            22..25 => {
                let source = Target::of_source(self.pool.address(random), prefix);
                Step::Trust(source, until.filter(|_| !random.once_in(4)))
            }
            25..29 => {
                let endpoint = Endpoint {
                    address: self.pool.address(random),
                    protocol: *random.pick(&[17, 17, 6]),
                    port: *random.pick(&self.pool.ports),
                    hops: *random.pick(&self.pool.hops),
                };
                Step::Home(endpoint, until.filter(|_| !random.once_in(4)))
            }
            29 => {
                self.ports = Ports::random(random);
                Step::Protect(self.ports.clone())
            }
            _ => {
                self.config = config(random, self.config.seed, self.config.source_prefix6);
                Step::Configure(Box::new(self.config))
            }
        }
    }

    /// Bans that fill the tables, so that entries move and go to their second buckets.
    fn crowd(&mut self, steps: &mut Vec<Step>) {
        let random = &mut self.random;
        let (base4, base6) = (self.pool.v4[0], self.pool.v6[0]);
        for _ in 0..random.below(400) {
            let address: IpAddr = if random.once_in(2) {
                Ipv4Addr::from(base4 ^ random.half() as u32).into()
            } else {
                Ipv6Addr::from(base6 ^ u128::from(random.half()) << (64 * random.below(2))).into()
            };
            let target = if random.once_in(3) {
                Target::address(address)
            } else {
                Target::of_source(address, self.config.source_prefix6 as u8)
            };
            let until = expiry(random, self.now);
            steps.push(if random.once_in(5) {
                Step::Unban(target)
            } else {
                Step::Ban(target, Scope::Sip, until)
            });
        }
    }
}

const fn random_below(from: u64, bound: u32) -> u32 {
    (from % bound as u64) as u32
}

/// How much of a frame can be read directly: all of it, or only so much.
fn part(random: &mut Random, length: usize) -> Option<u32> {
    if length > LINEAR {
        return Some(random.below(LINEAR) as u32);
    }
    let within = if random.once_in(3) {
        length
    } else {
        length.min(130)
    };
    random.once_in(6).then(|| random.below(within + 1) as u32)
}

/// How far the clock goes until the next packet.
fn forward(random: &mut Random) -> u64 {
    match random.below(400) {
        0..200 => 0,
        200..390 => random.next() % 1_000_000,
        390..396 => random.next() % (1 << 26),
        396..398 => random.next() % (1 << 29),
        398 => random.next() % (20 * SECOND),
        _ if random.once_in(8) => random.next() % (7_200 * SECOND),
        _ => 1,
    }
}

/// An end around now, often past already; none for what lasts.
fn expiry(random: &mut Random, now: u64) -> Option<Duration> {
    let end = match random.below(6) {
        0 => return None,
        1 => now,
        2 => now.saturating_sub(random.next() % (10 * SECOND)),
        3 => now + random.next() % SECOND,
        _ => now + random.next() % (120 * SECOND),
    };
    Some(Duration::from_nanos(end))
}

/// An address, the prefix by which a source is counted, or a network of any length.
fn target(random: &mut Random, pool: &Pool, prefix: u8) -> Target {
    let address = pool.address(random);
    match random.below(4) {
        0 => Target::address(address),
        1 => Target::of_source(address, prefix),
        _ => {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            // The widest hold everything, and those less wide set many bits of the coverage; both are rare.
            let usual = if address.is_ipv4() { 18 } else { 44 };
            let shortest = if random.once_in(20) { 0 } else { usual };
            let length = shortest + random.below(longest - shortest + 1);
            Target::network(IpNet::new(address, length as u8).unwrap())
        }
    }
}

fn limit(random: &mut Random) -> Limit {
    match random.below(8) {
        0 | 1 => Limit::UNLIMITED,
        2 => Limit::new(1, SECOND, 1),
        3 => Limit::new(10, SECOND, 5),
        4 => Limit::new(1 + random.next() % 1_000, SECOND, 1 + random.next() % 50),
        5 => Limit::new(1 + random.next() % 50, 60 * SECOND, 1 + random.next() % 20),
        6 => Limit::new(100_000, SECOND, 1_000),
        _ if random.once_in(8) => Limit {
            interval: random.next(),
            tolerance: random.next(),
        },
        _ => Limit::new(2, SECOND, 3),
    }
}

fn config(random: &mut Random, seed: [u64; 2], source_prefix6: u32) -> Config {
    let simulate = if random.once_in(4) { flags::SIMULATE } else { 0 };
    let capture = if random.once_in(4) {
        flags::CAPTURE_DROPS
    } else {
        0
    };
    let budgets = random.once_in(2);
    let mut budget = || if budgets { limit(random) } else { Limit::UNLIMITED };
    let (unknown_budget, fresh_budget) = (
        std::array::from_fn(|_| budget()),
        std::array::from_fn(|_| budget()),
    );
    Config {
        seed,
        flags: simulate | capture,
        source_prefix6,
        snapshot_bytes: *random.pick(&[512, 512, 0, 1, 31, 1_024, 1_025, 9_000]),
        snapshots_per_source: random.below(5) as u32,
        events_per_window: *random.pick(&[0, 1, 8, 64, 64, 500]),
        responses_per_source: random.below(5) as u32,
        drop_captures_per_window: random.below(9) as u32,
        limits: std::array::from_fn(|_| limit(random)),
        unknown_budget,
        fresh_budget,
    }
}
