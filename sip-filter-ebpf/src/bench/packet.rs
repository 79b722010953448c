//! The place where the benchmarks' programs touch packet memory: they write it.

use aya_ebpf::programs::XdpContext;

/// A frame as words to be written.
#[derive(Clone, Copy)]
pub(crate) struct Words {
    data: usize,
    data_end: usize,
}

/// The little of a frame that no filter by source can do without.
#[derive(Clone, Copy)]
pub(crate) struct Datagram {
    /// IPv4 address.
    pub(crate) source: u32,
    /// Destination port.
    pub(crate) port: u16,
}

impl Datagram {
    /// A UDP datagram over IPv4, its headers at constant offsets; nothing else is looked at.
    #[inline(always)]
    pub(crate) fn of(ctx: &XdpContext) -> Option<Self> {
        let (data, data_end) = (ctx.data(), ctx.data_end());
        if data + 42 > data_end {
            return None;
        }
        // SAFETY: the 42 bytes are there; the verifier checks the same comparison. As for alignment, see below.
        let (ethertype, protocol, source, port) = unsafe {
            (
                ((data + 12) as *const u16).read_volatile(),
                ((data + 23) as *const u8).read_volatile(),
                ((data + 26) as *const u32).read_volatile(),
                ((data + 36) as *const u16).read_volatile(),
            )
        };
        (ethertype == 0x0800_u16.to_be() && protocol == 17).then_some(Self {
            source: u32::from_be(source),
            port: u16::from_be(port),
        })
    }
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
