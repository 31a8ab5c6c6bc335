"""A sized pool of threads behind a priority heap, for calls that release the GIL (models, codecs, files).

The heap lives on the loop and a job leaves it only when a thread is free, so a final decode overtakes partials that
have not begun, a stale job is dropped before it costs anything, and the age of the oldest waiting job is the pressure
signal.
"""

import asyncio
import functools
import heapq
import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


class Priority(IntEnum):
    """Who goes first. Measured order: a final decode before a barge-in probe before a partial."""

    FINAL = 0
    PROBE = 1
    PARTIAL = 2


class JobDropped(Exception):
    """The job was stale, or the pool closed, before it began."""


@dataclass(order=True, slots=True)
class _Job:
    priority: int
    order: int
    queued_at: float = field(compare=False)
    call: Callable[[], Any] = field(compare=False)
    future: asyncio.Future[Any] = field(compare=False)
    is_stale: Callable[[], bool] | None = field(compare=False)


class WorkerPool:
    """`workers` threads that take the most urgent job first.

    Must be built and used on one running loop.

    Args:
        workers: how many jobs run at once.
        name: prefix of the thread names.
    """

    def __init__(self, workers: int, name: str) -> None:
        if workers < 1:
            raise ValueError("a pool needs at least one worker")
        self.workers = workers
        self.name = name
        self.dropped = 0
        """Jobs that went stale before they began."""
        self._executor = ThreadPoolExecutor(workers, thread_name_prefix=name)
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
        """Jobs that have not begun."""
        return len(self._heap)

    def oldest_wait_s(self) -> float:
        """How long the oldest waiting job has waited, in seconds; 0 when none waits."""
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
        if self._closed:
            raise JobDropped(f"{self.name} is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        heapq.heappush(self._heap, _Job(priority, next(self._order), loop.time(), call, future, is_stale))
        self._dispatch()
        return await future

    def start_if_idle(self, call: Callable[[], R]) -> asyncio.Future[R] | None:
        """Begin `call` now if a thread has nothing to do; None when all are busy or the pool is closed.

        For work that nobody needs yet: it never waits, so it never stands before a job that somebody waits for.
        """
        if self._closed or not self.idle_workers:
            return None
        loop = asyncio.get_running_loop()
        future: asyncio.Future[R] = loop.create_future()
        self._begin(_Job(Priority.PARTIAL, next(self._order), loop.time(), call, future, None))
        return future

    def _dispatch(self) -> None:
        while self._heap and self._running < self.workers:
            job = heapq.heappop(self._heap)
            if job.future.done():  # its caller went away
                continue
            if job.is_stale is not None and job.is_stale():
                self.dropped += 1
                job.future.set_exception(JobDropped("stale"))
                continue
            self._begin(job)

    def _begin(self, job: _Job) -> None:
        self._running += 1
        running = asyncio.get_running_loop().run_in_executor(self._executor, job.call)
        running.add_done_callback(functools.partial(self._finished, job))

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
