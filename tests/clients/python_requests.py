"""A legacy app on Python's requests: one payment, no signing.

    URL=<full target> BODY=<text> [HTTPS_PROXY=http://127.0.0.1:PORT] [REQUESTS_CA_BUNDLE=ca.pem] \\
        .testbed/venv/bin/python python_requests.py

Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
answer came, whatever its status; 1 otherwise. It holds no proxy setting of its own: the
library reads HTTPS_PROXY for https and HTTP_PROXY for http (lower case wins, NO_PROXY exempts
hosts), and trusts the CA in REQUESTS_CA_BUNDLE or CURL_CA_BUNDLE; SSL_CERT_FILE does not count.
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
