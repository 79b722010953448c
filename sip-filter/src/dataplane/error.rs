//! What can go wrong with the kernel, in the operator's words.

use std::{error::Error, io, path::PathBuf};

/// Oldest Linux with everything the filter needs (`super::features`).
pub(crate) const MINIMUM_KERNEL: &str = "5.19";

/// Why a data plane could not be made, attached or changed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// It lacks something.
    #[error("kernel {found} lacks {lacks}; sip-filter needs Linux {minimum} or later")]
    Kernel {
        /// The running kernel.
        found: String,
        /// What it lacks, each with the version that has it.
        lacks: String,
        /// A version that lacks nothing.
        minimum: &'static str,
    },
    /// Not root.
    #[error("no permission to {what}; run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON")]
    Permission {
        /// What was tried.
        what: &'static str,
    },
    /// No such interface.
    #[error("no interface `{name}` here; there are: {known}")]
    NoInterface {
        /// As asked for.
        name: String,
        /// Those that exist.
        known: String,
    },
    /// It was there a moment ago.
    #[error("interface {name} went away while the filter was being put on it")]
    Gone {
        /// Its name.
        name: String,
    },
    /// Held by another daemon.
    #[error("another sip-filter is already running on {interface} (it holds {path}); stop it first")]
    Busy {
        /// The interface.
        interface: String,
        /// The lock.
        path: PathBuf,
    },
    /// Held by another program.
    #[error(
        "another XDP program is attached to {interface} and was left alone: {program}; see `ip link show dev {interface}` and `bpftool net`, and remove it first"
    )]
    OtherProgram {
        /// The interface.
        interface: String,
        /// Its id, and what else could be found out.
        program: String,
    },
    /// The pins are those of an interface of the same name elsewhere.
    #[error(
        "the pins in {path} belong to an interface `{interface}` of another network namespace (inode {netns}) and were left alone; set bpf.pin_root to a directory of its own for each namespace"
    )]
    OtherNamespace {
        /// The interface.
        interface: String,
        /// The pins.
        path: PathBuf,
        /// Whose they are.
        netns: u32,
    },
    /// Neither mode works.
    #[error("cannot attach to {interface} in {mode} mode")]
    Attach {
        /// The interface.
        interface: String,
        /// What was tried.
        mode: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The link cannot outlive the daemon.
    #[error(
        "the kernel attached {interface} without a BPF link, so the filter would end with the daemon; kernel 5.9 or later with BPF links is needed"
    )]
    NotPinnable {
        /// The interface.
        interface: String,
    },
    /// No place for pins.
    #[error(
        "{path} is not on a BPF file system; mount one with `mount -t bpf bpf /sys/fs/bpf`, or set bpf.pin_root"
    )]
    NoBpffs {
        /// The configured root.
        path: PathBuf,
    },
    /// Somebody else's directory.
    #[error(
        "{path} belongs to user {owner}, who could swap the filter's tables; remove it, or set bpf.pin_root"
    )]
    ForeignPins {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        owner: u32,
    },
    /// A pin.
    #[error("cannot write or read the pin {path}")]
    Pin {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A classifier of a daemon that is gone.
    #[error(
        "cannot take the classifier `egress`, which a stopped daemon left, off {interface}; `tc filter del dev {interface} egress` does it by hand"
    )]
    Leftover {
        /// The interface.
        interface: String,
        /// What the kernel said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// A memory limit, or no memory at all.
    #[error(
        "the kernel has no memory for the tables (`{what}`): they take about 68 MB for each interface with the default sizes, which count towards the memory limit of the service (`MemoryMax=`); raise that, or make [tables] smaller"
    )]
    Memory {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The verifier or the loader.
    #[error("the kernel refused the program")]
    Refused(#[source] Box<dyn Error + Send + Sync>),
    /// A map.
    #[error("the kernel refused an operation on a map")]
    Map(#[source] Box<dyn Error + Send + Sync>),
    /// A write to a map.
    #[error("cannot write the {what} of the kernel program")]
    Write {
        /// What was written.
        what: &'static str,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// A defect of the build.
    #[error("the embedded kernel program lacks `{0}`; this build is broken")]
    Object(&'static str),
}

impl DataplaneError {
    /// Whether the interface is simply not there, or not any more.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NoInterface { .. } | Self::Gone { .. })
    }

    pub(crate) fn load(error: aya::EbpfError) -> Self {
        Self::classify(error, "load BPF maps and programs", Self::Refused)
    }

    pub(crate) fn program(error: aya::programs::ProgramError) -> Self {
        Self::classify(error, "load BPF programs", Self::Refused)
    }

    pub(crate) fn map(error: aya::maps::MapError) -> Self {
        Self::classify(error, "use BPF maps", Self::Map)
    }

    fn classify<E: Error + Send + Sync + 'static>(
        error: E,
        what: &'static str,
        otherwise: impl FnOnce(Box<dyn Error + Send + Sync>) -> Self,
    ) -> Self {
        match os_error(&error) {
            Some(libc::EPERM | libc::EACCES) if !nix::unistd::geteuid().is_root() => {
                Self::Permission { what }
            }
            Some(libc::ENOMEM) => Self::Memory {
                what,
                source: Box::new(error),
            },
            _ => otherwise(Box::new(error)),
        }
    }
}

/// The operating system's error number somewhere down the chain of causes.
pub(crate) fn os_error(error: &(dyn Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(code) = error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::raw_os_error)
        {
            return Some(code);
        }
        cause = error.source();
    }
    None
}
