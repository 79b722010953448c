//! One interface: the program attached to it, pinned so that it outlives the daemon, and replaced without a gap.

use std::{fs, net::IpAddr, path::Path, time::Duration};

use aya::{
    maps::{MapData, RingBuf},
    programs::{
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpMode as AyaMode},
    },
};
use nix::net::if_::if_nametoindex;
use sip_filter_common::{
    abi::{ABI_VERSION, Config, Meta},
    sip::Class,
};

use super::{
    Counters, DataplaneError, Egress, Image, LoadOptions, LoadedProgram, XdpMode, counters, egress,
    error::os_error,
    features,
    links::{Description, interface_of},
    netlink::xdp_programs,
    owner, past,
    pins::{Earlier, Reserved},
    program::{classifier, pinned_meta, xdp},
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
    index: u32,
    /// The kernel's id of the program.
    program_id: u32,
    mode: XdpMode,
    egress: egress::Attached,
    /// Nothing of ours was attached before.
    is_new: bool,
    /// What earlier runs counted.
    past: past::Past,
    program: LoadedProgram,
    reserved: Reserved,
    /// Keeps the link's file descriptor; the pin keeps the link.
    link: FdLink,
}

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
        features::check()?;
        let index = if_nametoindex(name).map_err(|_| no_interface(name))?;
        let reserved = Reserved::take(pin_root, name)?;
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

    /// The number of the interface.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Puts the program in force: in place of one left by an earlier daemon, without a gap, or newly attached.
    ///
    /// # Errors
    /// [`DataplaneError`]; what was attached before still is.
    pub fn attach(mut self, wanted: AttachMode) -> Result<Interface, DataplaneError> {
        let own = past::pin(self.reserved.directory(), &self.program)?;
        let attached = self.put_in_force(wanted);
        let (link, mode, earlier, is_new) = match attached {
            Ok(attached) => attached,
            Err(error) => {
                // Nobody has counted in it.
                let _ = fs::remove_file(own);
                return Err(error);
            }
        };
        let to = self.reserved.directory().to_owned();
        let from = earlier.as_ref().map_or(to.as_path(), Earlier::directory);
        let past = past::take_over(from, &to, &own);
        let link = match &earlier {
            Some(earlier) => self.take_pin(earlier, link, is_new)?,
            None => link,
        };
        let link = FdLink::try_from(link).map_err(|_| DataplaneError::NotPinnable {
            interface: self.name.clone(),
        })?;
        let program_id = self.program.id()?;
        let meta = Meta {
            abi_version: ABI_VERSION,
            owner: std::process::id(),
            seed: self.seed,
            xdp_mode: match mode {
                XdpMode::Native => 1,
                XdpMode::Generic => 2,
            },
            netns: own_netns(),
        };
        let described = self
            .program
            .set_meta(meta)
            .and_then(|()| self.reserved.pin_maps(&self.program));
        let egress = egress::attach(classifier(&mut self.program.ebpf)?, &self.name);
        let Self {
            name,
            index,
            reserved,
            program,
            seed: _,
        } = self;
        let interface = Interface {
            name,
            index,
            program_id,
            mode,
            egress,
            is_new,
            past,
            program,
            reserved,
            link,
        };
        match described {
            Ok(()) => Ok(interface),
            Err(error) => {
                interface.give_up();
                Err(error)
            }
        }
    }

    /// Swaps the program behind a pinned link of this interface, or attaches it anew; tells what was there before, and
    /// whether it was attached anew.
    fn put_in_force(
        &mut self,
        wanted: AttachMode,
    ) -> Result<(XdpLink, XdpMode, Option<Earlier>, bool), DataplaneError> {
        let earlier = self.reserved.earlier(&self.name)?;
        let replaced = match &earlier {
            Some(earlier) => self.replace(earlier, wanted)?,
            None => None,
        };
        match replaced {
            Some((link, mode)) => Ok((link, mode, earlier, false)),
            None => {
                let (link, mode) = self.attach_new(wanted)?;
                Ok((link, mode, earlier, true))
            }
        }
    }

    /// Swaps the program behind a pinned link, if it is one to this interface.
    fn replace(
        &mut self,
        earlier: &Earlier,
        wanted: AttachMode,
    ) -> Result<Option<(XdpLink, XdpMode)>, DataplaneError> {
        let path = earlier.link();
        let pin_error = |source: Box<dyn std::error::Error + Send + Sync>| DataplaneError::Pin {
            path: path.clone(),
            source,
        };
        let pinned = PinnedLink::from_pin(&path).map_err(|error| pin_error(error.into()))?;
        let link = FdLink::from(pinned);
        let meta = pinned_meta(&path.with_file_name("META"));
        let index = interface_of(&link);
        if let Some(netns) = meta.map(|meta| meta.netns)
            && index.is_some()
            && netns != 0
            && netns != own_netns()
        {
            return Err(DataplaneError::OtherNamespace {
                interface: self.name.clone(),
                path: earlier.directory().to_owned(),
                netns,
            });
        }
        if index != Some(self.index) {
            // Its interface is gone, or has another name now: this pin is of no use.
            tracing::warn!(interface = self.name, pin = %path.display(), "removing the pin of a link to an interface that is gone");
            fs::remove_file(&path).map_err(|error| pin_error(error.into()))?;
            return Ok(None);
        }
        let mode = match meta.map(|meta| meta.xdp_mode) {
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
            .map_err(|error| attach_error((&self.name, self.index), "replace", error))?;
        let link = program.take_link(id).map_err(DataplaneError::program)?;
        tracing::info!(
            interface = self.name,
            "took over the filter an earlier run left attached, without a gap"
        );
        Ok(Some((link, mode)))
    }

    /// Pins a link under this version of the tables, if it was pinned under another, and removes what that one left.
    fn take_pin(&self, earlier: &Earlier, link: XdpLink, is_new: bool) -> Result<XdpLink, DataplaneError> {
        let to = self.reserved.link();
        if earlier.link() == to {
            return Ok(link);
        }
        if is_new {
            earlier.remove()?;
            return Ok(link);
        }
        let pin = |error: Box<dyn std::error::Error + Send + Sync>| DataplaneError::Pin {
            path: to.clone(),
            source: error,
        };
        let link = FdLink::try_from(link).map_err(|error| pin(error.into()))?;
        let pinned = link.pin(&to).map_err(|error| pin(error.into()))?;
        earlier.remove()?;
        XdpLink::try_from(FdLink::from(pinned)).map_err(|error| pin(error.into()))
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
        let path = self.reserved.link();
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
            .map_err(|error| attach_error((&self.name, self.index), text, error))?;
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
        self.egress.how()
    }

    /// Looks whether the program that observes the answers is still there, and puts it back if it is not and this thread
    /// may attach. Returns what is to be told of it when it was put back.
    pub fn tend_egress(&mut self) -> Option<String> {
        let program = classifier(&mut self.program.ebpf).ok()?;
        let id = program.info().ok()?.id();
        self.egress.tend(program, (&self.name, self.index, id))
    }

    /// Its number, which it keeps when it is renamed.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Whether the interface runs this program, as the kernel says.
    #[must_use]
    pub fn is_attached(&self) -> bool {
        xdp_programs(self.index).is_ok_and(|ids| ids.contains(&self.program_id))
    }

    /// Makes sure that the filter outlives the daemon: pins again what somebody unpinned, as soon as there is a BPF file
    /// system. Returns whether there was something to do. Takes no capability.
    ///
    /// # Errors
    /// [`DataplaneError`]; the filter goes on, but ends with this process.
    pub fn tend_pins(&mut self) -> Result<bool, DataplaneError> {
        if self.reserved.link().exists() {
            return Ok(false);
        }
        self.reserved.renew(&self.name)?;
        let path = self.reserved.link();
        let pin = |source: Box<dyn std::error::Error + Send + Sync>| DataplaneError::Pin {
            path: path.clone(),
            source,
        };
        let description =
            Description::of(&self.link).ok_or_else(|| pin("/proc does not show the link".into()))?;
        // The maps first: whoever finds the link finds what belongs to it.
        self.reserved.pin_maps(&self.program)?;
        past::pin_again(self.reserved.directory(), &self.program, &self.past)?;
        description.pin(&path).map_err(|error| pin(error.into()))?;
        Ok(true)
    }

    /// Follows the interface to another name: pins and all.
    ///
    /// # Errors
    /// If the pins cannot be moved; it has the old name then.
    pub fn rename(&mut self, name: &str) -> Result<(), DataplaneError> {
        self.reserved.rename(name)?;
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// [`LoadedProgram::counters`], and those of earlier runs whose pins were there.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn counters(&self) -> Result<Counters, DataplaneError> {
        let mut sum = self.program.counters()?;
        counters::add(&mut sum, &self.past.sum);
        Ok(sum)
    }

    /// [`LoadedProgram::untold`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn untold(
        &self,
        of: (IpAddr, Class),
        counted_by: ([u64; 2], u32),
        since: Duration,
    ) -> Result<u64, DataplaneError> {
        self.program.untold(of, counted_by, since)
    }

    /// What was counted before, to be added to [`Self::counters`].
    pub fn add_base(&mut self, before: &Counters) {
        counters::add(&mut self.past.sum, before);
    }

    /// See [`LoadedProgram::set_ports`].
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_ports(&self, udp: &[u16], tcp: &[u16]) -> Result<(), DataplaneError> {
        self.program.set_ports(udp, tcp)
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
        self.reserved.remove()
    }

    /// For a start that failed after all: what was attached newly is taken off again; what took the place of an
    /// earlier program stays, since it knows every ban that one knew.
    pub fn give_up(self) {
        if !self.is_new {
            return;
        }
        if let Err(error) = self.reserved.remove() {
            tracing::error!(
                interface = self.name,
                error = &error as &dyn std::error::Error,
                "the filter stays attached"
            );
        }
    }
}

pub(super) fn no_interface(name: &str) -> DataplaneError {
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

/// The inode of our network namespace; 0 if it cannot be told.
fn own_netns() -> u32 {
    use std::os::unix::fs::MetadataExt as _;
    // Of this thread: tests have several.
    let inode = fs::metadata("/proc/thread-self/ns/net").map(|meta| meta.ino());
    inode.map_or(0, |inode| u32::try_from(inode).unwrap_or(0))
}

fn attach_error(
    (interface, index): (&str, u32),
    mode: &'static str,
    error: aya::programs::ProgramError,
) -> DataplaneError {
    match os_error(&error) {
        Some(libc::EBUSY | libc::EEXIST) => DataplaneError::OtherProgram {
            interface: interface.to_owned(),
            program: owner::describe(index),
        },
        // Whatever the kernel calls it (ENODEV, EINVAL), and whether or not another of that name is there by now.
        _ if if_nametoindex(interface).ok() != Some(index) => DataplaneError::Gone {
            name: interface.to_owned(),
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
