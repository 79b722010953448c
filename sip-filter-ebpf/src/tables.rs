//! The kernel's side of the tables: maps behind the traits of `sip-filter-common`.

use core::{
    intrinsics::{AtomicOrdering, atomic_cxchg, atomic_xadd},
    ptr, slice,
};

use aya_ebpf::{
    EbpfContext, Global,
    btf_maps::{Array, lpm_trie::Key},
    helpers::generated::{bpf_jiffies64, bpf_ktime_get_boot_ns},
};
use aya_log_ebpf::debug;
use sip_filter_common::{
    abi::{COUNTER_WORDS, Config, Control, EventHeader, Family, Local, SNAPSHOT_MAX},
    packet::{Head, Ip, Packet},
    pipeline::{Budget, Lane, NetworkValue, Recent, Tables},
    sip::{Class, classify, known_method},
    table::{Forget, Line, Memory},
};

use crate::maps::{self, Bucket};

/// A bucket as a pointer into an array map.
#[derive(Clone, Copy)]
pub(crate) struct MapLine(*mut Bucket);

impl Line for MapLine {
    #[inline(always)]
    fn load(self, word: usize) -> u64 {
        // SAFETY: the pointer came from a successful look-up and words are below 8; the verifier checks both.
        unsafe { ptr::read_volatile(self.0.cast::<u64>().add(word)) }
    }

    #[inline(always)]
    fn store(self, word: usize, value: u64) {
        // SAFETY: as above.
        unsafe { ptr::write_volatile(self.0.cast::<u64>().add(word), value) }
    }

    #[inline(always)]
    fn compare_exchange(self, word: usize, old: u64, new: u64) -> bool {
        // SAFETY: as above; map values are aligned to 8 bytes.
        unsafe {
            let word = self.0.cast::<u64>().add(word);
            let (seen, _) =
                atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(word, old, new);
            seen == old
        }
    }
}

/// A flat table in an array map whose size is known since loading.
pub(crate) struct MapMemory<const BUCKETS: usize, const FLAGS: usize> {
    map: &'static Array<Bucket, BUCKETS, FLAGS>,
    /// Read where it is needed: few packets ask every table.
    mask: &'static Global<u32>,
    /// Of the table with a summary.
    summary: Option<&'static Array<u64, BUCKETS, FLAGS>>,
    local: *mut Local,
}

impl<const BUCKETS: usize, const FLAGS: usize> Forget for MapMemory<BUCKETS, FLAGS> {
    #[inline(always)]
    fn forget(&self, value: u64) -> u64 {
        forget(self.local, value)
    }
}

impl<const BUCKETS: usize, const FLAGS: usize> Memory for MapMemory<BUCKETS, FLAGS> {
    type Line<'a> = MapLine;

    #[inline(always)]
    fn mask(&self) -> u32 {
        self.mask.load()
    }

    #[inline(always)]
    fn line(&self, index: u32) -> Option<MapLine> {
        self.map.get_ptr_mut(index).map(MapLine)
    }

    #[inline(always)]
    fn summary(&self, index: u32) -> Option<u64> {
        let word = self.summary?.get_ptr(index)?;
        // SAFETY: the look-up succeeded.
        Some(unsafe { ptr::read_volatile(word) })
    }
}

/// The maps, with the one-element ones already looked up.
pub(crate) struct Kernel<'a, C> {
    ctx: &'a C,
    control: *const Control,
    /// [`Control::active`], read once: a packet sees all of a configuration or none.
    active: u64,
    local: *mut Local,
    ban4: FlatTable,
    ban6: FlatTable,
    ban6_host: FlatTable,
    sources: FlatTable,
    trust4: FlatTable,
    trust6: FlatTable,
    endpoints: FlatTable,
    nets4: FlatTable,
    nets6: FlatTable,
    unknown: FlatTable,
}

const HEADER_WORDS: usize = size_of::<EventHeader>() / 8;

/// All flat tables are declared alike; their sizes are set when they are loaded.
type FlatTable = MapMemory<{ maps::BUCKETS }, { maps::MMAP }>;

