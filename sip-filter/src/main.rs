//! `sip-filter`: see the library.

fn main() {}
