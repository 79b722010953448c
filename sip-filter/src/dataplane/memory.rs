//! Memory of tables: our own, or the kernel's seen through `mmap`.

use std::{
    io,
    num::NonZeroUsize,
    os::fd::AsFd,
    ptr::NonNull,
    slice,
    sync::Arc,
    sync::atomic::{AtomicU64, Ordering},
};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use sip_filter_common::table::{Forget, HostLine, Memory};

/// Words shared with the kernel program or, in a capture, only with ourselves.
#[derive(Clone)]
pub(crate) struct Words {
    storage: Arc<Storage>,
    /// Of a table with a summary.
    summary: Option<Arc<Storage>>,
}

enum Storage {
    Heap(Box<[HostLine]>),
    Kernel(Mapping),
}

struct Mapping {
    start: NonNull<HostLine>,
    lines: usize,
}

// SAFETY: the memory is shared anyway, with the kernel; it is only reached through atomics, and the mapping stays
// where it is until the last owner drops it.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: start and length are those of the mapping, and nothing borrows it any more. Should the kernel
        // refuse, the mapping stays, which harms nobody.
        let _ = unsafe { munmap(self.start.cast(), self.lines * size_of::<HostLine>()) };
    }
}

impl Words {
    /// Zeroed memory of our own, `bytes` rounded up to a whole line.
    pub(crate) fn heap(bytes: usize) -> Self {
        let lines = bytes.div_ceil(size_of::<HostLine>());
        Self::of(Storage::Heap((0..lines).map(|_| HostLine::default()).collect()))
    }

    /// The values of an array map made with `BPF_F_MMAPABLE` (kernel 5.5), `bytes` long in all.
    pub(crate) fn map(fd: impl AsFd, bytes: usize) -> io::Result<Self> {
        // The kernel maps whole pages.
        let length = bytes.next_multiple_of(4096);
        let length = NonZeroUsize::new(length)
            .ok_or_else(|| io::Error::other("a map without values cannot be mapped"))?;
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping, at an address the kernel chooses.
        let start = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, fd, 0)? };
        let lines = length.get() / size_of::<HostLine>();
        Ok(Self::of(Storage::Kernel(Mapping {
            start: start.cast(),
            lines,
        })))
    }

    fn of(storage: Storage) -> Self {
        Self {
            storage: Arc::new(storage),
            summary: None,
        }
    }

    /// A table whose summary is `summary`.
    pub(crate) fn with_summary(self, summary: &Self) -> Self {
        Self {
            summary: Some(Arc::clone(&summary.storage)),
            ..self
        }
    }

    pub(crate) fn lines(&self) -> &[HostLine] {
        self.storage.lines()
    }

    /// One word.
    ///
    /// # Panics
    /// If `index` lies outside.
    pub(crate) fn word(&self, index: usize) -> &AtomicU64 {
        &self.lines()[index / 8][index % 8]
    }
}

impl Storage {
    fn lines(&self) -> &[HostLine] {
        match self {
            Self::Heap(lines) => lines,
            // SAFETY: the mapping is that long, readable and writable, lives as long as `self`, and atomics allow
            // others to change it.
            Self::Kernel(mapping) => unsafe { slice::from_raw_parts(mapping.start.as_ptr(), mapping.lines) },
        }
    }

    fn word(&self, index: u32) -> Option<&AtomicU64> {
        let index = index as usize;
        self.lines().get(index / 8)?.get(index % 8)
    }
}

impl Forget for Words {}

impl Memory for Words {
    type Line<'a> = &'a HostLine;

    fn mask(&self) -> u32 {
        self.lines().mask()
    }

    fn line(&self, index: u32) -> Option<&HostLine> {
        self.lines().get(index as usize)
    }

    fn summary(&self, index: u32) -> Option<u64> {
        let word = self.summary.as_ref()?.word(index)?;
        Some(word.load(Ordering::Acquire))
    }

    fn set_summary(&self, index: u32, word: u64) {
        if let Some(place) = self.summary.as_ref().and_then(|summary| summary.word(index)) {
            place.store(word, Ordering::Release);
        }
    }
}
