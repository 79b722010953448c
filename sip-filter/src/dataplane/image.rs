//! The ban list's image in flat tables and trie; the same for the kernel and for captures.

use std::{io, net::IpAddr, time::Duration};

use ipnet::IpNet;
use sip_filter_common::{
    abi::flags,
    packet::Ip,
    pipeline::prefix6,
    table::{
        BanTable, Fate,
        ban::{V4, V6Host, V6Prefix},
        endpoint_key,
    },
};

use super::{
    Cursor, Image, ImageError, KernelBan, TableFill,
    memory::Words,
    networks::{NetworkMemory, Networks, Trie},
};
use crate::bans::{Endpoint, Scope, Target};

/// Memory of the tables of one data plane.
pub(crate) struct TableMemory {
    pub(crate) ban4: Words,
    pub(crate) ban6: Words,
    pub(crate) ban6_host: Words,
    pub(crate) trust4: Words,
    pub(crate) trust6: Words,
    pub(crate) endpoints: Words,
    pub(crate) networks: NetworkMemory,
}

/// Told whenever the flags of the configuration have to change, before the call that caused it returns.
pub(crate) type FlagsChanged = Box<dyn FnMut(u64) -> io::Result<()> + Send>;

/// Packets stopped so far by bans of addresses and by bans of networks, exact.
pub(crate) type Stopped = Box<dyn FnMut() -> [u64; 2] + Send>;

pub(crate) struct TableImage<T> {
    interface: String,
    seed: [u64; 2],
    source_prefix6: u8,
    ban4: BanTable<V4, Words>,
    ban6: BanTable<V6Prefix, Words>,
    ban6_host: BanTable<V6Host, Words>,
    trust4: BanTable<V4, Words>,
    trust6: BanTable<V6Prefix, Words>,
    endpoints: BanTable<V6Prefix, Words>,
    networks: Networks<T>,
    network_capacity: usize,
    flags: u64,
    flags_changed: FlagsChanged,
    /// Absent where nothing else counts.
    stopped: Option<Stopped>,
    /// Of what it says, how much was reported as hits.
    reported: [u64; 2],
    harvest: Harvest,
}

/// Hits on their way from the tables, see [`Image::take_some_hits`].
#[derive(Default)]
struct Harvest {
    /// The next part to look at, while a look is under way.
    at: Option<Cursor>,
    /// Packets stopped by addresses and networks when the look began that are yet to be reported; where nothing else
    /// counts, there is nothing to go by.
    exact: Option<[u64; 2]>,
    /// What the tables have counted, addresses and networks.
    counted: [Vec<(Target, u64)>; 2],
    /// What is to be reported.
    ready: Vec<(Target, u64)>,
}

/// Tables of addresses; those of networks come behind them.
const EXACT_TABLES: usize = 3;

/// Hits reported at once.
const REPORTED: usize = 512;

/// Where a target lives.
enum Place {
    V4(u32),
    V6(u64),
    Host6([u64; 2]),
    Network(IpNet),
}

impl<T: Trie> TableImage<T> {
    pub(crate) fn new(
        interface: &str,
        (seed, source_prefix6): ([u64; 2], u8),
        memory: TableMemory,
        (trie, network_capacity): (T, u32),
        flags_changed: FlagsChanged,
    ) -> Self {
        Self {
            interface: interface.to_owned(),
            seed,
            source_prefix6,
            ban4: BanTable::new(memory.ban4, seed),
            ban6: BanTable::new(memory.ban6, seed),
            ban6_host: BanTable::new(memory.ban6_host, seed),
            trust4: BanTable::new(memory.trust4, seed),
            trust6: BanTable::new(memory.trust6, seed),
            endpoints: BanTable::new(memory.endpoints, seed),
            networks: Networks::new(trie, seed, memory.networks),
            network_capacity: network_capacity as usize,
            flags: 0,
            flags_changed,
            stopped: None,
            reported: [0; 2],
            harvest: Harvest::default(),
        }
    }

