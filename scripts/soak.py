#!/usr/bin/env python3
"""Runs both directions against mixed faults for a long time, and fails when a promise does not hold.

    cargo build --release && scripts/soak.py [MINUTES] [path of the binary]

Payments of six apps go through the sidecar to the simulated gateway, which is asked for one of its faults
by half of them. Between both stands a wire that counts what is delivered, by payment, and cuts, resets,
drips and withholds answers. Some apps hang up, and some are behind a proxy that repeats their request, numbered as a second
attempt. The reader of the sidecar's log stops reading now and then. The other way calls come, a third of them forged or
repeated, to an app that counts what it sees. Loopback only, throw-away keys in a temporary folder; 30
minutes unless told otherwise. Needs the openssl command.

Exit code 1 when a payment was delivered twice, or was delivered though the app was told `not-sent`; when an
answer that is not the gateway's was passed as verified, or a forged or repeated call reached the app; when
memory or file descriptors grew.
"""

import base64
import collections
import datetime
import gzip
import http.server
import json
import os
import random
import re
import socket
import socketserver
import ssl
import struct
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse

MINUTES = float(sys.argv[1]) if len(sys.argv) > 1 else 30
sys.argv[1:2] = []

from measure import BINARY, CLIENT, is_ready, metric, resident  # noqa: E402

GATEWAY, WIRE, EGRESS, INGRESS, APP, ADMIN = 19777, 19778, 25011, 25012, 25013, 25091
APPS, PAUSE = 6, 0.03
PASS = ["", "", "", "", "", "", "gzip", "gzip-raw"]
FORGED = [
    "altered-body", "altered-signature", "unsigned-success", "half-signed", "wrong-key", "wrong-client",
    "unknown-key-version", "stale-time", "malformed-time", "malformed-signature", "repeated-signature",
    "html", "truncated",
]  # fmt: skip
UNSIGNED = ["unsigned-failure", "bad-gateway"]
CUTS = ["cut", "reset", "late", "drip"]
NOTIFY = "/aps/api/v1/payments/notifyPayment"
TAKEN = b'{"result":{"resultCode":"SUCCESS","resultStatus":"S","resultMessage":"success"}}'

lock = threading.Lock()
delivered = collections.Counter()
outcomes = collections.Counter()
seen_by_app = collections.Counter()
problems = []
over = threading.Event()


def problem(text):
    with lock:
        problems.append(text)
        print(f"problem: {text}", flush=True)


def reset(stream):
    stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    stream.close()


def read_message(reader):
    """A message with Content-Length or none: its head, its fields, its body as far as it came."""
    head, fields = reader.readline(), {}
    while head and (line := reader.readline()):
        head += line
        if line == b"\r\n":
            break
        name, _, value = line.decode("latin-1").partition(":")
        fields[name.lower()] = value.strip()
    body = reader.read(int(fields.get("content-length", 0)))
    return head, fields, body


class Wire(socketserver.StreamRequestHandler):
    """Passes requests on to the gateway and counts them; does what `soak-wire` says to the answer."""

    disable_nagle_algorithm = True

    def handle(self):
        context = ssl.create_default_context(cafile=self.server.ca)
        with socket.create_connection(("127.0.0.1", GATEWAY)) as plain:
            with context.wrap_socket(plain, server_hostname="localhost") as gateway:
                gateway.settimeout(5)
                try:
                    answers = gateway.makefile("rb")
                    while self.exchange(gateway, answers):
                        pass
                except OSError:
                    pass

    def exchange(self, gateway, answers):
        head, fields, body = read_message(self.rfile)
        if not head:
            return False
        length = int(fields["content-length"])
        if len(body) < length:
            return False
        with lock:
            delivered[json.loads(body)["paymentRequestId"]] += 1
        gateway.sendall(head + body)
        answer_head, answer_fields, answer_body = read_message(answers)
        answer, wire = answer_head + answer_body, fields.get("soak-wire")
        if wire in ("cut", "reset"):
            self.connection.sendall(answer[: random.randrange(len(answer) + 1)])
            if wire == "reset":
                reset(self.connection)
            return False
        if wire == "late":
            time.sleep(1.5)
        elif wire == "drip":
            for at in range(0, len(answer), 100):
                self.connection.sendall(answer[at : at + 100])
                time.sleep(0.002)
            return True
        self.connection.sendall(answer)
        return len(answer_body) == int(answer_fields.get("content-length", 0))


class App(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("countersign-verdict") != "verified" or b"forged" in body:
            problem(f"the app saw {body!r} as {self.headers.get('countersign-verdict')}")
        with lock:
            seen_by_app[self.headers["Signature"]] += 1
        head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(TAKEN)}\r\n\r\n"
        self.wfile.write(head.encode() + TAKEN)

    def log_message(self, *_):
        pass


class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = True
    daemon_threads = True
    request_queue_size = 128


