//! The durable copy of the ban list, the allow-list, the history, and of what is known of sources.

mod batch;
mod file;
mod upkeep;

use std::{
    os::unix::fs::PermissionsExt as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use redb::{
    Database, DatabaseError, ReadableDatabase, ReadableTable, StorageError, TableDefinition, TableError,
};

pub use batch::Batch;
use batch::Table;
use file::{Identity, RoomyFile};

use super::{
    Allowed, BootId, Clock, Endpoint, Entry, Past, Target,
    record::{read_allowed, read_ban, read_history, read_proof, read_trust},
};
use crate::detect::Proof;

/// Version of the tables and of what records mean. A reader of this version ignores fields it does not know, so
/// only what it would get wrong raises it.
const SCHEMA: u64 = 1;

const META: TableDefinition<'_, &str, u64> = TableDefinition::new("meta");
const SCHEMA_KEY: &str = "schema";

/// The file's name in the state directory.
const FILE: &str = "bans.redb";

/// Bytes of the file that are kept in memory.
const CACHE: usize = 16 << 20;

/// The state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The directory cannot be made.
    #[error("cannot create the state directory {path}")]
    Directory {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// Another process has it.
    #[error("{path} is in use: another sip-filter runs with this state directory")]
    InUse {
        /// The file.
        path: String,
    },
    /// Written by a newer version.
    #[error(
        "{path} was written by a newer sip-filter (schema {found}, this version reads {SCHEMA}); nothing was changed: \
         install the newer version again, or move the file away to start without bans"
    )]
    Newer {
        /// The file.
        path: String,
        /// Its version.
        found: u64,
    },
    /// Not ours, or broken.
    #[error(
        "{path} is damaged ({reason}); nothing was changed: restore it from a backup, or move it away to start \
         without bans and import a list with `sip-filter import`"
    )]
    Damaged {
        /// The file.
        path: String,
        /// What was found.
        reason: String,
    },
    /// The disk is full.
    #[error("{path} has no room to grow: its file system, or a quota of it, is full; make room there")]
    NoRoom {
        /// The file.
        path: String,
    },
    /// Somebody removed it.
    #[error("{path} was removed while sip-filter runs; it is written anew from the bans in force")]
    Gone {
        /// The file.
        path: String,
    },
    /// Somebody put another file there.
    #[error(
        "{path} was replaced by another file while sip-filter runs; nothing is written to that: restart sip-filter to \
         use it, or remove it to have the bans in force written anew"
    )]
    Replaced {
        /// The file.
        path: String,
    },
    /// Reading or writing failed.
    #[error("cannot access {path}: {reason}")]
    Failed {
        /// The file.
        path: String,
        /// Why.
        reason: String,
    },
}

/// Everything the store holds.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Bans, also those that ended meanwhile: collecting them is the list's business.
    pub bans: Vec<Entry>,
    /// Those of them that are of an earlier boot, with their ends by wall clock: until it is known to be right, they last
    /// as if the machine had not been off.
    pub unsettled: Vec<(Target, SystemTime)>,
    /// What operators allowed.
    pub allowed: Vec<(Target, Allowed)>,
    /// Earlier bans by target, oldest first.
    pub history: Vec<(Target, Vec<Past>)>,
    /// Trusted sources.
    pub trust: Vec<LoadedTrust>,
    /// Sources that own their addresses, how they have shown it, and the boot time until which it is believed.
    pub proof: Vec<(Target, Proof, Duration)>,
    /// Records that could not be understood, such as bans by a rule of a newer version. They stay in the store.
    pub unreadable: usize,
}

/// A trusted source, as the store holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoadedTrust {
    /// The source.
    pub target: Target,
    /// The account that registered last.
    pub account: String,
    /// Boot time at which it ends.
    pub until: Duration,
    /// Its endpoints, and the boot time until which they are its own.
    pub endpoints: Vec<(Endpoint, Duration)>,
}

