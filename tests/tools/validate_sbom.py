"""Holds a CycloneDX 1.5 file in JSON against its schema, strictly: validate_sbom.py FILE

Prints what is wrong and ends with 1. Run by tests/it/the_sbom_names_what_is_linked.rs with the venv's Python.
"""

import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

with open(sys.argv[1], encoding="utf-8") as file:
    error = JsonStrictValidator(SchemaVersion.V1_5).validate_str(file.read())
if error is not None:
    sys.exit(str(error))
