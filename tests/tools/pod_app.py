"""A legacy app in a pod: it knows the gateway's address, a proxy and a CA at most, and nothing of signatures.

Pays once when it starts and once more when it is told to end (SIGTERM), without a second try. Prints one
line of JSON each (status, verdict, body), before them one of what it can see of its pod: the
sidecar's admin port, and files of the sidecar's that it must not see. Ends with 1 when there is no answer.
Run by tests/it/support/kubelet.rs with Debian's Python; finds proxy and CA by the usual variables.
"""

import json
import os
import signal
import sys
import urllib.error
import urllib.request

URL = "https://open-sea-global.alipayplus.com/aps/api/v1/payments/pay"


def say(**line):
    print(json.dumps(line), flush=True)


def pay(name):
    payment = {"paymentRequestId": name, "paymentAmount": {"currency": "JPY", "value": "100"}}
    request = urllib.request.Request(URL, json.dumps(payment).encode(), {"Content-Type": "application/json"})
    try:
        answer = urllib.request.urlopen(request, timeout=20)
    except urllib.error.HTTPError as error:
        answer = error
    except OSError as failure:
        say(pays=name, failure=repr(failure))
        sys.exit(1)
    with answer:
        verdict = answer.headers["countersign-verdict"]
        say(pays=name, status=answer.status, verdict=verdict, body=answer.read().decode())


def surroundings():
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open("http://127.0.0.1:18449/readyz", timeout=20) as answer:
        ready = answer.status
    seen = []
    for _, folders, files in os.walk("/etc/countersign"):
        seen += folders + files
    secrets = [name for name in os.listdir("/var/run/countersign/trust") if "key" in name]
    say(ready=ready, keys=seen + secrets)


# Blocked before anything is said, so that the signal of who reads it is never too early.
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
surroundings()
pay("at the start")
signal.sigwait([signal.SIGTERM])
pay("at the end")
