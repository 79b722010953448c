//! The daemon: wires data plane, detection, ban list and store, and stops them in order.

mod allow;
mod controller;
mod decisions;
mod drops;
mod error;
mod handle;
mod heap;
mod interfaces;
pub mod journal;
mod judge;
mod known;
mod live;
mod notify;
mod operations;
mod own;
mod pending;
mod plane;
mod regular;
mod requests;
mod run;
mod saving;
mod settle;
mod talkers;
mod top;
mod trend;
mod verify;
mod watch;

#[cfg(test)]
mod bench;
#[cfg(test)]
mod fake;

pub use controller::{Controller, Totals};
pub use decisions::{Applied, Reloaded};
pub use drops::{Capture, DroppedFrame};
pub use error::{ControlError, ErrorCode, chain};
pub use handle::ControlHandle;
pub use interfaces::{Interfaces, LiveInterfaces};
pub use known::{ProvenBy, TrustedBy};
pub use live::LivePlane;
pub use notify::{Notifier, watchdog};
pub use own::own_addresses;
pub use plane::{PacketEvent, Plane, Tended};
pub use requests::{
    BanDone, BanOrder, Checked, Filter, ImportBan, ImportOptions, Imported, Length, Unban, UnbanDone,
};
pub use run::{Daemon, Ending, StartError};
pub use saving::{Done, Held};
pub use talkers::{Rate, Talkers};
pub use top::{Busy, Overview};
pub use trend::{Series, Trend};
pub use verify::VerifyCounts;
pub use watch::Detector;
