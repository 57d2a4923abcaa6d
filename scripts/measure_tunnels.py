#!/usr/bin/env python3
"""Measures what docs/PERFORMANCE.md says of tunnels, idle connections and TLS with apps.

    cargo build --profile dist && scripts/measure_tunnels.py [path of the binary [throughput|memory|tls ...]]

Loopback only, throw-away keys in a temporary folder. Needs socat and haproxy (Debian packages) as the
relays to compare with. Moves 2 GiB through every relay, each way, ROUNDS times; opens 1,000
connections of each kind. Two minutes.
"""

import contextlib
import multiprocessing
import os
import pathlib
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import measure
from measure import ADMIN, CLIENT, EGRESS, GATEWAY

SERVER, SOCAT, HAPROXY, SPLICING = 19780, 19781, 19782, 19783
RELAYS = {"sidecar": EGRESS, "socat": SOCAT, "haproxy": HAPROXY, "haproxy splicing": SPLICING}
MIB = 1 << 20
STREAM, ROUNDS = 2048 * MIB, 7
CONNECTIONS, TALK, AT_ONCE = 1000, 100 << 10, 64
STARTS = 9
HOSTS = ("open-sea-global.alipayplus.com", "open-na-global.alipayplus.com")
TICKS = os.sysconf("SC_CLK_TCK")

CONFIG = f"""
identities:
  - client_id: {CLIENT}
    signing_key: {{ file: partner.pem }}
    verification_keys: [{{ file: alipayplus.pub.pem }}]
egress:
  listen: 127.0.0.1:{EGRESS}
  routes: [{{ hosts: ["open-*-global.alipayplus.com"], upstream: "https://localhost:{GATEWAY}" }}]
admin: {{ listen: "127.0.0.1:{ADMIN}" }}
upstream_tls: {{ ca_file: ca.pem }}
limits: {{ connections: 4096 }}
"""

# Buffers as large as the sidecar's; the defaults are 8 and 16 KiB. No checks, no log, no time limits.
HAPROXY_CONFIG = f"""
global
  tune.bufsize 65536
defaults
  mode tcp
  timeout connect 5s
  timeout client 1h
  timeout server 1h
listen copying
  bind 127.0.0.1:{HAPROXY}
  server only 127.0.0.1:{SERVER}
listen splicing
  bind 127.0.0.1:{SPLICING}
  option splice-auto
  server only 127.0.0.1:{SERVER}
"""


# The two ends of a stream. Both leave the bytes in the kernel, so that the relay is what is measured.


def send(stream, count):
    while count:
        count -= os.sendfile(stream.fileno(), ZEROS, 0, min(count, MIB))


def take(stream, count):
    buffer = bytearray(MIB)
    while count:
        got = stream.recv_into(buffer, min(count, MIB), socket.MSG_TRUNC)
        if not got:
            sys.exit("a stream ended early")
        count -= got


def answer(stream):
    """Does what each line asks for: `put N` takes that many bytes and says so, `get N` sends them."""
    while order := line(stream):
        verb, count = order.split()
        if verb == b"get":
            send(stream, int(count))
        else:
            take(stream, int(count))
            stream.sendall(b"done\n")


def line(stream):
    read = b""
    while not read.endswith(b"\n"):
        byte = stream.recv(1)
        if not byte:
            return b""
        read += byte
    return read


def serve(listener):
    threading.stack_size(MIB)
    while True:
        threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()


def move(stream, verb, count):
    stream.sendall(f"{verb} {count}\n".encode())
    if verb == "get":
        take(stream, count)
    else:
        send(stream, count)
        line(stream)


# Connections by way of the sidecar.


