"""Becomes a program for which the kernel has no IPv6: `python3 without_ipv6.py PROGRAM ARGUMENT...`

A kernel without it cannot be had beside one with it; but what a program sees of it is socket(AF_INET6), which fails with
EAFNOSUPPORT. A filter of seccomp makes the running kernel say just that, and nothing else. Used by the tests alone, on
amd64 and arm64.
"""

import ctypes
import os
import platform
import struct
import sys

SOCKET = {"x86_64": 41, "aarch64": 198}[platform.machine()]
AF_INET6, EAFNOSUPPORT = 10, 97
LOAD, EQUALS, RETURN = 0x20, 0x15, 0x06
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
NUMBER, FIRST_ARGUMENT = 0, 16
NO_NEW_PRIVS, SET_SECCOMP, FILTER = 38, 22, 2

STEPS = [
    (LOAD, 0, 0, NUMBER),
    (EQUALS, 0, 3, SOCKET),
    (LOAD, 0, 0, FIRST_ARGUMENT),
    (EQUALS, 0, 1, AF_INET6),
    (RETURN, 0, 0, ERRNO | EAFNOSUPPORT),
    (RETURN, 0, 0, ALLOW),
]


class Program(ctypes.Structure):
    """A `sock_fprog`."""

    _fields_ = [("length", ctypes.c_ushort), ("steps", ctypes.c_char_p)]


def main():
    steps = b"".join(struct.pack("HBBI", *step) for step in STEPS)
    program = Program(len(STEPS), steps)
    libc = ctypes.CDLL(None, use_errno=True)
    for call in [(NO_NEW_PRIVS, 1, 0, 0, 0), (SET_SECCOMP, FILTER, ctypes.byref(program))]:
        if libc.prctl(*call) != 0:
            sys.exit(f"prctl: {os.strerror(ctypes.get_errno())}")
    os.execvp(sys.argv[1], sys.argv[1:])


main()
