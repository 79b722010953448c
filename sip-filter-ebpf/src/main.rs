//! The kernel program of sip-filter. It is thin: what happens to a packet is decided in `sip-filter-common`; here
//! are only its entry point, the access to packets and maps, and the one exit that counts.
#![cfg_attr(
    target_arch = "bpf",
    no_std,
    no_main,
    feature(core_intrinsics, asm_experimental_arch)
)]
#![cfg_attr(
    target_arch = "bpf",
    expect(
        internal_features,
        reason = "atomic compare-and-exchange exists on this target as an intrinsic only"
    )
)]

#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
mod tables;

/// The program only makes sense in the kernel; on the host there is nothing to run.
#[cfg(not(target_arch = "bpf"))]
fn main() {}

#[cfg(target_arch = "bpf")]
mod program {
    use aya_ebpf::{
        bindings::xdp_action,
        macros::{classifier, xdp},
        programs::{TcContext, XdpContext},
    };
    use sip_filter_common::{
        packet::Packet as _,
        pipeline::{Decision, decide, observe},
        verdict::Action,
    };

    use crate::{
        packet::{Frame, Xdp},
        tables::Kernel,
    };

    /// Inspects one received frame.
    #[xdp(frags)]
    #[inline(always)]
    fn ingress(ctx: XdpContext) -> u32 {
        let frame = Frame::received(&ctx);
        let Some(kernel) = Kernel::new(&ctx) else {
            // A one-element map that cannot be read: nothing to decide by and nowhere to count.
            return xdp_action::XDP_PASS;
        };
        let decision = decide(&frame, &kernel);
        finish(&frame.again(), &kernel, decision)
    }

    /// The one exit: counts the reason and turns the verdict into what the kernel understands.
    #[inline(always)]
    fn finish(frame: &Frame<Xdp>, kernel: &Kernel<XdpContext>, decision: Decision) -> u32 {
        kernel.count(decision.counter_index(), frame.len(decision.reach));
        match decision.action() {
            Action::Pass => xdp_action::XDP_PASS,
            Action::Drop => xdp_action::XDP_DROP,
        }
    }

    /// `TCX_NEXT`, and for a classifier of old `TC_ACT_UNSPEC`: what comes next decides.
    const NEXT: i32 = -1;

    /// Looks at one packet that leaves. Whatever it finds, the packet goes on.
    #[classifier]
    fn egress(ctx: TcContext) -> i32 {
        if let Some(kernel) = Kernel::new(&ctx) {
            observe(&Frame::leaving(&ctx), &kernel);
        }
        NEXT
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