    /// Makes hits add up to what was really stopped, and spares the look at the tables when nothing was.
    pub(crate) fn with_stopped(mut self, stopped: Stopped) -> Self {
        self.stopped = Some(stopped);
        self
    }

    fn place(&self, target: Target) -> Place {
        let net = target.net();
        match net {
            IpNet::V4(v4) if v4.prefix_len() == 32 => Place::V4(u32::from(v4.addr())),
            IpNet::V6(v6) if v6.prefix_len() == self.source_prefix6 => {
                Place::V6(prefix6(high(v6.addr()), u32::from(self.source_prefix6)))
            }
            IpNet::V6(v6) if v6.prefix_len() == 128 => {
                Place::Host6([high(v6.addr()), u128::from(v6.addr()) as u64])
            }
            _ => Place::Network(net),
        }
    }

    fn publish_flags(&mut self) -> io::Result<()> {
        let mut wanted = self.networks.flags();
        let stops_all = self.ban4.stops_all()
            || self.ban6.stops_all()
            || self.ban6_host.stops_all()
            || self.networks.stops_all();
        for (flag, is_empty) in [
            (flags::BANS4, self.ban4.is_empty()),
            (flags::BANS6, self.ban6.is_empty()),
            (flags::ALL, !stops_all),
            (flags::HOSTS6, self.ban6_host.is_empty()),
            (flags::TRUST4, self.trust4.is_empty()),
            (flags::TRUST6, self.trust6.is_empty()),
        ] {
            wanted |= if is_empty { 0 } else { flag };
        }
        if wanted != self.flags {
            (self.flags_changed)(wanted)?;
            self.flags = wanted;
        }
        Ok(())
    }

    /// Begins a look at hits; whether there can be any.
    fn begin_harvest(&mut self) -> bool {
        let reported = self.reported;
        self.harvest.exact = self.stopped.as_mut().map(|stopped| {
            let [by_address, by_network] = stopped();
            [
                by_address.saturating_sub(reported[0]),
                by_network.saturating_sub(reported[1]),
            ]
        });
        if self.harvest.exact == Some([0, 0]) {
            return false;
        }
        self.harvest.at = Some(Cursor::default());
        true
    }

    /// Takes the hit counters of a part of the tables; returns the next part.
    fn count_hits(&mut self, part: Cursor) -> Option<Cursor> {
        let [by_address, by_network] = &mut self.harvest.counted;
        let of_networks = part.table >= EXACT_TABLES;
        if self
            .harvest
            .exact
            .is_some_and(|exact| exact[usize::from(of_networks)] == 0)
        {
            let next = Cursor {
                table: EXACT_TABLES,
                bucket: 0,
            };
            return (!of_networks).then_some(next);
        }
        let (first, prefix) = (part.bucket, self.source_prefix6);
        let buckets = match part.table {
            0 => self.ban4.take_hits_in(first, Cursor::PART, |key, hits| {
                by_address.push((of_v4(key), hits));
            }),
            1 => self.ban6.take_hits_in(first, Cursor::PART, |key, hits| {
                by_address.push((of_v6(key, prefix), hits));
            }),
            2 => self.ban6_host.take_hits_in(first, Cursor::PART, |key, hits| {
                by_address.push((of_host6(key), hits));
            }),
            table => {
                let part = Cursor {
                    table: table - EXACT_TABLES,
                    ..part
                };
                let next = self.networks.take_some_hits(part, &mut |net, hits| {
                    by_network.push((Target::network(net), hits));
                })?;
                return Some(Cursor {
                    table: next.table + EXACT_TABLES,
                    ..next
                });
            }
        };
        Some(part.behind(buckets))
    }

    /// Brings what was counted to what was stopped.
    fn end_harvest(&mut self) {
        let counted = std::mem::take(&mut self.harvest.counted);
        for (index, counted) in counted.into_iter().enumerate() {
            let hits = match self.harvest.exact {
                Some(exact) => scaled(counted, exact[index]),
                None => counted,
            };
            if self.stopped.is_some() {
                self.reported[index] += hits.iter().map(|(_, hits)| hits).sum::<u64>();
            }
            self.harvest.ready.extend(hits);
        }
    }