def pay(number, fault, wire, stream, reader, attempt=1):
    """One payment, or its repetition by a proxy; what the app is told."""
    identifier = f"R{number}"
    body = json.dumps({"paymentRequestId": identifier, "paymentAmount": {"currency": "JPY", "value": "100"}})
    extra = f"sandbox-fault: {fault}\r\n" if fault else ""
    extra += f"soak-wire: {wire}\r\n" if wire else ""
    extra += f"x-envoy-attempt-count: {attempt}\r\n" if attempt > 1 else ""
    request = (
        f"POST /aps/api/v1/payments/pay HTTP/1.1\r\nHost: 127.0.0.1:{EGRESS}\r\n{extra}"
        f"Content-Length: {len(body)}\r\n\r\n{body}"
    ).encode()
    if random.random() < 0.02:
        stream.sendall(request[: random.randrange(len(request))])
        reset(stream)
        return "hung up"
    stream.sendall(request)
    if random.random() < 0.02:
        reset(stream)
        return "hung up"
    head, fields, answer = read_message(reader)
    if not head:
        return "nothing"
    if fields.get("content-encoding") == "gzip":
        answer = gzip.decompress(answer)
    verdict, error = fields.get("countersign-verdict"), fields.get("countersign-error")
    if verdict == "verified" and (fault in FORGED or identifier.encode() not in answer):
        problem(f"{identifier}: {fault} {wire} passed as verified: {answer!r}")
    if verdict == "unsigned" and fault not in UNSIGNED:
        problem(f"{identifier}: {fault} {wire} passed as unsigned: {answer!r}")
    if error and json.loads(answer)["result"]["resultStatus"] != "U":
        problem(f"{identifier}: {error} told as {answer!r}")
    # A machine that has other things to do makes the wire late, and no harm.
    if attempt > 1 and error != "retried_by_proxy":
        problem(f"{identifier}: a repetition by a proxy got {error or verdict}")
    if attempt == 1 and not fault and not wire and verdict != "verified" and error != "upstream_timeout":
        problem(f"{identifier}: nothing was wrong, and it got {error or verdict}")
    with lock:
        if fields.get("countersign-outcome") == "not-sent" and delivered[identifier]:
            problems.append(f"{identifier}: told not-sent, and delivered")
        if verdict and delivered[identifier] != 1:
            problems.append(f"{identifier}: answered, and delivered {delivered[identifier]} times")
    return error or verdict


def app(which):
    number, stream = which * 10**9, None
    while not over.is_set():
        number += 1
        fault = random.choice(PASS if random.random() < 0.5 else FORGED + UNSIGNED)
        wire = random.choice(CUTS) if random.random() < 0.1 else None
        try:
            if stream is None:
                stream = socket.create_connection(("127.0.0.1", EGRESS), timeout=20)
                reader = stream.makefile("rb")
            told = pay(number, fault, wire, stream, reader)
            # After whatever is no "not-sent", it must not be delivered again.
            if told not in ("hung up", "nothing") and delivered[f"R{number}"] and random.random() < 0.1:
                with lock:
                    outcomes["repeated by a proxy"] += 1
                told = pay(number, fault, wire, stream, reader, attempt=2)
        except OSError as error:
            told = f"broken: {type(error).__name__}"
        with lock:
            outcomes[told] += 1
        if told in ("hung up", "nothing") or told.startswith("broken") or random.random() < 0.05:
            stream.close()
            stream = None
        time.sleep(PAUSE)


