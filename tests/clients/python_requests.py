"""A legacy app on Python's requests: one payment, no signing.

    URL=<full target> BODY=<text> [HTTP_PROXY=http://127.0.0.1:PORT] python_requests.py

Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
answer came, whatever its status; 1 otherwise. It holds no proxy setting of its own: the
library reads HTTP_PROXY (http_proxy wins over it, NO_PROXY exempts hosts), so the test that
starts it sets those.
"""

import json
import os
import sys

import requests


def main():
    try:
        answer = requests.post(
            os.environ["URL"],
            data=os.environb[b"BODY"],
            headers={"Content-Type": "application/json"},
            allow_redirects=False,
            timeout=30,
        )
    except requests.RequestException as failure:
        sys.exit(f"no answer: {failure}")
    print(
        json.dumps(
            {
                "status": answer.status_code,
                "verdict": answer.headers.get("countersign-verdict"),
                "error": answer.headers.get("countersign-error"),
                "body": answer.content.decode("utf-8", "replace"),
            }
        )
    )


main()
