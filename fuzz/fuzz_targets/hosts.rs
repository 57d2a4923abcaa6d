//! See `countersign_fuzz::hosts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign_fuzz::hosts::check(data));
