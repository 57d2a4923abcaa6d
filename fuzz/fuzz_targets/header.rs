//! See `countersign_fuzz::header`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::header::check(data));
