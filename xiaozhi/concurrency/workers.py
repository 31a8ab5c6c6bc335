"""A sized pool of threads behind a priority heap, for calls that release the GIL (models, codecs, files).

The heap lives on the loop and a job leaves it only when a thread is free, so a final decode overtakes partials that
have not begun, a stale job is dropped before it costs anything, and the age of the oldest waiting job is the pressure
signal.
"""

import asyncio
import functools
import heapq
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class Priority(IntEnum):
    """Who goes first. Measured order: a final decode before a barge-in probe before a partial."""

    FINAL = 0
    PROBE = 1
    PARTIAL = 2


class Rank(IntEnum):
    """Whose jobs go first among those of one priority."""

    HIGH = 0
    NORMAL = 1
    LOW = 2


client_rank: ContextVar[Rank] = ContextVar("client_rank", default=Rank.NORMAL)
"""The rank of the client that the running task works for; the tasks it begins inherit it."""


class JobDropped(Exception):
    """The job was stale, or the pool closed, before it began."""


class Batch(Generic[T, R]):
    """A call that does several items at once, for less than it costs to do them one by one.

    Args:
        call: takes items and returns as many results, in order. Blocking; runs in a worker.
        most: items that one call takes.
    """

    def __init__(self, call: Callable[[Sequence[T]], Sequence[R]], most: int) -> None:
        if most < 1:
            raise ValueError("a batch holds at least one item")
        self.call = call
        self.most = most
        self.calls = 0
        """Calls that have begun."""
        self.items = 0
        """Items in these calls."""


@dataclass(frozen=True, slots=True)
class _Failed:
    error: Exception


@dataclass(order=True, slots=True)
class _Job:
    priority: int
    rank: int
    order: int
    queued_at: float = field(compare=False)
    call: Callable[[], Any] = field(compare=False)
    future: asyncio.Future[Any] = field(compare=False)
    is_stale: Callable[[], bool] | None = field(compare=False)
    batch: Batch[Any, Any] | None = field(compare=False, default=None)
    item: Any = field(compare=False, default=None)


