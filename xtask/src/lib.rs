//! Library half of the project's tasks: what tests, the demonstration and the benchmarks share.

pub mod bench;
pub mod lab;
