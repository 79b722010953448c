//! The kernel side as the rest of the program sees it. Only this module names aya.

mod compare;
mod config_switch;
mod counters;
mod egress;
mod error;
mod events;
mod features;
mod host;
mod image;
mod interface;
mod kernel_log;
mod links;
mod memory;
mod netlink;
mod networks;
mod owner;
mod past;
mod pins;
mod ports;
mod program;
mod quiet;
mod sizes;
mod test_run;

use std::time::Duration;

pub use compare::Comparison;
pub use counters::zero as no_counters;
pub use error::DataplaneError;
pub use events::EventStream;
pub use host::HostPlane;
pub use interface::{AttachMode, Interface, Prepared};
pub use kernel_log::KernelLog;
pub use netlink::LinkWatch;
pub use pins::{Detached, check_bpffs as check_pin_root, detach, leftovers, pinned, prepare};
pub use program::{LoadOptions, LoadedProgram};
pub use sizes::TableSizes;
pub use test_run::EventRing;

use ipnet::IpNet;
use sip_filter_common::abi;

use crate::bans::{Endpoint, Scope, Target};

/// A ban as the kernel knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelBan {
    /// What is stopped.
    pub scope: Scope,
    /// Boot time (`CLOCK_BOOTTIME`) at which the kernel stops enforcing it; `None` is permanent.
    pub expires: Option<Duration>,
}

/// Why a table could not take an entry.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// No room.
    #[error(
        "the {table} table of {interface} is full ({entries} entries); remove bans or raise `{setting}` in the configuration"
    )]
    Full {
        /// Interface the table belongs to.
        interface: String,
        /// Table name for people, such as "IPv4 ban".
        table: &'static str,
        /// Entries it holds now.
        entries: usize,
        /// Configuration key of its size.
        setting: &'static str,
    },
    /// Trust is kept by source, as sources are counted.
    #[error(
        "{0} is neither an IPv4 address nor an IPv6 prefix by which sources are counted, so it cannot be trusted"
    )]
    NotASource(Target),
    /// The kernel refused.
    #[error("cannot write the {table} table of {interface}")]
    Kernel {
        /// Interface the table belongs to.
        interface: String,
        /// Table name.
        table: &'static str,
        /// What the kernel said.
        #[source]
        source: std::io::Error,
    },
}

/// The image of the ban list and the allow-list in the tables of one data plane (one interface, or a capture).
pub trait Image: Send {
    /// Inserts or replaces a ban. On error the tables are as before.
    ///
    /// # Errors
    /// [`ImageError`] if there is no room or the kernel refuses.
    fn put(&mut self, target: Target, ban: KernelBan) -> Result<(), ImageError>;

    /// Removes a ban; removing what is not there does nothing.
    ///
    /// # Errors
    /// [`ImageError::Kernel`] if the kernel refuses.
    fn remove(&mut self, target: Target) -> Result<(), ImageError>;

    /// Replaces the whole allow-list.
    ///
    /// # Errors
    /// [`ImageError`] if there is no room or the kernel refuses.
    fn set_allowed(&mut self, networks: &[IpNet]) -> Result<(), ImageError>;

    /// Says that these are about to be asked for or written, so that their memory can be fetched together.
    fn fetch(&self, _bans: &[(Target, KernelBan)]) {}

    /// Reads a ban back, for verification.
    fn get(&self, target: Target) -> Option<KernelBan>;

    /// Reports and resets the packets each ban stopped since the last time: the next part of them, of bounded length.
    /// `false` when that was all.
    fn take_some_hits(&mut self, report: &mut dyn FnMut(Target, u64)) -> bool;

    /// Reports and resets the packets each ban stopped since the last call.
    fn take_hits(&mut self, report: &mut dyn FnMut(Target, u64)) {
        while self.take_some_hits(report) {}
    }

    /// Trusts an IPv4 address, or an IPv6 prefix of the counted length, until a boot time; `None` ends its trust.
    ///
    /// # Errors
    /// [`ImageError`] if there is no room, the target is of another kind, or the kernel refuses.
    fn set_trust(&mut self, target: Target, until: Option<Duration>) -> Result<(), ImageError>;

    /// Makes an endpoint one of its source's own until a boot time; `None` ends that. It counts only while the source
    /// is trusted.
    ///
    /// # Errors
    /// [`ImageError`] if there is no room.
    fn set_endpoint(&mut self, endpoint: Endpoint, until: Option<Duration>) -> Result<(), ImageError>;

    /// Calls `visit` with bans of addresses, and of IPv6 prefixes by which sources are counted, that the tables hold: with
    /// those of the next part, of bounded length. Returns where to go on, `None` when that was all. What is moved
    /// meanwhile may be missed or met twice.
    fn visit_exact(&self, from: Cursor, visit: &mut dyn FnMut(Target, KernelBan)) -> Option<Cursor>;

    /// Counts entries anew: somebody else has changed the tables.
    fn recount(&mut self);

    /// Whether so many more bans could be put there at all. They may still be refused: a table seldom takes as many as it
    /// has places.
    ///
    /// # Errors
    /// [`ImageError::Full`] if there are surely too few places.
    fn room_for(&self, _new: &[Target]) -> Result<(), ImageError> {
        Ok(())
    }

    /// How full each table is.
    fn fill(&self) -> Vec<TableFill>;
}

/// How far a look that goes through the tables part by part has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cursor {
    /// Tables that are done.
    pub(crate) table: usize,
    /// Buckets of the next one that are done.
    pub(crate) bucket: u32,
}

impl Cursor {
    /// Buckets in a part: 16 KiB of a table, with 1,792 IPv4 addresses at most.
    pub(crate) const PART: u32 = 256;

    /// Behind so many buckets of a part; fewer than it could have been are the last of their table.
    pub(crate) fn behind(self, buckets: u32) -> Self {
        if buckets < Self::PART {
            Self {
                table: self.table + 1,
                bucket: 0,
            }
        } else {
            Self {
                bucket: self.bucket + buckets,
                ..self
            }
        }
    }
}

/// How the server's answers are observed.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Egress {
    /// By a TCX program (kernel 6.6).
    Tcx,
    /// By a classifier of a clsact queueing discipline.
    Clsact,
    /// Not at all; why.
    None(String),
}

/// How full a table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TableFill {
    /// Its name.
    pub name: &'static str,
    /// The configuration's key for its size.
    pub setting: &'static str,
    /// Entries in it.
    pub entries: usize,
    /// Entries it can hold.
    pub capacity: usize,
}

/// How the XDP program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum XdpMode {
    /// In the driver.
    Native,
    /// In the kernel's generic path: works everywhere, slower.
    Generic,
}

impl Egress {
    /// The stable name; `None` if answers are not observed.
    #[must_use]
    pub const fn name(&self) -> Option<&'static str> {
        match self {
            Self::Tcx => Some("tcx"),
            Self::Clsact => Some("clsact"),
            Self::None(_) => None,
        }
    }
}

/// Sum of the counters of all CPUs.
pub type Counters = Box<abi::Counters>;
