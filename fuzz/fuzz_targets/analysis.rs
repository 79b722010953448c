//! cargo-fuzz's entry to `sip_filter_fuzz::analysis`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sip_filter_fuzz::analysis(data));