    fn full(&self, table: &'static str, entries: usize, setting: &'static str) -> ImageError {
        ImageError::Full {
            interface: self.interface.clone(),
            table,
            entries,
            setting,
        }
    }

    fn kernel(&self, table: &'static str, source: io::Error) -> ImageError {
        ImageError::Kernel {
            interface: self.interface.clone(),
            table,
            source,
        }
    }

    fn network_error(&self, error: io::Error) -> ImageError {
        if error.raw_os_error() == Some(libc::ENOSPC) {
            return self.full(
                "network",
                self.networks.len().into_iter().max().unwrap_or(0),
                "tables.networks",
            );
        }
        self.kernel("network", error)
    }
}

impl<T: Trie> Image for TableImage<T> {
    fn put(&mut self, target: Target, ban: KernelBan) -> Result<(), ImageError> {
        let fate = fate(ban);
        match self.place(target) {
            Place::V4(key) => self
                .ban4
                .insert(key, fate)
                .map_err(|_| self.full("IPv4 ban", self.ban4.len(), "tables.ban4"))?,
            Place::V6(key) => self
                .ban6
                .insert(key, fate)
                .map_err(|_| self.full("IPv6 prefix ban", self.ban6.len(), "tables.ban6"))?,
            Place::Host6(key) => self
                .ban6_host
                .insert(key, fate)
                .map_err(|_| self.full("IPv6 address ban", self.ban6_host.len(), "tables.ban6_hosts"))?,
            Place::Network(net) => self
                .networks
                .put(net, fate)
                .map_err(|error| self.network_error(error))?,
        }
        self.publish_flags()
            .map_err(|error| self.kernel("configuration", error))
    }

    fn remove(&mut self, target: Target) -> Result<(), ImageError> {
        let unreported = match self.place(target) {
            Place::V4(key) => self.ban4.remove(key),
            Place::V6(key) => self.ban6.remove(key),
            Place::Host6(key) => self.ban6_host.remove(key),
            Place::Network(net) => {
                let unreported = self
                    .networks
                    .remove(net)
                    .map_err(|error| self.network_error(error))?;
                self.reported[1] += unreported;
                None
            }
        };
        // They are not anybody else's.
        self.reported[0] += unreported.unwrap_or(0);
        self.publish_flags()
            .map_err(|error| self.kernel("configuration", error))
    }

    fn set_allowed(&mut self, networks: &[IpNet]) -> Result<(), ImageError> {
        self.networks
            .set_allowed(networks)
            .map_err(|error| self.network_error(error))?;
        self.publish_flags()
            .map_err(|error| self.kernel("configuration", error))
    }

    fn fetch(&self, bans: &[(Target, KernelBan)]) {
        for (target, _) in bans {
            match self.place(*target) {
                Place::V4(key) => self.ban4.fetch(key),
                Place::V6(key) => self.ban6.fetch(key),
                Place::Host6(key) => self.ban6_host.fetch(key),
                // Few, and not reached by one look.
                Place::Network(_) => {}
            }
        }
    }

    fn get(&self, target: Target) -> Option<KernelBan> {
        let fate = match self.place(target) {
            Place::V4(key) => self.ban4.get(key),
            Place::V6(key) => self.ban6.get(key),
            Place::Host6(key) => self.ban6_host.get(key),
            Place::Network(net) => self.networks.get(net),
        };
        fate.exists().then(|| kernel_ban(fate))
    }

    fn visit_exact(&self, from: Cursor, visit: &mut dyn FnMut(Target, KernelBan)) -> Option<Cursor> {
        let (first, prefix) = (from.bucket, self.source_prefix6);
        let buckets = match from.table {
            0 => self.ban4.for_each_in(first, Cursor::PART, |key, fate| {
                visit(of_v4(key), kernel_ban(fate));
            }),
            1 => self.ban6.for_each_in(first, Cursor::PART, |key, fate| {
                visit(of_v6(key, prefix), kernel_ban(fate));
            }),
            2 => self.ban6_host.for_each_in(first, Cursor::PART, |key, fate| {
                visit(of_host6(key), kernel_ban(fate));
            }),
            _ => return None,
        };
        let next = from.behind(buckets);
        (next.table < EXACT_TABLES).then_some(next)
    }

