"""The channel, the worker pool and the outbox."""

import asyncio
import gc
import os
import sys
import threading

import pytest
from aiohttp import WSMsgType

from xiaozhi.concurrency.channel import Channel, ChannelClosed, ChannelKind
from xiaozhi.concurrency.workers import JobDropped, Priority, Rank, WorkerPool, client_rank
from xiaozhi.transport.protocol import DeviceProtocol
from xiaozhi.transport.websocket_writer import WebSocketWriter


async def test_a_full_channel_makes_its_writer_wait() -> None:
    channel: Channel[int] = Channel(2)
    await channel.put(1)
    await channel.put(2)
    writing = asyncio.create_task(channel.put(3))
    await asyncio.sleep(0)
    assert not writing.done()
    assert await channel.get() == 1
    await writing
    assert channel.weight == 2


async def test_weight_counts_not_items() -> None:
    channel: Channel[str] = Channel(10, len)
    await channel.put("x" * 9)
    await channel.put("y" * 50)  # one more always fits while there is any room
    writing = asyncio.create_task(channel.put("z"))
    await asyncio.sleep(0)
    assert not writing.done()
    channel.close()
    with pytest.raises(ChannelClosed):
        await writing
    assert [item async for item in channel] == ["x" * 9, "y" * 50]


async def test_a_channel_for_live_audio_drops_its_oldest() -> None:
    channel: Channel[int] = Channel(3, drop_oldest=True)
    for number in range(5):
        channel.put_nowait(number)
    assert channel.dropped == 2
    assert channel.drain() == [2, 3, 4]


async def test_peek_waits_and_leaves_the_item() -> None:
    channel: Channel[int] = Channel(3)
    peeking = asyncio.create_task(channel.peek())
    await asyncio.sleep(0)
    channel.put_nowait(7)
    assert await peeking == 7
    assert await channel.get() == 7
    channel.close()
    assert await channel.peek() is None
    with pytest.raises(ChannelClosed):
        await channel.get()


class Held:
    """A job that occupies a worker until it is let go."""

    def __init__(self, pool: WorkerPool) -> None:
        self._go = threading.Event()
        self.task = asyncio.create_task(pool.submit(self._wait, Priority.FINAL))

    def _wait(self) -> None:
        assert self._go.wait(10)

    async def let_go(self) -> None:
        self._go.set()
        await self.task


async def test_the_most_urgent_job_goes_first_and_stale_ones_never_run() -> None:
    pool = WorkerPool(1, "test")
    held = Held(pool)
    await asyncio.sleep(0)
    ran: list[str] = []
    jobs = [
        asyncio.create_task(pool.submit(lambda: ran.append("partial"), Priority.PARTIAL)),
        asyncio.create_task(pool.submit(lambda: ran.append("stale"), Priority.PROBE, lambda: True)),
        asyncio.create_task(pool.submit(lambda: ran.append("probe"), Priority.PROBE)),
        asyncio.create_task(pool.submit(lambda: ran.append("final"), Priority.FINAL)),
        asyncio.create_task(pool.submit(lambda: ran.append("cancelled"), Priority.FINAL)),
    ]
    await asyncio.sleep(0)
    jobs[-1].cancel()
    assert pool.waiting == 3, "neither the stale one nor the one that was given up"
    assert pool.oldest_wait_s() >= 0
    await held.let_go()
    results = await asyncio.gather(*jobs, return_exceptions=True)
    assert ran == ["final", "probe", "partial"]
    assert isinstance(results[1], JobDropped)
    assert pool.dropped == 1
    pool.close()


