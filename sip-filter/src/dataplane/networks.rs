//! Image of banned and allowed networks: in flat tables, and in a longest-prefix-match trie for what those have no room
//! for.
//!
//! A longest match answers with its most specific entry only, so each entry carries the merged effect of all networks around
//! it: otherwise an expired ban of a /28 would hide a lasting one of the /24 around it. Before anything is asked, a
//! bitmap tells whether the source lies near any network at all.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::IpAddr,
    sync::atomic::Ordering,
};

use ipnet::IpNet;
use sip_filter_common::{
    abi::flags,
    packet::Ip,
    pipeline::{COVER_BITS, NetworkValue, cover_bit},
    table::Fate,
};

use super::{Cursor, memory::Words};

mod flat;
use flat::Flat;
pub(crate) use flat::NetworkMemory;

/// A longest-prefix-match table.
pub(crate) trait Trie: Send {
    /// Inserts or replaces an entry.
    fn insert(&mut self, net: IpNet, value: NetworkValue) -> io::Result<()>;
    /// Removes an entry; one that is not there is no error.
    fn remove(&mut self, net: IpNet) -> io::Result<()>;
    /// Reads the longest match for a network: its own entry, if it has one.
    fn get(&self, net: IpNet) -> Option<NetworkValue>;
}

/// IPv4 networks shorter than this set no coverage bits but make the kernel ask the trie always.
const WIDEST_COVERED4: u8 = 8;
/// The same for IPv6.
const WIDEST_COVERED6: u8 = 32;
/// Leading bits of an IPv6 address that a coverage bit stands for.
const COVER_PREFIX6: u8 = 48;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Entry {
    ban: Fate,
    allowed: bool,
    hits_seen: u32,
    /// The trie has an entry of its own for it; else a look-up finds that of a network around it.
    written: bool,
}

/// Networks of both families with what they mean.
pub(crate) struct Networks<T> {
    trie: T,
    flat: Flat,
    seed: [u64; 2],
    cover4: Words,
    cover6: Words,
    covered: HashMap<(bool, u32), u32>,
    wide4: usize,
    wide6: usize,
    entries: BTreeMap<IpNet, Entry>,
    /// IPv4 networks among them.
    count4: usize,
    /// Those whose ban stops everything.
    all: usize,
    /// Hits of the entry removed last.
    unreported: u64,
}

impl<T: Trie> Networks<T> {
    pub(crate) fn new(trie: T, seed: [u64; 2], memory: NetworkMemory) -> Self {
        let (cover4, cover6) = (memory.cover4.clone(), memory.cover6.clone());
        Self {
            trie,
            flat: Flat::new(memory, seed),
            seed,
            cover4,
            cover6,
            covered: HashMap::new(),
            wide4: 0,
            wide6: 0,
            entries: BTreeMap::new(),
            count4: 0,
            all: 0,
            unreported: 0,
        }
    }

    /// Entries of IPv4 and of IPv6.
    pub(crate) fn len(&self) -> [usize; 2] {
        [self.count4, self.entries.len() - self.count4]
    }

    /// Flags of [`sip_filter_common::abi::Config`] that tell the kernel when to ask.
    pub(crate) fn flags(&self) -> u64 {
        let mut bits = 0;
        if self.len()[0] > 0 {
            bits |= flags::NETWORKS4;
        }
        if self.len()[1] > 0 {
            bits |= flags::NETWORKS6;
        }
        if self.wide4 > 0 {
            bits |= flags::WIDE4;
        }
        if self.wide6 > 0 {
            bits |= flags::WIDE6;
        }
        bits
    }

    /// Whether one of the bans stops everything, not only SIP.
    pub(crate) fn stops_all(&self) -> bool {
        self.all > 0
    }

    /// Bans a network, or gives its ban a new fate.
    pub(crate) fn put(&mut self, net: IpNet, ban: Fate) -> io::Result<()> {
        self.change(net, |entry| entry.ban = ban)
    }

    /// Lifts the ban of a network. Returns the hits it had not reported.
    pub(crate) fn remove(&mut self, net: IpNet) -> io::Result<u64> {
        if !self.entries.contains_key(&net) {
            return Ok(0);
        }
        self.change(net, |entry| entry.ban = Fate::NONE)?;
        Ok(std::mem::take(&mut self.unreported))
    }

    /// The ban of exactly this network as the trie has it: the merged fate, never less than the network's own.
    pub(crate) fn get(&self, net: IpNet) -> Fate {
        let own = self.entries.get(&net).map_or(Fate::NONE, |entry| entry.ban);
        let Some(value) = self.trie.get(net).filter(|_| own.exists()) else {
            return Fate::NONE;
        };
        let held = if own.all() { value.all } else { value.sip };
        if held.exists() { own } else { Fate::NONE }
    }

