//! What must hold for any bytes, one module a target.
//!
//! Each `check` panics when a promise does not hold, which is what the fuzzer looks for. `fuzz_targets/all.rs` runs the
//! one of [`TARGETS`] that its environment names.

pub mod answers;
pub mod config;
pub mod header;
pub mod hosts;
pub mod keys;
pub mod manifests;
pub mod opening;
mod reference;
pub mod requests;
pub mod result;
pub mod reviews;
pub mod times;

use std::cell::OnceCell;

/// Each target by its name, which is that of its folder in `corpus/`.
pub const TARGETS: &[(&str, fn(&[u8]))] = &[
    ("answers", answers::check),
    ("config", config::check),
    ("header", header::check),
    ("hosts", hosts::check),
    ("keys", keys::check),
    ("manifests", manifests::check),
    ("opening", opening::check),
    ("requests", requests::check),
    ("result", result::check),
    ("reviews", reviews::check),
    ("times", times::check),
];

/// Runs a future to its end on a runtime of this thread, whose clock never waits.
fn run<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: OnceCell<tokio::runtime::Runtime> = const { OnceCell::new() };
    }
    RUNTIME.with(|runtime| {
        let runtime = runtime.get_or_init(|| {
            let mut builder = tokio::runtime::Builder::new_current_thread();
            builder
                .enable_time()
                .start_paused(true)
                .build()
                .expect("a runtime")
        });
        runtime.block_on(future)
    })
}
