"""Signs and verifies with the official Python SDK's own functions, for tests that compare.

    .testbed/venv/bin/python sdk_agreement.py

Reads one JSON object a line on stdin and answers each with one on stdout, at once:

    {"op": "sign", "method", "uri", "client_id", "time", "body_base64", "key"}
        -> {"signature": text} or {"error": text}
    {"op": "verify", the same and "signature"}
        -> {"verified": true | false | "error: …"}
    {"op": "check_signature", the same}: what a partner asks of a call from Alipay+
        -> {"verified": true | false | "error: …"}

"key" is base64 on one line without armour, as the console hands keys out: PKCS#8 to sign, SPKI
to verify. "signature" is the value alone, but for check_signature the whole header. A line that is no such request ends
the program with a traceback. Nothing here computes or corrects anything: what the SDK says is
what is answered. What version 1.7.1 does:

- sign() answers base64 that is already percent-encoded (quote_plus: only + / = change, to
  upper-case %2B %2F %3D), ready to be put behind "signature=".
- verify() decodes with unquote_plus, so a raw "+" becomes a blank: it reads lower-case escapes,
  and raw base64 only when that holds no "+". It then skips foreign characters and whatever
  follows the padding, and takes any hash the signature names (SHA-1 and MD5 as well): it
  accepts more than the protocol allows, and is no judge of what to refuse.
- verify() never answers False. A wrong signature is rsa.VerificationError, answered here as
  false; anything else it raises is an "error: …".
- The body is text to the SDK, so only UTF-8 bodies can be compared; others are an error.
- A private key goes under the label "RSA PRIVATE KEY" even though it is PKCS#8; the version of
  cryptography pinned beside the SDK reads that.
"""

import base64
import json
import sys

from com.alipay.ams.api.tools import signature_tool, webhook_tool
from rsa import VerificationError


def signed(message, request):
    try:
        return {"signature": signature_tool.sign(*message(), request["key"])}
    except Exception as refusal:
        return {"error": f"{type(refusal).__name__}: {refusal}"}


def verified(message, request, check=signature_tool.verify):
    try:
        return {"verified": check(*message(), request["signature"], request["key"])}
    except VerificationError:
        return {"verified": False}
    except Exception as refusal:
        return {"verified": f"error: {type(refusal).__name__}: {refusal}"}


def checked(message, request):
    return verified(message, request, webhook_tool.check_signature)


def answer(request):
    fields = [request[name] for name in ("method", "uri", "client_id", "time")]
    body = base64.b64decode(request["body_base64"], validate=True)
    operations = {"sign": signed, "verify": verified, "check_signature": checked}
    operation = operations[request["op"]]
    return operation(lambda: [*fields, body.decode("utf-8")], request)


for line in sys.stdin:
    print(json.dumps(answer(json.loads(line))), flush=True)
