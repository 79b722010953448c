//! The control API: HTTP with JSON bodies on a unix socket.
//!
//! [`types`] is the one set of requests and answers; the server turns HTTP into calls of [`Service`], the client turns
//! calls into HTTP. Neither decides anything: what may be banned is the service's business, who may ask is
//! [`access`]'s.

pub mod access;
pub mod client;
mod error;
mod feed;
mod lifetime;
mod limits;
mod lines;
mod routes;
pub mod server;
mod service;
pub mod socket;
mod stall;
mod stream;
pub mod types;

pub use error::{ApiError, ErrorKind};
pub use feed::Feed;
pub use lifetime::Lifetime;
pub use limits::Limits;
pub use lines::Lines;
pub use service::Service;