    /// Replaces the set of allowed networks.
    pub(crate) fn set_allowed(&mut self, networks: &[IpNet]) -> io::Result<()> {
        let wanted: std::collections::BTreeSet<IpNet> = networks.iter().map(IpNet::trunc).collect();
        for net in &wanted {
            if !self.entries.get(net).is_some_and(|entry| entry.allowed) {
                self.change(*net, |entry| entry.allowed = true)?;
            }
        }
        let dropped: Vec<IpNet> = self
            .entries
            .iter()
            .filter(|(net, entry)| entry.allowed && !wanted.contains(net))
            .map(|(net, _)| *net)
            .collect();
        for net in dropped {
            self.change(net, |entry| entry.allowed = false)?;
        }
        Ok(())
    }

    /// Reports packets dropped by the entries of each network of a part since the last time; returns the next part. The
    /// last is all of the trie.
    pub(crate) fn take_some_hits(
        &mut self,
        part: Cursor,
        report: &mut dyn FnMut(IpNet, u64),
    ) -> Option<Cursor> {
        if let Some(buckets) = self.flat.take_some_hits(part, report) {
            return Some(part.behind(buckets));
        }
        if self.flat.needs_trie() {
            self.take_hits_of_trie(report);
        }
        None
    }

    fn take_hits_of_trie(&mut self, report: &mut dyn FnMut(IpNet, u64)) {
        for (net, entry) in self.entries.iter_mut().filter(|(_, entry)| entry.written) {
            let Some(value) = self.trie.get(*net) else {
                continue;
            };
            let new = value.hits.wrapping_sub(entry.hits_seen);
            if new > 0 {
                entry.hits_seen = value.hits;
                report(*net, u64::from(new));
            }
        }
    }

    /// Changes one entry and everything that follows from it; undone if the trie has no room.
    fn change(&mut self, net: IpNet, edit: impl FnOnce(&mut Entry)) -> io::Result<()> {
        let before = self.entries.get(&net).copied();
        let mut entry = before.unwrap_or_default();
        edit(&mut entry);
        if before.is_none() {
            self.cover(net);
            self.flat.list(net);
        }
        self.entries.insert(net, entry);
        let gone = !entry.ban.exists() && !entry.allowed;
        let written = if gone {
            self.entries.remove(&net);
            self.unreported = self.flat.remove(net);
            self.trie.remove(net)
        } else {
            self.write(net)
        };
        let written = written.and_then(|()| self.write_inner(net));
        if let Err(error) = written {
            self.restore(net, before);
            return Err(error);
        }
        let all = |entry: Option<Entry>| usize::from(entry.is_some_and(|entry| entry.ban.all()));
        self.all = self.all + all(Some(entry)) - all(before);
        if gone {
            self.flat.unlist(net);
            self.uncover(net);
        }
        Ok(())
    }

    fn restore(&mut self, net: IpNet, before: Option<Entry>) {
        let result = match before {
            Some(entry) => {
                self.entries.insert(net, entry);
                self.write(net)
            }
            None => {
                self.entries.remove(&net);
                self.flat.remove(net);
                self.flat.unlist(net);
                self.uncover(net);
                self.trie.remove(net)
            }
        };
        // What was there fitted before, so this only fails if the kernel refuses everything.
        if let Err(error) = result.and_then(|()| self.write_inner(net)) {
            tracing::error!(%net, %error, "cannot restore a network in the kernel table; restart the daemon to rebuild it");
        }
    }

    /// Writes the merged value of a network.
    fn write(&mut self, net: IpNet) -> io::Result<()> {
        let mut value = NetworkValue::default();
        for around in (0..=net.prefix_len()).filter_map(|length| IpNet::new(net.addr(), length).ok()) {
            let Some(entry) = self.entries.get(&around.trunc()) else {
                continue;
            };
            value.allowed |= u32::from(entry.allowed);
            if entry.ban.all() {
                value.all = later(value.all, entry.ban);
            } else {
                value.sip = later(value.sip, entry.ban);
            }
        }
        let Some(entry) = self.entries.get_mut(&net) else {
            return Ok(());
        };
        if entry.written {
            // The hits go on counting where they were, those of the moment between reading and writing excepted.
            value.hits = self.trie.get(net).map_or(0, |old| old.hits);
        }
        self.trie.insert(net, value)?;
        self.flat.write(net, value.effect())?;
        entry.written = true;
        Ok(())
    }

    /// Writes all networks inside `net`.
    fn write_inner(&mut self, net: IpNet) -> io::Result<()> {
        let inner: Vec<IpNet> = self
            .entries
            .range(net..)
            .take_while(|(inner, _)| net.contains(&inner.addr()))
            .map(|(inner, _)| *inner)
            .filter(|inner| *inner != net)
            .collect();
        inner.into_iter().try_for_each(|inner| self.write(inner))
    }

