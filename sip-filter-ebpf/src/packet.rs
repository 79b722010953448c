//! The only place that touches packet memory.

use core::{ffi::c_void, mem::MaybeUninit};

use aya_ebpf::{
    bindings::{__sk_buff, xdp_md},
    helpers::generated::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    programs::{TcContext, XdpContext},
};
use sip_filter_common::{
    packet::{Direct, Head, OFFSET_MASK, Packet},
    sip::HEAD,
};

/// What the kernel hands a program: its first part can be read directly; the rest, if there is one, only the kernel can
/// copy out.
pub(crate) trait Buffer: Copy {
    /// Start and end of the part that can be read directly. Read anew each time, so that the verifier takes the pointers
    /// for new ones.
    fn bounds(self) -> (usize, usize);
    /// Length of the whole.
    fn whole(self) -> usize;
    /// Copies out.
    ///
    /// # Safety
    /// `target` must be writable for `len` bytes.
    unsafe fn load(self, offset: u32, target: *mut c_void, len: u32) -> bool;
}

/// A received frame; in several buffers with `xdp.frags` (kernel 5.18).
#[derive(Clone, Copy)]
pub(crate) struct Xdp(*mut xdp_md);

/// A packet on its way out.
#[derive(Clone, Copy)]
pub(crate) struct Skb(*mut __sk_buff);

impl Buffer for Xdp {
    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: the context is the one of this run.
        unsafe {
            let data = (&raw const (*self.0).data).read_volatile();
            let data_end = (&raw const (*self.0).data_end).read_volatile();
            (data as usize, data_end as usize)
        }
    }

    #[inline(always)]
    fn whole(self) -> usize {
        // SAFETY: the context is the one of this run.
        unsafe { bpf_xdp_get_buff_len(self.0) as usize }
    }

    #[inline(always)]
    unsafe fn load(self, offset: u32, target: *mut c_void, len: u32) -> bool {
        // SAFETY: the context is the one of this run; the caller answers for the target.
        unsafe { bpf_xdp_load_bytes(self.0, offset, target, len) == 0 }
    }
}

impl Buffer for Skb {
    #[inline(always)]
    fn bounds(self) -> (usize, usize) {
        // SAFETY: the context is the one of this run.
        unsafe {
            let data = (&raw const (*self.0).data).read_volatile();
            let data_end = (&raw const (*self.0).data_end).read_volatile();
            (data as usize, data_end as usize)
        }
    }

    #[inline(always)]
    fn whole(self) -> usize {
        // SAFETY: the context is the one of this run.
        unsafe { (&raw const (*self.0).len).read_volatile() as usize }
    }

    #[inline(always)]
    unsafe fn load(self, offset: u32, target: *mut c_void, len: u32) -> bool {
        // SAFETY: the context is the one of this run; the caller answers for the target.
        unsafe { bpf_skb_load_bytes(self.0.cast::<c_void>(), offset, target, len) == 0 }
    }
}

/// A packet with the bounds of its directly readable part.
pub(crate) struct Frame<B> {
    buffer: B,
    data: usize,
    data_end: usize,
}

impl<B: Buffer> Frame<B> {
    #[inline(always)]
    fn of(buffer: B) -> Self {
        let (data, data_end) = buffer.bounds();
        Self {
            buffer,
            data,
            data_end,
        }
    }
}

impl Frame<Xdp> {
    /// The frame of this run of the program.
    #[inline(always)]
    pub(crate) fn received(ctx: &XdpContext) -> Self {
        Self::of(Xdp(ctx.ctx))
    }
}

impl Frame<Skb> {
    /// The packet of this run of the program.
    #[inline(always)]
    pub(crate) fn leaving(ctx: &TcContext) -> Self {
        Self::of(Skb(ctx.skb.skb))
    }
}

/// The beginning of a packet, which the verifier knows to be there.
#[derive(Clone, Copy)]
pub(crate) struct Start(usize);

impl Start {
    #[inline(always)]
    fn load<T: Copy>(self, offset: usize) -> T {
        // SAFETY: the offset lies below the length that was compared with the end, which the verifier checks; as for
        // alignment, see `load`.
        unsafe { ((self.0 + offset) as *const T).read_volatile() }
    }
}

impl Direct for Start {
    #[inline(always)]
    fn byte(self, offset: usize) -> u8 {
        self.load(offset)
    }

    #[inline(always)]
    fn half(self, offset: usize) -> u16 {
        u16::from_be(self.load(offset))
    }

    #[inline(always)]
    fn word(self, offset: usize) -> u32 {
        u32::from_be(self.load(offset))
    }

    #[inline(always)]
    fn double(self, offset: usize) -> u64 {
        u64::from_be(self.load(offset))
    }
}

