//! Library of `sip-filter`: controller, command line and everything between them and the kernel program.

pub mod alarms;
pub mod analyze;
pub mod api;
pub mod bans;
pub mod cli;
pub mod conditions;
pub mod config;
pub mod daemon;
pub mod dataplane;
pub mod detect;
mod layout;
pub mod logging;
pub mod metrics;
pub mod privileges;
pub mod service;
pub mod units;
