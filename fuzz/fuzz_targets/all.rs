//! Every fuzz target in one binary, so that the instrumented product is compiled and linked once.
//!
//! The environment variable `FUZZ_TARGET` names the module of `countersign_fuzz` to run; `scripts/fuzz.sh` sets it.
#![no_main]

use std::sync::OnceLock;

type Check = fn(&[u8]);

static CHECK: OnceLock<Check> = OnceLock::new();

libfuzzer_sys::fuzz_target!(init: { CHECK.get_or_init(named_by_environment); }, |data: &[u8]| {
    CHECK.get_or_init(named_by_environment)(data);
});

fn named_by_environment() -> Check {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    let target = countersign_fuzz::TARGETS
        .iter()
        .find(|(target, _)| *target == name);
    match target {
        Some((_, check)) => *check,
        None => panic!("FUZZ_TARGET={name:?} is not a target; see TARGETS in fuzz/src/lib.rs"),
    }
}
