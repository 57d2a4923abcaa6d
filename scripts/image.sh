#!/usr/bin/env bash
# Builds an image from deploy/Dockerfile without a network, of what this machine has:
# image.sh static|redirect|dynamic [BASE] writes target/image/FLAVOUR.tar, an OCI archive that
# `podman load` and `docker load` take. The stages that would compile or install are replaced: by
# the binary cargo builds here, by this machine's nft, and for `dynamic` by BASE, an OCI archive with
# Debian in it. The same files give the same image, byte for byte. Needs buildah, and root for its
# storage, which is a temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."
flavour=${1-}
case $flavour in
static | redirect) kind=static ;;
dynamic) kind=dynamic base=${2:?image.sh: dynamic needs a base, an OCI archive} ;;
*)
    echo "image.sh: say static, redirect or dynamic" >&2
    exit 64
    ;;
esac
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
epoch=${SOURCE_DATE_EPOCH:-0}
tag=countersign:$version
[ "$flavour" = static ] || tag=$tag-$flavour

out=$PWD/target/image
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/build" "$work/context"
install -m 755 "$(scripts/binary.sh "$kind")" "$work/build/countersign"
install -m 644 LICENSE "$work/context/LICENSE"

contexts=(--build-context "build=$work/build" --build-context "build-dynamic=$work/build")
case $flavour in
redirect)
    scripts/root-folder.sh "$work/tools/tools" nft
    contexts+=(--build-context "tools=$work/tools")
    ;;
dynamic) contexts+=(--build-context "base=container-image://oci-archive:$base") ;;
esac
# Times of files are part of an image.
find "$work" -exec touch --no-dereference --date="@$epoch" {} +

storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
buildah "${storage[@]}" --log-level error bud --quiet --isolation chroot --pull=never \
    --file deploy/Dockerfile --target "$flavour" "${contexts[@]}" --timestamp "$epoch" \
    --build-arg TARGETARCH= \
    --build-arg "VERSION=$version" \
    --build-arg "REVISION=${REVISION:-unknown}" \
    --build-arg "CREATED=$(date --utc --date="@$epoch" +%Y-%m-%dT%H:%M:%SZ)" \
    --tag "$tag" "$work/context" >&2
buildah "${storage[@]}" --log-level error push --quiet "$tag" "oci:$work/oci:$tag" >&2
tar --create --sort=name --mtime="@$epoch" --owner=0 --group=0 --numeric-owner --mode=go=rX,u+rw \
    --directory "$work/oci" --file "$out/$flavour.tar" .
echo "$tag: target/image/$flavour.tar"