impl<'a, C: EbpfContext> Kernel<'a, C> {
    /// `None` if a one-element map cannot be read.
    #[inline(always)]
    pub(crate) fn new(ctx: &'a C) -> Option<Self> {
        let local = maps::LOCAL.get_ptr_mut(0)?;
        let control = maps::CONTROL.get_ptr(0)?;
        // SAFETY: the look-up succeeded.
        let active = unsafe { ptr::read_volatile(&raw const (*control).active) };
        let table = |map, mask| FlatTable {
            map,
            mask,
            summary: None,
            local,
        };
        let summed = |map, mask, summary| FlatTable {
            summary: Some(summary),
            ..table(map, mask)
        };
        Some(Self {
            ctx,
            control,
            active,
            local,
            ban4: summed(&maps::BAN4, &maps::CFG_BAN4_MASK, &maps::BAN4_SUM),
            ban6: summed(&maps::BAN6, &maps::CFG_BAN6_MASK, &maps::BAN6_SUM),
            ban6_host: table(&maps::BAN6_HOST, &maps::CFG_HOST6_MASK),
            sources: table(&maps::SOURCES, &maps::CFG_SRC_MASK),
            trust4: summed(&maps::TRUST4, &maps::CFG_TRUST4_MASK, &maps::TRUST4_SUM),
            trust6: summed(&maps::TRUST6, &maps::CFG_TRUST6_MASK, &maps::TRUST6_SUM),
            endpoints: table(&maps::ENDPOINTS, &maps::CFG_ENDP_MASK),
            nets4: table(&maps::NETS4, &maps::CFG_NETS4_MASK),
            nets6: table(&maps::NETS6, &maps::CFG_NETS6_MASK),
            unknown: table(&maps::UNKNOWN, &maps::CFG_UNKNOWN_MASK),
        })
    }

    /// Counts one packet of `bytes` bytes; `index` comes from `counter_index`.
    #[inline(always)]
    pub(crate) fn count(&self, index: usize, bytes: usize) {
        let index = index & (COUNTER_WORDS - 2);
        // SAFETY: the index is masked to the array; only this CPU writes it, and nothing interrupts the program to
        // run it again.
        unsafe {
            let packets = (&raw mut (*self.local).counters.by_reason)
                .cast::<u64>()
                .add(index);
            *packets += 1;
            *packets.add(1) += bytes as u64;
        }
    }
}

impl<C> Forget for Kernel<'_, C> {
    #[inline(always)]
    fn forget(&self, value: u64) -> u64 {
        forget(self.local, value)
    }
}