/// An open store.
pub struct Store {
    path: PathBuf,
    /// The file that was opened: what lies at the path may be another by now.
    identity: Identity,
    /// Missing after a failed write: redb refuses everything from then on, so the file is opened anew.
    database: Option<Database>,
    /// Records removed since it was last looked at whether the file has become too large for what it holds.
    removed: usize,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the store of a state directory, and makes both if they are missing.
    ///
    /// # Errors
    /// [`StoreError`]; the file is then as it was.
    pub fn open(directory: &Path) -> Result<Self, StoreError> {
        make_directory(directory)?;
        let path = directory.join(FILE);
        let (database, identity) = left_alone(&path, || {
            guarded(&path, || {
                let (mut database, identity) = open(&path)?;
                check_integrity(&mut database, &path)?;
                check_schema(&database, &path)?;
                restrict(&path)?;
                Ok((database, identity))
            })
        })?;
        let mut store = Self {
            path,
            identity,
            database: Some(database),
            removed: 0,
        };
        // Nobody waits for anything to be saved yet.
        store.compact();
        Ok(store)
    }

    /// Reads everything.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] if the file is.
    pub fn load(&self, clock: Clock, boot_id: &BootId) -> Result<Loaded, StoreError> {
        let Some(database) = &self.database else {
            return Err(StoreError::Failed {
                path: self.path.display().to_string(),
                reason: "it is closed".to_owned(),
            });
        };
        guarded(&self.path, || {
            let transaction = database.begin_read().map_err(|error| self.damaged(&error))?;
            let mut loaded = Loaded::default();
            for table in Table::ALL {
                let rows = match transaction.open_table(table.definition()) {
                    Ok(rows) => rows,
                    // Written by a version that did not have it yet.
                    Err(TableError::TableDoesNotExist(_)) => continue,
                    Err(error) => return Err(self.damaged(&error)),
                };
                for row in rows.iter().map_err(|error| self.damaged(&error))? {
                    let (key, value) = row.map_err(|error| self.damaged(&error))?;
                    if read_row(table, key.value(), value.value(), clock, boot_id, &mut loaded).is_none() {
                        tracing::warn!(
                            ?table,
                            key = key.value(),
                            "a record of the store cannot be understood and is left alone"
                        );
                        loaded.unreadable += 1;
                    }
                }
            }
            Ok(loaded)
        })
    }

    /// Writes a batch; on return it is on the disk.
    ///
    /// # Errors
    /// [`StoreError`] if it could not be written; then none of it is. After [`StoreError::Gone`] see
    /// [`Self::write_anew`].
    pub fn write(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        self.check_file()?;
        guarded(&self.path, || {
            let database = match self.database.take() {
                Some(database) => database,
                None => {
                    let (database, identity) = open(&self.path)?;
                    check_schema(&database, &self.path)?;
                    self.identity = identity;
                    database
                }
            };
            write(&database, batch).map_err(|error| failed(&self.path, &error))?;
            self.database = Some(database);
            Ok(())
        })?;
        self.removed += batch.removals();
        Ok(())
    }

    fn damaged(&self, error: &dyn std::fmt::Display) -> StoreError {
        damaged(&self.path, error)
    }
}

fn read_row(
    table: Table,
    key: &str,
    value: &[u8],
    clock: Clock,
    boot_id: &BootId,
    into: &mut Loaded,
) -> Option<()> {
    let target: Target = key.parse().ok()?;
    match table {
        Table::Bans => {
            let (entry, by_wall) = read_ban(target, value, clock, boot_id).ok()?;
            into.unsettled.extend(by_wall.map(|end| (target, end)));
            into.bans.push(entry);
        }
        Table::Allow => into.allowed.push((target, read_allowed(value).ok()?)),
        Table::History => into.history.push((target, read_history(value).ok()?)),
        Table::Trust => {
            into.trust.push(read_trust(target, value, clock, boot_id).ok()?);
        }
        Table::Proof => {
            let (by, until) = read_proof(value, clock, boot_id).ok()?;
            into.proof.push((target, by, until));
        }
    }
    Some(())
}

fn damaged(path: &Path, reason: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged {
        path: path.display().to_string(),
        reason: reason.to_string(),
    }
}

fn failed(path: &Path, error: &redb::Error) -> StoreError {
    let path = path.display().to_string();
    match error {
        redb::Error::Io(source) if is_full(source) => StoreError::NoRoom { path },
        error => StoreError::Failed {
            path,
            reason: error.to_string(),
        },
    }
}

