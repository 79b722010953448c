//! The running service: what the daemon offers over its socket and to monitoring, and how `run` puts it together.

mod adapter;
mod detector;
mod health;
mod interfaces;
mod numbers;
mod start;
mod top;

pub(crate) use interfaces::resolve;
pub use start::{RunError, run};
