#!/usr/bin/env python3
"""Measures what docs/PERFORMANCE.md says of ingress: its own time, and a flood of forged requests.

    cargo build --profile dist && scripts/measure_ingress.py [path of the binary]

Loopback only: 2,000 authentic requests one after another, then 10,000 forged ones on 20 connections
beside authentic ones. Throw-away keys in a temporary folder; needs the openssl command. Half a minute.
"""

import base64
import datetime
import http.server
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

from measure import ADMIN, BINARY, CLIENT, is_ready, metric, resident

INGRESS, APP = 25012, 25013
AUTHENTIC, FORGED, CONNECTIONS = 2000, 10000, 20
PATH = "/aps/api/v1/payments/notifyPayment"
ANSWER = b'{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}'


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(ANSWER)}\r\n\r\n"
        self.wfile.write(head.encode() + ANSWER)

    def log_message(self, *_):
        pass


def message(folder, body, signed_body):
    """A request as Alipay+ sends it; forged when `signed_body` is not its body."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = f"POST {PATH}\n{CLIENT}.{now}.".encode() + signed_body
    command = ["openssl", "dgst", "-sha256", "-sign", f"{folder}/alipayplus.pem"]
    signature = subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout
    value = urllib.parse.quote(base64.b64encode(signature), safe="")
    head = (
        f"POST {PATH} HTTP/1.1\r\nHost: pay.partner.example\r\nClient-Id: {CLIENT}\r\n"
        f"Request-Time: {now}\r\nSignature: algorithm=RSA256,keyVersion=1,signature={value}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def exchange(stream, reader, request):
    stream.sendall(request)
    status = reader.readline()[9:12]
    length, signed = 0, False
    while (line := reader.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        if name == b"content-length":
            length = int(value)
        signed |= name == b"signature"
    reader.read(length)
    return status, signed


def run(requests, count, expected):
    """Sends a request again and again on one connection; the times it took, in ms."""
    times = []
    with socket.create_connection(("127.0.0.1", INGRESS)) as stream:
        reader = stream.makefile("rb")
        for _ in range(count):
            begun = time.perf_counter()
            found = exchange(stream, reader, requests)
            times.append((time.perf_counter() - begun) * 1000)
            if found != expected:
                sys.exit(f"{found} instead of {expected}")
    return times


def cpu(process):
    fields = open(f"/proc/{process.pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def start(folder):
    with open(f"{folder}/config.yaml", "w") as config:
        config.write(
            f"identities: [{{client_id: {CLIENT}, signing_key: {{file: partner.pem}}, "
            f"verification_keys: [{{file: alipayplus.pub.pem}}]}}]\n"
            f"ingress: {{listen: '127.0.0.1:{INGRESS}', "
            f"routes: [{{app: 'http://127.0.0.1:{APP}', replay: 'off'}}]}}\n"
            f"admin: {{listen: '127.0.0.1:{ADMIN}'}}\n"
        )
    process = subprocess.Popen(
        [BINARY, "run", "--config", f"{folder}/config.yaml"], stdout=subprocess.DEVNULL
    )
    while not is_ready():
        if process.poll() is not None:
            sys.exit("the sidecar ended")
    return process


def main():
    app = http.server.ThreadingHTTPServer(("127.0.0.1", APP), App)
    threading.Thread(target=app.serve_forever, daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        for name in ["partner", "alipayplus"]:
            subprocess.run([BINARY, "keygen", "--out", folder, "--name", name], stdout=subprocess.DEVNULL, check=True)
        with open(f"{folder}/alipayplus.pub.txt") as text, open(f"{folder}/alipayplus.pub.pem", "w") as pem:
            pem.write(text.read())
        sidecar = start(folder)
        body = b'{"paymentRequestId":"R1"}'
        good = message(folder, body, body)
        alone = run(good, AUTHENTIC, (b"200", True))
        own = metric('countersign_overhead_seconds_sum{direction="ingress"}') / AUTHENTIC
        sign = metric("countersign_sign_duration_seconds_sum") / AUTHENTIC
        verify = metric("countersign_verify_duration_seconds_sum") / AUTHENTIC
        print(f"own time {own * 1e6:.0f} µs, signature {sign * 1e6:.0f} µs, verification {verify * 1e6:.0f} µs, ratio {own / (sign + verify):.2f}")

        forged = message(folder, b"x" * 4000, body)
        run(forged, 500, (b"401", False))
        before, used, begun = resident(sidecar), cpu(sidecar), time.perf_counter()
        floods = [
            threading.Thread(target=run, args=(forged, FORGED // CONNECTIONS, (b"401", False)))
            for _ in range(CONNECTIONS)
        ]
        for flood in floods:
            flood.start()
        beside = []
        while any(flood.is_alive() for flood in floods):
            beside += run(good, 10, (b"200", True))
        took, used = time.perf_counter() - begun, cpu(sidecar) - used
        print(f"flood: {FORGED} forged requests of 4,000 bytes in {took:.1f} s, {len(beside)} authentic ones served beside them")
        print(f"authentic: median {statistics.median(alone):.2f} ms alone, {statistics.median(beside):.2f} ms beside the flood, worst {max(beside):.1f} ms")
        print(f"processor time of the sidecar: {used:.2f} s, of which {len(beside) * own:.2f} s for the authentic ones")
        print(f"resident: {before:.1f} MB before, {resident(sidecar):.1f} MB after")
        sidecar.kill()


main()
