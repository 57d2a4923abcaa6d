#!/usr/bin/env bash
# Installs what `make test` needs beside Rust, on Debian 12: the runtimes of the legacy clients
# in tests/clients and the tools of tests/tools, .testbed/venv, .testbed/node and .testbed/tools with the
# packages pinned there, a nameserver, a forward proxy, PKCS#11 tokens in software, containers, a
# Prometheus, and the tools that give tests a network of their own.
#
# Only what is missing is installed, so a second run takes a fraction of a second; root is
# needed only when a Debian package is missing. Starts nothing, and writes nothing outside
# .testbed but Debian packages. Ends with one clear line when something cannot be had.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
clients=$root/tests/clients
tools=$root/tests/tools
requirements=("$clients/requirements.txt" "$tools/requirements.txt")
venv=$root/.testbed/venv

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

has_npm() {
    npm --version >/dev/null 2>&1
}

# Both of PHP's ways to speak https, and 8 because the clients use its functions.
has_php() {
    php -r 'exit(PHP_VERSION_ID >= 80000 && extension_loaded("curl") && extension_loaded("openssl") ? 0 : 1);' 2>/dev/null
}

has_ruby() {
    ruby -e 'require "net/http"; require "openssl"; require "json"' 2>/dev/null
}

# Makes the certificates of tests that must not be the sidecar's own.
has_openssl() {
    openssl version >/dev/null 2>&1
}

# Network namespaces, redirection of ports by either tool, and another user's id without a login.
# Only root uses them, and they may stand where only root looks.
has_network_tools() {
    local tool PATH=$PATH:/usr/sbin:/sbin
    for tool in ip nft iptables-nft iptables-legacy ip6tables-nft ip6tables-legacy setpriv; do
        command -v "$tool" >/dev/null || return
    done
}

# A nameserver and a forward proxy. Not in everybody's PATH, so the tests name dnsmasq in full.
has_servers() {
    [[ -x /usr/sbin/dnsmasq ]] && command -v tinyproxy >/dev/null
}

