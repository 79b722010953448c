//! The ban list: who is banned, since when, why and by whom. It is the truth; the kernel tables are its image.

mod clock;
mod endpoint;
mod history;
mod known;
mod list;
mod model;
mod policy;
mod prefix_map;
pub mod record;
mod store;
mod writer;

pub use clock::Clock;
pub use endpoint::{Confirmed, Endpoint, Endpoints};
pub use history::{EndedBy, History, Past};
pub use known::{Known, KnownSources, Learnt};
pub use list::{BanList, Change, Counts, Entry, NewBan, Outcome};
pub use model::{Ban, Evidence, Origin, Scope, Target};
pub use policy::{AllowOrigin, Allowed, Policy, Refusal};
pub use prefix_map::PrefixMap;
pub use record::BootId;
pub use store::{Batch, Loaded, LoadedTrust, Store, StoreError};
pub use writer::{Receipt, Writer};