fn is_full(error: &std::io::Error) -> bool {
    use std::io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
    matches!(error.kind(), StorageFull | QuotaExceeded | FileTooLarge)
}

/// redb may panic over a file that something else damaged: to the operator that is one more kind of damage, and the
/// data plane must live on.
fn guarded<T>(path: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(damaged(path, "the database library gave up")))
}

fn make_directory(directory: &Path) -> Result<(), StoreError> {
    use std::os::unix::fs::DirBuilderExt as _;
    let made = std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o750)
        .create(directory);
    made.map_err(|source| StoreError::Directory {
        path: directory.display().to_string(),
        source,
    })
}

/// redb repairs a file in place, and may find only then that it cannot. So a copy is kept meanwhile, and put back if the
/// file turns out to be damaged: what is left of it is the operator's to save. Without room for a copy there is none.
fn left_alone<T>(path: &Path, open: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let copy = path.with_extension("redb.before");
    let copied = std::fs::copy(path, &copy).is_ok();
    let result = open();
    // In use, the file is another process's; it was not touched.
    let put_back = matches!(result, Err(StoreError::Damaged { .. } | StoreError::Newer { .. }));
    if !copied || !put_back || std::fs::rename(&copy, path).is_err() {
        let _ = std::fs::remove_file(&copy);
    }
    result
}

fn open(path: &Path) -> Result<(Database, Identity), StoreError> {
    // The default of its cache may grow to a gigabyte. The list is read once, at the start, and then only written.
    let opened = RoomyFile::open(path).and_then(|(file, identity)| {
        let database = Database::builder()
            .set_cache_size(CACHE)
            .create_with_backend(file)?;
        Ok((database, identity))
    });
    opened.map_err(|error| match error {
        DatabaseError::DatabaseAlreadyOpen => StoreError::InUse {
            path: path.display().to_string(),
        },
        DatabaseError::Storage(StorageError::Io(source))
            if !matches!(
                source.kind(),
                std::io::ErrorKind::InvalidData | std::io::ErrorKind::UnexpectedEof
            ) =>
        {
            failed(path, &redb::Error::Io(source))
        }
        other => damaged(path, other),
    })
}

fn check_integrity(database: &mut Database, path: &Path) -> Result<(), StoreError> {
    if !database.check_integrity().map_err(|error| damaged(path, error))? {
        tracing::warn!(path = %path.display(), "the store was damaged and has been repaired");
    }
    Ok(())
}

/// Who was banned and trusted is nobody else's business; the directory's mode alone should not have to keep it.
fn restrict(path: &Path) -> Result<(), StoreError> {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(|error| failed(path, &redb::Error::Io(error)))
}

/// The version is looked at before anything is written, so that a newer file stays as it is.
fn check_schema(database: &Database, path: &Path) -> Result<(), StoreError> {
    let broken = |error: redb::Error| damaged(path, error);
    let found = {
        let transaction = database.begin_read().map_err(|error| broken(error.into()))?;
        match transaction.open_table(META) {
            Ok(meta) => meta
                .get(SCHEMA_KEY)
                .map_err(|error| broken(error.into()))?
                .map(|version| version.value()),
            Err(TableError::TableDoesNotExist(_)) => None,
            Err(error) => return Err(broken(error.into())),
        }
    };
    match found {
        Some(SCHEMA) => Ok(()),
        Some(found) => Err(StoreError::Newer {
            path: path.display().to_string(),
            found,
        }),
        None => initialise(database).map_err(|error| failed(path, &error)),
    }
}

fn initialise(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(META)?.insert(SCHEMA_KEY, SCHEMA)?;
    for table in Table::ALL {
        transaction.open_table(table.definition())?;
    }
    transaction.commit()?;
    Ok(())
}

fn write(database: &Database, batch: &Batch) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in Table::ALL {
        let mut rows = transaction.open_table(table.definition())?;
        for ((_, target), record) in batch.0.iter().filter(|((of, _), _)| *of == table) {
            let key = target.to_string();
            match record {
                Some(record) => drop(rows.insert(key.as_str(), record.as_slice())?),
                None => drop(rows.remove(key.as_str())?),
            }
        }
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
