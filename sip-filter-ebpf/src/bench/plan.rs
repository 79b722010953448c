//! How frames differ from each other: shared with user space (`xtask/bench`), which includes this very file.

/// What `vary` does to each frame before it goes on. Offsets are those of 8-byte words; each is written whole, so that
/// a program that reads the same word again gets it from the processor's store buffer without waiting.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct Plan {
    /// Number of different sources; 0 leaves the source as it is.
    pub(crate) sources: u64,
    /// Index of the first of them.
    pub(crate) first: u64,
    /// What the address of each source is combined with (or): its highest bit, or nothing.
    pub(crate) base: u64,
    /// 0: one after the other, 1: in random order.
    pub(crate) random: u64,
    /// Where the word lies that holds the source. IPv4: the second half of the word, after time to live, protocol and
    /// checksum. IPv6: the second half of the /64.
    pub(crate) source_at: u64,
    /// The first four bytes of that word, as a number in memory order. The checksum is filled in.
    pub(crate) source_word: u64,
    /// IPv4: sum of the header's other 16-bit words; 0 if there is no checksum to fill in (IPv6).
    pub(crate) checksum: u64,
    /// Where the word of the ports lies; 0 leaves it.
    pub(crate) ports_at: u64,
    /// Destination port, length and checksum in the last six bytes of that word, as a number in memory order.
    pub(crate) ports_word: u64,
    /// Where the first 32 bytes of payload lie, to be replaced by one of [`HEADS`] variants; 0 leaves them.
    pub(crate) head_at: u64,
    /// Where frames are sent.
    pub(crate) interface: u64,
}

/// What a CPU remembers from frame to frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C)]
pub(crate) struct State {
    /// Frames varied.
    pub(crate) frames: u64,
    /// Position in the sequence of sources.
    pub(crate) position: u64,
    /// State of the random sequence, never 0.
    pub(crate) seed: u64,
    /// Frames sent.
    pub(crate) sent: u64,
    /// Frames received by the counting program.
    pub(crate) received: u64,
    /// Tail calls that failed.
    pub(crate) failed: u64,
}

/// Variants of the first bytes of a payload, a power of two.
pub(crate) const HEADS: u32 = 1024;

/// The address, in host order, of the source of this index, without [`Plan::base`]. Each index below 2³¹ has its own, of
/// 31 bits; neighbours lie far apart, and any number of first indices are spread evenly (the golden ratio's multiples).
#[inline(always)]
#[must_use]
pub(crate) const fn address(index: u32) -> u32 {
    index.wrapping_mul(0x9e37_79b1) & 0x7fff_ffff
}
