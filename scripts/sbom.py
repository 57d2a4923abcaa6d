#!/usr/bin/env python3
"""Writes what is in the binary of an image, as CycloneDX 1.5: sbom.py static|dynamic FILE

The crates are cargo-cyclonedx's work (.testbed/bin, `make deps`): those that are linked or that write code
when it is compiled, with versions, licences and hashes from Cargo.lock. Added here: OpenSSL, which is compiled
from the source in the crate openssl-src and which a crate's version hides. Removed: everything that
differs from one machine or moment to the next, so that the same Cargo.lock gives the same file. What is not
in it: glibc of the build machine, which the static binary holds a part of, and Debian's packages in the
other images. Not kept in the repository; `make sbom` and scripts/release.sh run it.
"""

import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAVOURS = {"static": ["--no-default-features"], "dynamic": []}
TRIPLE = f"{platform.machine()}-unknown-linux-gnu"
# cargo-cyclonedx writes it beside Cargo.toml and nowhere else.
MADE = ROOT / "countersign_bin.cdx.json"
# `400.0.2+4.0.3` is version 400.0.2 of the crate with OpenSSL 4.0.3.
CRATE = re.compile(r'name = "openssl-src"\nversion = "(?:[^"+]*)\+([0-9.]+)"')


def crates(flavour):
    line = [".testbed/bin/cargo-cyclonedx", "cyclonedx", "-q", "--format", "json", "--spec-version", "1.5"]
    line += ["--target", TRIPLE, "--no-build-deps", "--describe", "binaries", *FLAVOURS[flavour]]
    # Set to any time: it would write the present one.
    environment = {**os.environ, "SOURCE_DATE_EPOCH": os.environ.get("SOURCE_DATE_EPOCH", "0")}
    try:
        subprocess.run(line, cwd=ROOT, env=environment, check=True)
        return json.loads(MADE.read_text())
    except FileNotFoundError:
        sys.exit("sbom.py: no .testbed/bin/cargo-cyclonedx here, run make deps")
    finally:
        MADE.unlink(missing_ok=True)


def openssl():
    found = CRATE.search((ROOT / "Cargo.lock").read_text())
    if not found:
        sys.exit("sbom.py: Cargo.lock names no openssl-src with the version of OpenSSL in its own")
    version = found[1]
    return {
        "type": "library",
        "bom-ref": f"openssl@{version}",
        "name": "openssl",
        "version": version,
        "description": "Cryptography library, compiled from source and linked",
        "scope": "required",
        "licenses": [{"expression": "Apache-2.0"}],
        "purl": f"pkg:generic/openssl@{version}",
        "cpe": f"cpe:2.3:a:openssl:openssl:{version}:*:*:*:*:*:*:*",
    }


def add(bom, component):
    """As what openssl-sys, the crate that links it, depends on."""
    bom["components"].append(component)
    (binding,) = [part["bom-ref"] for part in bom["components"] if part["name"] == "openssl-sys"]
    for entry in bom["dependencies"]:
        if entry["ref"] == binding:
            entry.setdefault("dependsOn", []).append(component["bom-ref"])
    bom["dependencies"].append({"ref": component["bom-ref"]})


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in FLAVOURS:
        sys.exit("sbom.py: say static or dynamic, and a file")
    bom = crates(sys.argv[1])
    add(bom, openssl())
    bom.pop("serialNumber", None)
    text = json.dumps(bom, indent=2).replace(f"path+file://{ROOT}", "path+file:///countersign")
    # Of the content: another one whenever there is something else in it.
    bom = json.loads(text)
    bom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, text).urn
    pathlib.Path(sys.argv[2]).write_text(json.dumps(bom, indent=2) + "\n")


main()
