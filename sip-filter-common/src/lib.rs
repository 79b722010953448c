//! The decisions of sip-filter and the layouts they rest on, without I/O: the same source runs in the kernel
//! program and on the host.
#![no_std]

#[cfg(test)]
extern crate std;

pub mod abi;
pub mod limiter;
pub mod packet;
pub mod pipeline;
pub mod sip;
pub mod table;
pub mod verdict;
