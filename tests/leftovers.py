"""Ends what a test run has started once the run is gone, however it went.

A process of its own that waits for the end of its standard input. Only the run holds the other end, so that even one
that was killed (SIGKILL) is noticed. Its processes are known by an entry of their environment, which children and
theirs inherit; a program that is given another environment (servers of MCP) ends by its own standard input.
"""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

MARK: Final = "TEST_RUN"


def watch() -> "subprocess.Popen[bytes] | None":
    """Mark the processes that this one starts from now on and have them ended with it; None where there is no /proc."""
    if not Path("/proc/self/environ").exists():
        return None
    os.environ[MARK] = f"{os.getpid()}-{os.urandom(8).hex()}"
    words = [sys.executable, __file__, os.environ[MARK]]
    unmarked = {name: value for name, value in os.environ.items() if name != MARK}
    return subprocess.Popen(words, stdin=subprocess.PIPE, env=unmarked, start_new_session=True)


def _marked(entry: bytes) -> list[int]:
    found = []
    for folder in Path("/proc").iterdir():
        try:
            if folder.name.isdecimal() and entry in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:  # gone meanwhile, or of somebody else
            continue
    return found


def main(mark: str) -> None:
    """Wait for the end of the run, then kill until nobody is left."""
    sys.stdin.buffer.read()
    while pids := _marked(f"{MARK}={mark}".encode()):
        for pid in pids:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


if __name__ == "__main__":
    main(sys.argv[1])
