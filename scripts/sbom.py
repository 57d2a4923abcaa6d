#!/usr/bin/env python3
"""Writes what is in a binary as CycloneDX 1.5 in JSON: sbom.py static|dynamic FILE

Lists the crates that are linked into the binary, or that generate code for it, as cargo resolves them for this target and
the features of the flavour, with licences from their manifests and checksums from Cargo.lock. OpenSSL is added as a
component of its own: it is compiled from source, and the version of a crate hides its own. Build scripts and test dependencies
are not in the binary and are not listed; neither are glibc's parts in the static one. The same sources give the same
bytes. Standard library only.
"""

import json
import pathlib
import platform
import re
import subprocess
import sys
import tomllib
import urllib.parse
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
FLAVOURS = {"static": ["--no-default-features"], "dynamic": []}
TRIPLE = f"{platform.machine()}-unknown-linux-gnu"
BINARY = "countersign"


def cargo(*arguments):
    line = ["cargo", *arguments, "--locked"]
    return subprocess.run(line, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def linked(flavour):
    """Name and version of each crate in the binary, which `cargo metadata` alone does not separate from test dependencies."""
    tree = cargo("tree", "-p", BINARY, "--edges", "normal", "--target", TRIPLE, "--prefix", "none", "--format", "{p}", *flavour)
    found = set()
    for line in tree.splitlines():
        name, version = line.split()[:2]
        found.add((name, version.removeprefix("v")))
    return found


def checksums():
    packages = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return {(package["name"], package["version"]): package.get("checksum") for package in packages}


def reference(package):
    return f"pkg:cargo/{package['name']}@{urllib.parse.quote(package['version'])}"


def component(package, checksum):
    part = {
        "type": "library",
        "bom-ref": reference(package),
        "name": package["name"],
        "version": package["version"],
        "scope": "required",
        "purl": reference(package),
    }
    if package["description"]:
        part["description"] = " ".join(package["description"].split())
    if checksum:
        part["hashes"] = [{"alg": "SHA-256", "content": checksum}]
    if package["license"]:
        # Older manifests separate alternatives by a slash, which SPDX does not know.
        part["licenses"] = [{"expression": re.sub(r"\s*/\s*", " OR ", package["license"])}]
    if package["repository"]:
        part["externalReferences"] = [{"type": "vcs", "url": package["repository"]}]
    return part


def openssl(versions):
    """OpenSSL, whose version follows the plus sign in the one of the crate that carries its source."""
    found = [version.split("+")[1] for name, version in versions if name == "openssl-src" and "+" in version]
    if len(found) != 1:
        sys.exit(f"sbom.py: Cargo.lock names {len(found)} crates with a source of OpenSSL, and must name one")
    version = found[0]
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


def bill(flavour):
    features = FLAVOURS[flavour]
    names, locked = linked(features), checksums()
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", TRIPLE, *features))
    packages = {package["id"]: package for package in metadata["packages"]}
    packages = {key: package for key, package in packages.items() if (package["name"], package["version"]) in names}
    parts, dependencies = {}, []
    for key, package in packages.items():
        parts[key] = component(package, locked.get((package["name"], package["version"])))
    library = openssl(locked)
    for node in metadata["resolve"]["nodes"]:
        if node["id"] not in packages:
            continue
        used = [
            reference(packages[edge["pkg"]])
            for edge in node["deps"]
            if edge["pkg"] in packages and any(kind["kind"] is None for kind in edge["dep_kinds"])
        ]
        if packages[node["id"]]["name"] == "openssl-sys":
            used.append(library["bom-ref"])
        dependencies.append({"ref": reference(packages[node["id"]]), "dependsOn": sorted(used)})
    dependencies.append({"ref": library["bom-ref"]})
    binary = next(key for key, package in packages.items() if package["name"] == BINARY)
    main_part = {**parts.pop(binary), "type": "application"}
    components = sorted(parts.values(), key=lambda part: part["bom-ref"])
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": main_part},
        "components": [*components, library],
        "dependencies": sorted(dependencies, key=lambda entry: entry["ref"]),
    }


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in FLAVOURS:
        sys.exit("usage: sbom.py static|dynamic FILE")
    bom = bill(sys.argv[1])
    # Derived from the content, so that it differs whenever the content does.
    bom["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_OID, json.dumps(bom)).urn
    pathlib.Path(sys.argv[2]).write_text(json.dumps(bom, indent=2) + "\n")


main()
