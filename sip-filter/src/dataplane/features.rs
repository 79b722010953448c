//! What the kernel must be able to do, found out by trying it: versions say little of kernels with features carried
//! back to them.

use std::{io, sync::OnceLock, thread};

use caps::CapSet;

use super::{DataplaneError, error::MINIMUM_KERNEL};

/// Something that not every kernel can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Feature {
    RingBuffer,
    CompareExchange,
    Frags,
    LoadBytes,
    WithoutCapabilities,
}

impl Feature {
    const ALL: [Self; 5] = [
        Self::RingBuffer,
        Self::CompareExchange,
        Self::Frags,
        Self::LoadBytes,
        Self::WithoutCapabilities,
    ];

    /// What it is, and the first version of Linux that has it.
    fn describe(self) -> (&'static str, &'static str) {
        match self {
            Self::RingBuffer => ("BPF ring buffers", "5.8"),
            Self::CompareExchange => ("atomic compare-and-exchange in BPF", "5.12"),
            Self::Frags => ("XDP frames in several buffers", "5.18"),
            Self::LoadBytes => ("bpf_xdp_load_bytes", "5.18"),
            // Commit c8644cd0efe7: before it, `kernel.unprivileged_bpf_disabled` closed all of bpf(2) to them.
            Self::WithoutCapabilities => ("open BPF maps for processes without capabilities", "5.19"),
        }
    }

    /// Whether the kernel has it; `None` if that cannot be told.
    fn probe(self) -> Option<bool> {
        match self {
            Self::RingBuffer => aya::sys::is_map_supported(aya::maps::MapType::RingBuf).ok(),
            Self::CompareExchange => loads(&COMPARE_EXCHANGE, 0),
            Self::Frags => loads(&PASS, BPF_F_XDP_HAS_FRAGS),
            Self::LoadBytes => loads(&LOAD_BYTES, 0),
            Self::WithoutCapabilities => works_without_capabilities(),
        }
    }
}

/// Makes sure that the kernel can run the program. What cannot be told, loading will tell.
///
/// # Errors
/// [`DataplaneError::Kernel`] names all that it lacks.
pub(super) fn check() -> Result<(), DataplaneError> {
    static LACKING: OnceLock<Vec<Feature>> = OnceLock::new();
    let lacking = LACKING.get_or_init(|| lacking(Feature::probe));
    if lacking.is_empty() {
        return Ok(());
    }
    let found = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_else(|_| "of unknown version".to_owned());
    Err(DataplaneError::Kernel {
        found,
        lacks: list(lacking),
        minimum: MINIMUM_KERNEL,
    })
}

fn lacking(has: impl Fn(Feature) -> Option<bool>) -> Vec<Feature> {
    let lacks = |feature: &Feature| has(*feature) == Some(false);
    Feature::ALL.into_iter().filter(lacks).collect()
}

/// Each with the version that has it.
fn list(features: &[Feature]) -> String {
    let texts = features.iter().map(|feature| {
        let (what, since) = feature.describe();
        format!("{what} (Linux {since})")
    });
    texts.collect::<Vec<_>>().join(", ")
}

/// `struct bpf_insn`, encoded.
type Instruction = u64;

const fn instruction(code: u8, target: u8, source: u8, offset: i16, value: i32) -> Instruction {
    u64::from_ne_bytes({
        let [o0, o1] = offset.to_ne_bytes();
        let [v0, v1, v2, v3] = value.to_ne_bytes();
        let registers = if cfg!(target_endian = "little") {
            source << 4 | target
        } else {
            target << 4 | source
        };
        [code, registers, o0, o1, v0, v1, v2, v3]
    })
}

const fn set(register: u8, value: i32) -> Instruction {
    instruction(0xb7, register, 0, 0, value)
}

const EXIT: Instruction = instruction(0x95, 0, 0, 0, 0);
const XDP_PASS: i32 = 2;

/// Lets everything pass.
static PASS: [Instruction; 2] = [set(0, XDP_PASS), EXIT];

/// Compares and exchanges a word on its stack.
static COMPARE_EXCHANGE: [Instruction; 6] = [
    // *(u64 *)(r10 - 8) = 0
    instruction(0x7a, 10, 0, -8, 0),
    set(0, 0),
    set(1, 1),
    // r0 = cmpxchg(r10 - 8, r0, r1)
    instruction(0xdb, 10, 1, -8, 0xf1),
    set(0, XDP_PASS),
    EXIT,
];

