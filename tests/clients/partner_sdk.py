"""A partner that Alipay+ calls, on the official Python SDK in both directions.

    CLIENT_ID=<id> PARTNER_PRIVATE_KEY=<file> ALIPAY_PUBLIC_KEY=<file> \\
        .testbed/venv/bin/python partner_sdk.py

The keys are PEM files, PKCS#8 and SPKI. Prints the port it listens on at 127.0.0.1 and serves until
it is killed. Each POST is checked with webhook_tool.check_signature; one that passes is acknowledged
with S/SUCCESS, signed with signature_tool.sign; any other gets 401 and an unsigned
F/INVALID_SIGNATURE. It does no more than the SDK: version 1.7.1 looks neither at the age of
Request-Time nor at keyVersion nor at a second Signature or client_id, and the body is text to it.
"""

import json
import os
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from com.alipay.ams.api.exception.exception import AlipayApiException
from com.alipay.ams.api.tools.signature_tool import sign
from com.alipay.ams.api.tools.webhook_tool import check_signature
from rsa import VerificationError

CLIENT_ID = os.environ["CLIENT_ID"]


def key(variable):
    """A key as the SDK wants it: base64 on one line without armour."""
    lines = Path(os.environ[variable]).read_text(encoding="ascii").splitlines()
    return "".join(line for line in lines if not line.startswith("-----"))


PRIVATE_KEY, PUBLIC_KEY = key("PARTNER_PRIVATE_KEY"), key("ALIPAY_PUBLIC_KEY")


def result(status, code):
    return json.dumps({"result": {"resultStatus": status, "resultCode": code, "resultMessage": code}})


class Partner(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"])).decode("utf-8")
        if not self.is_authentic(body):
            self.answer(401, result("F", "INVALID_SIGNATURE"), {})
            return
        # HTTP does not care how the names are spelled; the SDK's own examples write them so.
        time = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
        acknowledgement = result("S", "SUCCESS")
        value = sign("POST", self.path, CLIENT_ID, time, acknowledgement, PRIVATE_KEY)
        signature = f"algorithm=RSA256,keyVersion=1,signature={value}"
        headers = {"Client-Id": CLIENT_ID, "Response-Time": time, "Signature": signature}
        self.answer(200, acknowledgement, headers)

    def is_authentic(self, body):
        fields = [self.headers[name] for name in ("Client-Id", "Request-Time")]
        if None in fields:
            return False
        try:
            signature = self.headers["Signature"]
            return check_signature("POST", self.path, *fields, body, signature, PUBLIC_KEY)
        except (VerificationError, AlipayApiException):
            return False

    def answer(self, status, body, headers):
        content = body.encode("utf-8")
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Type", "application/json; charset=UTF-8")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        """Quiet: the tests look at answers."""


server = HTTPServer(("127.0.0.1", 0), Partner)
print(server.server_port, flush=True)
server.serve_forever()
