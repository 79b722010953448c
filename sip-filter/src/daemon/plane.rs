//! What the daemon needs of a data plane. Live interfaces implement it, and so do the tests' fakes.

use std::{net::IpAddr, time::Duration};

use bytes::Bytes;
use sip_filter_common::{abi::EventHeader, sip::Class};
use tokio::sync::mpsc;

use crate::{
    config::Config,
    dataplane::{Counters, DataplaneError, Egress, Image, XdpMode},
};

/// An event of the kernel program.
#[derive(Clone, Debug)]
pub struct PacketEvent {
    /// Its head.
    pub header: EventHeader,
    /// The payload excerpt, `header.captured` bytes.
    pub payload: Bytes,
}

/// What [`Plane::tend`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tended {
    /// Answers were not seen for a moment.
    pub answers: Option<String>,
    /// Why the filter would end with the daemon, if it would.
    pub unpinned: Option<String>,
}

/// The filter on one interface.
pub trait Plane: Send {
    /// The interface.
    fn name(&self) -> &str;

    /// Its number, which it keeps when it is renamed.
    fn index(&self) -> u32;

    /// Follows it to another name.
    ///
    /// # Errors
    /// If the pins cannot be moved; it has the old name then.
    fn rename(&mut self, name: &str) -> Result<(), DataplaneError>;

    /// Packets of a class from a source that were counted since a boot time and are yet to be told, as far as the kernel
    /// says: an event is sent for the first of a window, and those behind it are told with the next.
    fn untold(&self, _source: IpAddr, _class: Class, _since: Duration) -> u64 {
        0
    }

    /// What was counted on this interface before it came back, to be added to [`Self::counters`].
    fn add_base(&mut self, before: &Counters);

    /// How the program is attached; `None` if it is not (the link is gone).
    fn xdp_mode(&self) -> Option<XdpMode>;

    /// How the server's answers are observed.
    fn egress(&self) -> Egress;

    /// Looks whether what the program needs around it is still there, and puts back what it can: the observer of answers,
    /// and the pins. To be called each second.
    fn tend(&mut self) -> Tended {
        Tended::default()
    }

    /// Sum over all CPUs.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn counters(&self) -> Result<Counters, DataplaneError>;

    /// Puts the settings of [`Config::kernel`] in force, all at once, with copies of dropped frames or without.
    ///
    /// # Errors
    /// If the kernel refuses; the settings before are then still in force.
    fn configure(&mut self, config: &Config, capture_drops: bool) -> Result<(), DataplaneError>;

    /// Its tables of bans and allowed networks.
    fn image(&mut self) -> &mut dyn Image;

    /// Attaches the program; its tables are complete by then. Does nothing if it is attached, as after a restart.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn attach(&mut self) -> Result<(), DataplaneError>;

    /// Sends its events in batches, in the order they came, until it goes or the channel closes. It waits while the
    /// channel is full: the kernel program counts what it loses meanwhile. Must be called within a
    /// tokio runtime.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn start_events(&mut self, sink: mpsc::Sender<Vec<PacketEvent>>) -> Result<(), DataplaneError>;

    /// Takes the program out of the kernel and removes its pins.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn detach(&mut self) -> Result<(), DataplaneError>;

    /// Undoes [`Self::attach`] for a start that failed later: what it attached anew is taken off again, what took the
    /// place of an earlier run's program stays.
    fn give_up(&mut self);
}