impl<B: Buffer> Packet for Frame<B> {
    type Direct<'a>
        = Start
    where
        Self: 'a;

    #[inline(always)]
    fn direct(&self, len: usize) -> Option<Start> {
        (self.data + len <= self.data_end).then_some(Start(self.data))
    }

    #[inline(always)]
    fn len(&self, reach: usize) -> usize {
        let direct = self.data_end - self.data;
        if reach <= direct {
            direct
        } else {
            self.buffer.whole()
        }
    }

    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.data + offset;
        let end = if N == 1 { opaque(start + 1) } else { start + N };
        if end <= self.data_end {
            // SAFETY: the bytes lie between the start and the end of the directly readable part; the verifier
            // checks the same comparison.
            return Some(unsafe { load(start) });
        }
        let mut bytes = MaybeUninit::<Aligned<N>>::uninit();
        // SAFETY: `bytes` has room for N bytes.
        if unsafe { self.copy_to(offset, bytes.as_mut_ptr().cast(), N) } {
            // In the same words as above: the compiler then joins the two ways in words, and not byte by byte.
            // SAFETY: the helper filled all of it.
            return Some(unsafe { load(bytes.as_ptr() as usize) });
        }
        None
    }

    #[inline(always)]
    fn head(&self, offset: usize, len: usize) -> Head {
        let offset = offset & OFFSET_MASK;
        let start = self.data + offset;
        if len >= HEAD && start + HEAD <= self.data_end {
            let at = Start(start);
            return Head([0, 8, 16, 24].map(|offset| u64::from_le(at.load(offset))));
        }
        let mut head = [0_u64; HEAD / 8];
        // Shorter than the head or in several buffers. An empty payload must not reach the helper.
        let len = if len >= HEAD { HEAD } else { len & (HEAD - 1) };
        if len > 0 {
            // The verifier must see that it is not empty: before Linux 6.8 it learns nothing from the comparison.
            let len = (opaque(len - 1) & (HEAD - 1)) + 1;
            // SAFETY: `head` has room for 32 bytes. If they are not there, it stays zero.
            let _ = unsafe { self.copy_to(offset, head.as_mut_ptr().cast(), len) };
        }
        Head(head.map(u64::from_le))
    }

    #[inline(always)]
    unsafe fn copy_to(&self, offset: usize, target: *mut u8, len: usize) -> bool {
        // SAFETY: the caller answers for the target.
        unsafe { self.buffer.load(offset as u32, target.cast(), len as u32) }
    }

    #[inline(always)]
    fn again(&self) -> Self {
        Self::of(self.buffer)
    }
}

/// Bytes that can be read as words.
#[repr(C, align(8))]
struct Aligned<const N: usize>([u8; N]);

/// A value of which the compiler knows nothing. Of the end of one byte, so that it does not turn `end <= data_end` into
/// `start < data_end`: the verifier learns nothing from a strict comparison of a pointer without a constant offset
/// (`find_good_pkt_pointers`). Of a length, so that it does not take away a mask which only the verifier needs.
#[inline(always)]
fn opaque(value: usize) -> usize {
    let copy: usize;
    // SAFETY: copies a register. An empty template would do, but leaves line information the kernel rejects.
    unsafe {
        core::arch::asm!("{0} = {1}", out(reg) copy, in(reg) value, options(pure, nomem, nostack));
    }
    copy
}

/// Loads `N` bytes in words where the length allows. The compiler would load a byte array byte by byte; BPF allows
/// unaligned loads from packets on every architecture with efficient unaligned access, and the program is verified
/// for the one it runs on.
///
/// # Safety
/// `N` bytes at `start` must be readable.
#[inline(always)]
unsafe fn load<const N: usize>(start: usize) -> [u8; N] {
    let mut bytes = [0_u8; N];
    let mut at = 0;
    while at + 8 <= N {
        // SAFETY: within the N bytes.
        let word = unsafe { (((start + at) as *const u64).read_volatile()).to_ne_bytes() };
        let mut byte = 0;
        while byte < 8 {
            bytes[at + byte] = word[byte];
            byte += 1;
        }
        at += 8;
    }
    if at + 4 <= N {
        // SAFETY: within the N bytes.
        let word = unsafe { (((start + at) as *const u32).read_volatile()).to_ne_bytes() };
        let mut byte = 0;
        while byte < 4 {
            bytes[at + byte] = word[byte];
            byte += 1;
        }
        at += 4;
    }
    while at < N {
        // SAFETY: within the N bytes.
        bytes[at] = unsafe { ((start + at) as *const u8).read_volatile() };
        at += 1;
    }
    bytes
}
