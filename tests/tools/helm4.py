"""Helm 4's engine, for tests/it: renders, lints and packages a chart as `helm` does, without a cluster.

helm4.py render CHART VALUES...         JSON by file: {"manifests": {template: text}} or {"error": text}
helm4.py lint CHART VALUES...           JSON by file: what is wrong, nothing where all is well
helm4.py package CHART FOLDER           the path of the archive

Release and namespace are called countersign.
"""

import json
import sys
from pathlib import Path

import yaml
from helm_python import Chart
from helm_python.chart import lint, package
from helm_python.errors import HelmError

RELEASE = "countersign"
# The lowest version for which this chart needs nothing said.
KUBERNETES = "v1.30.0"


def values_of(files):
    for file in files:
        yield file, yaml.safe_load(Path(file).read_text(encoding="utf-8")) or {}


def render(folder, files):
    results = {}
    with Chart.load(folder) as chart:
        for file, values in values_of(files):
            try:
                manifests = chart.render(values, name=RELEASE, namespace=RELEASE)
                results[file] = {"manifests": manifests}
            except HelmError as error:
                results[file] = {"error": str(error)}
    return results


def lint_all(folder, files):
    results = {}
    for file, values in values_of(files):
        report = lint(folder, values, strict=True, namespace=RELEASE, kube_version=KUBERNETES)
        # 1 is information, such as that an icon is recommended.
        told = [message["error"] for message in report["messages"] if message["severity"] > 1]
        results[file] = told + report["errors"]
    return results


def main(what, folder, *rest):
    if what == "render":
        return render(folder, rest)
    if what == "lint":
        return lint_all(folder, rest)
    return package(folder, destination=rest[0])


if __name__ == "__main__":
    json.dump(main(*sys.argv[1:]), sys.stdout)
