"""Both ends of a connection whose server tells the client where the client meant to go.

talk.py serve LABEL ADDRESS PORT [ADDRESS PORT ...]
    Prints "ready" when all are bound. Greets each connection with one line, LABEL and its original
    destination as the kernel knows it, then sends back every line it gets.
talk.py call ADDRESS PORT
    Prints the greeting, or "no connection", then one answer for each line of its input.
"""

import socket
import socketserver
import struct
import sys
import threading

SO_ORIGINAL_DST = 80


def original_destination(connection):
    v6 = connection.family == socket.AF_INET6
    try:
        level, size = (socket.IPPROTO_IPV6, 28) if v6 else (socket.IPPROTO_IP, 16)
        raw = connection.getsockopt(level, SO_ORIGINAL_DST, size)
    except OSError:  # The kernel tracks no connections here, so nothing was redirected.
        return "%s port %d" % connection.getsockname()[:2]
    address = raw[8:24] if v6 else raw[4:8]
    return "%s port %d" % (socket.inet_ntop(connection.family, address), struct.unpack("!H", raw[2:4])[0])


def serve(label, *places):
    class Greeter(socketserver.StreamRequestHandler):
        def handle(self):
            self.wfile.write(f"{label} {original_destination(self.request)}\n".encode())
            for line in self.rfile:
                self.wfile.write(line)

    class Server(socketserver.ThreadingTCPServer):
        allow_reuse_address = daemon_threads = True

    class Server6(Server):
        address_family = socket.AF_INET6

        def server_bind(self):
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            super().server_bind()

    for address, port in zip(places[::2], places[1::2]):
        server = (Server6 if ":" in address else Server)((address, int(port)), Greeter)
        threading.Thread(target=server.serve_forever).start()
    print("ready", flush=True)


def call(address, port):
    try:
        connection = socket.create_connection((address, int(port)), timeout=20)
    except OSError as error:
        print("no connection:", error.strerror or error, flush=True)
        return
    stream = connection.makefile("rw", encoding="ascii")
    print(stream.readline(), end="", flush=True)
    for line in sys.stdin:
        stream.write(line)
        stream.flush()
        print(stream.readline(), end="", flush=True)


if __name__ == "__main__":
    {"serve": serve, "call": call}[sys.argv[1]](*sys.argv[2:])
