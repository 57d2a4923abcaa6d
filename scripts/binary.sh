#!/usr/bin/env bash
# Builds the binary of an image, as small as the flags below make it: binary.sh static|dynamic
# `static` is one file that needs nothing else; `dynamic` needs glibc 2.36 and signs with PKCS#11, whose
# modules only a dynamic binary can load. For the machine it runs on, x86-64 or arm64. Used by
# scripts/image.sh, deploy/Dockerfile and scripts/release.sh, so that all of them build the same. Prints
# where the binary is.
set -euo pipefail
cd "$(dirname "$0")/.."
triple=$(uname -m)-unknown-linux-gnu
case ${1-} in
static) linking=+crt-static features=(--no-default-features) ;;
dynamic) linking=-crt-static features=() ;;
*)
    echo "binary.sh: say static or dynamic" >&2
    exit 64
    ;;
esac

flags=(
    "-Ctarget-feature=$linking"
    # Some 33,000 places are relocated at the start: 24 bytes each in the binary, or a bit or two.
    "-Clink-arg=-Wl,-z,pack-relative-relocs"
    # The same bytes wherever cargo keeps its sources, and nobody's home directory in a message.
    "--remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
    "--remap-path-prefix=$PWD=/countersign"
)
export RUSTFLAGS="${flags[*]}"

cargo build --profile dist --locked "${features[@]}" --target "$triple" >&2
echo "${CARGO_TARGET_DIR:-target}/$triple/dist/countersign"
