//! See `countersign_fuzz::result`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::result::check(data));
