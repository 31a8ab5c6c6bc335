"""One file over HTTP into a partial file: resumed where it stopped, refused where it is not what was asked for.

A mirror that is much slower than others usually are is given up, so that another can be tried.
"""

import asyncio
import contextlib
import errno
import json
import math
import os
import re
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias
from urllib.parse import urlsplit

import aiohttp

from xiaozhi.models.resolver import DaemonResolver

STALL_S = 20.0
"""A transfer without a byte for so long is broken off and resumed."""

ATTEMPTS = 4
"""Times one file is resumed on one mirror before the next mirror is tried, counted anew whenever it got further."""

WRITE_BYTES = 1 << 20
"""Bytes collected before a thread writes them to disk."""

WRITE_EVERY_S = 2.0
"""And so often at least: what has come survives a kill, and other processes see how far it is."""

SLOW_BYTES_S = 150_000.0
"""A mirror below this, over `SLOW_WINDOW_S`, is slow: it would take half an hour for SenseVoice."""

STUCK_BYTES_S = 1000.0
"""Below this nothing will ever be complete."""

SLOW_WINDOW_S = 15.0
"""Time over which the speed of a transfer is measured; a connection needs some seconds to come up to its own."""

NEARLY_S = 30.0
"""A slow transfer that will be over within this is left to end."""

Progress: TypeAlias = Callable[[str, int, int | None], None]
"""Called with the file's name, bytes so far, and bytes in all (`None` when the server does not say)."""


class FetchError(Exception):
    """A file could not be fetched or is not what was asked for; one line, without the address's user or query."""


class TooSlow(FetchError):
    """The mirror works, but slowly.

    Attributes:
        bytes_s: how fast, in bytes a second.
    """

    def __init__(self, host: str, bytes_s: float) -> None:
        super().__init__(f"{host}: slow ({bytes_s / 1000.0:.0f} KB/s)")
        self.bytes_s = bytes_s


class StorageError(FetchError):
    """This machine cannot store the file; another mirror would not help."""


def quiet(_file: str, _done: int, _total: int | None) -> None:
    """The progress of nobody."""


def client(connect_timeout_s: float) -> aiohttp.ClientSession:
    """A session for downloads: proxies from the environment, time-outs for connecting and for silence, none in all."""
    timeout = aiohttp.ClientTimeout(total=None, connect=connect_timeout_s, sock_read=STALL_S)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(resolver=DaemonResolver()),
        timeout=timeout,
        trust_env=True,
        headers={"Accept-Encoding": "identity"},  # model files do not compress, and a compressed transfer cannot resume
    )


@dataclass(slots=True)
class _Resume:
    """What is known of a partial file: the server's mark of this version, and the size of the whole."""

    mark: str = ""
    total: int | None = None

    @staticmethod
    def path(partial: Path) -> Path:
        return partial.with_name(partial.name + ".json")

    @classmethod
    def read(cls, partial: Path) -> "_Resume":
        try:
            fields = json.loads(cls.path(partial).read_text("utf-8"))
            return cls(str(fields["mark"]), fields["total"] if isinstance(fields["total"], int) else None)
        except (OSError, ValueError, KeyError, TypeError):
            return cls()

    def write(self, partial: Path) -> None:
        self.path(partial).write_text(json.dumps(asdict(self)), "utf-8")


async def fetch(
    session: aiohttp.ClientSession,
    url: str,
    partial: Path,
    name: str,
    progress: Progress = quiet,
    least_bytes_s: float = 0.0,
) -> None:
    """Fetch `url` into the file `partial`, going on where an earlier call stopped.

    The file is complete when this returns. When it raises, what has come stays for the next call.

    Args:
        session: from `client`.
        url: what to fetch.
        partial: where to; its folder exists.
        name: what to call it in messages and progress.
        progress: told about every piece.
        least_bytes_s: a transfer that is slower, in bytes a second, is given up; 0 for none.

    Raises:
        TooSlow: it was given up for its speed.
        StorageError: disk full or not writable.
        FetchError: anything else.
    """
    attempts, best = 0, 0
    pace = _Pace(_host(url), _size(partial), least_bytes_s)
    while True:
        try:
            if await _attempt(session, url, partial, name, progress, pace):
                return
            _discard(partial)
        except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError, TimeoutError) as error:
            reached = _size(partial)
            pace.came(reached)
            attempts = 1 if reached > best else attempts + 1
            best = max(best, reached)
            # Nothing ever came: the mirror is away, trying again only keeps people waiting.
            if attempts >= ATTEMPTS or not reached:
                raise FetchError(f"{_host(url)}: {_why(error)}") from None
        except aiohttp.ClientError as error:
            raise FetchError(f"{_host(url)}: {_why(error)}") from None
        except OSError as error:
            raise storage_error(error, partial) from None


async def _attempt(
    session: aiohttp.ClientSession, url: str, partial: Path, name: str, progress: Progress, pace: "_Pace"
) -> bool:
    """One request: a range when something is there, else the whole. `False`: what is there cannot be gone on with."""
    have, resume = _size(partial), _Resume.read(partial)
    if have and resume.total == have:
        return True
    headers = {}
    if have:
        headers["Range"] = f"bytes={have}-"
        if resume.mark:
            headers["If-Range"] = resume.mark
    async with session.get(url, headers=headers) as reply:
        start = _start(reply, have, resume, url)
        if start is None:
            if have:
                return False
            raise FetchError(f"{_host(url)}: HTTP {reply.status} for {_file(url)}")
        _refuse_web_page(reply, url)
        total = start + reply.content_length if reply.content_length is not None else None
        _Resume(_mark(reply), total).write(partial)
        pace.begin(start, total)
        await _receive(reply, partial, start, pace, lambda done: progress(name, done, total))
    if total is not None and (size := _size(partial)) != total:
        raise aiohttp.ClientPayloadError(f"{size} of {total} bytes came")
    return True


