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
    abi::{self, Counters, EventHeader, Family},
    packet::{Head, Ip, Packet},
    pipeline::{
        Budget, COVER_WORDS, Lane, NetworkValue, PORT_BITMAP_WORDS, RECENT_ENTRIES, Recent, Tables, decide,
        observe,
    },
    sip::Class,
    table::{Forget, ban::summary_words, network::LENGTH_WORDS},
    verdict::Verdict,
};

use super::{
    compare::OfCpu,
    image::{TableImage, TableMemory},
    memory::Words,
    networks::{HostTrie, NetworkMemory, Trie},
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
    memory: [Words; 10],
    lengths: Words,
    cover: [Words; 2],
    ports: Box<[u64]>,
    trie: SharedTrie,
    recent: RefCell<Box<[Recent]>>,
    budgets: RefCell<[Budget; 3]>,
    shares: RefCell<[u32; Class::COUNT]>,
    counters: RefCell<Box<Counters>>,
    events: RefCell<Vec<(EventHeader, Vec<u8>)>>,
}

/// Flags of the configuration; the others follow from the tables.
const BASE_FLAGS: u64 = abi::flags::SIMULATE | abi::flags::CAPTURE_DROPS;

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
        let summed =
            |buckets: u32| lines(buckets).with_summary(&Words::heap(summary_words(buckets) as usize * 8));
        let memory = [
            summed(sizes.ban4_buckets()),
            summed(sizes.ban6_buckets()),
            lines(sizes.ban6_host_buckets()),
            lines(sizes.source_buckets()),
            summed(sizes.trust4_buckets()),
            summed(sizes.trust6_buckets()),
            // As in the kernel: a page.
            lines(64),
            lines(sizes.endpoint_buckets()),
            lines(sizes.net4_buckets()),
            lines(sizes.net6_buckets()),
        ];
        let lengths = Words::heap(LENGTH_WORDS as usize * 8);
        let cover = [
            Words::heap(COVER_WORDS as usize * 8),
            Words::heap(COVER_WORDS as usize * 8),
        ];
        let trie = SharedTrie::default();
        let flags = Arc::new(AtomicU64::new(0));
        let [
            ban4,
            ban6,
            ban6_host,
            _,
            trust4,
            trust6,
            _,
            endpoints,
            nets4,
            nets6,
        ] = memory.clone();
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
                trust4,
                trust6,
                endpoints,
                networks: NetworkMemory {
                    cover4,
                    cover6,
                    nets4,
                    nets6,
                    lengths: lengths.clone(),
                },
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
            lengths,
            cover,
            ports,
            trie,
            recent: RefCell::new(vec![Recent::default(); RECENT_ENTRIES as usize].into_boxed_slice()),
            budgets: RefCell::default(),
            shares: RefCell::default(),
            counters: RefCell::new(super::counters::zero()),
            events: RefCell::default(),
        };
        (Self(tables), Box::new(image))
    }

    /// Decides on one Ethernet frame at boot time `now` (nanoseconds), and counts it.
    pub fn run(&mut self, frame: &[u8], now: u64) -> Verdict {
        self.run_split(frame, frame.len(), now)
    }

    /// The same with a frame of which the first `linear` bytes lie in a buffer of their own. Verdicts do not depend on
    /// that; but what lies in further buffers and belongs to no packet is not counted and not copied, as in the kernel.
    pub fn run_split(&mut self, frame: &[u8], linear: usize, now: u64) -> Verdict {
        let tables = self.at(now);
        let frame = Split { frame, linear };
        let decision = decide(&frame, tables);
        let mut counters = tables.counters.borrow_mut();
        let index = decision.counter_index();
        counters.by_reason[index] += 1;
        counters.by_reason[index + 1] += frame.len(decision.reach) as u64;
        decision.verdict()
    }

    /// Looks at one Ethernet frame that leaves the host at boot time `now` (nanoseconds).
    pub fn run_egress(&mut self, frame: &[u8], now: u64) {
        observe(&frame, self.at(now));
    }

    /// Puts another configuration in force. Seed and counted prefix are those of the tables and stay.
    pub fn set_config(&mut self, config: &abi::Config) {
        let old = self.0.config;
        self.0.config = abi::Config {
            seed: old.seed,
            source_prefix6: old.source_prefix6,
            ..*config
        };
    }

    /// Puts other protected ports in force.
    pub fn set_ports(&mut self, udp: &[u16], tcp: &[u16]) {
        let ports = &mut self.0.ports;
        port_bitmap(udp, tcp, |index, word| ports[index as usize] = word);
    }

    /// The tables of [`super::compare::CHANGED`].
    pub(super) fn changed(&self) -> [&Words; 7] {
        [0, 1, 2, 3, 6, 8, 9].map(|index| &self.0.memory[index])
    }

    pub(super) fn of_cpu(&self) -> OfCpu {
        OfCpu {
            budgets: *self.0.budgets.borrow(),
            shares: *self.0.shares.borrow(),
            random: self.0.random.get(),
        }
    }

    fn at(&mut self, now: u64) -> &HostTables {
        let tables = &mut self.0;
        let base = tables.config.flags & BASE_FLAGS;
        tables.config.flags = base | tables.flags.load(Ordering::SeqCst);
        tables.now.set(now);
        tables
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

/// A frame in several buffers.
#[derive(Clone, Copy)]
struct Split<'a> {
    frame: &'a [u8],
    linear: usize,
}

