"""Several items in one call of the pool: gathered when a worker is free, never waited for."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.recognisers import until
from xiaozhi.concurrency.workers import Batch, JobDropped, Priority, WorkerPool


class Doubling:
    """Doubles numbers, many at once; raises for those that are not wanted."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.free = threading.Event()
        self.free.set()
        self.bad: set[int] = set()

    def __call__(self, items: Sequence[int]) -> list[int]:
        self.calls.append(list(items))
        assert self.free.wait(10)
        if self.bad.intersection(items):
            raise ValueError(f"bad: {sorted(self.bad.intersection(items))}")
        return [2 * item for item in items]


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "test")
    yield pool
    pool.close()


async def queue(
    pool: WorkerPool, batch: Batch[int, int], items: Sequence[int], priority: Priority = Priority.FINAL
) -> list[asyncio.Task[int]]:
    """Have items wait, in order."""
    before = pool.waiting
    tasks = [asyncio.create_task(pool.submit_to(batch, item, priority)) for item in items]
    await until(lambda: pool.waiting == before + len(items))
    return tasks


async def busy(pool: WorkerPool, call: Doubling, batch: Batch[int, int]) -> asyncio.Task[int]:
    """Occupy the only worker until `call` is let go."""
    call.free.clear()
    task = asyncio.create_task(pool.submit_to(batch, 0, Priority.FINAL))
    await until(lambda: len(call.calls) == 1)
    return task


async def test_a_lone_item_does_not_wait_for_company(pool: WorkerPool) -> None:
    call = Doubling()
    batch = Batch(call, 8)
    assert await pool.submit_to(batch, 21, Priority.FINAL) == 42
    assert call.calls == [[21]]
    assert (batch.calls, batch.items) == (1, 1)


async def test_what_waits_when_a_worker_becomes_free_is_done_together(pool: WorkerPool) -> None:
    call = Doubling()
    batch = Batch(call, 3)
    first = await busy(pool, call, batch)
    rest = await queue(pool, batch, [1, 2, 3, 4, 5])
    call.free.set()
    assert await asyncio.gather(first, *rest) == [0, 2, 4, 6, 8, 10]
    assert call.calls == [[0], [1, 2, 3], [4, 5]]
    assert (batch.calls, batch.items) == (3, 6)


async def test_the_most_urgent_go_first_and_other_kinds_keep_their_place(pool: WorkerPool) -> None:
    call, other = Doubling(), Doubling()
    batch, another = Batch(call, 2), Batch(other, 2)
    first = await busy(pool, call, batch)
    probes = await queue(pool, batch, [7, 8], Priority.PROBE)
    finals = await queue(pool, batch, [1])
    others = await queue(pool, another, [5, 6])
    lone = asyncio.create_task(pool.submit(lambda: len(call.calls), Priority.PROBE))
    await until(lambda: pool.waiting == 6)
    call.free.set()
    await asyncio.gather(first, *probes, *finals, *others)
    assert call.calls == [[0], [1, 7], [8]]
    assert other.calls == [[5, 6]]
    assert await lone == 3


async def test_stale_and_cancelled_items_are_not_done(pool: WorkerPool) -> None:
    call = Doubling()
    batch = Batch(call, 8)
    first = await busy(pool, call, batch)
    overtaken = asyncio.Event()
    stale = asyncio.create_task(pool.submit_to(batch, 1, Priority.FINAL, overtaken.is_set))
    await until(lambda: pool.waiting == 1)
    kept = await queue(pool, batch, [2, 3, 4])
    late = asyncio.create_task(pool.submit_to(batch, 5, Priority.FINAL, overtaken.is_set))
    await until(lambda: pool.waiting == 5)
    overtaken.set()
    kept[1].cancel()
    await asyncio.gather(kept[1], return_exceptions=True)
    call.free.set()
    assert [await task for task in (first, kept[0], kept[2])] == [0, 4, 8]
    for task in (stale, late):
        with pytest.raises(JobDropped):
            await task
    assert call.calls == [[0], [2, 4]]
    assert pool.dropped == 2


