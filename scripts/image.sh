#!/usr/bin/env bash
# Builds an image from deploy/Dockerfile without a network, of what this machine has:
# image.sh static|redirect|dynamic [--binary FILE] [--base ARCHIVE] [--out FOLDER]
# It writes FOLDER/FLAVOUR.tar (target/image), an OCI archive that `podman load` and `docker load` take.
# Stages that would compile or install are replaced: by FILE, or else what scripts/binary.sh builds; by
# this machine's nft; and for `dynamic` by ARCHIVE, an OCI archive with Debian and p11-kit in it. The
# same files give the same archive, byte for byte. Needs buildah, and root for its storage, which is a
# temporary folder.
set -euo pipefail
cd "$(dirname "$0")/.."
fail() {
    echo "image.sh: $*" >&2
    exit 64
}
flavour=${1-} binary='' base='' out=target/image
case $flavour in
static | redirect) kind=static ;;
dynamic) kind=dynamic ;;
*) fail "say static, redirect or dynamic" ;;
esac
shift
while [ $# -gt 0 ]; do
    case $1 in
    --binary) binary=${2-} ;;
    --base) base=$(realpath "${2-}") ;;
    --out) out=${2-} ;;
    *) fail "unknown option $1" ;;
    esac
    shift 2 || fail "$1 needs a value"
done
[ "$kind" = static ] || [ -n "$base" ] || fail "dynamic needs --base ARCHIVE"
command -v buildah >/dev/null || fail "no buildah here, run make deps"
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
epoch=${SOURCE_DATE_EPOCH:-0}
tag=countersign:$version
[ "$flavour" = static ] || tag=$tag-$flavour

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$out" "$work/build" "$work/context"
[ -n "$binary" ] || binary=$(scripts/binary.sh "$kind")
install -m 755 "$binary" "$work/build/countersign"
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
echo "$tag: $out/$flavour.tar"
