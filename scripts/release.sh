#!/usr/bin/env bash
# Makes what a release is made of, in dist/: release.sh [--again]
# Static binary, images as OCI archives, SBOMs, chart and checksums, for the architecture of this machine;
# docs/RELEASING.md says what is done before and after. It refuses a tree that is not what a commit
# says, pushes and signs nothing, and takes every time from the commit, so that the same commit, toolchain
# and folder give the same bytes; --again packs all twice and compares, of one binary. Needs what `make deps` installs.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() {
    echo "release.sh: $*" >&2
    exit 1
}
[ -z "$(git status --porcelain)" ] || fail "there are changes no commit has"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
grep -q "^## \[$version\]" CHANGELOG.md || fail "CHANGELOG.md has no section [$version]"
REVISION=$(git rev-parse HEAD)
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)
# A folder of the commit's own: OpenSSL writes down when it was built, and one that was built for something else
# has another time in it.
export CARGO_TARGET_DIR=target/release-of-$REVISION
export REVISION SOURCE_DATE_EPOCH
machine=$(uname -m)

make_all() {
    local out=$1 name=countersign-$version-$machine binary
    rm -rf "$out"
    mkdir -p "$out"
    binary=$(scripts/binary.sh static)
    install -m 755 "$binary" "$out/$name"
    scripts/image.sh static --binary "$binary" --out "$out"
    scripts/image.sh redirect --binary "$binary" --out "$out"
    mv "$out/static.tar" "$out/$name.oci.tar"
    mv "$out/redirect.tar" "$out/$name-redirect.oci.tar"
    scripts/sbom.py static "$out/$name.cdx.json"
    scripts/sbom.py dynamic "$out/$name-dynamic.cdx.json"
    if [ -d helm/countersign ]; then
        chart "$out"
    fi
    (cd "$out" && sha256sum -- * >SHA256SUMS)
}

# `helm package` writes the present time; the layout is one folder in a tar, so that is what is made.
chart() {
    local base=(--sort=name --mtime="@$SOURCE_DATE_EPOCH" --owner=0 --group=0 --numeric-owner --mode='go=rX,u+rw')
    tar --create "${base[@]}" --directory helm countersign | gzip -n -9 >"$1/countersign-chart-$version.tgz"
}

make_all dist
if [ "${1-}" = --again ]; then
    make_all dist.again
    diff dist/SHA256SUMS dist.again/SHA256SUMS || fail "the second time gave other bytes"
    rm -r dist.again
fi
cat dist/SHA256SUMS
