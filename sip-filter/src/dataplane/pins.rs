//! What stays in the BPF file system while no daemon runs: the link, the maps, and a lock against a second daemon.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    fs::{self, File},
    io,
    os::unix::ffi::OsStrExt as _,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _, fchown, lchown},
    path::{Component, Path, PathBuf},
};

use nix::{
    dir::Dir,
    fcntl::{Flock, FlockArg, OFlag, open, openat},
    net::if_::if_nametoindex,
    sys::{
        stat::Mode,
        statfs::{BPF_FS_MAGIC, statfs},
    },
    unistd::{UnlinkatFlags, unlinkat},
};
use sip_filter_common::abi::ABI_VERSION;

use super::{
    DataplaneError, LoadedProgram, egress,
    interface::no_interface,
    program::{COUNTERS, PINNED, map_data},
};

const LINK: &str = "link";

/// What [`detach`] took off an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// The filter, with its pins under the root.
    pub filter: bool,
    /// The classifier that observed answers, which a daemon leaves behind before Linux 6.6.
    pub classifier: bool,
}

/// Removes whatever a daemon left attached to an interface, and says what of it there was.
///
/// # Errors
/// If a daemon still holds the interface, the pins cannot be read or removed, or there is neither such an interface nor
/// anything pinned for it.
pub fn detach(name: &str, pin_root: &Path) -> Result<Detached, DataplaneError> {
    let mut found = false;
    for version in entries(pin_root)? {
        let directory = version.join(name);
        if !entries(&version)?.contains(&directory) {
            continue;
        }
        let Some(_lock) = lock(name, &directory)? else {
            continue;
        };
        remove_pins(&directory)?;
        found = true;
    }
    if !found && if_nametoindex(name).is_err() {
        return Err(no_interface(name));
    }
    Ok(Detached {
        filter: found,
        classifier: egress::take_off_leftover(name)?,
    })
}

/// Names of the interfaces for which something is pinned, by whatever version.
///
/// # Errors
/// If the pins cannot be read.
pub fn pinned(pin_root: &Path) -> Result<BTreeSet<String>, DataplaneError> {
    let mut names = BTreeSet::new();
    for version in entries(pin_root)? {
        let interfaces = entries(&version)?.into_iter();
        names.extend(interfaces.filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())));
    }
    Ok(names)
}

/// Makes the directory of all pins for a daemon that runs as user `owner` (user and group id): as root, before it
/// starts, since only root may write to the BPF file system itself. What a daemon that ran as root left there changes
/// hands with it.
///
/// # Errors
/// If the directory cannot be made or is a third user's.
pub fn prepare(pin_root: &Path, owner: (u32, u32)) -> Result<(), DataplaneError> {
    let pin = |source: io::Error| DataplaneError::Pin {
        path: pin_root.to_owned(),
        source: source.into(),
    };
    check_bpffs(pin_root)?;
    match fs::DirBuilder::new().mode(0o700).create(pin_root) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(DataplaneError::Permission {
                what: "write to the BPF file system",
            });
        }
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(pin(error)),
        _ => {}
    }
    let directory = open_directory(pin_root).map_err(pin)?;
    let found = directory.metadata().map_err(pin)?.uid();
    if found == owner.0 {
        return Ok(());
    }
    // Only root's is safe to give away: in anybody else's there could be links to what is not ours.
    check_owner(pin_root)?;
    give(pin_root, owner).map_err(pin)?;
    fchown(&directory, Some(owner.0), Some(owner.1)).map_err(pin)
}

/// Gives all that a directory holds to a user.
fn give(directory: &Path, owner: (u32, u32)) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            give(&entry.path(), owner)?;
        }
        lchown(entry.path(), Some(owner.0), Some(owner.1))?;
    }
    Ok(())
}

/// Interfaces that have pins under this root, but are neither among `held` nor held by another daemon.
#[must_use]
pub fn leftovers(pin_root: &Path, held: &[&str]) -> Vec<String> {
    let versions = entries(pin_root).unwrap_or_default();
    let directories = versions
        .iter()
        .flat_map(|version| entries(version).unwrap_or_default());
    let mut found: Vec<String> = directories
        .filter_map(|directory| {
            let name = directory.file_name()?.to_str()?.to_owned();
            let is_left = !held.contains(&name.as_str()) && matches!(lock(&name, &directory), Ok(Some(_)));
            is_left.then_some(name)
        })
        .collect();
    found.sort_unstable();
    found.dedup();
    found
}

/// What a directory holds; nothing if it is not there.
fn entries(directory: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    match fs::read_dir(directory) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).collect()),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(Vec::new())
        }
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(DataplaneError::Permission {
            what: "read the pins",
        }),
        Err(error) => Err(DataplaneError::Pin {
            path: directory.to_owned(),
            source: error.into(),
        }),
    }
}

