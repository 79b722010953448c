//! Programs that only `cargo xtask bench` loads: what sip-filter is compared with, and what makes the traffic. They are
//! built with the feature `bench` and no part of the product.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(core_intrinsics))]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        internal_features,
        reason = "atomic compare-and-exchange exists on this target as an intrinsic only"
    )
)]

#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod plan;

/// The programs only make sense in the kernel; on the host there is nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod programs {
    use core::intrinsics::{AtomicOrdering, atomic_cxchg};

    use aya_ebpf::{
        bindings::{BPF_F_MMAPABLE, xdp_action},
        btf_maps::{Array, PerCpuArray, ProgramArray},
        helpers::generated::bpf_redirect,
        macros::{btf_map, xdp},
        programs::XdpContext,
    };

    use sip_filter_common::table::hash;

    use crate::{
        packet::{Datagram, Words},
        plan::{HEADS, Plan, State, address},
    };

    const MMAP: usize = BPF_F_MMAPABLE as usize;

    #[btf_map]
    static PLAN: Array<Plan, 1> = Array::new();
    #[btf_map]
    static STATE: PerCpuArray<State, 1> = PerCpuArray::new();
    #[btf_map]
    static HEAD: Array<[u64; 4], { HEADS as usize }> = Array::new();
    /// The program under test.
    #[btf_map]
    static NEXT: ProgramArray<1> = ProgramArray::new();

    /// A table of 16 MiB, as large as that of a million bans.
    #[btf_map]
    static LINES: Array<[u64; 8], { 1 << 18 }, MMAP> = Array::new();

    /// A table of 4 MiB, as large as that of the limiter's state.
    #[btf_map]
    static STATES: Array<[u64; 8], { 1 << 16 }, MMAP> = Array::new();

    /// Counts and drops: the least a filter can do.
    #[xdp(frags)]
    fn bare(_ctx: XdpContext) -> u32 {
        if let Some(state) = STATE.get_ptr_mut(0) {
            // SAFETY: the look-up succeeded; each CPU has its own.
            unsafe { (*state).received += 1 };
        }
        xdp_action::XDP_DROP
    }

    /// Passes: the floor of what a program under test costs.
    #[xdp(frags)]
    fn empty(_ctx: XdpContext) -> u32 {
        xdp_action::XDP_PASS
    }

    /// The port that the programs below protect.
    const PORT: u16 = 5060;
    const SEED: [u64; 2] = [0x5eed_5eed_5eed_5eed, 0xfeed_feed_feed_feed];

    /// Counts, reads the source at a constant offset, and passes on a datagram to another port: what every filter by
    /// source begins with. `None` if the packet passes.
    #[inline(always)]
    fn source(ctx: &XdpContext) -> Option<u32> {
        let state = STATE.get_ptr_mut(0)?;
        // SAFETY: the look-up succeeded; each CPU has its own.
        unsafe { (*state).received += 1 };
        let datagram = Datagram::of(ctx)?;
        (datagram.port == PORT).then_some(datagram.source)
    }

    /// Whether a line of the table of bans, the first of `MASK` + 1, says nothing against a hash. All lines are zero.
    #[inline(always)]
    fn says_nothing<const MASK: u32>(hash: u64) -> bool {
        LINES.get(hash as u32 & MASK).is_some_and(|line| line[0] == 0)
    }

    /// Takes a packet from a limit that is never reached: one word, compared and exchanged as it must be where several
    /// processors share it.
    #[inline(always)]
    fn takes(hash: u64) -> bool {
        let Some(line) = STATES.get_ptr_mut(hash as u32 & ((1 << 16) - 1)) else {
            return false;
        };
        // SAFETY: the look-up succeeded; map values are aligned to 8 bytes.
        unsafe {
            let word = line.cast::<u64>();
            let old = word.read_volatile();
            let (seen, _) = atomic_cxchg::<u64, { AtomicOrdering::SeqCst }, { AtomicOrdering::SeqCst }>(
                word,
                old,
                old.wrapping_add(1),
            );
            seen == old
        }
    }

    /// The least that a filter with a table of a million bans can do about a banned source: read the source, hash it, read
    /// one line, count and drop. No key is compared, no end of a ban, no hit counted.
    #[xdp(frags)]
    fn least_ban(ctx: XdpContext) -> u32 {
        match source(&ctx) {
            Some(source) if says_nothing::<{ (1 << 18) - 1 }>(hash(SEED, source as u64, 0)) => {
                xdp_action::XDP_DROP
            }
            _ => xdp_action::XDP_PASS,
        }
    }

    /// The same for networks of 24 bits in a table of 4 MiB, which holds 131,072 of them.
    #[xdp(frags)]
    fn least_network(ctx: XdpContext) -> u32 {
        match source(&ctx) {
            Some(source) if says_nothing::<{ (1 << 16) - 1 }>(hash(SEED, (source >> 8) as u64, 6)) => {
                xdp_action::XDP_DROP
            }
            _ => xdp_action::XDP_PASS,
        }
    }

    /// The least that a limiter of each source can do about a flood: read the source, hash it, compare and exchange one
    /// word, count and drop.
    #[xdp(frags)]
    fn least_limit(ctx: XdpContext) -> u32 {
        match source(&ctx) {
            Some(source) if takes(hash(SEED, source as u64, 3)) => xdp_action::XDP_DROP,
            _ => xdp_action::XDP_PASS,
        }
    }

    /// The least that both together can do about a clean request: one line of the bans, one word of the limiter, count
    /// and pass. No network is looked for, no trust, nothing classified, no shared budget, no event.
    #[xdp(frags)]
    fn least_clean(ctx: XdpContext) -> u32 {
        let Some(source) = source(&ctx) else {
            return xdp_action::XDP_PASS;
        };
        if !says_nothing::<{ (1 << 18) - 1 }>(hash(SEED, source as u64, 0))
            || !takes(hash(SEED, source as u64, 3))
        {
            return xdp_action::XDP_ABORTED;
        }
        xdp_action::XDP_PASS
    }

    /// Reads one line of a table, another one for each packet: what the cache makes any table that large cost. Where the
    /// next line lies depends on what was read, as otherwise the processor fetches the lines of several packets at once.
    #[inline(always)]
    fn line<const MASK: u32>() -> u32 {
        let Some(state) = STATE.get_ptr_mut(0) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: the look-up succeeded; each CPU has its own.
        let state = unsafe { &mut *state };
        let place = (state.frames + state.failed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Some(line) = LINES.get((place >> 40) as u32 & MASK) else {
            return xdp_action::XDP_ABORTED;
        };
        // All lines are zero.
        state.failed += line[0];
        xdp_action::XDP_PASS
    }

    /// One line of 512 KiB.
    #[xdp(frags)]
    fn line_512k(_ctx: XdpContext) -> u32 {
        line::<{ (1 << 13) - 1 }>()
    }

    /// One line of 4 MiB.
    #[xdp(frags)]
    fn line_4m(_ctx: XdpContext) -> u32 {
        line::<{ (1 << 16) - 1 }>()
    }

    /// One line of 16 MiB.
    #[xdp(frags)]
    fn line_16m(_ctx: XdpContext) -> u32 {
        line::<{ (1 << 18) - 1 }>()
    }

    /// Makes the frame another one and hands it to the program under test.
    #[xdp(frags)]
    fn vary_then_run(ctx: XdpContext) -> u32 {
        let (Some(plan), Some(state)) = (PLAN.get(0), STATE.get_ptr_mut(0)) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: the look-up succeeded; each CPU has its own.
        let state = unsafe { &mut *state };
        vary(&ctx, plan, state);
        // SAFETY: nothing here needs to be dropped.
        unsafe { NEXT.tail_call(&ctx, 0) };
        state.failed += 1;
        xdp_action::XDP_ABORTED
    }

    /// Makes the frame another one and sends it.
    #[xdp(frags)]
    fn vary_then_send(ctx: XdpContext) -> u32 {
        let (Some(plan), Some(state)) = (PLAN.get(0), STATE.get_ptr_mut(0)) else {
            return xdp_action::XDP_ABORTED;
        };
        // SAFETY: the look-up succeeded; each CPU has its own.
        let state = unsafe { &mut *state };
        vary(&ctx, plan, state);
        state.sent += 1;
        // SAFETY: a call into the kernel without pointers.
        unsafe { bpf_redirect(plan.interface as u32, 0) as u32 }
    }

    #[inline(always)]
    fn vary(ctx: &XdpContext, plan: &Plan, state: &mut State) {
        let words = Words::of(ctx);
        state.frames += 1;
        let frame = state.frames;
        if plan.sources != 0 {
            let index = if plan.random == 0 {
                let position = state.position;
                let next = position + 1;
                state.position = if next >= plan.sources { 0 } else { next };
                position
            } else {
                // xorshift64; its upper half, scaled.
                let mut seed = state.seed;
                seed ^= seed << 13;
                seed ^= seed >> 7;
                seed ^= seed << 17;
                state.seed = seed;
                ((seed >> 32) * plan.sources) >> 32
            };
            let source = address((plan.first + index) as u32) | plan.base as u32;
            let mut word = plan.source_word & 0xffff_ffff | u64::from(source.to_be()) << 32;
            if plan.checksum != 0 {
                let sum = plan.checksum + u64::from(source >> 16) + u64::from(source & 0xffff);
                let sum = (sum & 0xffff) + (sum >> 16);
                let sum = (sum & 0xffff) + (sum >> 16);
                word |= u64::from((!sum as u16).to_be()) << 16;
            }
            words.write(plan.source_at, word);
        }
        if plan.ports_at != 0 {
            // A port above 1024, other than the last.
            let port = (0x0400 | frame & 0x7fff) as u16;
            words.write(plan.ports_at, plan.ports_word & !0xffff | u64::from(port.to_be()));
        }
        if plan.head_at != 0
            && let Some(head) = HEAD.get((frame.wrapping_mul(0x9e37_79b1) >> 16) as u32 & (HEADS - 1))
        {
            words.write(plan.head_at, head[0]);
            words.write(plan.head_at + 8, head[1]);
            words.write(plan.head_at + 16, head[2]);
            words.write(plan.head_at + 24, head[3]);
        }
    }

    #[panic_handler]
    fn panic(_info: &core::panic::PanicInfo) -> ! {
        // The verifier rejects a program in which this can be reached.
        loop {}
    }

    #[unsafe(link_section = "license")]
    #[unsafe(no_mangle)]
    static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
}