async def test_work_that_nobody_needs_yet_begins_at_once_or_not_at_all() -> None:
    pool = WorkerPool(1, "test")
    begun = pool.start_if_idle(lambda: 1)
    assert begun is not None
    assert await begun == 1
    held = Held(pool)
    await asyncio.sleep(0)
    assert pool.start_if_idle(lambda: 2) is None
    assert pool.waiting == 0
    await held.let_go()
    failing = pool.start_if_idle(lambda: 1 // 0)
    assert failing is not None
    with pytest.raises(ZeroDivisionError):
        await failing
    pool.close()
    assert pool.start_if_idle(lambda: 3) is None


async def test_closing_drops_a_job_that_no_thread_has_taken_yet() -> None:
    pool = WorkerPool(1, "test")
    free = threading.Event()
    pool._executor.submit(free.wait, 10)  # the thread is late: it still ends its last job
    job = asyncio.create_task(pool.run(lambda: 1))
    await asyncio.sleep(0)
    assert pool.waiting == 0
    pool.close()
    with pytest.raises(JobDropped):
        await job
    free.set()


async def test_a_job_that_fails_fails_its_caller_alone() -> None:
    pool = WorkerPool(1, "test")
    with pytest.raises(ZeroDivisionError):
        await pool.run(lambda: 1 // 0)
    assert await pool.run(lambda: 2) == 2
    pool.close()
    with pytest.raises(JobDropped):
        await pool.run(lambda: 3)


class Wire(asyncio.Transport):
    """A socket and its transport; what it has taken, `waiting` of it, in bytes, not by the kernel yet."""

    closed = False

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.waiting = 0

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Take one whole frame of less than 64 KiB."""
        header = 2 if data[1] < 126 else 4
        payload = bytes(data[header:])
        assert len(payload) == (data[1] if header == 2 else int.from_bytes(data[2:4], "big"))
        assert data[0] == 0x80 | (WSMsgType.TEXT if payload.startswith(b"{") else WSMsgType.BINARY)
        self.sent.append(payload)


FULL_BYTES = 5000


async def test_an_interrupted_reply_leaves_no_further_sound() -> None:
    wire = Wire()
    writer = WebSocketWriter(wire, DeviceProtocol(), timeout_s=5)
    writer.send_audio(b"old", 1, 0)
    writer.silence(1)
    writer.send_audio(b"older", 0, 0)
    writer.send({"type": "stop"})
    writer.send_audio(b"new", 2, 0)
    writer.bind(wire)
    assert wire.sent == [b'{"type":"stop"}', b"new"]


async def test_what_is_sent_to_a_device_that_reads_is_written_at_once() -> None:
    wire = Wire()
    writer = WebSocketWriter(wire, DeviceProtocol(), timeout_s=5)
    writer.bind(wire)
    tasks = len(asyncio.all_tasks())
    for length in (0, 125, 126, 65_535):
        writer.send_audio(bytes(length), 1, 0)
        assert wire.sent[-1] == bytes(length) and writer.empty
    assert len(asyncio.all_tasks()) == tasks


async def test_nothing_follows_a_close_frame() -> None:
    wire = Wire()
    writer = WebSocketWriter(wire, DeviceProtocol(), timeout_s=5)
    writer.bind(wire)
    wire.closed = True
    writer.send_audio(b"late", 1, 0)
    with pytest.raises(ConnectionError):
        await writer.over
    assert wire.sent == []


async def test_a_device_that_does_not_read_loses_audio_and_then_its_connection() -> None:
    wire = Wire()
    writer = WebSocketWriter(wire, DeviceProtocol(), timeout_s=0.2)
    wire.waiting = FULL_BYTES
    writer.bind(wire)
    for _ in range(21):
        writer.send_audio(b"frame", 1, 0)
    assert len(wire.sent) == 1 and writer.dropped == 5
    with pytest.raises(TimeoutError):
        await writer.over


async def test_what_waited_for_a_device_is_written_when_it_reads_again() -> None:
    wire = Wire()
    writer = WebSocketWriter(wire, DeviceProtocol(), timeout_s=60)
    wire.waiting = FULL_BYTES
    writer.bind(wire)
    for number in range(4):
        writer.send({"number": number})
    assert len(wire.sent) == 1
    wire.waiting = 0
    await asyncio.sleep(0.2)
    assert wire.sent == [b'{"number":%d}' % number for number in range(4)] and not writer.over.done()


async def test_packets_that_never_left_are_told_from_those_that_a_device_can_have_played() -> None:
    wire = Wire()
    writer = WebSocketWriter(wire, DeviceProtocol(), timeout_s=5)
    writer.bind(wire)

    def untaken(*waiting: int) -> list[int]:
        found = []
        for wire.waiting in waiting:
            found.append(writer.untaken(1))
        wire.waiting = 0
        return found

    assert untaken(0) == [0], "nothing was ever to be sent"
    for _ in range(10):
        writer.send_audio(b"frame" * 20, 1, 0)
    assert untaken(0, 1, 102, 103, 1020, 9999) == [0, 1, 1, 2, 10, 10], "frames of 102 bytes"
    writer.send({"text": "说" * 97})
    length = len(wire.sent[-1]) + 4
    assert length == 3 * 97 + len('{"text":""}') + 4
    assert untaken(length, length + 1) == [0, 1], "texts wait with them, in UTF-8"
    wire.waiting = FULL_BYTES
    writer.send({})
    for _ in range(20):
        writer.send_audio(b"frame", 1, 0)
    assert untaken(0) == [20], "dropped ones included"
    writer.send_audio(b"frame", 2, 0)
    assert writer.untaken(1) == 0 and writer.untaken(2) == 1
    writer.drop()


async def test_channels_of_one_kind_are_counted_together_as_long_as_they_live() -> None:
    kind = ChannelKind("test")
    first: Channel[int] = Channel(2, drop_oldest=True, kind=kind)
    second: Channel[str] = Channel(2, kind=kind)
    for number in range(3):
        first.put_nowait(number)
    second.put_nowait("a")
    assert kind.depth() == 3 and kind.dropped == 1 and kind.oldest_s() >= 0.0
    del first
    gc.collect()
    assert kind.depth() == 1 and kind.dropped == 1
    second.drain()
    assert kind.oldest_s() == 0.0


@pytest.mark.skipif(sys.platform != "linux", reason="threads have a niceness of their own only on Linux")
async def test_workers_may_give_way_to_others() -> None:
    nice = WorkerPool(1, "nice", niceness=7)
    plain = WorkerPool(1, "plain")
    before = os.getpriority(os.PRIO_PROCESS, 0)
    assert await nice.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == 7
    assert await plain.run(lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())) == before
    nice.close()
    plain.close()


async def test_among_jobs_of_one_priority_the_rank_of_their_client_decides() -> None:
    pool, order, free = WorkerPool(1, "test"), list[str](), threading.Event()

    async def client(rank: Rank, name: str, priority: Priority) -> None:
        client_rank.set(rank)
        await pool.submit(lambda: order.append(name), priority)

    busy = asyncio.create_task(pool.run(free.wait, 5.0))
    await asyncio.sleep(0)
    jobs = [
        asyncio.create_task(client(rank, name, priority))
        for rank, name, priority in (
            (Rank.LOW, "low", Priority.FINAL),
            (Rank.NORMAL, "normal", Priority.FINAL),
            (Rank.HIGH, "high, but only a partial", Priority.PARTIAL),
            (Rank.HIGH, "high", Priority.FINAL),
            (Rank.NORMAL, "normal, later", Priority.FINAL),
        )
    ]
    await asyncio.sleep(0)
    free.set()
    await asyncio.gather(busy, *jobs)
    assert order == ["high", "normal", "normal, later", "low", "high, but only a partial"]
    pool.close()