# Tokens, the tools that fill them, and a way to unplug them. The tests name the modules in full.
has_tokens() {
    local modules=(/usr/lib/*/pkcs11/p11-kit-client.so)
    command -v softhsm2-util >/dev/null && command -v pkcs11-tool >/dev/null &&
        command -v p11-kit >/dev/null && [[ -e /usr/lib/softhsm/libsofthsm2.so && -e ${modules[0]} ]]
}

# Images are built by buildah and run as pods by podman, whose OCI runtime is runc.
has_containers() {
    local tool PATH=$PATH:/usr/sbin:/sbin
    for tool in podman buildah runc conmon newuidmap nsenter; do
        command -v "$tool" >/dev/null || return
    done
    [[ -x /usr/bin/catatonit || -x /usr/libexec/podman/catatonit ]] &&
        [[ -x /usr/lib/podman/netavark && -e /etc/containers/policy.json && -x /bin/busybox ]] &&
        ! ldd /bin/busybox >/dev/null 2>&1
}

# Debian's starts a service by its package; the tests start their own.
has_prometheus() {
    command -v prometheus >/dev/null && command -v promtool >/dev/null
}

# Components exist in kustomize from 3.7, which came with kubectl 1.21; Debian 12's own is older.
has_kubectl() {
    local version
    version=$(kubectl version --client 2>/dev/null) || return
    [[ $version =~ Kustomize\ Version:\ v([0-9]+) ]] && ((BASH_REMATCH[1] >= 4))
}

# Reads unit files without a running systemd.
has_systemd_analyze() {
    command -v systemd-analyze >/dev/null
}

# Prints the interpreter to build the venv from. Debian's own comes first: tests run clients as
# other users, and those cannot read an interpreter in somebody's home directory.
python_with_venv() {
    local candidate
    for candidate in /usr/bin/python3 python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
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
    # One download that breaks off is no reason to fail.
    local options=(-qq -o DPkg::Lock::Timeout=120 -o Acquire::Retries=3)
    apt-get "${options[@]}" update >&2 ||
        fail "apt-get update failed; ${packages[*]} cannot be installed"
    apt-get "${options[@]}" -o Dpkg::Use-Pty=0 install -y --no-install-recommends \
        "${packages[@]}" >&2 || fail "apt-get could not install ${packages[*]}"
}

# The copy of the requirements is written last, so a half-built venv is never taken for a whole one.
venv_is_current() {
    cat "${requirements[@]}" | cmp -s - "$venv/requirements.txt" && "$venv/bin/python" -c '' 2>/dev/null
}

build_venv() {
    local python
    python=$(python_with_venv) || fail "no python3 that can make a venv"
    echo "test-deps: building $venv" >&2
    rm -rf "$venv"
    mkdir -p "$(dirname "$venv")"
    "$python" -m venv "$venv" >&2 || fail "$python could not make $venv"
    "$venv/bin/python" -m pip install --quiet --no-input --disable-pip-version-check \
        --no-deps --only-binary :all: "${requirements[@]/#/--requirement=}" >&2 ||
        fail "pip could not install ${requirements[*]}"
    "$venv/bin/python" -m pip --disable-pip-version-check check >&2 ||
        fail "${requirements[*]} do not hold all their packages need"
    cat "${requirements[@]}" >"$venv/requirements.txt"
}

# Nothing of the packages runs while they are installed, and each must have the hash in the lock. The
# stamp is written last, so a half-filled folder is never taken for a whole one.
fill_node_folder() {
    local from=$1 folder=$2
    cmp -s "$from/package-lock.json" "$folder/installed-lock.json" && return
    echo "test-deps: filling $folder" >&2
    rm -rf "$folder"
    mkdir -p "$folder"
    cp "$from/package.json" "$from/package-lock.json" "$folder"
    npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error >&2 ||
        fail "npm could not install $from/package-lock.json"
    cp "$from/package-lock.json" "$folder/installed-lock.json"
}

# OpenSSL is built from source.
has_build_tools() {
    command -v cc >/dev/null && command -v c++ >/dev/null && command -v make >/dev/null &&
        command -v perl >/dev/null
}

# Each line: the check, what it asks for, and the Debian packages that give it.
needs=(
    "has_build_tools|cc, c++, make and perl|build-essential perl"
    "has_curl|curl|curl"
    "has_java|java and javac of 17 or newer|openjdk-17-jdk-headless"
    "has_node|node of 18 or newer|nodejs"
    "has_npm|npm|npm"
    "has_php|php of 8 or newer with curl and openssl|php-cli php-curl"
    "has_ruby|ruby with net/http, openssl and json|ruby"
    "python_with_venv|python3 of 3.11 or newer with venv|python3 python3-venv"
    "has_openssl|openssl|openssl"
    "has_network_tools|ip, nft, both kinds of iptables and setpriv|iproute2 nftables iptables util-linux"
    "has_servers|dnsmasq and tinyproxy|dnsmasq-base tinyproxy-bin"
    "has_containers|podman, buildah, runc and a static busybox|podman buildah runc conmon catatonit netavark aardvark-dns golang-github-containers-common uidmap busybox-static"
    "has_prometheus|prometheus and promtool|prometheus"
    "has_kubectl|kubectl of 1.25 or newer (Debian 12 has an older one; put a newer one before it)|kubernetes-client"
    "has_systemd_analyze|systemd-analyze|systemd"
    "has_tokens|SoftHSM, pkcs11-tool and p11-kit|softhsm2 opensc p11-kit p11-kit-modules"
)

missing=()
for need in "${needs[@]}"; do
    IFS='|' read -r check _ packages <<<"$need"
    # shellcheck disable=SC2206 # one line may name several packages
    "$check" >/dev/null || missing+=($packages)
done

if ((${#missing[@]} > 0)); then
    install_packages "${missing[@]}"
    # A package may be installed and still be hidden by an older one earlier in PATH.
    for need in "${needs[@]}"; do
        IFS='|' read -r check what packages <<<"$need"
        "$check" >/dev/null || fail "PATH has no $what, though installed is: $packages"
    done
fi

fill_node_folder "$clients" "$root/.testbed/node"
fill_node_folder "$tools" "$root/.testbed/tools"
venv_is_current || build_venv
