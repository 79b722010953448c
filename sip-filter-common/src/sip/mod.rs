//! What the filter understands of SIP (RFC 3261).

mod address;
mod auth;
mod classify;
mod header;
mod message;
mod name;
mod start_line;
mod text;
mod uri;
mod via;

pub use address::{Contact, NameAddr};
pub use auth::{Challenge, Credentials};
pub use classify::{Class, HEAD, classify, known_method, likely_class};
pub use header::{Header, Headers, unfold};
pub use message::{CSeq, Message};
pub use name::HeaderName;
pub use start_line::RequestLine;
pub use uri::{Uri, host_address};
pub use via::Via;