    fn recount(&mut self) {
        self.ban4.recount();
        self.ban6.recount();
        self.ban6_host.recount();
    }

    fn set_trust(&mut self, target: Target, until: Option<Duration>) -> Result<(), ImageError> {
        match (self.place(target), until.map(fate_of_trust)) {
            (Place::V4(key), Some(fate)) => self
                .trust4
                .insert(key, fate)
                .map_err(|_| self.full("IPv4 trust", self.trust4.len(), "tables.trust"))?,
            (Place::V6(key), Some(fate)) => self
                .trust6
                .insert(key, fate)
                .map_err(|_| self.full("IPv6 trust", self.trust6.len(), "tables.trust"))?,
            (Place::V4(key), None) => drop(self.trust4.remove(key)),
            (Place::V6(key), None) => drop(self.trust6.remove(key)),
            (Place::Host6(_) | Place::Network(_), _) => return Err(ImageError::NotASource(target)),
        }
        self.publish_flags()
            .map_err(|error| self.kernel("configuration", error))
    }

    fn set_endpoint(&mut self, endpoint: Endpoint, until: Option<Duration>) -> Result<(), ImageError> {
        let key = endpoint_key(
            self.seed,
            source(endpoint.address),
            (endpoint.protocol, endpoint.port, endpoint.hops),
        );
        match until.map(fate_of_trust) {
            Some(fate) => self
                .endpoints
                .insert(key, fate)
                .map_err(|_| self.full("endpoint", self.endpoints.len(), "tables.endpoints")),
            None => {
                self.endpoints.remove(key);
                Ok(())
            }
        }
    }

    fn room_for(&self, new: &[Target]) -> Result<(), ImageError> {
        let (mut v4, mut v6, mut hosts6) = (self.ban4.len(), self.ban6.len(), self.ban6_host.len());
        for target in new {
            match self.place(*target) {
                Place::V4(_) => v4 += 1,
                Place::V6(_) => v6 += 1,
                Place::Host6(_) => hosts6 += 1,
                // The trie takes them as long as there is memory.
                Place::Network(_) => {}
            }
        }
        if v4 > self.ban4.capacity() {
            return Err(self.full("IPv4 ban", self.ban4.len(), "tables.ban4"));
        }
        if v6 > self.ban6.capacity() {
            return Err(self.full("IPv6 prefix ban", self.ban6.len(), "tables.ban6"));
        }
        if hosts6 > self.ban6_host.capacity() {
            return Err(self.full("IPv6 address ban", self.ban6_host.len(), "tables.ban6_hosts"));
        }
        Ok(())
    }

    fn fill(&self) -> Vec<TableFill> {
        let flat = |name, setting, entries, slots: usize| TableFill {
            name,
            setting,
            entries,
            capacity: slots * 85 / 100,
        };
        let [networks4, networks6] = self.networks.len();
        let trie = |name, entries| TableFill {
            name,
            setting: "tables.networks",
            entries,
            capacity: self.network_capacity,
        };
        vec![
            flat("ban4", "tables.ban4", self.ban4.len(), self.ban4.capacity()),
            flat("ban6", "tables.ban6", self.ban6.len(), self.ban6.capacity()),
            flat(
                "ban6_hosts",
                "tables.ban6_hosts",
                self.ban6_host.len(),
                self.ban6_host.capacity(),
            ),
            flat(
                "trust4",
                "tables.trust",
                self.trust4.len(),
                self.trust4.capacity(),
            ),
            flat(
                "trust6",
                "tables.trust",
                self.trust6.len(),
                self.trust6.capacity(),
            ),
            flat(
                "endpoints",
                "tables.endpoints",
                self.endpoints.len(),
                self.endpoints.capacity(),
            ),
            trie("networks4", networks4),
            trie("networks6", networks6),
        ]
    }

