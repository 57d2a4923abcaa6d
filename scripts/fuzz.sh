#!/usr/bin/env bash
# Fuzzes the parsers of untrusted bytes, each target for some seconds: fuzz.sh [SECONDS] [TARGET...]
# With SEED set it begins at the same place each time, and does not learn: so a commit gets one verdict.
# Stable Rust and a C++ compiler do; what cargo-fuzz would set is set here. What is found is left in
# fuzz/artifacts and ends with exit code 1.
set -euo pipefail
cd "$(dirname "$0")/.."
seconds=${1:-10}
# libFuzzer takes 0 for a seed of its own choice.
seed=${SEED:-0}
shift || true
flags='--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4
  -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table
  -Cllvm-args=-sanitizer-coverage-trace-compares'
triple=$(rustc -vV | sed -n 's/^host: //p')
RUSTFLAGS=$flags cargo build --locked --quiet --manifest-path fuzz/Cargo.toml \
    --target-dir fuzz/target --target "$triple"
cd fuzz
built=target/$triple/debug
if [ $# -eq 0 ]; then
    # Each target has a corpus of its own name; one that is missing in TARGETS fails when it starts.
    mapfile -t all < <(cd corpus && printf '%s\n' *)
    set -- "${all[@]}"
fi

# What it learns stays out of the committed corpus: `-merge=1` takes it over by hand.
fuzz() {
    local learnt=target/corpus/$1
    if [ "$seed" != 0 ]; then
        learnt=target/forgotten/$1
        rm -rf "$learnt"
    fi
    mkdir -p "artifacts/$1" "$learnt"
    if FUZZ_TARGET=$1 "$built/all" -max_total_time="$seconds" -seed="$seed" -max_len=8192 -timeout=10 \
        -rss_limit_mb=1024 -artifact_prefix="artifacts/$1/" "$learnt" "corpus/$1" \
        >"target/$1.log" 2>&1; then
        echo "fuzz $1: $(tail -1 "target/$1.log")"
    else
        # What panicked stands before the backtrace, and the input behind it.
        grep -a -A 3 ' panicked at ' "target/$1.log" || true
        tail -25 "target/$1.log"
        echo "fuzz $1: found something, see fuzz/artifacts/$1" >&2
        return 1
    fi
}
export -f fuzz
export built seconds seed
printf '%s\n' "$@" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'
