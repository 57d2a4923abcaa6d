"""Looks at manifests with tools that are not the sidecar's own: PyYAML, jsonpatch and the schemas of Kubernetes.

Reads stdin, writes stdout; says what it was asked, never what is right. Used by manifests.rs and charts.rs of tests/it/support.

  read              YAML documents -> a line of JSON each, what has no JSON as text
  read-all          a JSON object of YAML texts by name -> a line with the documents of each, without empty ones
  validate VERSION  YAML documents -> a line for each that the schemas refuse
  patch             a line {"pod": ..., "patch": ...} each -> a line of JSON each, patched
"""

import json
import sys

import jsonpatch
import kubernetes_validate
import yaml


def line(value):
    print(json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str))


def documents():
    text = sys.stdin.buffer.read().decode("utf-8")
    try:
        return [json.loads(text)]
    except ValueError:
        return yaml.safe_load_all(text)


def documents_by_name():
    texts = json.load(sys.stdin)
    return {name: [one for one in yaml.safe_load_all(text) if one is not None] for name, text in texts.items()}


def validate(version):
    for document in documents():
        if document is None:
            continue
        of_list = document["kind"] == "List"
        for one in document["items"] if of_list else [document]:
            try:
                kubernetes_validate.validate(one, version, strict=True)
            except kubernetes_validate.ValidationError as error:
                line(f"{one['kind']} {one['metadata']['name']}: {error}")


def main():
    sys.stdout.reconfigure(encoding="utf-8")
    command = sys.argv[1]
    if command == "read":
        for document in documents():
            line(document)
    elif command == "read-all":
        line(documents_by_name())
    elif command == "validate":
        validate(sys.argv[2])
    elif command == "patch":
        for text in sys.stdin.buffer:
            given = json.loads(text)
            line(jsonpatch.apply_patch(given["pod"], given["patch"]))
    else:
        sys.exit(f"no such command: {command}")


main()
