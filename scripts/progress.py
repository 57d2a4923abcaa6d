#!/usr/bin/env python3
"""Runs a command and reports what is running while it prints nothing: progress.py NAME COMMAND...

After 15 s without output it writes one line with the elapsed time and the process at work, such as the crate that rustc
compiles. Where stdout is a terminal the command gets it as it is, since cargo draws a progress bar there; lines are then written
only for commands that print nothing at all. The command's output and exit code are passed on unchanged. Linux only reads the
process table; elsewhere only the time is reported. Standard library only.
"""

import os
import pathlib
import selectors
import signal
import subprocess
import sys
import time

SILENCE = 15


def process_table():
    """Parent, start time and arguments of each process."""
    table = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
            arguments = (folder / "cmdline").read_bytes().decode(errors="replace").split("\0")[:-1]
        except OSError:
            continue
        table[int(folder.name)] = (int(fields[1]), int(fields[19]), arguments)
    return table


def at_work(root):
    """Describes the newest process below `root` that has no child."""
    table = process_table()
    parents = {parent for parent, _, _ in table.values()}

    def is_below(process):
        while process in table:
            process = table[process][0]
            if process == root:
                return True
        return False

    leaves = [(start, process) for process, (_, start, _) in table.items() if process not in parents and is_below(process)]
    if not leaves:
        return "waiting"
    # An assembler at the end of a pipe names no file, but the compiler that started it does.
    process = max(leaves)[1]
    words = [describe(table[each][2]) for each in (process, table[process][0]) if each in table]
    return next((word for word in words if " " in word), words[0])


def describe(arguments):
    if not arguments:
        return "waiting"
    program = os.path.basename(arguments[0])
    if "--crate-name" in arguments:
        return f"{program} {arguments[arguments.index('--crate-name') + 1]}"
    sources = [word for word in arguments[1:] if word.endswith((".c", ".s", ".rs", ".py", ".sh"))]
    return f"{program} {os.path.basename(sources[0])}" if sources else program


def main():
    if len(sys.argv) < 3:
        sys.exit("usage: progress.py NAME COMMAND...")
    name, command = sys.argv[1], sys.argv[2:]
    terminal = sys.stdout.isatty()
    begun = last = time.monotonic()
    output = None if terminal else subprocess.PIPE
    child = subprocess.Popen(command, stdout=output, stderr=None if terminal else subprocess.STDOUT)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _frame: child.send_signal(number))
    if terminal:
        return sys.exit(child.wait())
    selector = selectors.DefaultSelector()
    selector.register(child.stdout, selectors.EVENT_READ)
    while True:
        if selector.select(timeout=max(0.0, last + SILENCE - time.monotonic())):
            chunk = os.read(child.stdout.fileno(), 65536)
            if not chunk:
                break
            sys.stdout.buffer.write(chunk)
        else:
            elapsed = int(time.monotonic() - begun)
            sys.stdout.buffer.write(f"[{name}, {elapsed // 60}:{elapsed % 60:02}] running: {at_work(child.pid)}\n".encode())
        sys.stdout.buffer.flush()
        last = time.monotonic()
    code = child.wait()
    # A command that a signal ended is reported as a shell does.
    sys.exit(code if code >= 0 else 128 - code)


main()