    fn take_some_hits(&mut self, report: &mut dyn FnMut(Target, u64)) -> bool {
        if !self.harvest.ready.is_empty() {
            let left = self.harvest.ready.len().saturating_sub(REPORTED);
            let some = self.harvest.ready.split_off(left);
            some.into_iter().for_each(|(target, hits)| report(target, hits));
            return left > 0;
        }
        if self.harvest.at.is_none() && !self.begin_harvest() {
            return false;
        }
        self.harvest.at = self.harvest.at.and_then(|part| self.count_hits(part));
        if self.harvest.at.is_some() {
            return true;
        }
        self.end_harvest();
        !self.harvest.ready.is_empty()
    }
}

fn of_v4(key: u32) -> Target {
    Target::address(std::net::Ipv4Addr::from(key).into())
}

fn of_v6(key: u64, prefix: u8) -> Target {
    let address = std::net::Ipv6Addr::from(u128::from(key) << 64);
    Target::of_source(address.into(), prefix)
}

fn of_host6([high, low]: [u64; 2]) -> Target {
    let address = std::net::Ipv6Addr::from(u128::from(high) << 64 | u128::from(low));
    Target::address(address.into())
}

/// Hits up to this are exact, see [`sip_filter_common::table`].
const EXACT_HITS: u64 = 31;

/// Brings estimated hits to the exact number of packets that all of them together stopped. A single flooder's are exact
/// then, and of several at least the sum is.
fn scaled(mut counted: Vec<(Target, u64)>, exact: u64) -> Vec<(Target, u64)> {
    let sum = |estimated: bool, counted: &[(Target, u64)]| -> u64 {
        let kind = counted
            .iter()
            .filter(|(_, hits)| (*hits > EXACT_HITS) == estimated);
        kind.map(|(_, hits)| hits).sum()
    };
    let (small, estimated) = (sum(false, &counted), sum(true, &counted));
    if estimated == 0 {
        return counted;
    }
    let wanted = u128::from(exact.saturating_sub(small).max(1));
    for (_, hits) in counted.iter_mut().filter(|(_, hits)| *hits > EXACT_HITS) {
        let share = u128::from(*hits) * wanted / u128::from(estimated);
        *hits = u64::try_from(share).unwrap_or(u64::MAX).max(1);
    }
    counted
}

fn high(address: std::net::Ipv6Addr) -> u64 {
    (u128::from(address) >> 64) as u64
}

/// An address as the kernel program reads it from a packet.
pub(crate) fn source(address: IpAddr) -> Ip {
    match address {
        IpAddr::V4(v4) => Ip::V4(u32::from(v4)),
        IpAddr::V6(v6) => Ip::V6([high(v6), u128::from(v6) as u64]),
    }
}

/// The scope of a fate means nothing for trust.
fn fate_of_trust(until: Duration) -> Fate {
    fate(KernelBan {
        scope: Scope::Sip,
        expires: Some(until),
    })
}

fn kernel_ban(fate: Fate) -> KernelBan {
    KernelBan {
        scope: if fate.all() { Scope::All } else { Scope::Sip },
        expires: fate.expires().map(Duration::from_nanos),
    }
}

fn fate(ban: KernelBan) -> Fate {
    let expires = ban
        .expires
        .map(|time| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
    Fate::new(expires, ban.scope == Scope::All)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn estimates_are_brought_to_the_exact_sum() {
        let target = |n: u8| Target::address([10, 0, 0, n].into());
        let one = scaled(vec![(target(1), 700), (target(2), 20)], 920);
        assert_eq!(
            one,
            [(target(1), 900), (target(2), 20)],
            "one flooder is exact, small ones untouched"
        );
        let two = scaled(vec![(target(1), 100), (target(2), 300)], 800);
        assert_eq!(two, [(target(1), 200), (target(2), 600)]);
        assert_eq!(
            scaled(vec![(target(1), 5)], 900),
            [(target(1), 5)],
            "nothing estimated, nothing scaled"
        );
        assert_eq!(scaled(Vec::new(), 5), []);
    }
}