    fn cover(&mut self, net: IpNet) {
        self.count4 += usize::from(matches!(net, IpNet::V4(_)));
        if let Some(wide) = self.wide(net) {
            *wide += 1;
            return;
        }
        for bit in cover_bits(self.seed, net) {
            let count = self.covered.entry(bit).or_default();
            *count += 1;
            if *count == 1 {
                self.cover_word(bit).fetch_or(1 << (bit.1 & 63), Ordering::SeqCst);
            }
        }
    }

    fn uncover(&mut self, net: IpNet) {
        self.count4 -= usize::from(matches!(net, IpNet::V4(_)));
        if let Some(wide) = self.wide(net) {
            *wide -= 1;
            return;
        }
        for bit in cover_bits(self.seed, net) {
            let Some(count) = self.covered.get_mut(&bit) else {
                continue;
            };
            *count -= 1;
            if *count == 0 {
                self.covered.remove(&bit);
                self.cover_word(bit)
                    .fetch_and(!(1 << (bit.1 & 63)), Ordering::SeqCst);
            }
        }
    }

    fn wide(&mut self, net: IpNet) -> Option<&mut usize> {
        match net {
            IpNet::V4(net) if net.prefix_len() < WIDEST_COVERED4 => Some(&mut self.wide4),
            IpNet::V6(net) if net.prefix_len() < WIDEST_COVERED6 => Some(&mut self.wide6),
            _ => None,
        }
    }

    fn cover_word(&self, (is_v6, bit): (bool, u32)) -> &std::sync::atomic::AtomicU64 {
        let words = if is_v6 { &self.cover6 } else { &self.cover4 };
        words.word((bit >> 6) as usize)
    }
}

/// The coverage bits a network falls on.
fn cover_bits(seed: [u64; 2], net: IpNet) -> impl Iterator<Item = (bool, u32)> {
    let (first, steps) = match net {
        IpNet::V4(net) => (
            IpNet::V4(net),
            1_u64 << COVER_BITS.saturating_sub(u32::from(net.prefix_len())),
        ),
        IpNet::V6(net) => (
            IpNet::V6(net),
            1_u64 << COVER_PREFIX6.saturating_sub(net.prefix_len()),
        ),
    };
    (0..steps).map(move |step| match first {
        IpNet::V4(net) => {
            let address = u32::from(net.network()).wrapping_add((step as u32) << (32 - COVER_BITS));
            (false, cover_bit(seed, Ip::V4(address)))
        }
        IpNet::V6(net) => {
            let high = (u128::from(net.network()) >> 64) as u64;
            (
                true,
                cover_bit(seed, Ip::V6([high.wrapping_add(step << (64 - COVER_PREFIX6)), 0])),
            )
        }
    })
}

/// The ban that lasts longer.
fn later(a: Fate, b: Fate) -> Fate {
    match (a.exists(), b.exists()) {
        (false, _) => b,
        (_, false) => a,
        _ => match (a.expires(), b.expires()) {
            (None, _) => a,
            (_, None) => b,
            (Some(end_a), Some(end_b)) if end_a >= end_b => a,
            _ => b,
        },
    }
}

/// An ordinary map that answers like the kernel's trie.
#[derive(Default)]
pub(crate) struct HostTrie(HashMap<IpNet, NetworkValue>);

impl HostTrie {
    /// Longest match.
    pub(crate) fn lookup(&self, ip: IpAddr) -> Option<(IpNet, NetworkValue)> {
        self.longest(IpNet::from(ip))
    }

    fn longest(&self, net: IpNet) -> Option<(IpNet, NetworkValue)> {
        (0..=net.prefix_len()).rev().find_map(|length| {
            let around = IpNet::new(net.addr(), length).ok()?.trunc();
            self.0.get(&around).map(|value| (around, *value))
        })
    }

    /// Counts a dropped packet.
    pub(crate) fn hit(&mut self, ip: IpAddr) {
        if let Some((net, _)) = self.lookup(ip)
            && let Some(value) = self.0.get_mut(&net)
        {
            value.hits = value.hits.wrapping_add(1);
        }
    }
}

impl Trie for HostTrie {
    fn insert(&mut self, net: IpNet, value: NetworkValue) -> io::Result<()> {
        self.0.insert(net, value);
        Ok(())
    }

    fn remove(&mut self, net: IpNet) -> io::Result<()> {
        self.0.remove(&net);
        Ok(())
    }

    fn get(&self, net: IpNet) -> Option<NetworkValue> {
        self.longest(net).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests;