impl Packet for Split<'_> {
    type Direct<'a>
        = &'a [u8]
    where
        Self: 'a;

    fn direct(&self, len: usize) -> Option<&[u8]> {
        self.frame.get(..len)
    }

    fn len(&self, reach: usize) -> usize {
        if reach <= self.linear {
            self.linear
        } else {
            self.frame.len()
        }
    }

    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.frame.read(offset)
    }

    fn head(&self, offset: usize, len: usize) -> Head {
        self.frame.head(offset, len)
    }

    unsafe fn copy_to(&self, offset: usize, target: *mut u8, len: usize) -> bool {
        // SAFETY: the caller answers for the target.
        unsafe { self.frame.copy_to(offset, target, len) }
    }

    fn again(&self) -> Self {
        *self
    }
}

impl Forget for HostTables {}

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

    fn trust4(&self) -> &Words {
        &self.memory[4]
    }

    fn trust6(&self) -> &Words {
        &self.memory[5]
    }

    fn unknown(&self) -> &Words {
        &self.memory[6]
    }

    fn endpoints(&self) -> &Words {
        &self.memory[7]
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

    fn nets4(&self) -> &Words {
        &self.memory[8]
    }

    fn nets6(&self) -> &Words {
        &self.memory[9]
    }

    fn lengths(&self, block: u32) -> Option<u64> {
        Some(self.lengths.word(block as usize).load(Ordering::SeqCst))
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

    fn budget<R>(&self, lane: Lane, f: impl FnOnce(&mut Budget) -> R) -> R {
        f(&mut self.budgets.borrow_mut()[lane as usize])
    }

    fn share<R>(&self, class: Class, f: impl FnOnce(&mut u32) -> R) -> R {
        f(&mut self.shares.borrow_mut()[class as usize])
    }

    fn count_class(&self, class: Class) {
        self.counters.borrow_mut().by_class[class as usize] += 1;
    }

    fn count_suppressed(&self) {
        self.counters.borrow_mut().events_suppressed += 1;
    }

    fn emit<P: Packet>(&self, packet: &P, header: &EventHeader, payload: usize) {
        let mut excerpt = vec![0; usize::from(header.captured)];
        // SAFETY: there is room for so many bytes.
        let copied =
            excerpt.is_empty() || unsafe { packet.copy_to(payload, excerpt.as_mut_ptr(), excerpt.len()) };
        let mut header = *header;
        if !copied {
            // As the kernel: an excerpt is whole or not there.
            header.captured = 0;
            excerpt.clear();
        }
        self.events.borrow_mut().push((header, excerpt));
    }
}