class WorkerPool:
    """`workers` threads that take the most urgent job first.

    Must be built and used on one running loop.

    Args:
        workers: how many jobs run at once.
        name: prefix of the thread names.
        niceness: 0 to 19; above 0 the threads give way to all others that want a core (Linux).
    """

    def __init__(self, workers: int, name: str, *, niceness: int = 0) -> None:
        if workers < 1:
            raise ValueError("a pool needs at least one worker")
        self.workers = workers
        self.name = name
        self.dropped = 0
        """Jobs that went stale before they began."""
        self._executor = ThreadPoolExecutor(workers, name, begin_thread, (name, niceness))
        self._heap: list[_Job] = []
        self._order = itertools.count()
        self._running = 0
        self._closed = False

    @property
    def idle_workers(self) -> int:
        """Threads with nothing to do."""
        return max(0, self.workers - self._running)

    @property
    def waiting(self) -> int:
        """Jobs that have not begun; those that have gone stale leave the queue here."""
        self._drop_stale()
        return len(self._heap)

    def oldest_wait_s(self) -> float:
        """How long the oldest waiting job has waited, in seconds; 0 when none waits."""
        self._drop_stale()
        if not self._heap:
            return 0.0
        return asyncio.get_running_loop().time() - min(job.queued_at for job in self._heap)

    async def run(
        self,
        call: Callable[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run `call` in a worker with top priority and return its result."""
        return await self.submit(lambda: call(*args, **kwargs), Priority.FINAL)

    async def submit(self, call: Callable[[], R], priority: Priority, is_stale: Callable[[], bool] | None = None) -> R:
        """Run `call` when its turn comes.

        Cancelling the caller removes a job that has not begun; one that runs is left to finish, its result unused.

        Raises:
            JobDropped: `is_stale()` was true when a worker became free, or the pool is closed.
        """
        return await self._queue(call, priority, is_stale, None, None)

    async def submit_to(
        self, batch: Batch[T, R], item: T, priority: Priority, is_stale: Callable[[], bool] | None = None
    ) -> R:
        """Do `item` together with others that wait for the same batch when its turn comes; never waits for more.

        Where the call fails for several items, each is tried alone, so that one bad item costs no other its result.
        Cancelling the caller removes an item that has not begun.

        Raises:
            JobDropped: `is_stale()` was true when a worker became free, or the pool is closed.
        """
        return await self._queue(lambda: batch.call([item])[0], priority, is_stale, batch, item)

    async def _queue(
        self,
        call: Callable[[], R],
        priority: Priority,
        is_stale: Callable[[], bool] | None,
        batch: Batch[T, R] | None,
        item: T | None,
    ) -> R:
        if self._closed:
            raise JobDropped(f"{self.name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        job = _Job(priority, client_rank.get(), next(self._order), loop.time(), call, future, is_stale, batch, item)
        heapq.heappush(self._heap, job)
        self._dispatch()
        try:
            return await future
        except asyncio.CancelledError:
            if job in self._heap:  # it must not count as waiting when others are told that there is too much to do
                self._heap.remove(job)
                heapq.heapify(self._heap)
            raise

    def start_if_idle(self, call: Callable[[], R], *, leave: int = 0) -> asyncio.Future[R] | None:
        """Begin `call` now if a thread has nothing to do; None when all are busy or the pool is closed.

        For work that nobody needs yet: it never waits, so it never stands before a job that somebody waits for.

        Args:
            call: what to do.
            leave: threads that must stay idle for those who come next.
        """
        if self._closed or self.idle_workers <= leave:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._begin(_Job(Priority.PARTIAL, Rank.NORMAL, next(self._order), loop.time(), call, future, None))
        return future

    def _dispatch(self) -> None:
        while self._heap and self._running < self.workers:
            job = heapq.heappop(self._heap)
            if not self._wanted(job):
                continue
            if job.batch is None:
                self._begin(job)
            else:
                self._begin_together(job.batch, [job, *self._companions(job.batch)])

    def _wanted(self, job: _Job) -> bool:
        """Whether a job that has left the heap is still to be done; one that is stale is told so."""
        if job.future.done():  # its caller went away
            return False
        if job.is_stale is not None and job.is_stale():
            self.dropped += 1
            job.future.set_exception(JobDropped("stale"))
            return False
        return True

    def _drop_stale(self) -> None:
        wanted = [job for job in self._heap if self._wanted(job)]
        if len(wanted) < len(self._heap):
            heapq.heapify(wanted)
            self._heap = wanted

    def _companions(self, batch: Batch[Any, Any]) -> list[_Job]:
        """Take the most urgent jobs of the same batch out of the heap, as many as fit beside one."""
        found: list[_Job] = []
        if batch.most == 1:
            return found
        others: list[_Job] = []
        for job in sorted(self._heap):
            if job.batch is not batch or len(found) == batch.most - 1:
                others.append(job)
            elif self._wanted(job):
                found.append(job)
        self._heap = others  # sorted, so it is a heap
        return found

    def _begin(self, job: _Job) -> None:
        self._running += 1
        running = asyncio.get_running_loop().run_in_executor(self._executor, job.call)
        running.add_done_callback(functools.partial(self._finished, job))

    def _begin_together(self, batch: Batch[Any, Any], jobs: list[_Job]) -> None:
        batch.calls += 1
        batch.items += len(jobs)
        if len(jobs) == 1:
            self._begin(jobs[0])
            return
        self._running += 1
        items = [job.item for job in jobs]
        running = asyncio.get_running_loop().run_in_executor(self._executor, _all_or_each, batch.call, items)
        running.add_done_callback(functools.partial(self._finished_together, jobs))

    def _finished_together(self, jobs: list[_Job], done: asyncio.Future[list[Any]]) -> None:
        self._running -= 1
        dropped = JobDropped(f"{self.name} is closed")
        results = [_Failed(dropped)] * len(jobs) if done.cancelled() else done.result()
        for job, result in zip(jobs, results, strict=True):
            if job.future.done():  # nobody waits any more
                continue
            if isinstance(result, _Failed):
                job.future.set_exception(result.error)
            else:
                job.future.set_result(result)
        self._dispatch()

    def _finished(self, job: _Job, done: asyncio.Future[Any]) -> None:
        self._running -= 1
        if done.cancelled():  # the pool closed after the job had left the heap and before a thread took it
            if not job.future.done():
                job.future.set_exception(JobDropped(f"{self.name} is closed"))
        elif not job.future.done():
            error = done.exception()
            if error is not None:
                job.future.set_exception(error)
            else:
                job.future.set_result(done.result())
        else:
            done.exception()  # nobody waits any more; mark it as seen
        self._dispatch()

    def close(self) -> None:
        """Drop what waits and let what runs finish in its thread."""
        self._closed = True
        for job in self._heap:
            if not job.future.done():
                job.future.set_exception(JobDropped(f"{self.name} is closed"))
        self._heap.clear()
        self._executor.shutdown(wait=False, cancel_futures=True)


def _all_or_each(call: Callable[[Sequence[T]], Sequence[R]], items: Sequence[T]) -> list[R | _Failed]:
    """All items in one call; each alone when that fails. Runs in a worker."""
    try:
        results = list(call(items))
        if len(results) == len(items):
            return list(results)
    except Exception as error:  # noqa: BLE001 - which item is at fault is found out below, and said to who asked
        _log.warning("%d items together failed, trying each alone: %s", len(items), error)
    return [_one(call, item) for item in items]


def _one(call: Callable[[Sequence[T]], Sequence[R]], item: T) -> R | _Failed:
    try:
        return call([item])[0]
    except Exception as error:  # noqa: BLE001 - handed to the caller of this item
        return _Failed(error)


def begin_thread(name: str, niceness: int = 0) -> None:
    """On Linux threads have a niceness of their own, and a name by which `top -H` and the benches know them."""
    if sys.platform != "linux":
        return
    with suppress(OSError):  # a name is not worth a thread; the kernel keeps 15 bytes of it
        Path(f"/proc/self/task/{threading.get_native_id()}/comm").write_text(name)
    if niceness:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), niceness)
