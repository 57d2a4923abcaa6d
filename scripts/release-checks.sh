#!/usr/bin/env bash
# Checks that only a release needs, before `release.sh`: release-checks.sh
# OpenSSL must be no older than OPENSSL_MINIMUM, which is raised with every security release that concerns what is
# compiled here, and cargo-deny must find no advisory, banned crate, licence or registry. It compiles cargo-deny into
# .testbed and fetches the advisory database, so it needs a network.
set -euo pipefail
cd "$(dirname "$0")/.."
OPENSSL_MINIMUM=4.0.3
cargo_deny=0.20.2
fail() {
    echo "release-checks.sh: $*" >&2
    exit 1
}
openssl=$(sed -n 's/^version = "[^"]*+\([0-9.]*\)"/\1/p' <(grep -A1 '^name = "openssl-src"' Cargo.lock))
if [ -n "${OPENSSL_SOURCE_DIR-}" ]; then
    openssl=$(. "$OPENSSL_SOURCE_DIR/VERSION.dat" && echo "$MAJOR.$MINOR.$PATCH")
fi
oldest=$(printf '%s\n' "$openssl" "$OPENSSL_MINIMUM" | sort --version-sort | head -1)
[ "$oldest" = "$OPENSSL_MINIMUM" ] || fail "OpenSSL $openssl is older than $OPENSSL_MINIMUM; see docs/RELEASING.md"
echo "OpenSSL $openssl, minimum $OPENSSL_MINIMUM"
[ "${1-}" != --openssl ] || exit 0

if [[ $(.testbed/bin/cargo-deny --version 2>/dev/null) != *" $cargo_deny" ]]; then
    echo "release-checks.sh: building cargo-deny $cargo_deny, which takes some minutes"
    cargo install --locked --force --root .testbed "cargo-deny@$cargo_deny"
fi
.testbed/bin/cargo-deny check advisories bans licenses sources