def connect(target):
    stream = socket.create_connection(("127.0.0.1", EGRESS))
    stream.sendall(f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
    if b" 200 " not in line(stream):
        sys.exit("CONNECT was refused")
    while line(stream) != b"\r\n":
        pass
    return stream


def context(is_rsa):
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.check_hostname, made.verify_mode = False, ssl.CERT_NONE
    if is_rsa:
        # Python can name no signature algorithms, but TLS 1.2 has ciphers that need an RSA certificate.
        made.maximum_version = ssl.TLSVersion.TLSv1_2
        made.set_ciphers("ECDHE-RSA-AES128-GCM-SHA256")
    return made


def tunnel():
    stream = connect(f"127.0.0.1:{SERVER}")
    move(stream, "put", TALK)
    move(stream, "get", TALK)
    return stream


def plain():
    stream = socket.create_connection(("127.0.0.1", EGRESS))
    with stream.makefile("rb") as reader:
        measure.pay(stream, reader)
    return stream


def inside(tls, host=HOSTS[0], session=None):
    stream = tls.wrap_socket(connect(f"{host}:443"), server_hostname=host, session=session)
    with stream.makefile("rb") as reader:
        measure.pay(stream, reader, host)
    return stream


@contextlib.contextmanager
def sidecar(folder):
    process, _ = measure.start(["--config", f"{folder}/config.yaml"])
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def processor_time(process):
    """Seconds of a process and the children it has now."""
    pids = [process.pid]
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
        pids += children.read().split()
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/stat") as stat:
            user, system = stat.read().rpartition(")")[2].split()[11:13]
            total += int(user) + int(system)
    return total / TICKS


def spread(values, unit="", digits=2):
    values = sorted(values)
    median = statistics.median(values)
    return f"{median:.{digits}f}{unit} ({values[0]:.{digits}f} to {values[-1]:.{digits}f})"


# What is measured.


def throughput(folder):
    pathlib.Path(folder, "haproxy.cfg").write_text(HAPROXY_CONFIG)
    listen = f"TCP-LISTEN:{SOCAT},bind=127.0.0.1,fork,reuseaddr"
    with contextlib.ExitStack() as stack:
        haproxy = run(stack, ["haproxy", "-db", "-f", f"{folder}/haproxy.cfg"], SPLICING)
        processes = {
            "sidecar": stack.enter_context(sidecar(folder)),
            "socat": run(stack, ["socat", "-b", "65536", listen, f"TCP:127.0.0.1:{SERVER}"], SOCAT),
            "haproxy": haproxy,
            "haproxy splicing": haproxy,
        }
        figures = {(name, verb): [] for name in RELAYS for verb in ("put", "get")}
        names = list(RELAYS)
        for number in range(ROUNDS):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                for verb in ("put", "get"):
                    figures[name, verb].append(streamed(name, verb, processes[name]))
    for (name, verb), values in figures.items():
        speeds, costs = zip(*values)
        ours = [speed for speed, _ in figures["sidecar", verb]]
        ratio = statistics.median(ours) / statistics.median(speeds)
        rounds = sorted(mine / speed for mine, speed in zip(ours, speeds))
        against = f"; sidecar ÷ it {ratio:.2f} ({rounds[0]:.2f} to {rounds[-1]:.2f})"
        print(f"{verb} by {name}: {spread(speeds)} GB/s, {spread(costs)} s of processor per GB{against}")


def run(stack, command, port):
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    stack.callback(process.wait)
    stack.callback(process.kill)
    while True:
        try:
            return socket.create_connection(("127.0.0.1", port)).close() or process
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{command[0]} ended")


def streamed(name, verb, process):
    """GB/s of one stream, and the relay's seconds of processor time for each GB."""
    if name == "sidecar":
        stream = connect(f"127.0.0.1:{SERVER}")
    else:
        stream = socket.create_connection(("127.0.0.1", RELAYS[name]))
    with stream:
        move(stream, verb, MIB)
        spent, begun = processor_time(process), time.perf_counter()
        move(stream, verb, STREAM)
        took = time.perf_counter() - begun
        return STREAM / took / 1e9, (processor_time(process) - spent) / STREAM * 1e9


def memory(folder):
    ecdsa = context(False)
    kinds = {"tunnels": tunnel, "plain keep-alive": plain, "intercepted TLS": lambda: inside(ecdsa)}
    for name, make in kinds.items():
        for at_once in (1, AT_ONCE):
            with sidecar(folder) as process, ThreadPoolExecutor(at_once) as pool:
                make().close()
                before = measure.resident(process)
                made = list(pool.map(lambda _: make(), range(CONNECTIONS)))
                after = measure.resident(process)
                for stream in made:
                    stream.close()
            each = (after - before) * 1000 / CONNECTIONS
            print(f"{name}, made {at_once} at a time: {before:.1f} to {after:.1f} MB, {each:.1f} KiB each")


def tls(folder):
    contexts = {"ECDSA": context(False), "RSA": context(True)}
    for name, made in contexts.items():
        first, mint, cached = [], [], []
        for _ in range(STARTS):
            with sidecar(folder):
                first.append(handshake(made, HOSTS[0]))
                mint.append(handshake(made, HOSTS[1]))
                cached.append(handshake(made, HOSTS[1]))
        print(f"{name} handshake, first of the process: {spread(first, ' ms', 1)}")
        print(f"{name} handshake, first of a host: {spread(mint, ' ms', 1)}")
        print(f"{name} handshake, again: {spread(cached, ' ms', 1)}")
    processing(folder, contexts["ECDSA"], contexts["RSA"])


def processing(folder, ecdsa, rsa):
    costs = {}
    with sidecar(folder) as process, plain() as stream, stream.makefile("rb") as reader:
        for _ in range(5):
            kinds = {
                "alone": lambda: contextlib.nullcontext(measure.pay(stream, reader)),
                "plain": plain,
                "ECDSA": lambda: inside(ecdsa),
                # Anew in each round: the sidecar forgets a session after 256 tickets.
                "ECDSA resumed": resuming(ecdsa),
                "RSA": lambda: inside(rsa),
            }
            for name, make in kinds.items():
                costs.setdefault(name, []).append(cost(process, make))
    alone = costs.pop("alone")
    print(f"one payment: {spread(alone, ' ms')} of processor")
    for name, values in costs.items():
        extra = [value - base for value, base in zip(values, alone)]
        ratios = [value / base for value, base in zip(values, costs["plain"])]
        print(
            f"a connection with one payment, {name}: {spread(values, ' ms')} of processor, "
            f"the connection's part {spread(extra, ' ms')}; ÷ plain {spread(ratios)}"
        )


def resuming(made):
    """Connections that each resume the session of the one before; a ticket is good for one."""
    session = None

    @contextlib.contextmanager
    def again():
        nonlocal session
        with inside(made, session=session) as stream:
            if session and not stream.session_reused:
                sys.exit("a session was not resumed")
            session = stream.session
            yield
            # OpenSSL spoils the session of a connection that ends without goodbye.
            stream.unwrap()

    return again


def handshake(made, host):
    with connect(f"{host}:443") as stream:
        begun = time.perf_counter()
        with made.wrap_socket(stream, server_hostname=host):
            return (time.perf_counter() - begun) * 1000


def cost(process, make):
    """Milliseconds of processor time for each of many connections."""
    spent, count = processor_time(process), 400
    for _ in range(count):
        with make():
            pass
    return (processor_time(process) - spent) / count * 1000


def main():
    wanted = sys.argv[2:] or ["throughput", "memory", "tls"]
    listener = socket.create_server(("127.0.0.1", SERVER), backlog=1024)
    server = multiprocessing.Process(target=serve, args=(listener,), daemon=True)
    server.start()
    with tempfile.TemporaryDirectory() as folder:
        gateway = measure.start_gateway(folder)
        pathlib.Path(folder, "config.yaml").write_text(CONFIG)
        try:
            for name in wanted:
                {"throughput": throughput, "memory": memory, "tls": tls}[name](folder)
        finally:
            gateway.kill()


ZEROS = os.memfd_create("zeros")
os.ftruncate(ZEROS, MIB)

if __name__ == "__main__":
    main()
