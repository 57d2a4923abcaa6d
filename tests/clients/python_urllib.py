"""A legacy app on Python's own urllib: one payment, no signing.

    URL=<full target> BODY=<text> [HTTPS_PROXY=http://127.0.0.1:PORT] [SSL_CERT_FILE=ca.pem] \\
        python3 python_urllib.py

Prints one line of JSON (status, verdict, error, body) and exits 0 whenever a complete HTTP
answer came, whatever its status; 1 otherwise. A redirect is followed, with GET. The proxy
comes from HTTPS_PROXY for https and HTTP_PROXY for http (lower case wins, NO_PROXY exempts hosts),
the trusted CA from SSL_CERT_FILE. Any python3 will do; nothing has to be installed.
"""

import http.client
import json
import os
import sys
import urllib.error
import urllib.request


def pay(url, body):
    request = urllib.request.Request(url, data=body, headers={"Content-Type": "application/json"})
    try:
        return urllib.request.urlopen(request, timeout=30)
    except urllib.error.HTTPError as answer:
        # urllib raises what is not 2xx, but it is an answer all the same.
        return answer


def main():
    try:
        with pay(os.environ["URL"], os.environb[b"BODY"]) as answer:
            body = answer.read()
    except (OSError, http.client.HTTPException) as failure:
        sys.exit(f"no answer: {failure!r}")
    print(
        json.dumps(
            {
                "status": answer.status,
                "verdict": answer.headers["countersign-verdict"],
                "error": answer.headers["countersign-error"],
                "body": body.decode("utf-8", "replace"),
            }
        )
    )


main()