impl<C: EbpfContext> Tables for Kernel<'_, C> {
    type Memory = FlatTable;

    #[inline(always)]
    fn config(&self) -> Option<&Config> {
        let config = maps::CONFIG.get_ptr((self.active & Control::INDEX) as u32);
        // SAFETY: the look-up succeeded; the controller writes the copy that is not active.
        config.map(|config| unsafe { &*config })
    }

    #[inline(always)]
    fn stops_all(&self) -> bool {
        self.active & Control::ALL != 0
    }

    #[inline(always)]
    fn now(&self) -> u64 {
        if maps::CFG_TEST_CLOCK.load() != 0 {
            // SAFETY: the look-up succeeded.
            return unsafe { ptr::read_volatile(&raw const (*self.control).clock) };
        }
        // Ticks cost nothing to read, but say only that time moved; the clock itself is a call.
        // SAFETY: helpers without arguments; `local` belongs to this CPU.
        unsafe {
            let jiffies = bpf_jiffies64();
            if (*self.local).jiffies != jiffies {
                (*self.local).jiffies = jiffies;
                (*self.local).now = bpf_ktime_get_boot_ns();
            }
            (*self.local).now
        }
    }

    #[inline(always)]
    fn random(&self) -> u32 {
        // A Weyl sequence through a multiplicative mixer: good enough to sample hits, and no call.
        // SAFETY: `local` belongs to this CPU.
        unsafe {
            let state = (*self.local).random.wrapping_add(0x9e37_79b9_7f4a_7c15);
            (*self.local).random = state;
            let mixed = (state ^ state >> 32).wrapping_mul(0xd6e8_feb8_6659_fd93);
            (mixed >> 32) as u32
        }
    }

    #[inline(always)]
    fn ban4(&self) -> &Self::Memory {
        &self.ban4
    }

    #[inline(always)]
    fn ban6(&self) -> &Self::Memory {
        &self.ban6
    }

    #[inline(always)]
    fn ban6_host(&self) -> &Self::Memory {
        &self.ban6_host
    }

    #[inline(always)]
    fn sources(&self) -> &Self::Memory {
        &self.sources
    }

    #[inline(always)]
    fn trust4(&self) -> &Self::Memory {
        &self.trust4
    }

    #[inline(always)]
    fn trust6(&self) -> &Self::Memory {
        &self.trust6
    }

    #[inline(always)]
    fn endpoints(&self) -> &Self::Memory {
        &self.endpoints
    }

    #[inline(always)]
    fn unknown(&self) -> &Self::Memory {
        &self.unknown
    }

    #[inline(always)]
    fn port_word(&self, index: u32) -> Option<u64> {
        maps::PORTS.get(index).copied()
    }

    #[inline(always)]
    fn cover_word(&self, family: Family, index: u32) -> Option<u64> {
        match family {
            Family::V6 => maps::COVER6.get(index).copied(),
            Family::V4 | Family::Other => maps::COVER4.get(index).copied(),
        }
    }

    #[inline(always)]
    fn nets4(&self) -> &Self::Memory {
        &self.nets4
    }

    #[inline(always)]
    fn nets6(&self) -> &Self::Memory {
        &self.nets6
    }

    #[inline(always)]
    fn lengths(&self, block: u32) -> Option<u64> {
        maps::LENGTHS.get(block).copied()
    }

    #[inline(always)]
    fn network(&self, source: Ip) -> Option<NetworkValue> {
        // SAFETY: the look-up succeeded; entries are replaced, not rewritten.
        entry(source).map(|entry| unsafe { *entry })
    }

    #[inline(always)]
    fn network_hit(&self, source: Ip) {
        let Some(entry) = entry(source) else { return };
        // SAFETY: the look-up succeeded; the counter is aligned to 4 bytes.
        unsafe {
            atomic_xadd::<u32, u32, { AtomicOrdering::Relaxed }>(&raw mut (*entry).hits, 1);
        }
    }

    #[inline(always)]
    fn recent<R>(&self, index: u32, f: impl FnOnce(&mut Recent) -> R) -> Option<R> {
        // SAFETY: the look-up succeeded; the entry belongs to this CPU.
        maps::RECENT
            .get_ptr_mut(index)
            .map(|entry| f(unsafe { &mut *entry }))
    }

    #[inline(always)]
    fn budget<R>(&self, lane: Lane, f: impl FnOnce(&mut Budget) -> R) -> R {
        // SAFETY: `local` belongs to this CPU.
        let budgets = unsafe { &mut (*self.local).budgets };
        match lane {
            Lane::Ingress => f(&mut budgets[0]),
            Lane::Egress => f(&mut budgets[1]),
            Lane::Drops => f(&mut budgets[2]),
        }
    }

    #[inline(always)]
    fn share<R>(&self, class: Class, f: impl FnOnce(&mut u32) -> R) -> R {
        // SAFETY: the index is masked to the array; `local` belongs to this CPU.
        unsafe {
            let shares = (&raw mut (*self.local).shares).cast::<u32>();
            f(&mut *shares.add(class as usize & (Class::COUNT - 1)))
        }
    }

    #[inline(always)]
    fn classify(&self, head: &Head, len: usize) -> u64 {
        let known = known_method(head.0);
        if !matches!(known, Class::Garbage) {
            return known as u64;
        }
        let [a, b, c, d] = head.0;
        classify_other(a, b, c, d, len as u64)
    }

    #[inline(always)]
    fn count_class(&self, class: Class) {
        // SAFETY: the index is masked to the array; `local` belongs to this CPU.
        unsafe {
            let counters = (&raw mut (*self.local).counters.by_class).cast::<u64>();
            *counters.add(class as usize & (Class::COUNT - 1)) += 1;
        }
    }

    #[inline(always)]
    fn count_suppressed(&self) {
        // SAFETY: `local` belongs to this CPU.
        unsafe { (*self.local).counters.events_suppressed += 1 }
    }

    #[inline(always)]
    fn emit<P: Packet>(&self, packet: &P, header: &EventHeader, payload: usize) {
        debug!(
            self.ctx,
            "event kind {} class {} count {}", header.kind, header.class, header.count
        );
        self.send(packet, header, payload);
    }
}

