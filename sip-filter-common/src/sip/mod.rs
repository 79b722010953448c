//! What the filter understands of SIP (RFC 3261).

mod classify;
mod message;

pub use classify::{Class, HEAD, classify};
pub use message::{Header, HeaderName, Headers, Message, unfold};
