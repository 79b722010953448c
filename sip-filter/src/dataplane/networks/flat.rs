//! Networks in flat tables, and the lengths of the networks in each block of addresses.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    sync::atomic::Ordering,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sip_filter_common::table::{
    BanTable,
    network::{BLOCKS, Effect, Lengths, Net4, Net6, block4, block6},
};

use super::{Cursor, Words};

/// Memory of all that belongs to networks.
#[derive(Clone)]
pub(crate) struct NetworkMemory {
    pub(crate) cover4: Words,
    pub(crate) cover6: Words,
    pub(crate) nets4: Words,
    pub(crate) nets6: Words,
    pub(crate) lengths: Words,
}

/// Longest IPv6 network the flat table holds: its keys are upper halves of addresses.
const LONGEST6: u8 = 64;

pub(super) struct Flat {
    seed: [u64; 2],
    pub(super) nets4: BanTable<Net4, Words>,
    pub(super) nets6: BanTable<Net6, Words>,
    #[cfg(test)]
    pub(super) memory4: Words,
    #[cfg(test)]
    pub(super) memory6: Words,
    pub(super) lengths: Words,
    /// How many networks of each length lie in a block.
    pub(super) counts: HashMap<u32, BTreeMap<u8, u32>>,
    /// Blocks whose addresses are looked up in the trie.
    pub(super) in_trie: usize,
}

impl Flat {
    pub(super) fn new(memory: NetworkMemory, seed: [u64; 2]) -> Self {
        Self {
            seed,
            #[cfg(test)]
            memory4: memory.nets4.clone(),
            #[cfg(test)]
            memory6: memory.nets6.clone(),
            nets4: BanTable::new(memory.nets4, seed),
            nets6: BanTable::new(memory.nets6, seed),
            lengths: memory.lengths,
            counts: HashMap::new(),
            in_trie: 0,
        }
    }

    /// Whether some address is looked up in the trie.
    pub(super) fn needs_trie(&self) -> bool {
        self.in_trie > 0
    }

    /// Makes the kernel look for networks of this length around the addresses in this one. Comes before [`Self::write`].
    pub(super) fn list(&mut self, net: IpNet) {
        for block in self.blocks(net) {
            let counts = self.counts.entry(block).or_default();
            *counts.entry(net.prefix_len()).or_default() += 1;
            self.publish(block);
        }
    }

    /// Takes [`Self::list`] back, after [`Self::remove`].
    pub(super) fn unlist(&mut self, net: IpNet) {
        for block in self.blocks(net) {
            let Some(counts) = self.counts.get_mut(&block) else {
                continue;
            };
            if let Some(count) = counts.get_mut(&net.prefix_len()) {
                *count -= 1;
                if *count == 0 {
                    counts.remove(&net.prefix_len());
                }
            }
            if counts.is_empty() {
                self.counts.remove(&block);
            }
            self.publish(block);
        }
    }

    /// Writes what a network's entry says.
    pub(super) fn write(&mut self, net: IpNet, effect: Effect) -> io::Result<()> {
        match net {
            IpNet::V4(net) => self.nets4.insert(key4(net), effect),
            IpNet::V6(net) if net.prefix_len() <= LONGEST6 => self.nets6.insert(key6(net), effect),
            IpNet::V6(_) => return Ok(()),
        }
        .map_err(|_| io::Error::from_raw_os_error(libc::ENOSPC))
    }

    /// Removes an entry and returns the hits it had not reported.
    pub(super) fn remove(&mut self, net: IpNet) -> u64 {
        match net {
            IpNet::V4(net) => self.nets4.remove(key4(net)),
            IpNet::V6(net) if net.prefix_len() <= LONGEST6 => self.nets6.remove(key6(net)),
            IpNet::V6(_) => None,
        }
        .unwrap_or(0)
    }

    /// Takes hits out of a part of one of the two tables; returns how many buckets it had, `None` if there is no such
    /// table.
    pub(super) fn take_some_hits(&mut self, part: Cursor, report: &mut dyn FnMut(IpNet, u64)) -> Option<u32> {
        let Cursor { table, bucket } = part;
        match table {
            0 => Some(self.nets4.take_hits_in(bucket, Cursor::PART, |key, hits| {
                if let Ok(net) = Ipv4Net::new(((key >> 8) as u32).into(), key as u8) {
                    report(net.into(), hits);
                }
            })),
            1 => Some(
                self.nets6
                    .take_hits_in(bucket, Cursor::PART, |[high, length], hits| {
                        if let Ok(net) = Ipv6Net::new((u128::from(high) << 64).into(), length as u8) {
                            report(net.into(), hits);
                        }
                    }),
            ),
            _ => None,
        }
    }

    fn publish(&mut self, block: u32) {
        let lengths = self.counts.get(&block).map_or(Lengths::default(), |counts| {
            Lengths::new(counts.keys().rev().copied())
        });
        let before = self
            .lengths
            .word(block as usize)
            .swap(lengths.0, Ordering::SeqCst);
        self.in_trie += usize::from(lengths == Lengths::TRIE);
        self.in_trie -= usize::from(Lengths(before) == Lengths::TRIE);
    }

    /// The blocks whose addresses may lie in a network.
    fn blocks(&self, net: IpNet) -> std::ops::Range<u32> {
        match net {
            IpNet::V4(net) => {
                let first = block4(net.network().into());
                first..first + (1 << 16_u8.saturating_sub(net.prefix_len()))
            }
            IpNet::V6(net) if net.prefix_len() < 32 => BLOCKS..2 * BLOCKS,
            IpNet::V6(net) => {
                let block = block6(self.seed, upper(net));
                block..block + 1
            }
        }
    }
}

fn upper(net: Ipv6Net) -> u64 {
    (u128::from(net.network()) >> 64) as u64
}

fn key4(net: Ipv4Net) -> u64 {
    Net4::key(net.network().into(), net.prefix_len().into())
}

fn key6(net: Ipv6Net) -> [u64; 2] {
    Net6::key(upper(net), net.prefix_len().into())
}