impl<C> Kernel<'_, C> {
    #[inline(always)]
    fn send<P: Packet>(&self, packet: &P, header: &EventHeader, payload: usize) {
        let Some(scratch) = maps::SCRATCH.get_ptr_mut(0) else {
            return;
        };
        let head = size_of::<EventHeader>();
        let captured = header.captured as usize;
        // The mask tells the verifier what `captured <= SNAPSHOT_MAX` means, and that there is something to copy: before
        // Linux 6.8 it learns nothing from a comparison with zero, and refuses to copy what may be nothing. The scratch
        // has room for all this allows.
        let excerpt_len = (captured.wrapping_sub(1) & (2 * SNAPSHOT_MAX - 1)) + 1;
        // SAFETY: the scratch belongs to this CPU and has room for the header and the masked length.
        let sent = unsafe {
            // In words: byte by byte, the compiler keeps 32 bytes of addresses in as many slots of the stack.
            let words: [u64; HEADER_WORDS] = core::mem::transmute(*header);
            let mut word = 0;
            while word < HEADER_WORDS {
                ptr::write_volatile(scratch.cast::<u64>().add(word), words[word]);
                word += 1;
            }
            let excerpt = scratch.cast::<u8>().add(head);
            let has_excerpt = captured != 0 && packet.copy_to(payload, excerpt, excerpt_len);
            let len = if has_excerpt { head + excerpt_len } else { head };
            if !has_excerpt {
                (*scratch.cast::<EventHeader>()).captured = 0;
            }
            maps::EVENTS.output_untyped::<[u8]>(slice::from_raw_parts(scratch.cast::<u8>(), len), 0)
        };
        if sent.is_err() {
            // SAFETY: `local` belongs to this CPU.
            unsafe { (*self.local).counters.events_lost += 1 }
        }
    }
}

/// Through a map value and back: the verifier does not follow values there. A value combined with a zero it cannot know
/// (`^=`) would do for one path, but to prove a bound the verifier goes back through such an instruction to where the
/// value comes from, and paths that differ there are verified one by one again.
#[inline(always)]
fn forget(local: *mut Local, value: u64) -> u64 {
    // SAFETY: `local` belongs to this CPU.
    unsafe {
        let word = &raw mut (*local).forgotten;
        ptr::write_volatile(word, value);
        ptr::read_volatile(word)
    }
}

#[inline(always)]
fn entry(source: Ip) -> Option<*mut NetworkValue> {
    match source {
        Ip::V4(address) => maps::NETWORKS4.get(&Key::new(32, address.to_be_bytes())),
        Ip::V6([high, low]) => {
            let mut bytes = [0; 16];
            bytes[..8].copy_from_slice(&high.to_be_bytes());
            bytes[8..].copy_from_slice(&low.to_be_bytes());
            maps::NETWORKS6.get(&Key::new(128, bytes))
        }
    }
    .map(|entry| ptr::from_ref(entry).cast_mut())
}

/// [`classify`] for what has no usual method. A global function, so the verifier looks at it by itself: its many ways end
/// here and not each at the program's end.
#[unsafe(no_mangle)]
#[inline(never)]
pub(crate) extern "C" fn classify_other(a: u64, b: u64, c: u64, d: u64, len: u64) -> u64 {
    classify(&Head([a, b, c, d]), len as usize) as u64
}
