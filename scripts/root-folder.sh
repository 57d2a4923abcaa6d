#!/usr/bin/env bash
# Makes a folder that can be the root of a container without a distribution: root-folder.sh FOLDER PROGRAM...
# It holds each program (or library, by its path), the libraries it is linked with and the loader, where they are on this machine.
# What a program opens by itself while it runs is not among them. Used by deploy/Dockerfile, by
# scripts/image.sh and by the tests, all of which want the same of different machines.
set -euo pipefail
folder=$1
shift
mkdir -p "$folder"

# Where it is, through no symbolic link of a folder: /lib is one to /usr/lib on Debian. A name that
# programs or the loader are asked for by stays one.
add() {
    local file=$1
    install -D --mode=755 "$(realpath "$file")" "$folder$file"
}

for program; do
    path=$program
    [[ $program == */* ]] || path=$(PATH=$PATH:/usr/sbin:/sbin command -v "$program") || {
        echo "root-folder.sh: no $program here" >&2
        exit 1
    }
    add "$path"
    # A static one has none, and ldd says so by failing.
    libraries=$(ldd "$path" 2>/dev/null | grep -o '/[^ ]*') || continue
    for library in $libraries; do add "$library"; done
done
