//! One interface: the program attached to it, pinned so that it outlives the daemon, and replaced without a gap.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use aya::{
    maps::{MapData, RingBuf},
    programs::{
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpMode as AyaMode},
    },
    util::KernelVersion,
};
use nix::{
    fcntl::{Flock, FlockArg},
    net::if_::if_nametoindex,
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use sip_filter_common::abi::{ABI_VERSION, Config, Meta};

use super::{
    Counters, DataplaneError, Egress, Image, LoadOptions, LoadedProgram, XdpMode, egress,
    error::{MINIMUM_KERNEL, os_error},
    program::{PINNED, classifier, map_data, pinned_meta, xdp},
};

/// Which modes of attachment are acceptable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AttachMode {
    /// Native, else generic with a warning.
    #[default]
    Auto,
    /// Native or not at all.
    Native,
    /// Generic, even if the driver could do better.
    Generic,
}

/// A program with filled tables on its way to an interface; the interface is reserved for it.
pub struct Prepared {
    name: String,
    index: u32,
    reserved: Reserved,
    program: LoadedProgram,
    seed: [u64; 2],
}

/// An attached interface.
pub struct Interface {
    name: String,
    mode: XdpMode,
    egress: Egress,
    /// Nothing of ours was attached before.
    is_new: bool,
    program: LoadedProgram,
    reserved: Reserved,
    /// Keeps the link's file descriptor; the pin keeps the link.
    _link: XdpLink,
}

/// The directory of an interface's pins, held by a lock on it. One in which nothing was pinned goes again.
struct Reserved {
    directory: PathBuf,
    _lock: Flock<File>,
}

impl Drop for Reserved {
    fn drop(&mut self) {
        // Only directories that are empty can be removed, and the lock is still held.
        remove_empty(&self.directory);
    }
}

const LINK: &str = "link";

impl Prepared {
    /// Reserves the interface and loads the program for it, with empty tables. Nothing is attached yet: fill the
    /// tables through the image, then call [`Self::attach`].
    ///
    /// # Errors
    /// [`DataplaneError`]; nothing was changed then.
    pub fn new(
        name: &str,
        pin_root: &Path,
        options: &LoadOptions,
    ) -> Result<(Self, Box<dyn Image>), DataplaneError> {
        check_kernel()?;
        let index = if_nametoindex(name).map_err(|_| no_interface(name))?;
        let reserved = reserve(pin_root, name)?;
        let (program, image) = LoadedProgram::load(name, options)?;
        let seed = options.config.seed;
        Ok((
            Self {
                name: name.to_owned(),
                index,
                reserved,
                program,
                seed,
            },
            image,
        ))
    }

    /// Puts the program in force: in place of one left by an earlier daemon, without a gap, or newly attached.
    ///
    /// # Errors
    /// [`DataplaneError`]; what was attached before still is.
    pub fn attach(mut self, wanted: AttachMode) -> Result<Interface, DataplaneError> {
        let replaced = self.replace(wanted)?;
        let is_new = replaced.is_none();
        let (link, mode) = match replaced {
            Some(replaced) => replaced,
            None => self.attach_new(wanted)?,
        };
        let meta = Meta {
            abi_version: ABI_VERSION,
            owner: std::process::id(),
            seed: self.seed,
            xdp_mode: match mode {
                XdpMode::Native => 1,
                XdpMode::Generic => 2,
            },
        };
        let described = self
            .program
            .set_meta(meta)
            .and_then(|()| pin_maps(&self.program, &self.reserved.directory));
        let egress = egress::attach(classifier(&mut self.program.ebpf)?, &self.name);
        let Self {
            name,
            index: _,
            reserved,
            program,
            seed: _,
        } = self;
        let interface = Interface {
            name,
            mode,
            egress,
            is_new,
            program,
            reserved,
            _link: link,
        };
        match described {
            Ok(()) => Ok(interface),
            Err(error) => {
                interface.give_up();
                Err(error)
            }
        }
    }

