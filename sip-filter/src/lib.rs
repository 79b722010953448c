//! Library of `sip-filter`: controller, command line and everything between them and the kernel program.

pub mod api;
pub mod bans;
pub mod cli;
pub mod dataplane;
pub mod detect;
pub mod units;
