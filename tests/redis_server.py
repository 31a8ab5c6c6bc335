"""A real Redis (or Valkey) on a free port for tests that need one; they are skipped where it is not installed."""

import contextlib
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

import pytest

PROGRAM = shutil.which("redis-server") or shutil.which("valkey-server")
needs_redis = pytest.mark.skipif(PROGRAM is None, reason="redis-server is not installed (Debian: redis-server)")


class RedisServer:
    """One server that can be stopped, killed and started again on the same port.

    Args:
        folder: where it would write; it writes nothing.
        password: asked of every client; empty for none.
        tls: its options for TLS; it then speaks nothing else.
    """

    def __init__(self, folder: Path, password: str = "", tls: tuple[str, ...] = ()) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self._folder = folder
        self._password = password
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """As the settings want it."""
        return f"redis{'s' * bool(self._tls)}://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it listens."""
        assert PROGRAM is not None
        ports = ["--port", "0", "--tls-port"] if self._tls else ["--port"]
        command = [
            PROGRAM,
            *ports,
            str(self.port),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
            *self._tls,
        ]
        command += ["--dir", str(self._folder), *(["--requirepass", self._password] if self._password else [])]
        self._process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10.0
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 0.2) as client:
                if self._tls:
                    return
                client.settimeout(0.5)
                client.sendall(b"PING\r\n")
                if client.recv(16)[:1] in (b"+", b"-"):
                    return
            time.sleep(0.01)
        raise RuntimeError("redis-server does not come up")

    def freeze(self) -> None:
        """It hangs: connections stay, nothing is answered."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """It goes on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """It dies, with everything it held."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None