def call(folder, body, signed_body):
    """A call as Alipay+ makes it; forged when `signed_body` is not its body."""
    now = datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")
    content = f"POST {NOTIFY}\n{CLIENT}.{now}.".encode() + signed_body
    command = ["openssl", "dgst", "-sha256", "-sign", f"{folder}/alipayplus.pem"]
    signature = subprocess.run(command, input=content, stdout=subprocess.PIPE, check=True).stdout
    value = urllib.parse.quote(base64.b64encode(signature), safe="")
    head = (
        f"POST {NOTIFY} HTTP/1.1\r\nHost: pay.partner.example\r\nClient-Id: {CLIENT}\r\n"
        f"Request-Time: {now}\r\nSignature: algorithm=RSA256,keyVersion=1,signature={value}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def told(request):
    """The status of the answer, and whether it is signed."""
    with socket.create_connection(("127.0.0.1", INGRESS), timeout=20) as stream:
        stream.sendall(request)
        head, fields, _ = read_message(stream.makefile("rb"))
        return head[9:12].decode(), "signature" in fields


def caller(folder):
    number = 0
    while not over.is_set():
        number += 1
        body = b'{"notification":%d}' % number
        kind = random.choice(["right", "right", "right", "right", "forged", "repeated"])
        sent = b'{"forged":%d}' % number if kind == "forged" else body
        request = call(folder, sent, body)
        for again in [False, True][: 2 if kind == "repeated" else 1]:
            found = told(request)
            expected = ("401", False) if kind == "forged" else ("200", True)
            if again:
                expected = ("401", found[1])
            if found != expected:
                problem(f"a {kind} call got {found}")
            with lock:
                outcomes[f"call {kind}{' again' if again else ''}"] += 1
        time.sleep(0.1)


def configuration(folder):
    text = f"""
identities:
  - client_id: {CLIENT}
    signing_key: {{ file: partner.pem }}
    verification_keys: [{{ file: alipayplus.pub.pem }}]
egress:
  listen: 127.0.0.1:{EGRESS}
  routes:
    - hosts: ["open-*-global.alipayplus.com"]
      upstream: http://127.0.0.1:{WIRE}
      timeout: 1s
  default_host: open-sea-global.alipayplus.com
ingress:
  listen: 127.0.0.1:{INGRESS}
  routes: [{{ app: "http://127.0.0.1:{APP}", replay: enforce }}]
admin: {{ listen: "127.0.0.1:{ADMIN}" }}
"""
    file = f"{folder}/soak.yaml"
    with open(file, "w") as out:
        out.write(text)
    return file


def read_log(stream):
    """Reads the log with pauses of up to 10 s, in which the pipe fills up; nothing may wait for that."""
    while stream.readline():
        if random.random() < 0.001:
            time.sleep(random.random() * 10)


def descriptors(process):
    return len(os.listdir(f"/proc/{process.pid}/fd"))


def idle_descriptors(process):
    """How many are left when nothing is under way: the pool closes what is unused after 30 s."""
    time.sleep(40)
    return descriptors(process)


def soak(folder, process):
    threads = [threading.Thread(target=app, args=(which,)) for which in range(1, APPS + 1)]
    threads.append(threading.Thread(target=caller, args=(folder,)))
    for thread in threads:
        thread.start()
    samples, end = [], time.monotonic() + MINUTES * 60
    while time.monotonic() < end and process.poll() is None:
        time.sleep(min(10, max(0.1, end - time.monotonic())))
        samples.append((resident(process), descriptors(process)))
        if len(samples) % 30 == 0:
            print(f"{len(samples) // 6} min: {samples[-1][0]:.1f} MB, {samples[-1][1]} files", flush=True)
    over.set()
    for thread in threads:
        thread.join()
    return samples


def quarter(samples, which):
    size = max(1, len(samples) // 4)
    part = samples[which * size : (which + 1) * size] or samples[-1:]
    return [sum(values) / len(part) for values in zip(*part)]


def main():
    with tempfile.TemporaryDirectory() as folder:
        sandbox = [BINARY, "sandbox", "--folder", folder, "--listen", f"127.0.0.1:{GATEWAY}"]
        gateway = subprocess.Popen([*sandbox, "--http1-only"], stdout=subprocess.PIPE)
        try:
            if not gateway.stdout.readline():
                sys.exit("the gateway does not start")
            serve(folder)
        finally:
            gateway.terminate()
    sys.exit(1 if problems else 0)


def serve(folder):
    with Server(("127.0.0.1", WIRE), Wire) as wire, Server(("127.0.0.1", APP), App) as partner:
        wire.ca = f"{folder}/ca.pem"
        for server in (wire, partner):
            threading.Thread(target=server.serve_forever, daemon=True).start()
        process = subprocess.Popen([BINARY, "run", "--config", configuration(folder)], stdout=subprocess.PIPE)
        threading.Thread(target=read_log, args=(process.stdout,), daemon=True).start()
        try:
            while not is_ready():
                time.sleep(0.05)
            at_first = descriptors(process)
            samples = soak(folder, process)
            report(process, samples, at_first, idle_descriptors(process))
        finally:
            over.set()
            process.terminate()
            process.wait()


def report(process, samples, at_first, at_last):
    twice = [name for name, count in delivered.items() if count > 1]
    repeated = [name for name, count in seen_by_app.items() if count > 1]
    if twice or repeated:
        problem(f"delivered twice: {twice[:5]}, calls seen twice: {len(repeated)}")
    second, last = quarter(samples, 1), quarter(samples, 3)
    # An arena of the allocator more or less is no growth.
    if last[0] > second[0] * 1.05 + 1:
        problem(f"memory grew from {second[0]:.1f} to {last[0]:.1f} MB")
    if at_last > at_first + 2 or last[1] > second[1] * 1.1 + 5:
        problem(f"open files grew from {second[1]:.0f} to {last[1]:.0f}; {at_first} at first, {at_last} idle")
    for name in ('in_flight{direction="egress"}', 'in_flight{direction="ingress"}', "buffered_bytes"):
        if value := metric(f"countersign_{name}"):
            problem(f"{name} is {value} at rest")
    calls = {name: count for name, count in outcomes.items() if str(name).startswith("call")}
    payments = sum(outcomes.values()) - sum(calls.values())
    print(f"{MINUTES:g} minutes, {payments} payments, {sum(delivered.values())} deliveries, {len(twice)} twice")
    print(f"told: {dict(outcomes.most_common())}")
    print(f"calls seen by the app: {sum(seen_by_app.values())}, {len(repeated)} twice")
    memory = [sample[0] for sample in samples]
    print(f"resident MB: {memory[0]:.1f} first, {second[0]:.1f} second quarter, {last[0]:.1f} last, {max(memory):.1f} most")
    files = [sample[1] for sample in samples]
    print(f"open files: {at_first} before, {max(files)} most, {at_last} idle afterwards")
    print(f"problems: {len(problems)}")
    for line in problems[:20]:
        print(f"  {line}")


if __name__ == "__main__":
    main()
