//! Library half of the project's tasks: what tests and the demonstration share.

pub mod lab;
