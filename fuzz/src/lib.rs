//! Fuzz targets: all that reads what others wrote, each a plain function that asserts what must hold of its answer.
//!
//! `cargo xtask fuzz-targets` has libFuzzer look for inputs that break an assertion (nightly compiler, cargo-fuzz). The
//! same functions run over the committed corpora, and over mutations of these, in the ordinary tests (`tests/corpus.rs`).

mod api;
mod capture;
mod config;
mod import;
mod message;
mod packet;
mod record;
mod sip;
mod store;

pub use api::api;
pub use capture::{analysis, capture};
pub use config::config;
pub use import::import;
pub use message::message;
pub use packet::packet;
pub use record::record;
pub use sip::classify;
pub use store::store;

/// A target: something that reads what others wrote.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, also that of its corpus under `fuzz/corpus`.
    pub name: &'static str,
    /// Panics if something that must hold of every input does not hold of this one.
    pub run: fn(&[u8]),
    /// How many mutations of the corpus a test run tries: fewer where one takes long.
    pub mutations: u32,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("packet", packet, 2_000),
    target("classify", classify, 20_000),
    target("message", message, 3_000),
    target("capture", capture, 2_000),
    target("analysis", analysis, 60),
    target("api", api, 4_000),
    target("config", config, 1_000),
    target("import", import, 2_000),
    target("record", record, 4_000),
    target("store", store, 60),
];

const fn target(name: &'static str, run: fn(&[u8]), mutations: u32) -> Target {
    Target { name, run, mutations }
}