async def test_one_bad_item_costs_no_other_its_result(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    call = Doubling()
    call.bad = {2}
    batch = Batch(call, 8)
    first = await busy(pool, call, batch)
    rest = await queue(pool, batch, [1, 2, 3])
    call.free.set()
    results = await asyncio.gather(first, *rest, return_exceptions=True)
    assert results[0::2] == [0, results[2]] and isinstance(results[2], ValueError)
    assert (results[1], results[3]) == (2, 6)
    assert call.calls == [[0], [1, 2, 3], [1], [2], [3]]
    assert "3 items together failed, trying each alone: bad: [2]" in caplog.text
    with pytest.raises(ValueError, match="bad"):
        await pool.submit_to(batch, 2, Priority.FINAL)


async def test_an_item_whose_caller_leaves_while_it_is_done_harms_nobody(pool: WorkerPool) -> None:
    call = Doubling()
    batch = Batch(call, 8)
    first = await busy(pool, call, batch)
    rest = await queue(pool, batch, [1, 2])
    call.free.set()
    await first
    call.free.clear()
    await until(lambda: len(call.calls) == 2)
    rest[0].cancel()
    call.free.set()
    assert await rest[1] == 4


async def test_a_closing_pool_drops_items_that_wait() -> None:
    pool = WorkerPool(1, "test")
    call = Doubling()
    batch = Batch(call, 8)
    first = await busy(pool, call, batch)
    rest = await queue(pool, batch, [1, 2])
    pool.close()
    for task in rest:
        with pytest.raises(JobDropped):
            await task
    call.free.set()
    assert await first == 0
    with pytest.raises(JobDropped):
        await pool.submit_to(batch, 1, Priority.FINAL)


async def test_a_batch_of_one_is_an_ordinary_job(pool: WorkerPool) -> None:
    call = Doubling()
    batch = Batch(call, 1)
    first = await busy(pool, call, batch)
    rest = await queue(pool, batch, [1, 2])
    call.free.set()
    assert await asyncio.gather(first, *rest) == [0, 2, 4]
    assert call.calls == [[0], [1], [2]]
    with pytest.raises(ValueError, match="at least one"):
        Batch(call, 0)


async def test_work_ahead_leaves_workers_for_others() -> None:
    pool = WorkerPool(2, "test")
    free = threading.Event()
    running = pool.start_if_idle(lambda: free.wait(10), leave=1)
    assert running is not None
    assert pool.start_if_idle(lambda: True, leave=1) is None
    second = pool.start_if_idle(lambda: True)
    assert second is not None
    assert await second
    free.set()
    assert await running
    pool.close()


async def test_a_job_whose_caller_has_gone_leaves_the_queue_at_once(pool: WorkerPool) -> None:
    call = Doubling()
    batch = Batch(call, 8)
    running = await busy(pool, call, batch)
    leaving = await queue(pool, batch, [1, 2, 3])
    staying = await queue(pool, batch, [4])
    for task in leaving:
        task.cancel()
    await asyncio.gather(*leaving, return_exceptions=True)
    assert pool.waiting == 1
    call.free.set()
    assert await asyncio.gather(running, *staying) == [0, 8]
    assert call.calls == [[0], [4]]


async def test_a_job_that_has_gone_stale_does_not_count_as_waiting(pool: WorkerPool) -> None:
    call = Doubling()
    running = await busy(pool, call, Batch(call, 1))
    overtaken = asyncio.Event()
    waits = asyncio.create_task(pool.submit(lambda: 1, Priority.FINAL, overtaken.is_set))
    await until(lambda: pool.waiting == 1)
    overtaken.set()
    assert pool.waiting == 0
    assert pool.oldest_wait_s() == 0.0
    with pytest.raises(JobDropped):
        await waits
    call.free.set()
    assert await running == 0
