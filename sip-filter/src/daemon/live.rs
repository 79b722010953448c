//! The filter on an interface of this host.

use std::{io, net::IpAddr, time::Duration};

use sip_filter_common::{abi::flags, sip::Class};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{PacketEvent, Plane, Tended, chain};
use crate::{
    config::{Config, Protect},
    dataplane::{
        AttachMode, Counters, DataplaneError, Egress, EventStream, Image, Interface, KernelLog, LoadOptions,
        Prepared, XdpMode,
    },
};

/// See the module. Made unattached, with empty tables: the controller fills them and then attaches it, so that an
/// earlier run's program is replaced by one that knows every ban.
pub struct LivePlane {
    name: String,
    wanted: AttachMode,
    seed: [u64; 2],
    prefix6: u32,
    log: bool,
    image: Box<dyn Image>,
    index: u32,
    base: Option<Counters>,
    /// Ports in force.
    protect: Protect,
    /// Ends the readers of its events when it goes, as an interface may before the daemon does.
    readers: Option<DropGuard>,
    state: State,
}

enum State {
    Prepared(Box<Prepared>),
    Attached(Box<Interface>),
    /// Attaching failed, or it was detached.
    Gone,
}

impl LivePlane {
    /// Loads the kernel program for an interface.
    ///
    /// # Errors
    /// [`DataplaneError`]; what an earlier run left attached still is.
    pub fn prepare(name: &str, config: &Config) -> Result<Box<dyn Plane>, DataplaneError> {
        let seed = random_seed().map_err(|source| DataplaneError::Write {
            what: "hash seed",
            source,
        })?;
        let options = LoadOptions {
            sizes: config.tables.sizes(),
            config: config.kernel(seed),
            udp_ports: config.protect.udp_ports.clone(),
            tcp_ports: config.protect.tcp_ports.clone(),
            log: config.log.kernel,
            test_clock: false,
        };
        let (prepared, image) = Prepared::new(name, &config.bpf.pin_root, &options)?;
        Ok(Box::new(Self {
            name: name.to_owned(),
            wanted: config.xdp_mode,
            seed,
            prefix6: options.config.source_prefix6,
            log: config.log.kernel,
            index: prepared.index(),
            base: None,
            protect: config.protect.clone(),
            readers: None,
            image,
            state: State::Prepared(Box::new(prepared)),
        }))
    }

    fn attached(&self) -> Result<&Interface, DataplaneError> {
        match &self.state {
            State::Attached(interface) => Ok(interface),
            State::Prepared(_) | State::Gone => Err(DataplaneError::Write {
                what: "tables",
                source: io::Error::other("the program is not attached"),
            }),
        }
    }
}

impl Plane for LivePlane {
    fn name(&self) -> &str {
        &self.name
    }

    fn index(&self) -> u32 {
        self.index
    }

    fn rename(&mut self, name: &str) -> Result<(), DataplaneError> {
        if let State::Attached(interface) = &mut self.state {
            interface.rename(name)?;
        }
        name.clone_into(&mut self.name);
        Ok(())
    }

    fn add_base(&mut self, before: &Counters) {
        match &mut self.state {
            State::Attached(interface) => interface.add_base(before),
            // Until it is attached.
            State::Prepared(_) | State::Gone => self.base = Some(before.clone()),
        }
    }

    fn xdp_mode(&self) -> Option<XdpMode> {
        let interface = self.attached().ok()?;
        interface.is_attached().then(|| interface.xdp_mode())
    }

    fn egress(&self) -> Egress {
        match &self.state {
            State::Attached(interface) => interface.egress().clone(),
            State::Prepared(_) | State::Gone => Egress::None("the filter is not attached".to_owned()),
        }
    }

    fn tend(&mut self) -> Tended {
        let State::Attached(interface) = &mut self.state else {
            return Tended::default();
        };
        let unpinned = match interface.tend_pins() {
            Ok(false) => None,
            Ok(true) => {
                tracing::warn!(
                    interface = self.name,
                    "the pins of the filter had been removed, and were put back"
                );
                None
            }
            Err(error) => Some(chain(&error)),
        };
        Tended {
            answers: interface.tend_egress(),
            unpinned,
        }
    }

