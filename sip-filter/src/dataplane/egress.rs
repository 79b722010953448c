//! The program that looks at what leaves an interface. It only matters while the daemon listens, so it is not pinned:
//! with the daemon gone, it goes.
//!
//! Before TCX (Linux 6.6) it stays, without effect, if the daemon was killed or has given up its capabilities: taking off a
//! classifier of old takes CAP_NET_ADMIN. The next start replaces it.

use aya::{
    programs::{
        LinkOrder, SchedClassifier, TcAttachType,
        tc::{NlOptions, TcAttachOptions, qdisc_add_clsact, qdisc_detach_program},
    },
    util::KernelVersion,
};

use super::{Egress, error::os_error, program::EGRESS};

/// First kernel with TCX.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// Attaches the program. What an interface cannot do is no error: the filter then works on ingress alone.
pub(super) fn attach(program: &mut SchedClassifier, interface: &str) -> Egress {
    let has_tcx = KernelVersion::current().is_ok_and(|version| version >= TCX);
    let attached = if has_tcx {
        program
            .attach_with_options(
                interface,
                TcAttachType::Egress,
                TcAttachOptions::TcxOrder(LinkOrder::default()),
            )
            .map(|_| Egress::Tcx)
    } else {
        by_clsact(program, interface)
    };
    attached.unwrap_or_else(|error| {
        let why = match os_error(&error) {
            Some(code) => format!("{error}: {}", std::io::Error::from_raw_os_error(code)),
            None => error.to_string(),
        };
        tracing::warn!(
            interface,
            error = why,
            "the server's answers cannot be observed; detection works on requests alone"
        );
        Egress::None(why)
    })
}

fn by_clsact(program: &mut SchedClassifier, interface: &str) -> Result<Egress, aya::programs::ProgramError> {
    // It may exist already, ours or another's; if it could not be made, attaching says so.
    let _ = qdisc_add_clsact(interface);
    // A daemon that was killed leaves its classifier behind. There need not be one.
    let _ = qdisc_detach_program(interface, TcAttachType::Egress, EGRESS);
    program
        .attach_with_options(
            interface,
            TcAttachType::Egress,
            TcAttachOptions::Netlink(NlOptions::default()),
        )
        .map(|_| Egress::Clsact)
}
