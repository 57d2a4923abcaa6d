"""Checks every crate in Cargo.lock against deny.toml: check-dependencies.py

The part of `cargo deny check` that needs no compiled tool, so that each change is checked: licences, banned crates,
wildcard versions, and registries. Licence expressions are evaluated by the license-expression library. A release runs
cargo-deny itself, advisories included (scripts/release-checks.sh). Prints one line a problem and exits with 1.
"""

import json
import pathlib
import re
import subprocess
import sys
import tomllib

from license_expression import get_spdx_licensing

ROOT = pathlib.Path(__file__).resolve().parent.parent
REGISTRY = "registry+https://github.com/rust-lang/crates.io-index"


def cargo(*arguments):
    return subprocess.run(["cargo", *arguments, "--locked"], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout


def packages(triple):
    """The packages that any profile, test or feature of the workspace compiles for this target."""
    tree = cargo("tree", "--workspace", "--all-features", "--target", triple, "--prefix", "none", "--format", "{p}")
    used = {tuple(line.split()[:2]) for line in tree.splitlines() if line}
    metadata = json.loads(cargo("metadata", "--format-version", "1", "--filter-platform", triple))
    return [package for package in metadata["packages"] if (package["name"], f"v{package['version']}") in used]


def is_allowed(expression, allowed):
    """Whether some choice that the expression offers consists of allowed licences alone."""
    # Older manifests separate alternatives by a slash.
    parsed = get_spdx_licensing().parse(re.sub(r"\s*/\s*", " OR ", expression), validate=True)

    def holds(node):
        operator = type(node).__name__
        if operator == "OR":
            return any(holds(part) for part in node.args)
        if operator == "AND":
            return all(holds(part) for part in node.args)
        return str(node) in allowed

    return holds(parsed)


def problems(package, rules):
    name = f"{package['name']} {package['version']}"
    if not package["license"]:
        yield f"{name}: states no licence; deny.toml allows only named ones"
    elif not is_allowed(package["license"], rules["licenses"]["allow"]):
        yield f"{name}: licence {package['license']} is not in deny.toml's [licenses] allow"
    for ban in rules["bans"]["deny"]:
        if ban["name"] == package["name"]:
            yield f"{name}: banned by deny.toml: {ban['reason']}"
    if package["source"] not in (None, REGISTRY):
        yield f"{name}: comes from {package['source']}; only crates.io and this workspace are allowed"
    if package["source"] is None:
        for dependency in package["dependencies"]:
            if dependency["req"] == "*" and not dependency.get("path"):
                yield f"{name}: depends on any version of {dependency['name']}; name one"


def main():
    rules = tomllib.loads((ROOT / "deny.toml").read_text())
    found = {line for triple in rules["graph"]["targets"] for package in packages(triple) for line in problems(package, rules)}
    for line in sorted(found):
        print(line, file=sys.stderr)
    sys.exit(bool(found))


main()
