"""YAML as JSON, for tests/it: stdin is a JSON object of texts by name, stdout one of their documents, empty ones left out."""

import json
import sys

import yaml

texts = json.load(sys.stdin)
read = {name: [one for one in yaml.safe_load_all(text) if one is not None] for name, text in texts.items()}
json.dump(read, sys.stdout)