def _discard(partial: Path) -> None:
    partial.unlink(missing_ok=True)
    _Resume.path(partial).unlink(missing_ok=True)


def _start(reply: aiohttp.ClientResponse, have: int, resume: _Resume, url: str) -> int | None:
    """Where the bytes of this reply belong; `None` when the server refuses the range or speaks of another file."""
    if reply.status == 206:
        found = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", reply.headers.get("Content-Range", ""))
        fits = found is not None and int(found[1]) == have
        if found is not None and fits and resume.total is not None and found[2] not in ("*", str(resume.total)):
            fits = False
        return have if fits else None
    if reply.status == 200:
        return 0
    if reply.status == 416:
        return None
    raise FetchError(f"{_host(url)}: HTTP {reply.status} {reply.reason or ''}".rstrip() + f" for {_file(url)}")


def _refuse_web_page(reply: aiohttp.ClientResponse, url: str) -> None:
    """A login page of a hotel network, a block page or an error page instead of the file."""
    if reply.content_type in ("text/html", "application/xhtml+xml"):
        raise FetchError(f"{_host(url)}: sent a web page instead of {_file(url)}")


class _Pace:
    """Measures a transfer over all its attempts, of which each may come no further than a few bytes."""

    def __init__(self, host: str, done: int, least_bytes_s: float) -> None:
        self._host, self._least = host, least_bytes_s
        self._total: int | None = None
        self._since, self._before = time.monotonic(), done

    def begin(self, start: int, total: int | None) -> None:
        """A reply begins; where it begins anew what came before does not count."""
        self._total = total
        self._before = min(self._before, start)

    def came(self, done: int) -> None:
        """So many bytes are there. Raises `TooSlow` when a whole window was below the least."""
        now = time.monotonic()
        took_s = now - self._since
        if not self._least or took_s < SLOW_WINDOW_S:
            return
        bytes_s = (done - self._before) / took_s
        left = self._total - done if self._total is not None else math.inf
        if bytes_s < self._least and left > bytes_s * NEARLY_S:
            raise TooSlow(self._host, bytes_s)
        self._since, self._before = now, done


async def _receive(
    reply: aiohttp.ClientResponse, partial: Path, start: int, pace: _Pace, progress: Callable[[int], None]
) -> None:
    """Write what comes behind the first `start` bytes; what has come is on disk even when the transfer breaks."""
    done, buffer, written = start, bytearray(), time.monotonic()
    with partial.open("r+b" if start else "wb") as file:
        file.seek(start)
        file.truncate()
        try:
            async for piece in reply.content.iter_chunked(1 << 18):
                buffer += piece
                done += len(piece)
                progress(done)
                pace.came(done)
                if len(buffer) >= WRITE_BYTES or time.monotonic() - written >= WRITE_EVERY_S:
                    await asyncio.to_thread(_write, file, bytes(buffer))
                    buffer.clear()
                    written = time.monotonic()
        finally:
            file.write(buffer)


def _write(file: BinaryIO, content: bytes) -> None:
    file.write(content)
    file.flush()


def storage_error(error: OSError, path: Path) -> StorageError:
    """Disk full, no permission and the like, in words."""
    folder = path if path.is_dir() else path.parent
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(f"no space left in {folder}: free some and run it again, it goes on where it stopped")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return StorageError(f"{folder} cannot be written to: change its owner, or models.dir")
    return StorageError(f"{folder}: {error.strerror or error}")


def _mark(reply: aiohttp.ClientResponse) -> str:
    """What `If-Range` can send back: a strong ETag, or the date; empty when the server gives neither."""
    etag = reply.headers.get("ETag", "")
    return etag if etag and not etag.startswith("W/") else reply.headers.get("Last-Modified", "")


def _size(path: Path) -> int:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_size
    return 0


def _host(url: str) -> str:
    parts = urlsplit(url)
    return parts.hostname + (f":{parts.port}" if parts.port else "") if parts.hostname else url


def _file(url: str) -> str:
    return urlsplit(url).path.rsplit("/", 1)[-1]


def _why(error: Exception) -> str:
    match error:
        case aiohttp.ServerTimeoutError() if isinstance(error, aiohttp.SocketTimeoutError):
            return f"silent for {STALL_S:.0f} s"
        case TimeoutError():
            return "no answer in time"
        case aiohttp.ClientConnectorDNSError():
            return "name not found"
        case aiohttp.ClientConnectorCertificateError() | aiohttp.ClientConnectorSSLError():
            return "its certificate is not trusted"
        case aiohttp.ClientConnectorError():
            return os.strerror(error.errno).lower() if error.errno and error.errno > 0 else "cannot connect"
        case aiohttp.ClientPayloadError() | aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError():
            return "the connection breaks off again and again"
        case _:
            return " ".join(str(error).split()) or type(error).__name__
