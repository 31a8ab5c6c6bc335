"""The far tier: values in a file that survives a restart, read and written by one thread, never by the loop."""

import asyncio
import logging
import sqlite3
import time
from collections import OrderedDict
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

from xiaozhi.cache.disk_file import DiskError, DiskFile, damaged
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool

_log = logging.getLogger(__name__)

R = TypeVar("R")

# Values that may wait for the disk; more come only when it hangs, and are then not kept.
_WAITING_BYTES: Final = 4 * 1024 * 1024
# A use is written down only when the last one is older: reading alone writes nothing.
_TOUCH_S: Final = 3600.0


@dataclass(slots=True)
class _Known:
    """What the loop knows of a value on disk."""

    size: int
    expires: float
    used: float


class DiskTier:
    """Keeps values in a SQLite file.

    The keys are held in memory, so that what is not there costs no thread.

    Args:
        path: of the file.
        max_bytes: of all values; the least recently used are forgotten above it.
        ttl_s: longest life of a value, in seconds.
        clock: wall-clock seconds, because values outlive the process.
    """

    name = "disk"

    def __init__(self, path: Path, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.time) -> None:
        self.hits = 0
        """Values found."""
        self.misses = 0
        """Values not found, or no longer."""
        self.evicted = 0
        """Values forgotten to make room."""
        self.dropped = 0
        """Values not kept because too many waited for the disk, or it failed."""
        self.bytes = 0
        """Size of all values, in bytes."""
        self._path = path
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._pool = WorkerPool(1, "cache-disk")
        self._known: OrderedDict[bytes, _Known] = OrderedDict()  # least recently used first
        self._file: DiskFile | None = None
        self._waiting: dict[bytes, bytes] = {}  # values on their way to the disk
        self._waiting_bytes = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self._failed = False  # it has been said that the disk fails

    def __len__(self) -> int:
        """How many values are held."""
        return len(self._known)

    def resize(self, max_bytes: int, ttl_s: float) -> None:
        """Other limits from now on; what is held keeps the life it was given."""
        self._max_bytes, self._ttl_s = max_bytes, ttl_s
        self._make_room(0)

    async def open(self) -> None:
        """Open the file and learn what it holds. Without a usable file everything is a miss, and that is logged."""
        try:
            self._file = await self._pool.run(DiskFile, self._path)
            entries = await self._pool.run(self._file.entries)
        except (DiskError, sqlite3.Error) as error:
            _log.warning("the speech cache on disk is off: %s", error)
            self._file = None
            return
        for entry in entries:
            self._known[entry.key] = _Known(entry.size, entry.expires, entry.used)
            self.bytes += entry.size
        now = self._clock()
        # A clock that was set back must not keep values for ever.
        self._forget([key for key, known in self._known.items() if not now < known.expires <= now + self._ttl_s])
        self._make_room(0)

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        known = self._known.get(key)
        value = None
        if known is not None and known.expires <= self._clock():
            self._forget([key])
        elif known is not None and (value := self._waiting.get(key)) is None:
            value = await self._on_disk(lambda file: self._read(file, key, known), Priority.FINAL)
            if value is None and self._known.get(key) is known:
                self._unlearn(key)
        if value is None:
            self.misses += 1
            return None
        self.hits += 1
        if key in self._known:
            self._known.move_to_end(key)
        return value

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep a value; it is written in the background."""
        if self._file is None or len(value) > self._max_bytes:
            return
        if self._waiting_bytes + len(value) > _WAITING_BYTES:
            self.dropped += 1
            return
        now = self._clock()
        expires = now + min(ttl_s, self._ttl_s)
        if key in self._known:
            self._unlearn(key)
        self._make_room(len(value))
        self._known[key] = _Known(len(value), expires, now)
        self.bytes += len(value)
        self._waiting[key] = value
        self._waiting_bytes += len(value)
        self._in_background(self._write(key, value, expires, now))

    async def clear(self) -> None:
        """Forget everything."""
        self._known.clear()
        self._waiting.clear()
        self.bytes = 0
        await self._on_disk(lambda file: file.clear(), Priority.PARTIAL)

    async def flush(self) -> None:
        """Wait until everything is on disk."""
        while self._jobs:
            await asyncio.gather(*self._jobs)

    async def close(self) -> None:
        """Write what is on its way, and close the file."""
        await self.flush()
        file, self._file = self._file, None
        if file is not None:
            await self._pool.run(file.close)
        self._pool.close()

    def _read(self, file: DiskFile, key: bytes, known: _Known) -> bytes | None:
        value = file.read(key)
        now = self._clock()
        if value is not None and now - known.used >= _TOUCH_S:
            known.used = now
            file.touch(key, now)
        return value

    async def _write(self, key: bytes, value: bytes, expires: float, used: float) -> None:
        def write(file: DiskFile) -> bool:
            file.write(key, value, expires, used)
            return True

        if not await self._on_disk(write, Priority.PARTIAL):
            self.dropped += 1
            if key in self._known:
                self._unlearn(key)
        self._waiting_bytes -= len(value)
        if self._waiting.get(key) is value:
            del self._waiting[key]

    def _make_room(self, size: int) -> None:
        surplus = []
        left = self.bytes
        for key, known in self._known.items():
            if left + size <= self._max_bytes:
                break
            surplus.append(key)
            left -= known.size
        self.evicted += len(surplus)
        self._forget(surplus)

    def _forget(self, keys: list[bytes]) -> None:
        if not keys:
            return
        for key in keys:
            self._unlearn(key)
        self._in_background(self._delete(keys))

    async def _delete(self, keys: list[bytes]) -> None:
        await self._on_disk(lambda file: file.delete(keys), Priority.PARTIAL)

    def _unlearn(self, key: bytes) -> None:
        self.bytes -= self._known.pop(key).size

    def _in_background(self, job: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(job, name="cache-disk")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)

    async def _on_disk(self, call: Callable[[DiskFile], R], priority: Priority) -> R | None:
        """Run `call` in the thread; None when the file fails. A damaged file is set aside."""
        file = self._file
        if file is None:
            return None
        try:
            return await self._pool.submit(lambda: call(file), priority)
        except JobDropped:
            return None
        except sqlite3.Error as error:
            if damaged(error):
                await self._renew(file, error)
            elif not self._failed:
                self._failed = True
                _log.warning("the speech cache on disk fails: %s: %s", self._path, error)
            return None

    async def _renew(self, file: DiskFile, error: sqlite3.Error) -> None:
        self._known.clear()
        self.bytes = 0
        try:
            await self._pool.run(file.renew, error)
        except (OSError, sqlite3.Error, JobDropped) as worse:
            _log.warning("the speech cache on disk is off: %s: %s", self._path, worse)
            self._file = None