    /// Swaps the program behind a pinned link of this interface, if there is one.
    fn replace(&mut self, wanted: AttachMode) -> Result<Option<(XdpLink, XdpMode)>, DataplaneError> {
        let path = self.reserved.directory.join(LINK);
        if !path.exists() {
            return Ok(None);
        }
        let pin_error = |source: Box<dyn std::error::Error + Send + Sync>| DataplaneError::Pin {
            path: path.clone(),
            source,
        };
        let pinned = PinnedLink::from_pin(&path).map_err(|error| pin_error(error.into()))?;
        let link = FdLink::from(pinned);
        if link_index(&link) != Some(self.index) {
            // Its interface is gone, or has another name now: this pin is of no use.
            tracing::warn!(interface = self.name, pin = %path.display(), "removing the pin of a link to an interface that is gone");
            fs::remove_file(&path).map_err(|error| pin_error(error.into()))?;
            return Ok(None);
        }
        let mode = match pinned_meta(&self.reserved.directory.join("META")).map(|meta| meta.xdp_mode) {
            Some(2) => XdpMode::Generic,
            _ => XdpMode::Native,
        };
        let other_mode = match wanted {
            AttachMode::Auto => false,
            AttachMode::Native => mode != XdpMode::Native,
            AttachMode::Generic => mode != XdpMode::Generic,
        };
        if other_mode {
            tracing::warn!(
                interface = self.name,
                "`xdp_mode` is not in force: the filter is attached in another mode and stays so, without a gap; to \
                 change it, stop the daemon, run `sip-filter detach {}` and start it again",
                self.name
            );
        }
        let link = XdpLink::try_from(link).map_err(|error| pin_error(error.into()))?;
        let program = xdp(&mut self.program.ebpf)?;
        let id = program
            .attach_to_link(link)
            .map_err(|error| attach_error(&self.name, "replace", error))?;
        let link = program.take_link(id).map_err(DataplaneError::program)?;
        tracing::info!(
            interface = self.name,
            "took over the filter an earlier run left attached, without a gap"
        );
        Ok(Some((link, mode)))
    }

    fn attach_new(&mut self, wanted: AttachMode) -> Result<(XdpLink, XdpMode), DataplaneError> {
        let (link, mode) = match wanted {
            AttachMode::Native => (self.attach_link(XdpMode::Native)?, XdpMode::Native),
            AttachMode::Generic => (self.attach_link(XdpMode::Generic)?, XdpMode::Generic),
            AttachMode::Auto => match self.attach_link(XdpMode::Native) {
                Ok(link) => (link, XdpMode::Native),
                Err(DataplaneError::Attach { source, .. }) => {
                    tracing::warn!(
                        interface = self.name,
                        error = %source,
                        "the driver cannot run XDP; attaching in generic mode, which works but is slower"
                    );
                    (self.attach_link(XdpMode::Generic)?, XdpMode::Generic)
                }
                Err(other) => return Err(other),
            },
        };
        let path = self.reserved.directory.join(LINK);
        let pin = |error: Box<dyn std::error::Error + Send + Sync>| DataplaneError::Pin {
            path: path.clone(),
            source: error,
        };
        let link = FdLink::try_from(link).map_err(|error| pin(error.into()))?;
        let pinned = link.pin(&path).map_err(|error| pin(error.into()))?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(|error| pin(error.into()))?;
        Ok((link, mode))
    }

    fn attach_link(&mut self, mode: XdpMode) -> Result<XdpLink, DataplaneError> {
        let (aya_mode, text) = match mode {
            XdpMode::Native => (AyaMode::Driver, "native"),
            XdpMode::Generic => (AyaMode::Skb, "generic"),
        };
        let program = xdp(&mut self.program.ebpf)?;
        let id = program
            .attach_to_if_index(self.index, aya_mode)
            .map_err(|error| attach_error(&self.name, text, error))?;
        let link = program.take_link(id).map_err(DataplaneError::program)?;
        // aya falls back to netlink without a word when links do not work.
        match FdLink::try_from(link) {
            Ok(link) => XdpLink::try_from(link).map_err(|_| DataplaneError::NotPinnable {
                interface: self.name.clone(),
            }),
            Err(_) => Err(DataplaneError::NotPinnable {
                interface: self.name.clone(),
            }),
        }
    }
}

impl Interface {
    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// How the program runs.
    #[must_use]
    pub fn xdp_mode(&self) -> XdpMode {
        self.mode
    }

    /// How the server's answers are observed.
    #[must_use]
    pub fn egress(&self) -> &Egress {
        &self.egress
    }

    /// Whether the program is still attached, and to the interface of this name.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        let Ok(pinned) = PinnedLink::from_pin(self.reserved.directory.join(LINK)) else {
            return false;
        };
        let index = if_nametoindex(self.name.as_str()).ok();
        index.is_some() && link_index(&FdLink::from(pinned)) == index
    }

    /// See [`LoadedProgram::counters`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        self.program.counters()
    }

    /// See [`LoadedProgram::set_config`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_config(&self, config: &Config) -> Result<(), DataplaneError> {
        self.program.set_config(config)
    }

    pub(crate) fn ebpf_mut(&mut self) -> &mut aya::Ebpf {
        &mut self.program.ebpf
    }

    /// The ring buffer of its events.
    pub(crate) fn events(&self) -> Result<RingBuf<MapData>, DataplaneError> {
        self.program.events()
    }

    /// Takes the filter off the interface and removes its pins.
    ///
    /// # Errors
    /// If a pin cannot be removed.
    pub fn detach(self) -> Result<(), DataplaneError> {
        remove_pins(&self.reserved.directory)
    }

    /// For a start that failed after all: what was attached newly is taken off again; what took the place of an
    /// earlier program stays, since it knows every ban that one knew.
    pub fn give_up(self) {
        if !self.is_new {
            return;
        }
        if let Err(error) = remove_pins(&self.reserved.directory) {
            tracing::error!(
                interface = self.name,
                error = &error as &dyn std::error::Error,
                "the filter stays attached"
            );
        }
    }
}

