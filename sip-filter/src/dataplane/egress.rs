//! The program that looks at what leaves an interface. It only matters while the daemon listens, so it is not pinned:
//! with the daemon gone, it goes.
//!
//! Before TCX (Linux 6.6) it stays, without effect, if the daemon was killed or has given up its capabilities: taking off a
//! classifier of old takes CAP_NET_ADMIN. The next start replaces it, and `sip-filter detach` takes it off.

use std::{thread, time::Duration};

use aya::{
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType,
        links::FdLink,
        tc::{NlOptions, SchedClassifierLink, TcAttachOptions, qdisc_add_clsact, qdisc_detach_program},
    },
    util::KernelVersion,
};

use nix::net::if_::if_nametoindex;

use super::{
    DataplaneError, Egress,
    error::os_error,
    links::{Description, Place},
    netlink::{egress_classifiers, xdp_programs},
    program::EGRESS,
};
use crate::privileges;

/// First kernel with TCX.
const TCX: KernelVersion = KernelVersion::new(6, 6, 0);

/// How the program is attached, and what is needed to see whether it still is.
pub(super) struct Attached {
    /// As attached, or as found since.
    how: Egress,
    hold: Hold,
}

enum Hold {
    /// Detached when the link is dropped.
    Tcx {
        _link: SchedClassifierLink,
        description: Option<Description>,
    },
    /// Detached when the link is dropped.
    Clsact {
        _link: SchedClassifierLink,
    },
    Nothing,
}

/// Attaches the program. What an interface cannot do is no error: the filter then works on ingress alone.
pub(super) fn attach(program: &mut SchedClassifier, interface: &str) -> Attached {
    let has_tcx = KernelVersion::current().is_ok_and(|version| version >= TCX);
    let attached = if has_tcx {
        by_tcx(program, interface)
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
        Attached {
            how: Egress::None(why),
            hold: Hold::Nothing,
        }
    })
}

impl Attached {
    /// How the answers are observed, as far as is known.
    pub(super) fn how(&self) -> &Egress {
        &self.how
    }

    /// Whether somebody took the program off the interface since it was attached.
    fn is_lost(&self, (index, program): (u32, u32)) -> bool {
        match &self.hold {
            Hold::Tcx { description, .. } => {
                description.is_some_and(|description| description.place() == Place::Nowhere)
            }
            // Where the kernel does not tell, nothing is known to be lost.
            Hold::Clsact { .. } => {
                egress_classifiers(index).is_ok_and(|programs| !programs.contains(&program))
            }
            Hold::Nothing => false,
        }
    }

    /// Looks whether the program is still there, and puts it back if it is not and this thread may. Returns what is to
    /// be told of it.
    pub(super) fn tend(
        &mut self,
        program: &mut SchedClassifier,
        (interface, index, id): (&str, u32, u32),
    ) -> Option<String> {
        // With the interface itself the program went, too: that is for whoever looks after interfaces.
        if !self.is_lost((index, id)) || if_nametoindex(interface) != Ok(index) {
            return None;
        }
        if !privileges::may_attach() {
            let why = "the program that observes them was taken off the interface, and the daemon has given up the \
                       capabilities that putting it back takes (`privileges`)";
            tracing::error!(
                interface,
                "the server's answers are not seen any more: {why}; restart the daemon"
            );
            *self = Self {
                how: Egress::None(why.to_owned()),
                hold: Hold::Nothing,
            };
            return None;
        }
        // The old link must not take off the new program when it goes.
        self.hold = Hold::Nothing;
        *self = attach(program, interface);
        if let Egress::None(_) = self.how {
            return None;
        }
        tracing::warn!(
            interface,
            "the program that observes the server's answers had been taken off the interface, and was put back"
        );
        Some(format!(
            "answers that left {interface} were not seen: the program that observes them had been taken off the interface, \
             and was put back"
        ))
    }
}

fn by_tcx(program: &mut SchedClassifier, interface: &str) -> Result<Attached, ProgramError> {
    let order = TcAttachOptions::TcxOrder(LinkOrder::default());
    let id = program.attach_with_options(interface, TcAttachType::Egress, order)?;
    let link = program.take_link(id)?;
    Ok(Attached {
        how: Egress::Tcx,
        hold: Hold::Tcx {
            description: <&FdLink>::try_from(&link).ok().and_then(Description::of),
            _link: link,
        },
    })
}

fn by_clsact(program: &mut SchedClassifier, interface: &str) -> Result<Attached, ProgramError> {
    // It may exist already, ours or another's; if it could not be made, attaching says so.
    let _ = qdisc_add_clsact(interface);
    // A daemon that was killed leaves its classifier behind. There need not be one.
    let _ = qdisc_detach_program(interface, TcAttachType::Egress, EGRESS);
    let id = program.attach_with_options(
        interface,
        TcAttachType::Egress,
        TcAttachOptions::Netlink(NlOptions::default()),
    )?;
    Ok(Attached {
        how: Egress::Clsact,
        hold: Hold::Clsact {
            _link: program.take_link(id)?,
        },
    })
}

/// Maps that the classifier cannot do without.
const OURS: [&str; 4] = ["CONFIG", "CONTROL", "EVENTS", "RECENT"];

/// How long the kernel may take to let go of an interface whose link was unpinned.
const LET_GO: Duration = Duration::from_secs(2);

/// Takes off the classifier that a daemon left at the interface, if there is one. Beside an XDP program it is left alone:
/// that may be a daemon's, with pins elsewhere, that still listens.
pub(super) fn take_off_leftover(interface: &str) -> Result<bool, DataplaneError> {
    let Ok(index) = if_nametoindex(interface) else {
        return Ok(false);
    };
    // Where there is no clsact, some kernels call that an error.
    let classifiers = egress_classifiers(index).unwrap_or_default();
    if !classifiers.into_iter().any(is_ours) {
        return Ok(false);
    }
    let step = LET_GO / 100;
    let busy = || xdp_programs(index).is_ok_and(|programs| !programs.is_empty());
    for _ in 0..100 {
        if !busy() {
            break;
        }
        thread::sleep(step);
    }
    if busy() {
        return Ok(false);
    }
    qdisc_detach_program(interface, TcAttachType::Egress, EGRESS).map_err(|source| {
        DataplaneError::Leftover {
            interface: interface.to_owned(),
            source: source.into(),
        }
    })?;
    Ok(true)
}

/// Whether a classifier is sip-filter's: its name is a common word, and its maps' names together are not.
fn is_ours(id: u32) -> bool {
    let program = aya::programs::loaded_programs()
        .flatten()
        .find(|program| program.id() == id && program.name_as_str() == Some(EGRESS));
    let Some(Ok(Some(maps))) = program.map(|program| program.map_ids()) else {
        return false;
    };
    let names: Vec<String> = aya::maps::loaded_maps()
        .flatten()
        .filter(|map| maps.contains(&map.id()))
        .filter_map(|map| map.name_as_str().map(str::to_owned))
        .collect();
    OURS.iter().all(|ours| names.iter().any(|name| name == ours))
}
