//! The decisions of sip-filter and the layouts they rest on, without I/O: the same source runs in the kernel
//! program and on the host.
#![no_std]

pub mod abi;
pub mod sip;
pub mod verdict;