/// Removes whatever a daemon left attached to an interface. Returns whether there was anything.
///
/// # Errors
/// If a daemon still holds the interface, or a pin cannot be removed.
pub fn detach(name: &str, pin_root: &Path) -> Result<bool, DataplaneError> {
    let mut found = false;
    let versions = fs::read_dir(pin_root).into_iter().flatten().flatten();
    for version in versions.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(b"v")) {
        let directory = version.path().join(name);
        if directory.is_dir() {
            let Some(_lock) = lock(name, &directory)? else {
                continue;
            };
            remove_pins(&directory)?;
            found = true;
        }
    }
    Ok(found)
}

fn check_kernel() -> Result<(), DataplaneError> {
    let (major, minor, patch) = MINIMUM_KERNEL;
    if KernelVersion::current().is_ok_and(|version| version >= KernelVersion::new(major, minor, patch)) {
        return Ok(());
    }
    let found = nix::sys::utsname::uname()
        .map(|name| name.release().to_string_lossy().into_owned())
        .unwrap_or_else(|_| "of unknown version".to_owned());
    Err(DataplaneError::Kernel { found })
}

fn no_interface(name: &str) -> DataplaneError {
    let known = nix::net::if_::if_nameindex()
        .map(|names| {
            let names = names
                .iter()
                .map(|entry| entry.name().to_string_lossy().into_owned());
            names.collect::<Vec<_>>().join(", ")
        })
        .unwrap_or_default();
    DataplaneError::NoInterface {
        name: name.to_owned(),
        known,
    }
}

/// Takes the directory of an interface's pins for this process.
fn reserve(root: &Path, interface: &str) -> Result<Reserved, DataplaneError> {
    loop {
        let directory = pin_directory(root, interface)?;
        if let Some(lock) = lock(interface, &directory)? {
            return Ok(Reserved {
                directory,
                _lock: lock,
            });
        }
    }
}

/// `{root}/v{ABI}/{interface}`, made if need be.
fn pin_directory(root: &Path, interface: &str) -> Result<PathBuf, DataplaneError> {
    let existing = root.ancestors().find(|path| path.exists()).unwrap_or(root);
    let is_bpffs = statfs(existing).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC);
    if !is_bpffs {
        return Err(DataplaneError::NoBpffs {
            path: root.to_owned(),
        });
    }
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
    let file = match File::open(directory) {
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

/// The interface a link is attached to, as the kernel describes it with the link's file descriptor. aya does not tell
/// that descriptor, so ours are searched for the link's id.
fn link_index(link: &FdLink) -> Option<u32> {
    let id = link.info().ok()?.id();
    let field = |text: &str, name: &str| -> Option<u32> {
        text.lines()
            .find_map(|line| line.strip_prefix(name))?
            .trim()
            .parse()
            .ok()
    };
    fs::read_dir("/proc/self/fdinfo")
        .ok()?
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path()).ok())
        .find(|text| field(text, "link_id:") == Some(id))
        .and_then(|text| field(&text, "ifindex:"))
        .filter(|index| *index != 0)
}

fn pin_maps(program: &LoadedProgram, directory: &Path) -> Result<(), DataplaneError> {
    for name in PINNED {
        let path = directory.join(name);
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

/// The link goes first: from then on nothing is filtered, and what remains is only memory.
fn remove_pins(directory: &Path) -> Result<(), DataplaneError> {
    let error = |path: &Path, error: io::Error| DataplaneError::Pin {
        path: path.to_owned(),
        source: error.into(),
    };
    let link = directory.join(LINK);
    if link.exists() {
        fs::remove_file(&link).map_err(|source| error(&link, source))?;
    }
    for entry in fs::read_dir(directory)
        .map_err(|source| error(directory, source))?
        .flatten()
    {
        fs::remove_file(entry.path()).map_err(|source| error(&entry.path(), source))?;
    }
    remove_empty(directory);
    Ok(())
}

/// Removes the directory of an interface's pins and those above it that are ours too, as far as they are empty: they
/// may hold other interfaces.
fn remove_empty(directory: &Path) {
    for directory in directory.ancestors().take(3) {
        if fs::remove_dir(directory).is_err() {
            break;
        }
    }
}

fn attach_error(interface: &str, mode: &'static str, error: aya::programs::ProgramError) -> DataplaneError {
    match os_error(&error) {
        Some(libc::EBUSY | libc::EEXIST) => DataplaneError::OtherProgram {
            interface: interface.to_owned(),
        },
        Some(libc::EPERM) => DataplaneError::Permission {
            what: "attach an XDP program",
        },
        _ => DataplaneError::Attach {
            interface: interface.to_owned(),
            mode,
            source: Box::new(error),
        },
    }
}
