//! Every map and every value set at load time. Names have at most 15 characters, the kernel's limit; sizes are
//! defaults that the loader overrides.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    btf_maps::{Array, LpmTrie, PerCpuArray, RingBuf},
    macros::btf_map,
};
use sip_filter_common::{
    abi::{Config, Control, Local, Meta, SNAPSHOT_MAX},
    pipeline::{COVER_WORDS, NetworkValue, PORT_BITMAP_WORDS, RECENT_ENTRIES, Recent},
    table::{WORDS, network::LENGTH_WORDS},
};

pub(crate) const MMAP: usize = BPF_F_MMAPABLE as usize;
const TRIE: usize = BPF_F_NO_PREALLOC as usize;
/// Sizes for a program loaded by another tool than the controller.
pub(crate) const BUCKETS: usize = 1024;
const NETWORKS: usize = 1024;

/// A bucket of a flat table.
pub(crate) type Bucket = [u64; WORDS];

/// Bytes of the largest event. Twice the longest excerpt, so that a masked length is provably within.
pub(crate) const EVENT_MAX: usize = size_of::<sip_filter_common::abi::EventHeader>() + 2 * SNAPSHOT_MAX;

/// Set by tests: take the time from [`Control::clock`].
#[unsafe(no_mangle)]
pub(crate) static CFG_TEST_CLOCK: Global<u32> = Global::new(0);
/// Buckets of [`BAN4`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_BAN4_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);
/// Buckets of [`BAN6`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_BAN6_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);
/// Buckets of [`BAN6_HOST`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_HOST6_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);
/// Buckets of [`TRUST4`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_TRUST4_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);
/// Buckets of [`TRUST6`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_TRUST6_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);
/// Buckets of [`ENDPOINTS`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_ENDP_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);
/// Buckets of [`UNKNOWN`] that are used, less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_UNKNOWN_MASK: Global<u32> = Global::new(0);
/// Buckets of [`NETS4`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_NETS4_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);
/// Buckets of [`NETS6`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_NETS6_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);
/// Buckets of [`SOURCES`] less one.
#[unsafe(no_mangle)]
pub(crate) static CFG_SRC_MASK: Global<u32> = Global::new(BUCKETS as u32 - 1);

#[btf_map]
pub(crate) static META: Array<Meta, 1> = Array::new();
#[btf_map]
pub(crate) static CONTROL: Array<Control, 1, MMAP> = Array::new();
#[btf_map]
pub(crate) static CONFIG: Array<Config, 2> = Array::new();
#[btf_map]
pub(crate) static PORTS: Array<u64, { PORT_BITMAP_WORDS as usize }> = Array::new();
#[btf_map]
pub(crate) static BAN4: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static BAN6: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static BAN6_HOST: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static SOURCES: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static TRUST4: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static TRUST6: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static ENDPOINTS: Array<Bucket, BUCKETS, MMAP> = Array::new();
/// Summaries of the tables they are named after.
#[btf_map]
pub(crate) static BAN4_SUM: Array<u64, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static BAN6_SUM: Array<u64, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static TRUST4_SUM: Array<u64, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static TRUST6_SUM: Array<u64, BUCKETS, MMAP> = Array::new();
/// Three buckets are used.
#[btf_map]
pub(crate) static UNKNOWN: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static COVER4: Array<u64, { COVER_WORDS as usize }, MMAP> = Array::new();
#[btf_map]
pub(crate) static COVER6: Array<u64, { COVER_WORDS as usize }, MMAP> = Array::new();
#[btf_map]
pub(crate) static NETS4: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static NETS6: Array<Bucket, BUCKETS, MMAP> = Array::new();
#[btf_map]
pub(crate) static LENGTHS: Array<u64, { LENGTH_WORDS as usize }, MMAP> = Array::new();
/// The tries hold the same networks, and those whose lengths the flat tables have no room for.
#[btf_map]
pub(crate) static NETWORKS4: LpmTrie<[u8; 4], NetworkValue, NETWORKS, TRIE> = LpmTrie::new();
#[btf_map]
pub(crate) static NETWORKS6: LpmTrie<[u8; 16], NetworkValue, NETWORKS, TRIE> = LpmTrie::new();
#[btf_map]
pub(crate) static LOCAL: PerCpuArray<Local, 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static RECENT: PerCpuArray<Recent, { RECENT_ENTRIES as usize }> = PerCpuArray::new();
#[btf_map]
pub(crate) static SCRATCH: PerCpuArray<[u8; EVENT_MAX], 1> = PerCpuArray::new();
#[btf_map]
pub(crate) static EVENTS: RingBuf<(), { 4 << 20 }> = RingBuf::new();
