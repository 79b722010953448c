//! Client and server over a real socket, with well-meaning and with hostile clients.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod hostile;
mod permissions;
mod round_trip;
mod snapshots;
#[path = "../support/mod.rs"]
mod support;

/// A client of `daemon`.
fn client(daemon: &support::Daemon) -> sip_filter::api::client::Client {
    sip_filter::api::client::Client::new(&daemon.socket)
}
