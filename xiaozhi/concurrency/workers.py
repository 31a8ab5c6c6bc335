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
import math
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
from typing import Any, Final, Generic, ParamSpec, TypeVar

_log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

NEAR_S: Final = 1.0
"""A job goes before all that have no deadline when its own is nearer than this, in seconds.

A voice that is kept up with is further ahead, so others begin while all voices are, and wait while one is not.
Measured in virtual time with twice the voices that can be encoded: at 1.0 none starves, at 0.6 half of them for 0.3 s,
at 0.4 all.
"""


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
    """The job was stale, waited too long, or the pool closed, before it began."""


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
    deadline_s: float
    priority: int
    rank: int
    in_line_s: float
    order: int
    queued_at: float = field(compare=False)
    call: Callable[[], Any] = field(compare=False)
    future: asyncio.Future[Any] = field(compare=False)
    is_stale: Callable[[], bool] | None = field(compare=False)
    batch: Batch[Any, Any] | None = field(compare=False, default=None)
    item: Any = field(compare=False, default=None)

    def waited_s(self, now_s: float) -> float:
        """Since it was queued; where it has a deadline, since that came near."""
        near_s = self.queued_at if math.isinf(self.deadline_s) else self.deadline_s - NEAR_S
        return max(0.0, now_s - max(self.queued_at, near_s))


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
        """Jobs that went stale, or waited too long, before they began."""
        self._executor = ThreadPoolExecutor(workers, name, begin_thread, (name, niceness))
        self._heap: list[_Job] = []  # without a deadline
        self._timed: list[_Job] = []  # with one: a heap, too
        self._order = itertools.count()
        self._running = 0
        self._closed = False

    @property
    def idle_workers(self) -> int:
        """Threads with nothing to do."""
        return max(0, self.workers - self._running)

    @property
    def lone(self) -> bool:
        """A job that asks this while it runs is the only one there is. May be asked in a worker."""
        return self._running <= 1 and not (self._heap or self._timed)

    @property
    def waiting(self) -> int:
        """Jobs that have not begun; those that have gone stale leave the queue here."""
        self._drop_stale()
        return len(self._heap) + len(self._timed)

    def oldest_wait_s(self) -> float:
        """How long the oldest waiting job has waited, in seconds; 0 when none waits.

        A job with a deadline waits from the moment on in which that is `NEAR_S` away.
        """
        self._drop_stale()
        now_s = asyncio.get_running_loop().time()
        return max((job.waited_s(now_s) for job in (*self._heap, *self._timed)), default=0.0)

    async def run(
        self,
        call: Callable[P, R],
        /,
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> R:
        """Run `call` in a worker with top priority and return its result."""
        return await self.submit(lambda: call(*args, **kwargs), Priority.FINAL)

    async def submit(
        self,
        call: Callable[[], R],
        priority: Priority,
        is_stale: Callable[[], bool] | None = None,
        *,
        handicap_s: float = 0.0,
        within_s: float = math.inf,
        deadline_s: float = math.inf,
    ) -> R:
        """Run `call` when its turn comes.

        Cancelling the caller removes a job that has not begun; one that runs is left to finish, its result unused.

        Args:
            call: what to do; blocking.
            priority: its place among jobs without a deadline, before the rank of the client, and this before who came
                first.
            is_stale: asked before it begins: true when nobody needs it any more.
            handicap_s: among equals it goes in line as if it had come so much later.
            within_s: what has not begun by then is not worth doing any more.
            deadline_s: when its result is needed, in the loop's time. Jobs with one go in its order, earliest first,
                whatever their priority: before all others when it is less than `NEAR_S` away, else behind them.

        Raises:
            JobDropped: `is_stale()` was true when a worker became free, none was within `within_s`, or the pool is
                closed.
        """
        return await self._queue(call, priority, is_stale, None, None, handicap_s, within_s, deadline_s)

    async def submit_to(
        self,
        batch: Batch[T, R],
        item: T,
        priority: Priority,
        is_stale: Callable[[], bool] | None = None,
        *,
        handicap_s: float = 0.0,
        within_s: float = math.inf,
    ) -> R:
        """Do `item` together with others that wait for the same batch when its turn comes; never waits for more.

        Where the call fails for several items, each is tried alone, so that one bad item costs no other its result.
        Cancelling the caller removes an item that has not begun. Arguments and errors are those of `submit`.
        """
        return await self._queue(lambda: batch.call([item])[0], priority, is_stale, batch, item, handicap_s, within_s)

    async def _queue(
        self,
        call: Callable[[], R],
        priority: Priority,
        is_stale: Callable[[], bool] | None,
        batch: Batch[T, R] | None,
        item: T | None,
        handicap_s: float,
        within_s: float,
        deadline_s: float = math.inf,
    ) -> R:
        if self._closed:
            raise JobDropped(f"{self.name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        now_s, rank, order = loop.time(), client_rank.get(), next(self._order)
        in_line_s = now_s + handicap_s
        job = _Job(deadline_s, priority, rank, in_line_s, order, now_s, call, future, is_stale, batch, item)
        heapq.heappush(self._heap if math.isinf(deadline_s) else self._timed, job)
        self._dispatch()
        giving_up = None if within_s == math.inf else loop.call_later(within_s, self._give_up, job, within_s)
        try:
            return await future
        except asyncio.CancelledError:
            self._take_out(job)  # it must not count as waiting when others are told that there is too much to do
            raise
        finally:
            if giving_up is not None:
                giving_up.cancel()

    def _take_out(self, job: _Job) -> bool:
        """Whether a job was waiting; now it does not."""
        for heap in (self._heap, self._timed):
            if job in heap:
                heap.remove(job)
                heapq.heapify(heap)
                return True
        return False

    def _give_up(self, job: _Job, within_s: float) -> None:
        if self._take_out(job) and not job.future.done():
            self.dropped += 1
            job.future.set_exception(JobDropped(f"no worker was free within {within_s:g} s"))

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
        now_s = loop.time()
        order = next(self._order)
        self._begin(_Job(math.inf, Priority.PARTIAL, Rank.NORMAL, now_s, order, now_s, call, future, None))
        return future

    def _dispatch(self) -> None:
        while (self._heap or self._timed) and self._running < self.workers:
            job = heapq.heappop(self._first())
            if not self._wanted(job):
                continue
            if job.batch is None:
                self._begin(job)
            else:
                self._begin_together(job.batch, [job, *self._companions(job.batch)])

    def _first(self) -> list[_Job]:
        """The heap whose first job goes next."""
        if not self._heap:
            return self._timed
        near_s = asyncio.get_running_loop().time() + NEAR_S
        return self._timed if self._timed and self._timed[0].deadline_s < near_s else self._heap

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
        for heap in (self._heap, self._timed):
            wanted = [job for job in heap if self._wanted(job)]
            if len(wanted) < len(heap):
                heapq.heapify(wanted)
                heap[:] = wanted

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
        for job in (*self._heap, *self._timed):
            if not job.future.done():
                job.future.set_exception(JobDropped(f"{self.name} is closed"))
        self._heap.clear()
        self._timed.clear()
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
