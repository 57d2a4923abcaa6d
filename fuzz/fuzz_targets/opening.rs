//! See `countersign_fuzz::opening`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::opening::check(data));
