//! Keeps the file where it belongs and of a size that fits what it holds.

use std::{
    fs::{self, File},
    io,
    path::Path,
    time::Instant,
};

use redb::Database;

use super::{
    Batch, FILE, Identity, Store, StoreError, failed, guarded, initialise, make_directory, open, write,
};

/// Where a new file is written before it takes its place.
const NEW: &str = "bans.redb.new";

/// A file up to this size is not worth the trouble.
const SMALL: u64 = 4 << 20;

/// It is compacted if it is so many times as large as what it holds. That also bounds the time: what is held is moved,
/// and is little.
const WASTEFUL: u64 = 4;

/// How many records must have been removed until it is worth a look, which reads the whole file.
const LOOK_AFTER: usize = 10_000;

impl Store {
    /// Whether the file that was opened is still where it was.
    ///
    /// # Errors
    /// [`StoreError::Gone`], [`StoreError::Replaced`], or that nobody knows.
    pub fn check_file(&self) -> Result<(), StoreError> {
        let path = || self.path.display().to_string();
        match fs::metadata(&self.path) {
            Ok(metadata) if Identity::of(&metadata) == self.identity => Ok(()),
            Ok(_) => Err(StoreError::Replaced { path: path() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StoreError::Gone { path: path() }),
            Err(error) => Err(failed(&self.path, &redb::Error::Io(error))),
        }
    }

    /// Writes all there is to a new file, which takes the place of the one that is gone, whole or not at all.
    ///
    /// # Errors
    /// [`StoreError`] if that cannot be done.
    pub fn write_anew(&mut self, all: &Batch) -> Result<(), StoreError> {
        let directory = self
            .path
            .parent()
            .map_or_else(Default::default, Path::to_path_buf);
        make_directory(&directory)?;
        let new = directory.join(NEW);
        let (database, identity) = guarded(&new, || {
            discard(&new)?;
            let (database, identity) = open(&new)?;
            initialise(&database)
                .and_then(|()| write(&database, all))
                .map_err(|error| failed(&new, &error))?;
            Ok((database, identity))
        })
        .inspect_err(|_| drop(discard(&new)))?;
        // Not over a file that somebody put there meanwhile.
        let moved = match self.check_file() {
            Err(StoreError::Gone { .. }) => fs::rename(&new, directory.join(FILE)).and_then(|()| {
                // So that the name is on the disk, too.
                File::open(&directory)?.sync_all()
            }),
            other => {
                discard(&new)?;
                let reason = "it is there again".to_owned();
                let path = self.path.display().to_string();
                return other.and(Err(StoreError::Failed { path, reason }));
            }
        };
        moved.map_err(|error| failed(&self.path, &redb::Error::Io(error)))?;
        (self.database, self.identity) = (Some(database), identity);
        Ok(())
    }

    /// Compacts the file if enough was removed since the last look.
    pub fn tidy(&mut self) {
        if self.removed >= LOOK_AFTER {
            self.compact();
        }
    }

    /// Gives back the room of bans that ended, if it is most of the file. What cannot be given back does no harm.
    pub(super) fn compact(&mut self) {
        self.removed = 0;
        let Some(mut database) = self.database.take() else {
            return;
        };
        let (path, begun) = (self.path.clone(), Instant::now());
        let before = length(&path);
        let done = guarded(&path, || {
            if before <= SMALL || !wasteful(&database, before).map_err(|error| failed(&path, &error))? {
                return Ok(false);
            }
            database.compact().map_err(|error| failed(&path, &error.into()))?;
            // It has no room at all now. One more commit makes some while there is some on the disk, so that a ban can
            // still be saved when there is none.
            initialise(&database).map_err(|error| failed(&path, &error))?;
            Ok(true)
        });
        match done {
            Ok(compacted) => {
                self.database = Some(database);
                if compacted {
                    let (after, milliseconds) = (length(&path), begun.elapsed().as_millis());
                    tracing::info!(
                        before,
                        after,
                        milliseconds,
                        "the store has given back what it did not need"
                    );
                }
            }
            // It is opened anew for the next write.
            Err(error) => tracing::warn!(%error, "the store stays larger than it need be"),
        }
    }
}

/// Whether most of the file holds nothing.
fn wasteful(database: &Database, length: u64) -> Result<bool, redb::Error> {
    let transaction = database.begin_write()?;
    let stats = transaction.stats()?;
    let held = stats.stored_bytes() + stats.metadata_bytes();
    transaction.abort()?;
    Ok(held.saturating_mul(WASTEFUL) < length)
}

fn length(path: &Path) -> u64 {
    fs::metadata(path).map_or(0, |metadata| metadata.len())
}

fn discard(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(path, &redb::Error::Io(error))),
        _ => Ok(()),
    }
}