/// Reads eight bytes of a frame.
static LOAD_BYTES: [Instruction; 7] = [
    // r1 is the frame.
    set(2, 0),
    // r3 = r10 - 8
    instruction(0xbf, 3, 10, 0, 0),
    instruction(0x07, 3, 0, 0, -8),
    set(4, 8),
    // bpf_xdp_load_bytes
    instruction(0x85, 0, 0, 0, 189),
    set(0, XDP_PASS),
    EXIT,
];

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_PROG_TYPE_XDP: u32 = 6;
const BPF_F_XDP_HAS_FRAGS: u32 = 1 << 5;

/// The head of `union bpf_attr` for loading programs.
#[repr(C)]
#[derive(Default)]
struct LoadAttributes {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
}

/// Whether the kernel takes this XDP program; `None` if it would not even take the simplest.
fn loads(instructions: &'static [Instruction], flags: u32) -> Option<bool> {
    if load(instructions, flags).is_ok() {
        return Some(true);
    }
    load(&PASS, 0).is_ok().then_some(false)
}

fn load(instructions: &'static [Instruction], flags: u32) -> io::Result<()> {
    let attributes = LoadAttributes {
        program_type: BPF_PROG_TYPE_XDP,
        instruction_count: u32::try_from(instructions.len()).unwrap_or(0),
        instructions: instructions.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        flags,
        ..LoadAttributes::default()
    };
    let descriptor = bpf(BPF_PROG_LOAD, &attributes)?;
    // SAFETY: the kernel has just given it to us alone.
    drop(unsafe { <std::os::fd::OwnedFd as std::os::fd::FromRawFd>::from_raw_fd(descriptor) });
    Ok(())
}

/// Whether a thread without capabilities may use what is open, as the daemon does once it protects. It asks for a pin
/// without a path: what it may not do at all is refused before that is looked at.
fn works_without_capabilities() -> Option<bool> {
    let ask = || {
        let refused = |error: &io::Error| error.raw_os_error() == Some(libc::EPERM);
        bpf(BPF_OBJ_GET, &LoadAttributes::default()).map_or_else(|error| !refused(&error), |_| true)
    };
    if !ask() {
        return None;
    }
    // Capabilities belong to threads, so this one keeps its own.
    let without = thread::Builder::new().name("features".to_owned()).spawn(move || {
        caps::clear(None, CapSet::Effective).ok()?;
        Some(ask())
    });
    without.ok()?.join().ok()?
}

fn bpf(command: libc::c_int, attributes: &LoadAttributes) -> io::Result<libc::c_int> {
    // SAFETY: the attributes are as large as said, and what they point to lives as long as the program.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size_of::<LoadAttributes>()) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    libc::c_int::try_from(result).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_surely_missing_is_missing() {
        assert!(lacking(|_| Some(true)).is_empty());
        assert!(lacking(|_| None).is_empty());
        let old = |feature| Some(![Feature::Frags, Feature::LoadBytes].contains(&feature));
        assert_eq!(lacking(old), [Feature::Frags, Feature::LoadBytes]);
    }

    #[test]
    fn the_refusal_is_one_sentence_that_names_what_is_missing_and_the_minimum() {
        let error = DataplaneError::Kernel {
            found: "5.10.0-32-cloud-amd64".to_owned(),
            lacks: list(&[Feature::CompareExchange, Feature::Frags]),
            minimum: MINIMUM_KERNEL,
        };
        assert_eq!(
            error.to_string(),
            "kernel 5.10.0-32-cloud-amd64 lacks atomic compare-and-exchange in BPF (Linux 5.12), XDP frames in several \
             buffers (Linux 5.18); sip-filter needs Linux 5.19 or later"
        );
    }

    #[test]
    fn the_minimum_is_the_version_that_has_the_last_of_them() {
        let numbers =
            |version: &str| -> Vec<u32> { version.split('.').map(|n| n.parse().unwrap()).collect() };
        let last = Feature::ALL.map(|feature| numbers(feature.describe().1));
        assert_eq!(last.iter().max(), Some(&numbers(MINIMUM_KERNEL)));
    }

    #[test]
    fn probes_tell_a_kernel_that_can_from_one_that_cannot() {
        if !nix::unistd::geteuid().is_root() {
            return;
        }
        // This one is new enough, or no other test could run.
        assert_eq!(lacking(Feature::probe), []);
        assert_eq!(Feature::ALL.map(Feature::probe), [Some(true); 5]);
        // No kernel has this flag, nor this helper.
        assert_eq!(loads(&PASS, 1 << 31), Some(false));
        static UNKNOWN: [Instruction; 3] = [instruction(0x85, 0, 0, 0, 1 << 20), set(0, XDP_PASS), EXIT];
        assert_eq!(loads(&UNKNOWN, 0), Some(false));
    }
}
