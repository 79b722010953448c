//! The store's file. What it is long it also has on the disk: on a full one it is refused to grow, before anything is
//! written, and what is short still fits in.

use std::{
    fs::{File, Metadata, OpenOptions},
    io,
    ops::Bound,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::{
    errno::Errno,
    fcntl::{FallocateFlags, fallocate},
};
use redb::{BackendError, DatabaseError, StorageBackend, backends::FileBackend};

/// Which file it is, whatever its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Identity(u64, u64);

impl Identity {
    /// Of an open file, or of what lies at a path.
    pub(super) fn of(metadata: &Metadata) -> Self {
        Self(metadata.dev(), metadata.ino())
    }
}

/// What redb reads and writes.
#[derive(Debug)]
pub(super) struct RoomyFile {
    redb: FileBackend,
    file: File,
}

impl RoomyFile {
    /// Opens a file, or makes it.
    pub(super) fn open(path: &Path) -> Result<(Self, Identity), DatabaseError> {
        let mut options = OpenOptions::new();
        // Who was banned and trusted is nobody else's business; the directory's mode alone should not have to keep it.
        options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600);
        let file = options.open(path).map_err(storage)?;
        let identity = Identity::of(&file.metadata().map_err(storage)?);
        let other = file.try_clone().map_err(storage)?;
        let redb = FileBackend::new(other)?;
        Ok((Self { redb, file }, identity))
    }

    fn grow(&self, from: u64, to: u64) -> io::Result<()> {
        let offset = |at: u64| i64::try_from(at).map_err(io::Error::other);
        let (start, length) = (offset(from)?, offset(to - from)?);
        loop {
            return match fallocate(&self.file, FallocateFlags::empty(), start, length) {
                Ok(()) => Ok(()),
                Err(Errno::EINTR) => continue,
                Err(full @ (Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG)) => {
                    // Some file systems keep the part that there was room for.
                    self.file.set_len(from)?;
                    Err(full.into())
                }
                // A file system that cannot promise room.
                Err(_) => self.file.set_len(to),
            };
        }
    }
}

fn storage(error: io::Error) -> DatabaseError {
    DatabaseError::Storage(redb::StorageError::Io(error))
}

impl StorageBackend for RoomyFile {
    fn len(&self) -> io::Result<u64> {
        self.redb.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.redb.read(offset, out)
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        let now = self.redb.len()?;
        if length > now {
            self.grow(now, length)
        } else {
            self.redb.set_len(length)
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.redb.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.redb.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.redb.close()
    }

    fn try_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.redb.try_lock_range(start, end)
    }

    fn try_lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.redb.try_lock_shared_range(start, end)
    }

    fn lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.redb.lock_range(start, end)
    }

    fn lock_shared_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.redb.lock_shared_range(start, end)
    }

    fn unlock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<(), BackendError> {
        self.redb.unlock_range(start, end)
    }

    fn query_lock_range(&self, start: Bound<u64>, end: Bound<u64>) -> Result<bool, BackendError> {
        self.redb.query_lock_range(start, end)
    }
}
