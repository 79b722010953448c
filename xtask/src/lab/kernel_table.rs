//! The kernel's ban table as this process sees it: the daemon's through its pin, or one of our own.

use std::{
    ffi::CString,
    fs, io,
    num::NonZeroUsize,
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd},
    os::unix::ffi::OsStrExt as _,
    path::Path,
    ptr::NonNull,
    slice,
};

use anyhow::{Context as _, Result, ensure};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use sip_filter_common::{
    abi::Meta,
    table::{
        Fate, HostLine,
        ban::{Layout as _, V4, lookup},
    },
};

const BPF_MAP_CREATE: libc::c_long = 0;
const BPF_MAP_LOOKUP_ELEM: libc::c_long = 1;
const BPF_OBJ_GET: libc::c_long = 7;
const BPF_MAP_TYPE_ARRAY: u32 = 2;
const BPF_F_MMAPABLE: u32 = 1 << 10;

use super::usage;

/// Calls `bpf(2)`; `attributes` is the part of its union that the command reads.
fn bpf<T>(command: libc::c_long, attributes: &mut T) -> io::Result<i32> {
    let size = size_of::<T>();
    // SAFETY: the pointer and the size are those of a live value; what pointers it holds are its maker's business.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), size) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(io::Error::last_os_error()),
    }
}

#[repr(C)]
struct ObjectGet {
    path: u64,
    fd: u32,
    flags: u32,
}

#[repr(C)]
struct MapCreate {
    kind: u32,
    key_size: u32,
    value_size: u32,
    entries: u32,
    flags: u32,
}

#[repr(C)]
struct Lookup {
    fd: u32,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

fn pinned(path: &Path) -> Result<OwnedFd> {
    let text = CString::new(path.as_os_str().as_bytes())?;
    let mut get = ObjectGet {
        path: text.as_ptr() as u64,
        fd: 0,
        flags: 0,
    };
    let fd = bpf(BPF_OBJ_GET, &mut get).with_context(|| format!("nothing pinned at {}", path.display()))?;
    // SAFETY: the kernel has just opened it for us, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Bytes that the kernel charges for a pinned table.
///
/// # Errors
/// If no table is pinned there.
pub fn bytes(pins: &Path, name: &str) -> Result<u64> {
    let fd = pinned(&pins.join(name))?;
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fd.as_raw_fd()))?;
    let (_, bytes) = usage::parse_map(&info).with_context(|| format!("{name} is no map"))?;
    Ok(bytes)
}

/// The seed of the daemon's tables.
fn seed(pins: &Path) -> Result<[u64; 2]> {
    let fd = pinned(&pins.join("META"))?;
    let (key, mut meta) = (0_u32, Meta::default());
    let mut attributes = Lookup {
        fd: fd.as_raw_fd().try_into()?,
        padding: 0,
        key: (&raw const key) as u64,
        value: (&raw mut meta) as u64,
        flags: 0,
    };
    bpf(BPF_MAP_LOOKUP_ELEM, &mut attributes).context("META cannot be read")?;
    Ok(meta.seed)
}

/// A table of banned IPv4 addresses in kernel memory.
#[derive(Debug)]
pub struct KernelTable {
    start: NonNull<HostLine>,
    lines: usize,
    seed: [u64; 2],
    _fd: OwnedFd,
}

// SAFETY: the memory is shared with the kernel anyway and only reached through atomics; the mapping stays where it is
// until it is dropped.
unsafe impl Send for KernelTable {}
// SAFETY: as above.
unsafe impl Sync for KernelTable {}

impl Drop for KernelTable {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping, and nothing borrows it any more.
        let _ = unsafe { munmap(self.start.cast(), self.lines * size_of::<HostLine>()) };
    }
}

impl KernelTable {
    /// That of a daemon, with `buckets` buckets.
    ///
    /// # Errors
    /// If it is not pinned there, or cannot be mapped.
    pub fn of_daemon(pins: &Path, buckets: u32) -> Result<Self> {
        Self::map(pinned(&pins.join("BAN4"))?, buckets, seed(pins)?)
    }

    /// An empty one of our own, made as the daemon's are.
    ///
    /// # Errors
    /// If the kernel refuses it, mostly for want of root.
    pub fn create(buckets: u32, seed: [u64; 2]) -> Result<Self> {
        let mut create = MapCreate {
            kind: BPF_MAP_TYPE_ARRAY,
            key_size: 4,
            value_size: size_of::<HostLine>().try_into()?,
            entries: buckets,
            flags: BPF_F_MMAPABLE,
        };
        let fd = bpf(BPF_MAP_CREATE, &mut create).context("no map (root needed)")?;
        // SAFETY: the kernel has just opened it for us, and nothing else owns it.
        Self::map(unsafe { OwnedFd::from_raw_fd(fd) }, buckets, seed)
    }

    fn map(fd: OwnedFd, buckets: u32, seed: [u64; 2]) -> Result<Self> {
        ensure!(
            buckets.is_power_of_two() && buckets >= 64,
            "{buckets} buckets are no table"
        );
        let lines = buckets as usize;
        let length = NonZeroUsize::new(lines * size_of::<HostLine>()).context("an empty table")?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address the kernel chooses.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd.as_fd(), 0) }
            .context("the table cannot be mapped")?;
        Ok(Self {
            start: start.cast(),
            lines,
            seed,
            _fd: fd,
        })
    }

    /// Its buckets.
    #[must_use]
    pub fn lines(&self) -> &[HostLine] {
        // SAFETY: the mapping is that long and lives as long as `self`; atomics allow others to change it.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.lines) }
    }

    /// The seed of its hash.
    #[must_use]
    pub fn seed(&self) -> [u64; 2] {
        self.seed
    }

    /// Entries in it.
    #[must_use]
    pub fn entries(&self) -> u64 {
        let slots = self
            .lines()
            .iter()
            .flat_map(|line| (0..V4::SLOTS).map(move |slot| V4::read(line, slot)));
        slots.filter(|(_, fate)| *fate != Fate::NONE).count() as u64
    }

    /// What the kernel program finds if a packet of `address` comes now.
    #[must_use]
    pub fn fate(&self, address: u32) -> Fate {
        lookup::<V4, _>(self.lines(), self.seed, address).map_or(Fate::NONE, |found| found.value)
    }
}
