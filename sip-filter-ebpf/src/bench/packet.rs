//! The place where the benchmarks' programs touch packet memory: they write it.

use aya_ebpf::programs::XdpContext;

/// A frame as words to be written.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    data: usize,
    data_end: usize,
}

/// Bounds an offset for the verifier; headers and the first bytes of payload lie within.
const OFFSET_MASK: u64 = 0xff;

impl Words {
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Self {
        Self {
            data: ctx.data(),
            data_end: ctx.data_end(),
        }
    }

    /// Writes eight bytes, if the frame has them.
    #[inline(always)]
    pub(crate) fn write(self, offset: u64, word: u64) {
        let at = self.data + (offset & OFFSET_MASK) as usize;
        if at + 8 <= self.data_end {
            // SAFETY: the eight bytes lie within the frame; the verifier checks the same comparison. BPF allows
            // unaligned access to packets wherever the processor does.
            unsafe { (at as *mut u64).write_volatile(word) };
        }
    }
}
