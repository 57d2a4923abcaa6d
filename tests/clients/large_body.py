"""Sends a body that is over the limit: large_body.py urllib|requests URL length|chunked MIB [CA]

Prints the status and the countersign-error field, or the exception.
"""

import sys
import urllib.error
import urllib.request

library, url, framing, mebibytes = sys.argv[1:5]
ca = sys.argv[5] if len(sys.argv) > 5 else None
PART = b"x" * (1 << 20)


def parts():
    for _ in range(int(mebibytes)):
        yield PART


body = parts() if framing == "chunked" else PART * int(mebibytes)
fields = {"Content-Type": "application/json"}
try:
    if library == "requests":
        import requests

        response = requests.post(url, data=body, headers=fields, verify=ca or True, timeout=60)
        print(response.status_code, response.headers.get("countersign-error"))
    else:
        import ssl

        context = ssl.create_default_context(cafile=ca) if ca else None
        request = urllib.request.Request(url, data=body, headers=fields, method="POST")
        try:
            response = urllib.request.urlopen(request, context=context, timeout=60)
        except urllib.error.HTTPError as error:
            response = error
        print(response.status, response.headers.get("countersign-error"))
except Exception as error:  # Whatever the library makes of a lost response.
    print("no response:", repr(error))
