"""A legacy app on the official Python SDK, unmodified: one payment through its own client.

    GATEWAY_URL=https://<host> CLIENT_ID=<id> PARTNER_PRIVATE_KEY=<file> ALIPAY_PUBLIC_KEY=<file> \\
        BODY=<text> [SSL_CERT_FILE=ca.pem] .testbed/venv/bin/python python_sdk.py

The keys are PEM files, PKCS#8 and SPKI. Of BODY, paymentRequestId and paymentAmount are taken:
the SDK writes the body itself, signs it, and verifies the answer with Alipay+'s public key.

Prints one line of JSON (status, verdict, error, body, and sdk_verified: true) and exits 0 when
the SDK accepted the answer; 1 with its reason otherwise. Verdict and error are null, because
the SDK shows no headers, and status is 200, because it takes nothing else. What version 1.7.1 does:

- It knows no proxy, and no port but 443: one in GATEWAY_URL is ignored for the connection, so
  only redirected or aliased traffic can reach the sidecar. SSL_CERT_FILE names the trusted CA.
- It speaks HTTP/1.1 with the target in absolute form, POST https://<host>/ams/api/v1/payments/pay,
  and signs the path alone. For a client id that begins with SANDBOX_ the path begins with
  /ams/sandbox/api.
- It finds signature, response-time and client-id only under names in lower case, and verifies
  with the client id of the answer. An answer without them is refused, also when it says F or U.
"""

import http.client
import json
import os
import sys
from pathlib import Path

from com.alipay.ams.api.default_alipay_client import DefaultAlipayClient
from com.alipay.ams.api.exception.exception import AlipayApiException
from com.alipay.ams.api.model.amount import Amount
from com.alipay.ams.api.request.pay.alipay_pay_request import AlipayPayRequest


def key(variable):
    """A key as the SDK wants it: base64 on one line without armour."""
    lines = Path(os.environ[variable]).read_text(encoding="ascii").splitlines()
    return "".join(line for line in lines if not line.startswith("-----"))


def payment(body):
    amount = body["paymentAmount"]
    request = AlipayPayRequest()
    request.payment_request_id = body["paymentRequestId"]
    request.payment_amount = Amount(currency=amount["currency"], value=amount["value"])
    return request


def main():
    client = DefaultAlipayClient(
        os.environ["GATEWAY_URL"],
        os.environ["CLIENT_ID"],
        key("PARTNER_PRIVATE_KEY"),
        key("ALIPAY_PUBLIC_KEY"),
    )
    try:
        body = client.execute(payment(json.loads(os.environ["BODY"])))
    except (AlipayApiException, OSError, http.client.HTTPException) as failure:
        sys.exit(f"no answer the SDK accepts: {failure}")
    print(
        json.dumps({"status": 200, "verdict": None, "error": None, "body": body, "sdk_verified": True})
    )


main()