    fn counters(&self) -> Result<Counters, DataplaneError> {
        self.attached()?.counters()
    }

    fn untold(&self, source: IpAddr, class: Class, since: Duration) -> u64 {
        let of = (source, class);
        let told = |interface: &Interface| interface.untold(of, (self.seed, self.prefix6), since);
        self.attached().and_then(told).unwrap_or(0)
    }

    fn configure(&mut self, config: &Config, capture_drops: bool) -> Result<(), DataplaneError> {
        let state = &self.state;
        match state {
            // Loaded with it a moment ago.
            State::Prepared(_) => Ok(()),
            State::Attached(interface) => {
                let mut settings = config.kernel(self.seed);
                if capture_drops {
                    settings.flags |= flags::CAPTURE_DROPS;
                }
                // The ports first: should the settings be refused, these are put back.
                let ports = |protect: &Protect| interface.set_ports(&protect.udp_ports, &protect.tcp_ports);
                let changed = self.protect != config.protect;
                if changed && let Err(error) = ports(&config.protect) {
                    let _ = ports(&self.protect);
                    return Err(error);
                }
                if let Err(error) = interface.set_config(&settings) {
                    if changed {
                        ports(&self.protect)?;
                    }
                    return Err(error);
                }
                self.protect = config.protect.clone();
                Ok(())
            }
            State::Gone => self.attached().map(|_| ()),
        }
    }

    fn image(&mut self) -> &mut dyn Image {
        self.image.as_mut()
    }

    fn attach(&mut self) -> Result<(), DataplaneError> {
        self.state = match std::mem::replace(&mut self.state, State::Gone) {
            State::Prepared(prepared) => State::Attached(Box::new(prepared.attach(self.wanted)?)),
            other => other,
        };
        if let State::Attached(interface) = &mut self.state
            && let Some(base) = self.base.take()
        {
            interface.add_base(&base);
        }
        self.attached().map(|_| ())
    }

    fn start_events(&mut self, sink: mpsc::Sender<Vec<PacketEvent>>) -> Result<(), DataplaneError> {
        let mut stream = EventStream::open(self.attached()?)?;
        let interface = self.name.clone();
        let gone = CancellationToken::new();
        self.readers = Some(gone.clone().drop_guard());
        if let State::Attached(attached) = &mut self.state
            && self.log
        {
            let log = KernelLog::open(attached)?;
            let (sink, gone) = (sink.clone(), gone.clone());
            tokio::spawn(async move {
                tokio::select! {
                    () = sink.closed() => {}
                    () = gone.cancelled() => {}
                    Err(error) = log.run() => tracing::warn!(%error, "no more log of the kernel program"),
                }
            });
        }
        tokio::spawn(async move {
            loop {
                let batch = tokio::select! {
                    () = sink.closed() => return,
                    () = gone.cancelled() => return,
                    batch = stream.next() => batch,
                };
                match batch {
                    Ok(batch) => {
                        let events = batch
                            .into_iter()
                            .map(|(header, payload)| PacketEvent { header, payload })
                            .collect();
                        if sink.send(events).await.is_err() {
                            return;
                        }
                    }
                    Err(error) => {
                        tracing::error!(
                            interface,
                            error = chain(&error),
                            "no more events: detection has ended here"
                        );
                        return;
                    }
                }
            }
        });
        Ok(())
    }

    fn detach(&mut self) -> Result<(), DataplaneError> {
        match std::mem::replace(&mut self.state, State::Gone) {
            State::Attached(interface) => interface.detach(),
            State::Prepared(_) | State::Gone => Ok(()),
        }
    }

    fn give_up(&mut self) {
        if let State::Attached(interface) = std::mem::replace(&mut self.state, State::Gone) {
            interface.give_up();
        }
    }
}

/// New for every load: nobody outside can learn how addresses fall into buckets.
fn random_seed() -> io::Result<[u64; 2]> {
    use std::io::Read as _;
    let mut bytes = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    let word = |half: &[u8]| half.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    Ok([word(&bytes[..8]), word(&bytes[8..])])
}
