"""A server under test in its own process, as an operator would run it; memory and CPU are read from outside."""

import asyncio
import os
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class ServerProcess:
    """A running server.

    Attributes:
        port: where it listens, on 127.0.0.1.
        pid: its process.
        log: where its log lines go.
    """

    port: int
    pid: int
    log: Path

    @property
    def url(self) -> str:
        """The WebSocket address."""
        return f"ws://127.0.0.1:{self.port}/xiaozhi/v1/"

    def rss_mb(self) -> float:
        """Resident memory of the process, in MB."""
        fields = Path(f"/proc/{self.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

    def cpu_s(self) -> float:
        """CPU time used so far, in seconds, all threads."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@asynccontextmanager
async def server_process(settings_toml: str, *, ready_s: float = 60.0) -> AsyncIterator[ServerProcess]:
    """Start `xiaozhi serve` with these settings on a free port; stop it at the end.

    Raises:
        RuntimeError: it did not come up; the message holds the end of its log.
    """
    port = free_port()
    with tempfile.TemporaryDirectory(prefix="xiaozhi-bench-") as folder:
        file = Path(folder) / "settings.toml"
        file.write_text(settings_toml)
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "xiaozhi", "--settings", str(file),
                "--set", "server.host=127.0.0.1", "--set", f"server.port={port}", "serve",
                stdout=output, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        try:
            began = time.monotonic()
            while not _listens(port):
                if process.returncode is not None or time.monotonic() - began > ready_s:
                    raise RuntimeError("the server did not come up:\n" + log.read_text()[-2000:])
                await asyncio.sleep(0.05)
            yield ServerProcess(port, process.pid, log)
        finally:
            if process.returncode is None:
                process.terminate()
                try:
                    await asyncio.wait_for(process.wait(), 30)
                except TimeoutError:
                    process.kill()
                    await process.wait()


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0
