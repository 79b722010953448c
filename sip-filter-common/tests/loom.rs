//! The flat tables' protocols under every interleaving: `cargo xtask loom`, which sets `--cfg loom`.
//!
//! Loom runs a model again and again, once for each order of the threads' atomic operations (up to a number of forced
//! switches) and for each value a load may see by the C11 memory model. What runs is the real code of
//! `sip_filter_common::table`; only the words are loom's.
//!
//! # What is assumed
//! The words behave as [`HostLine`](sip_filter_common::table::HostLine) says: loads acquire, stores release, and
//! compare-and-swap does both. The controller's side is that by its own code. The kernel program's loads and stores are
//! plain volatile ones, which the compiler keeps in order among each other; on x86 the processor keeps them in an order
//! (TSO) that allows nothing which acquire and release forbid, and its compare-and-swap is a full barrier. A processor
//! that reorders plain loads, such as an arm64, is not covered: see `plain_loads_of_a_weaker_processor_are_not_enough`.
#![cfg(loom)]

#[path = "loom/bans.rs"]
mod bans;
#[path = "loom/sources.rs"]
mod sources;
#[path = "loom/words.rs"]
mod words;
