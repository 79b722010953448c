//! cargo-fuzz's entry to `sip_filter_fuzz::api`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| sip_filter_fuzz::api(data));
