//! The pipeline's tables on the host: for captures, and to compare with the kernel.

use std::{
    cell::{Cell, RefCell},
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use sip_filter_common::{
    abi::{self, Counters, EventHeader, Family, counter_index},
    packet::{Ip, Packet},
    pipeline::{
        Budget, COVER_WORDS, Decision, NetworkValue, PORT_BITMAP_WORDS, RECENT_ENTRIES, Recent, Tables,
        decide,
    },
    sip::Class,
};

use super::{
    image::{TableImage, TableMemory},
    memory::Words,
    networks::{HostTrie, Trie},
    ports::port_bitmap,
    sizes::TableSizes,
};

/// A data plane without a kernel: the same decisions, one packet at a time.
pub struct HostPlane(HostTables);

struct HostTables {
    config: abi::Config,
    flags: Arc<AtomicU64>,
    now: Cell<u64>,
    random: Cell<u64>,
    memory: [Words; 4],
    cover: [Words; 2],
    ports: Box<[u64]>,
    trie: SharedTrie,
    recent: RefCell<Box<[Recent]>>,
    budget: RefCell<Budget>,
    counters: RefCell<Box<Counters>>,
    events: RefCell<Vec<(EventHeader, Vec<u8>)>>,
}

/// The trie, written by the image and read by the pipeline.
#[derive(Clone, Default)]
struct SharedTrie(Arc<Mutex<HostTrie>>);

impl SharedTrie {
    fn with<R>(&self, f: impl FnOnce(&mut HostTrie) -> R) -> R {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Trie for SharedTrie {
    fn insert(&mut self, net: ipnet::IpNet, value: NetworkValue) -> io::Result<()> {
        self.with(|trie| trie.insert(net, value))
    }

    fn remove(&mut self, net: ipnet::IpNet) -> io::Result<()> {
        self.with(|trie| trie.remove(net))
    }

    fn get(&self, net: ipnet::IpNet) -> Option<NetworkValue> {
        self.with(|trie| trie.get(net))
    }
}

impl HostPlane {
    /// A data plane with empty tables, and the image that fills them.
    #[must_use]
    pub fn new(
        config: &abi::Config,
        sizes: &TableSizes,
        udp_ports: &[u16],
        tcp_ports: &[u16],
    ) -> (Self, Box<dyn super::Image>) {
        let lines = |buckets: u32| Words::heap(buckets as usize * 64);
        let memory = [
            lines(sizes.ban4_buckets()),
            lines(sizes.ban6_buckets()),
            lines(sizes.ban6_host_buckets()),
            lines(sizes.source_buckets()),
        ];
        let cover = [
            Words::heap(COVER_WORDS as usize * 8),
            Words::heap(COVER_WORDS as usize * 8),
        ];
        let trie = SharedTrie::default();
        let flags = Arc::new(AtomicU64::new(0));
        let [ban4, ban6, ban6_host, _] = memory.clone();
        let [cover4, cover6] = cover.clone();
        let prefix = u8::try_from(config.source_prefix6).unwrap_or(64);
        let image_flags = Arc::clone(&flags);
        let image = TableImage::new(
            "capture",
            (config.seed, prefix),
            TableMemory {
                ban4,
                ban6,
                ban6_host,
                cover4,
                cover6,
            },
            (trie.clone(), sizes.networks),
            Box::new(move |flags| {
                image_flags.store(flags, Ordering::SeqCst);
                Ok(())
            }),
        );
        let mut ports = vec![0; PORT_BITMAP_WORDS as usize].into_boxed_slice();
        port_bitmap(udp_ports, tcp_ports, |index, word| ports[index as usize] = word);
        let tables = HostTables {
            config: *config,
            flags,
            now: Cell::new(0),
            random: Cell::new(0),
            memory,
            cover,
            ports,
            trie,
            recent: RefCell::new(vec![Recent::default(); RECENT_ENTRIES as usize].into_boxed_slice()),
            budget: RefCell::default(),
            counters: RefCell::new(super::counters::zero()),
            events: RefCell::default(),
        };
        (Self(tables), Box::new(image))
    }

    /// Decides on one Ethernet frame at boot time `now` (nanoseconds), and counts it.
    pub fn run(&mut self, frame: &[u8], now: u64) -> Decision {
        let tables = &mut self.0;
        tables.config.flags =
            tables.config.flags & abi::flags::SIMULATE | tables.flags.load(Ordering::SeqCst);
        tables.now.set(now);
        let decision = decide(&frame, tables);
        let mut counters = tables.counters.borrow_mut();
        let index = counter_index(
            decision.verdict.reason,
            decision.family,
            decision.verdict.simulated,
        );
        counters.by_reason[index] += 1;
        counters.by_reason[index + 1] += frame.len() as u64;
        decision
    }

    /// The counters so far.
    #[must_use]
    pub fn counters(&self) -> super::Counters {
        self.0.counters.borrow().clone()
    }

    /// Events since the last call, oldest first.
    pub fn take_events(&mut self) -> Vec<(EventHeader, Vec<u8>)> {
        self.0.events.take()
    }
}

impl Tables for HostTables {
    type Memory = Words;

    fn config(&self) -> Option<&abi::Config> {
        Some(&self.config)
    }

    fn now(&self) -> u64 {
        self.now.get()
    }

    fn random(&self) -> u32 {
        // As in the kernel program.
        let state = self.random.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.random.set(state);
        ((state ^ state >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93) >> 32) as u32
    }

    fn ban4(&self) -> &Words {
        &self.memory[0]
    }

    fn ban6(&self) -> &Words {
        &self.memory[1]
    }

    fn ban6_host(&self) -> &Words {
        &self.memory[2]
    }

    fn sources(&self) -> &Words {
        &self.memory[3]
    }

    fn port_word(&self, index: u32) -> Option<u64> {
        self.ports.get(index as usize).copied()
    }

    fn cover_word(&self, family: Family, index: u32) -> Option<u64> {
        let words = if family == Family::V6 {
            &self.cover[1]
        } else {
            &self.cover[0]
        };
        Some(words.word(index as usize).load(Ordering::SeqCst))
    }

    fn network(&self, source: Ip) -> Option<NetworkValue> {
        self.trie
            .with(|trie| trie.lookup(source.address().to_ip()).map(|(_, value)| value))
    }

    fn network_hit(&self, source: Ip) {
        self.trie.with(|trie| trie.hit(source.address().to_ip()));
    }

    fn recent<R>(&self, index: u32, f: impl FnOnce(&mut Recent) -> R) -> Option<R> {
        self.recent.borrow_mut().get_mut(index as usize).map(f)
    }

    fn budget<R>(&self, f: impl FnOnce(&mut Budget) -> R) -> Option<R> {
        Some(f(&mut self.budget.borrow_mut()))
    }

    fn count_class(&self, class: Class) {
        self.counters.borrow_mut().by_class[class as usize] += 1;
    }

    fn count_suppressed(&self) {
        self.counters.borrow_mut().events_suppressed += 1;
    }

    fn emit<P: Packet>(&self, packet: &P, header: &EventHeader, payload: usize) {
        let excerpt: Vec<u8> = (payload..payload + usize::from(header.captured))
            .map_while(|offset| packet.read::<1>(offset))
            .flatten()
            .collect();
        let mut header = *header;
        if excerpt.len() != usize::from(header.captured) {
            // As the kernel: an excerpt is whole or not there.
            header.captured = 0;
            self.events.borrow_mut().push((header, Vec::new()));
            return;
        }
        self.events.borrow_mut().push((header, excerpt));
    }
}