/// The directory of an interface's pins, held by a lock on it. One in which nothing was pinned goes again.
pub(super) struct Reserved {
    directory: PathBuf,
    lock: Flock<File>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Only directories that are empty can be removed, and the lock is still held.
        remove_empty(&self.directory);
    }
}

/// Pins of an earlier run: of this version of the tables, or of another. A link is the same whatever program is behind
/// it, so an upgrade takes it over as a restart does.
pub(super) struct Earlier {
    directory: PathBuf,
    /// Absent for our own directory, whose lock is held already.
    _lock: Option<Flock<File>>,
}

impl Earlier {
    /// Path of the link's pin.
    pub(super) fn link(&self) -> PathBuf {
        self.directory.join(LINK)
    }

    /// Where they are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Removes them.
    pub(super) fn remove(&self) -> Result<(), DataplaneError> {
        remove_pins(&self.directory)
    }
}

impl Reserved {
    /// Takes the directory of an interface's pins for this process.
    pub(super) fn take(root: &Path, interface: &str) -> Result<Self, DataplaneError> {
        loop {
            let directory = pin_directory(root, interface)?;
            if let Some(lock) = lock(interface, &directory)? {
                return Ok(Self { directory, lock });
            }
        }
    }

    /// Path of the link's pin.
    pub(super) fn link(&self) -> PathBuf {
        self.directory.join(LINK)
    }

    /// Where the pins are.
    pub(super) fn directory(&self) -> &Path {
        &self.directory
    }

    /// Moves the pins to where they belong under another name of the interface; the lock moves with them. What was left
    /// there of another interface is removed.
    pub(super) fn rename(&mut self, name: &str) -> Result<(), DataplaneError> {
        let to = self.directory.with_file_name(name);
        if to.exists()
            && let Some(_lock) = lock(name, &to)?
        {
            remove_pins(&to)?;
        }
        fs::rename(&self.directory, &to).map_err(|source| DataplaneError::Pin {
            path: to.clone(),
            source: source.into(),
        })?;
        self.directory = to;
        Ok(())
    }

    /// Takes the directory anew after it was removed, or is out of sight since the file system was unmounted.
    pub(super) fn renew(&mut self, interface: &str) -> Result<(), DataplaneError> {
        let there = fs::metadata(&self.directory)
            .map(|meta| (meta.dev(), meta.ino()))
            .ok();
        let held = self.lock.metadata().map(|meta| (meta.dev(), meta.ino())).ok();
        if there.is_some() && there == held {
            return Ok(());
        }
        let root = self
            .directory
            .ancestors()
            .nth(2)
            .unwrap_or(&self.directory)
            .to_owned();
        let new = Self::take(&root, interface)?;
        let mut old = std::mem::replace(self, new);
        // When it goes, it must not remove the new directory, which is still empty.
        old.directory = PathBuf::new();
        Ok(())
    }

    /// Removes the pins; the filter then ends with the last process that holds its link.
    pub(super) fn remove(&self) -> Result<(), DataplaneError> {
        remove_pins(&self.directory)
    }

    /// What an earlier run left attached, if anything. Fails if it is of another version whose daemon still runs.
    pub(super) fn earlier(&self, interface: &str) -> Result<Option<Earlier>, DataplaneError> {
        if self.link().exists() {
            return Ok(Some(Earlier {
                directory: self.directory.clone(),
                _lock: None,
            }));
        }
        let root = self.directory.ancestors().nth(2);
        let versions = root
            .into_iter()
            .flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten());
        for directory in versions.map(|version| version.path().join(interface)) {
            if !directory.join(LINK).exists() {
                continue;
            }
            check_owner(&directory)?;
            if let Some(lock) = lock(interface, &directory)? {
                return Ok(Some(Earlier {
                    directory,
                    _lock: Some(lock),
                }));
            }
        }
        Ok(None)
    }

    /// Pins a program's maps, in place of those pinned before; not its counters, which [`super::past`] takes care of.
    pub(super) fn pin_maps(&self, program: &LoadedProgram) -> Result<(), DataplaneError> {
        for name in PINNED.into_iter().filter(|name| *name != COUNTERS) {
            let path = self.directory.join(name);
            let pin = |source: Box<dyn std::error::Error + Send + Sync>| DataplaneError::Pin {
                path: path.clone(),
                source,
            };
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(pin(error.into())),
                _ => {}
            }
            map_data(&program.ebpf, name)?
                .pin(&path)
                .map_err(|error| pin(error.into()))?;
        }
        Ok(())
    }
}

