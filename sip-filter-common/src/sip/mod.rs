//! What the filter understands of SIP (RFC 3261).

mod classify;

pub use classify::{Class, HEAD, classify};
