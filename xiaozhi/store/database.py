"""One SQLite file behind one thread: jobs from the loop, done in batches of one commit each."""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, TypeAlias, TypeVar

from xiaozhi.program import PlainError
from xiaozhi.store.opening import MEMORY, OpenedDatabase, is_damage, is_database, open_database, set_aside

_log = logging.getLogger(__name__)

T = TypeVar("T")
Parameters: TypeAlias = tuple[object, ...] | Mapping[str, object]

# A turn is one job of about 2 KB: this holds several minutes of a hundred talking devices while a disk hangs.
_QUEUE: Final = 4096
# Jobs in one commit; a commit that is synced takes 1 to 50 ms on the storage of small boxes, a job 0.05 ms.
_BATCH: Final = 256


class StoreError(PlainError):
    """The store could not do what was asked; one line says why."""


@dataclass(slots=True)
class _Job:
    call: Callable[[sqlite3.Connection], Any]
    writes: bool
    durable: bool
    future: asyncio.Future[Any] | None
    loop: asyncio.AbstractEventLoop | None
    result: Any = None
    error: BaseException | None = None

    def reset(self) -> None:
        self.result = self.error = None


class Database:
    """The file and its thread. Reads and writes of all conversations pass through it one after another.

    Args:
        path: the file; its folder must exist. `:memory:` keeps nothing.

    Raises:
        StoreError: the file was written by a newer version of this program.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = path
        self.dropped = 0
        """Writes that were not even tried because too many were waiting."""
        self.failed = 0
        """Writes that a full or read-only disk did not take."""
        self.set_aside = 0
        """Damaged files that were renamed and replaced by a new one."""
        self.commits = 0
        """Batches written."""
        self.trouble = ""
        """Why the last write failed; empty when it went well."""
        self._queue: queue.Queue[_Job | None] = queue.Queue(_QUEUE)
        self._opened = self._open()
        self._thread = threading.Thread(target=self._work, name="store", daemon=True)
        self._thread.start()

    def _open(self) -> OpenedDatabase:
        try:
            opened = open_database(self.path)
        except ValueError as error:
            raise StoreError(str(error)) from None
        self.set_aside += opened.set_aside
        return opened

    @property
    def keeps(self) -> bool:
        """What is written survives a restart: false when the file could not be opened."""
        return self._opened.keeps

    @property
    def waiting(self) -> int:
        """Jobs that have not begun."""
        return self._queue.qsize()

    # From the loop ------------------------------------------------------------------------------------------------

    async def read(self, call: Callable[[sqlite3.Connection], T]) -> T:
        """Run `call` in the thread and return what it returns.

        Raises:
            StoreError: the file cannot be read, too much is waiting, or the store is closed.
        """
        return await self._ask(call, writes=False, durable=False)

    async def write(self, call: Callable[[sqlite3.Connection], T], *, durable: bool = True) -> T:
        """Run `call` in a transaction; returns when it is committed.

        An exception of `call` undoes what it has written, nothing else, and is raised here.

        Args:
            call: what to do; it must not commit, and it may be run twice.
            durable: it must survive a power cut that comes after the return.

        Raises:
            StoreError: the disk is full, read-only or damaged, too much is waiting, or the store is closed.
        """
        return await self._ask(call, writes=True, durable=durable)

    async def rows(self, question: str, parameters: Parameters = ()) -> list[sqlite3.Row]:
        """What a question in SQL finds. Raises `StoreError`."""
        return await self.read(lambda connection: connection.execute(question, parameters).fetchall())

    async def change(self, statement: str, parameters: Parameters = ()) -> int:
        """Do one statement of SQL in a transaction; returns how many rows it changed. Raises `StoreError`."""
        return await self.write(lambda connection: connection.execute(statement, parameters).rowcount)

    def post(self, call: Callable[[sqlite3.Connection], object], *, durable: bool = True) -> bool:
        """Leave a write behind without waiting. A failure is logged and counted; false when the queue was full."""
        try:
            self._queue.put_nowait(_Job(call, True, durable, None, None))
        except queue.Full:
            self.dropped += 1
            if self.dropped == 1:
                _log.error("the store is too slow: %d writes wait; what comes above is not kept", _QUEUE)
            return False
        return True

    async def _ask(self, call: Callable[[sqlite3.Connection], T], *, writes: bool, durable: bool) -> T:
        if not self._thread.is_alive():
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[T] = loop.create_future()
        try:
            self._queue.put_nowait(_Job(call, writes, durable, future, loop))
        except queue.Full:
            self.dropped += 1
            raise StoreError("the store is too slow: too many requests wait") from None
        return await future

    async def close(self) -> None:
        """Write what waits, close the file and end the thread."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._queue.put, None)
            await asyncio.to_thread(self._thread.join)

    # In the thread ------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        closing = False
        while not closing:
            batch: list[_Job] = []
            job = self._queue.get()
            while job is not None:
                batch.append(job)
                if len(batch) == _BATCH:
                    break
                try:
                    job = self._queue.get_nowait()
                except queue.Empty:
                    break
            closing = job is None
            if batch:
                self._run_batch(batch)
                for done in batch:
                    _settle(done)
        while True:  # what came while closing
            try:
                late = self._queue.get_nowait()
            except queue.Empty:
                break
            if late is not None:
                late.error = StoreError("the store is closed")
                _settle(late)
        self._opened.close()

    def _run_batch(self, batch: list[_Job]) -> None:
        try:
            self._commit(batch)
        except sqlite3.DatabaseError as error:
            if not is_damage(error) or self.path == MEMORY:
                raise
            # Found out while running: put it aside, begin a new file, and do this batch once more there.
            self._opened.close()
            if is_database(Path(self.path)):
                set_aside(Path(self.path), error)
                self.set_aside += 1
            self._opened = self._open()
            for job in batch:
                job.reset()
            try:
                self._commit(batch)
            except sqlite3.DatabaseError as again:
                self._refuse(batch, again)

    def _commit(self, batch: list[_Job]) -> None:
        connection = self._opened.connection
        writers = [job for job in batch if job.writes]
        if writers:
            try:
                durable = any(job.durable for job in writers)
                connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.DatabaseError as error:
                if is_damage(error):
                    raise
                self._refuse(writers, error)
                writers = []
        for job in batch:
            if job.error is None:
                self._do(connection, job)
        if not writers:
            return
        try:
            if connection.in_transaction:
                connection.execute("COMMIT")
                self.commits += 1
            else:  # a full disk has rolled everything back by itself
                raise sqlite3.OperationalError(self.trouble or "the transaction was rolled back")
        except sqlite3.DatabaseError as error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            if is_damage(error):
                raise
            self._refuse([job for job in writers if job.error is None], error)
        else:
            if self.trouble and all(job.error is None for job in writers):
                _log.warning("the store writes again")
                self.trouble = ""

    def _do(self, connection: sqlite3.Connection, job: _Job) -> None:
        nested = job.writes and connection.in_transaction
        if job.writes and not nested:
            self._refuse([job], sqlite3.OperationalError(self.trouble or "the transaction was rolled back"))
            return
        try:
            if nested:
                connection.execute("SAVEPOINT job")
            job.result = job.call(connection)
            if nested:
                connection.execute("RELEASE job")
        except Exception as error:
            if isinstance(error, sqlite3.DatabaseError) and is_damage(error):
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            if nested and connection.in_transaction:
                connection.execute("ROLLBACK TO job")
                connection.execute("RELEASE job")
            if isinstance(error, sqlite3.OperationalError):
                self._refuse([job], error)
            else:
                job.error = error
                if job.future is None and not isinstance(error, sqlite3.IntegrityError):
                    _log.error("a write to the store failed", exc_info=error)

    def _refuse(self, jobs: list[_Job], error: sqlite3.Error) -> None:
        """The disk did not take it: said once, until it does again."""
        for job in jobs:
            job.error = StoreError(f"{self.path}: {error}")
            self.failed += job.writes
        if any(job.writes for job in jobs):
            if not self.trouble:
                _log.error("%s cannot be written: %s; serving goes on, what is new is not kept", self.path, error)
            self.trouble = str(error)


def _settle(job: _Job) -> None:
    if job.future is None or job.loop is None:
        return
    with contextlib.suppress(RuntimeError):  # the loop has ended meanwhile, and with it whoever asked
        job.loop.call_soon_threadsafe(_hand_over, job.future, job.result, job.error)


def _hand_over(future: asyncio.Future[Any], result: object, error: BaseException | None) -> None:
    if future.done():  # whoever asked has been cancelled
        return
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(result)


def record(kind: type[T], row: sqlite3.Row, **others: object) -> T:
    """A dataclass from the columns that are called like its fields; `others` in place of some of them."""
    names = [one.name for one in fields(kind) if one.name not in others]  # type: ignore[arg-type]  # a dataclass
    return kind(**{name: row[name] for name in names}, **others)
