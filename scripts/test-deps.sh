#!/usr/bin/env bash
# Installs what `make test` needs beside Rust, on Debian 12: the runtimes of the legacy clients
# in tests/clients, and .testbed/venv with the Python packages pinned there.
#
# Only what is missing is installed, so a second run takes a fraction of a second; root is
# needed only when a Debian package is missing. Starts nothing, and writes nothing outside
# .testbed but Debian packages. Ends with one clear line when something cannot be had.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
requirements=$root/tests/clients/requirements.txt
venv=$root/.testbed/venv
cargo_deny=0.20.2

fail() {
    echo "test-deps: $*" >&2
    exit 1
}

# Each client's check is of what the client uses, not of a package name: a newer runtime from
# somewhere else serves as well.

has_curl() {
    command -v curl >/dev/null
}

# Pay.java itself needs only 11, but 17 is the Java that Debian 12 has and legacy apps run on.
has_java() {
    local version
    command -v javac >/dev/null || return
    version=$(java -version 2>&1) || return
    [[ $version =~ version\ \"([0-9]+) ]] && ((BASH_REMATCH[1] >= 17))
}

# The first Node with fetch is 18.
has_node() {
    local version
    version=$(node --version 2>/dev/null) || return
    [[ $version =~ ^v([0-9]+) ]] && ((BASH_REMATCH[1] >= 18))
}

# Prints the interpreter to build the venv from. Debian's own comes first: tests run clients as
# other users, and those cannot read an interpreter in somebody's home directory.
python_with_venv() {
    local candidate
    for candidate in /usr/bin/python3 python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 9, 2))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

install_packages() {
    local packages=("$@")
    command -v apt-get >/dev/null || fail "no apt-get here; install ${packages[*]} by hand"
    ((EUID == 0)) || fail "not root; run: apt-get install ${packages[*]}"
    echo "test-deps: installing ${packages[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=120 update >&2 ||
        fail "apt-get update failed; ${packages[*]} cannot be installed"
    apt-get -qq -o DPkg::Lock::Timeout=120 -o Dpkg::Use-Pty=0 install -y --no-install-recommends \
        "${packages[@]}" >&2 || fail "apt-get could not install ${packages[*]}"
}

# The copy of the requirements is written last, so a half-built venv is never taken for a whole one.
venv_is_current() {
    cmp -s "$requirements" "$venv/requirements.txt" && "$venv/bin/python" -c '' 2>/dev/null
}

build_venv() {
    local python
    python=$(python_with_venv) || fail "no python3 that can make a venv"
    echo "test-deps: building $venv" >&2
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    "$python" -m venv "$venv" >&2 || fail "$python could not make $venv"
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --no-deps --only-binary :all: --requirement "$requirements" >&2 ||
        fail "pip could not install $requirements"
    "$venv/bin/python" -m pip --disable-pip-version-check check >&2 ||
        fail "$requirements does not hold all its packages need"
    cp "$requirements" "$venv/requirements.txt"
}

# OpenSSL is built from source.
has_build_tools() {
    command -v cc >/dev/null && command -v make >/dev/null && command -v perl >/dev/null
}

missing=()
has_build_tools || missing+=(build-essential perl)
has_curl || missing+=(curl)
has_java || missing+=(openjdk-17-jdk-headless)
has_node || missing+=(nodejs)
python_with_venv >/dev/null || missing+=(python3 python3-venv)

if ((${#missing[@]} > 0)); then
    install_packages "${missing[@]}"
    # A package may be installed and still be hidden by an older one earlier in PATH.
    has_curl || fail "curl is installed but not found in PATH"
    has_java || fail "java and javac in PATH are not 17 or newer, though openjdk-17-jdk-headless is installed"
    has_node || fail "node in PATH is not 18 or newer, though nodejs is installed"
    python_with_venv >/dev/null || fail "python3 cannot make a venv, though python3-venv is installed"
fi

venv_is_current || build_venv

if [[ $("$root/.testbed/bin/cargo-deny" --version 2>/dev/null) != "cargo-deny $cargo_deny" ]]; then
    echo "test-deps: building cargo-deny $cargo_deny, which takes some minutes" >&2
    cargo install --quiet --locked --root "$root/.testbed" "cargo-deny@$cargo_deny" >&2 ||
        fail "cargo-deny $cargo_deny could not be built"
fi