/// Whether pins can lie there.
///
/// # Errors
/// [`DataplaneError::NoBpffs`] if not.
pub fn check_bpffs(root: &Path) -> Result<(), DataplaneError> {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(root);
    if statfs(existing).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC) {
        return Ok(());
    }
    Err(DataplaneError::NoBpffs {
        path: root.to_owned(),
    })
}

/// `{root}/v{ABI}/{interface}`, made if need be.
fn pin_directory(root: &Path, interface: &str) -> Result<PathBuf, DataplaneError> {
    check_bpffs(root)?;
    let directory = root.join(format!("v{ABI_VERSION}")).join(interface);
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&directory);
    made.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => DataplaneError::Permission {
            what: "write to the BPF file system",
        },
        _ => DataplaneError::Pin {
            path: directory.clone(),
            source: error.into(),
        },
    })?;
    for path in directory.ancestors().take(3) {
        check_owner(path)?;
    }
    Ok(directory)
}

/// A BPF file system is writable for everybody unless mounted otherwise: whoever made our directory first could swap
/// what is pinned in it.
fn check_owner(path: &Path) -> Result<(), DataplaneError> {
    let owner = fs::metadata(path).map_err(|error| DataplaneError::Pin {
        path: path.to_owned(),
        source: error.into(),
    })?;
    if owner.uid() == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(DataplaneError::ForeignPins {
        path: path.to_owned(),
        owner: owner.uid(),
    })
}

/// The directory of the pins is the lock: it belongs to root, and the kernel forgets the lock when its holder dies.
/// `None` if its last holder removed it meanwhile.
fn lock(interface: &str, directory: &Path) -> Result<Option<Flock<File>>, DataplaneError> {
    let file = match open_directory(directory) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            return Err(DataplaneError::Permission {
                what: "open the BPF file system",
            });
        }
        Err(error) => {
            return Err(DataplaneError::Pin {
                path: directory.to_owned(),
                source: error.into(),
            });
        }
    };
    let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|_| DataplaneError::Busy {
        interface: interface.to_owned(),
        path: directory.to_owned(),
    })?;
    let held = lock.metadata().map(|meta| meta.ino()).ok();
    let there = fs::metadata(directory).map(|meta| meta.ino()).ok();
    Ok((held == there).then_some(lock))
}

/// Opens a directory that is reached without symbolic links. Pins belong to the daemon's user, and `detach` and
/// `prepare` are root's: a daemon that somebody else has taken over must not lead root elsewhere.
///
/// Step by step: `openat2` does it in one, but `RestrictSUIDSGID=` of systemd forbids that call.
fn open_directory(path: &Path) -> io::Result<File> {
    let step = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let start = if path.is_absolute() { "/" } else { "." };
    let mut reached = open(start, step, Mode::empty())?;
    for component in path.components() {
        match component {
            Component::Normal(name) => reached = openat(&reached, name, step, Mode::empty())?,
            Component::ParentDir => reached = openat(&reached, "..", step, Mode::empty())?,
            Component::Prefix(_) | Component::RootDir | Component::CurDir => {}
        }
    }
    let readable = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(File::from(openat(&reached, ".", readable, Mode::empty())?))
}

/// The link goes first: from then on nothing is filtered, and what remains is only memory.
fn remove_pins(directory: &Path) -> Result<(), DataplaneError> {
    let error = |name: &Path, source: io::Error| DataplaneError::Pin {
        path: directory.join(name),
        source: source.into(),
    };
    let opened = open_directory(directory).map_err(|source| error(Path::new(""), source))?;
    let remove = |name: &Path| match unlinkat(&opened, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(nix::Error::ENOENT) => Ok(()),
        Err(source) => Err(error(name, source.into())),
    };
    remove(Path::new(LINK))?;
    let this = Path::new("");
    let listing = opened.try_clone().map_err(|source| error(this, source))?;
    let mut listing = Dir::from_fd(listing.into()).map_err(|source| error(this, source.into()))?;
    for entry in listing.iter().flatten() {
        let name = Path::new(OsStr::from_bytes(entry.file_name().to_bytes()));
        if name != Path::new(".") && name != Path::new("..") {
            remove(name)?;
        }
    }
    remove_empty(directory);
    Ok(())
}

/// Removes the directory of an interface's pins and those above it that are ours too, as far as they are empty: they
/// may hold other interfaces.
fn remove_empty(directory: &Path) {
    for directory in directory.ancestors().take(3) {
        let (Some(parent), Some(name)) = (directory.parent(), directory.file_name()) else {
            break;
        };
        let removed = open_directory(parent)
            .is_ok_and(|parent| unlinkat(&parent, name, UnlinkatFlags::RemoveDir).is_ok());
        if !removed {
            break;
        }
    }
}
