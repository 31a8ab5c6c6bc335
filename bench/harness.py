"""A server under test in its own process, as an operator would run it; memory and CPU are read from outside."""

import asyncio
import resource
import socket
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from bench import sampling


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def allow_files(count: int) -> int:
    """Raise this process's limit of open files, which its children inherit, to `count` if it may; the limit now.

    A thousand sockets are more than the 1024 files most systems allow by default.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = count if hard == resource.RLIM_INFINITY else min(count, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        return wanted
    return soft


@dataclass(slots=True)
class ServerProcess:
    """A running server.

    Attributes:
        port: where it listens, on 127.0.0.1.
        pid: its process.
        log: where its log lines go.
        process: to wait for its end.
    """

    port: int
    pid: int
    log: Path
    process: asyncio.subprocess.Process

    @property
    def url(self) -> str:
        """The WebSocket address."""
        return f"ws://127.0.0.1:{self.port}/xiaozhi/v1/"

    @property
    def base_url(self) -> str:
        """The HTTP address."""
        return f"http://127.0.0.1:{self.port}"

    def rss_mb(self) -> float:
        """Resident memory of the process, in MB."""
        return sampling.rss_mb(self.pid)

    def cpu_s(self) -> float:
        """CPU time used so far, in seconds, all threads."""
        return sampling.cpu_s(self.pid)


@asynccontextmanager
async def server_process(
    settings_toml: str, *, sets: Sequence[str] = (), ready_s: float = 60.0, port: int = 0
) -> AsyncIterator[ServerProcess]:
    """Start `xiaozhi serve` with these settings on a free port; stop it at the end.

    Args:
        settings_toml: the settings file's text.
        sets: single settings that override it, as `table.name=value`.
        ready_s: how long it may take to come up.
        port: where it listens; a free one when 0.

    Raises:
        RuntimeError: it did not come up; the message holds the end of its log.
    """
    port = port or free_port()
    with tempfile.TemporaryDirectory(prefix="xiaozhi-bench-") as folder:
        file = Path(folder) / "settings.toml"
        file.write_text(settings_toml)
        log = Path(folder) / "server.log"
        with log.open("wb") as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-m", "xiaozhi", "--settings", str(file),
                "--set", "server.host=127.0.0.1", "--set", f"server.port={port}",
                *(part for override in sets for part in ("--set", override)), "serve",
                stdout=output, stderr=asyncio.subprocess.STDOUT,
            )  # fmt: skip
        try:
            began = time.monotonic()
            while not _listens(port):
                if process.returncode is not None or time.monotonic() - began > ready_s:
                    raise RuntimeError("the server did not come up:\n" + log.read_text()[-2000:])
                await asyncio.sleep(0.05)
            yield ServerProcess(port, process.pid, log, process)
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
