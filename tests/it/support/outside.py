"""Servers of the outside world that know nothing of a sidecar: plain HTTP on port 80 with a large
file, and a mail server on port 25 that speaks first.

Prints "ready" when all listen. Every address of the namespace is theirs.
"""

import http.server
import socket
import socketserver
import threading

MEGABYTE = bytes(range(256)) * 4096


class Pages(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        count = 100 if self.path == "/large" else 0
        body = b"hello from outside\n" if not count else b""
        self.send_response(200)
        self.send_header("X-Seen", self.headers.get("Via", "nobody between"))
        self.send_header("Content-Length", str(count * len(MEGABYTE) + len(body)))
        self.end_headers()
        self.wfile.write(body)
        for _ in range(count):
            self.wfile.write(MEGABYTE)

    def log_message(self, *_):
        pass


class Mail(socketserver.StreamRequestHandler):
    def handle(self):
        self.wfile.write(b"220 mail.example ESMTP\r\n")
        for line in self.rfile:
            if line.upper().startswith(b"QUIT"):
                self.wfile.write(b"221 bye\r\n")
                return
            self.wfile.write(b"250 mail.example\r\n")


class Dual(socketserver.ThreadingTCPServer):
    address_family = socket.AF_INET6
    allow_reuse_address = True
    daemon_threads = True


servers = [Dual(("::", 80), Pages), Dual(("::", 25), Mail)]
for server in servers[1:]:
    threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
servers[0].serve_forever()
