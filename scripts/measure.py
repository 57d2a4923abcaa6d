#!/usr/bin/env python3
"""Measures what docs/PERFORMANCE.md says: start, memory, and the sidecar's own time against RSA's.

    cargo build --profile dist && scripts/measure.py [path of the binary]

Loopback only, 21 starts and 2,000 payments, throw-away keys in a temporary folder.
"""

import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

BINARY = sys.argv[1] if len(sys.argv) > 1 else "target/dist/countersign"
CLIENT = "SANDBOX_5X00000000000000"
GATEWAY, EGRESS, ADMIN = 19777, 25011, 25091
STARTS, PAYMENTS = 21, 2000
BODY = b'{"paymentRequestId":"R1","paymentAmount":{"currency":"JPY","value":"100"}}'


def ask(path):
    with socket.create_connection(("127.0.0.1", ADMIN), timeout=5) as admin:
        admin.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        return b"".join(iter(lambda: admin.recv(65536), b""))


def is_ready():
    try:
        return b" 200 " in ask("/readyz")[:20]
    except OSError:
        return False


def metric(name):
    return float(re.search(rb"^" + re.escape(name.encode()) + rb" (\S+)", ask("/metrics"), re.M)[1])


def resident(process):
    status = open(f"/proc/{process.pid}/status").read()
    return int(re.search(r"VmRSS:\s+(\d+)", status)[1]) / 1000


def flags(folder):
    return [
        "--client-id", CLIENT,
        "--private-key", f"{folder}/partner.pem",
        "--alipay-public-key", f"{folder}/alipayplus.pub.pem",
        "--egress-listen", f"127.0.0.1:{EGRESS}", "--admin-listen", f"127.0.0.1:{ADMIN}",
        "--upstream", f"https://localhost:{GATEWAY}", "--upstream-ca", f"{folder}/ca.pem",
    ]  # fmt: skip


def start_gateway(folder):
    gateway = subprocess.Popen(
        [BINARY, "sandbox", "--folder", folder, "--listen", f"127.0.0.1:{GATEWAY}"],
        stdout=subprocess.PIPE,
    )
    gateway.stdout.readline()
    return gateway


def start(arguments):
    begun = time.perf_counter()
    process = subprocess.Popen([BINARY, "run", *arguments], stdout=subprocess.DEVNULL)
    while not is_ready():
        if process.poll() is not None:
            sys.exit("the sidecar ended")
    return process, (time.perf_counter() - begun) * 1000


def pay(stream, reader, host=f"127.0.0.1:{EGRESS}"):
    head = (
        f"POST /aps/api/v1/payments/pay HTTP/1.1\r\nHost: {host}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    stream.sendall(head.encode() + BODY)
    length, verified = 0, False
    while (line := reader.readline()) != b"\r\n":
        name, _, value = line.partition(b":")
        if name == b"content-length":
            length = int(value)
        verified |= line.strip() == b"countersign-verdict: verified"
    reader.read(length)
    if not verified:
        sys.exit("an answer was not verified")


def main():
    with tempfile.TemporaryDirectory() as folder:
        gateway = start_gateway(folder)
        times = []
        for number in range(STARTS):
            sidecar, took = start(flags(folder))
            times.append(took)
            if number + 1 < STARTS:
                sidecar.kill()
                sidecar.wait()
        print(f"start to ready: median {statistics.median(times):.1f} ms, {min(times):.1f} to {max(times):.1f}")
        print(f"resident, idle: {resident(sidecar):.1f} MB")
        with socket.create_connection(("127.0.0.1", EGRESS)) as stream:
            reader = stream.makefile("rb")
            for _ in range(PAYMENTS):
                pay(stream, reader)
        own = metric('countersign_overhead_seconds_sum{direction="egress"}') / PAYMENTS
        sign = metric("countersign_sign_duration_seconds_sum") / PAYMENTS
        verify = metric("countersign_verify_duration_seconds_sum") / PAYMENTS
        print(f"resident after {PAYMENTS} payments: {resident(sidecar):.1f} MB")
        print(f"own time {own * 1e6:.0f} µs, signature {sign * 1e6:.0f} µs, verification {verify * 1e6:.0f} µs")
        print(f"own time / (signature + verification): {own / (sign + verify):.2f}")
        sidecar.kill()
        gateway.kill()


if __name__ == "__main__":
    main()
