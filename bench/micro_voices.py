"""Many replies spoken at once while other threads want the interpreter: how late their packets leave.

Every combination of switch interval and codec workers in one run, in turns, so that what else happens on the machine
meets all of them.
"""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncGenerator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import numpy as np

from bench.micro_parts import Row, on_the_server_loop, voice_like
from bench.stats import percentile
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.timing_wheel import TimingWheel
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.pacer import Pacer
from xiaozhi.events import Clause, SpeechPacket, SpokenItem
from xiaozhi.settings import Settings
from xiaozhi.stages.tts.clause_speech import ClauseSpeech
from xiaozhi.stages.tts.engine import ClauseVoice
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

_INTERVALS_MS: Final = (5.0, 1.0, 0.5, 0.1)
_WORKERS: Final = (1, 2)
_VOICES: Final = 45  # are spoken to when 60 devices talk at a turn every 15 s
_CLAUSE_S: Final = 1.5
_CLAUSES: Final = 3
_PIECE_S: Final = 0.1
_FASTER: Final = 4.0  # than real time a cloud's voice sends
_ROUNDS: Final = 2
# What the others took of a core in that run of 60 devices: two recognition threads, voice activity; and the loop beside
# what is measured here. Of each, so much with the interpreter in hand, in bits of so many seconds.
_THREADS: Final = ((0.35, 0.3), (0.35, 0.3), (0.30, 0.5))
_LOOP_SHARE: Final = 0.25
_BIT_S: Final = 0.002
# A listener hears a gap above this.
_STARVED_MS: Final = 60.0


class _Cloud(ClauseVoice):
    """A voice like a cloud's: the first sound after 150 ms, then small pieces faster than they are played."""

    name = "cloud"

    def __init__(self, sound: PcmInt) -> None:
        step = int(DOWNLINK_RATE_HZ * _PIECE_S)
        self._pieces = [sound[start : start + step] for start in range(0, len(sound), step)]

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        await asyncio.sleep(0.15)
        for piece in self._pieces:
            yield piece
            await asyncio.sleep(_PIECE_S / _FASTER)


@dataclass(slots=True)
class _Listener:
    """What a device sees: when its packets arrive, in seconds."""

    at_s: list[float] = field(default_factory=list)
    starved_ms: float = 0.0

    def sentence_start(self, text: str) -> None: ...

    def audio(self, packet: bytes, generation: int) -> None:
        self.at_s.append(time.perf_counter())


def _python(seconds: float) -> None:
    """Keep the interpreter for so long."""
    end_s = time.perf_counter() + seconds
    while time.perf_counter() < end_s:
        pass


@contextmanager
def _others() -> Iterator[None]:
    """Threads that compute, a part of the time with the interpreter in hand."""
    stop = threading.Event()
    matrix = np.random.default_rng(1).normal(size=(160, 160)).astype(np.float32)

    def work(share: float, held: float) -> None:
        while not stop.wait(_BIT_S * (1.0 - share) / share):
            _python(_BIT_S * held)
            end_s = time.perf_counter() + _BIT_S * (1.0 - held)
            while time.perf_counter() < end_s:
                np.dot(matrix, matrix)  # without it

    threads = [threading.Thread(target=work, args=each, daemon=True) for each in _THREADS]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join()


async def _busy() -> None:
    while True:
        _python(_BIT_S * _LOOP_SHARE)
        await asyncio.sleep(_BIT_S * (1.0 - _LOOP_SHARE))


async def _reply(listener: _Listener, speech: ClauseSpeech, settings: Settings, wait_s: float) -> None:
    await asyncio.sleep(wait_s)
    items: Channel[SpokenItem] = Channel(3000.0, lambda item: 60.0 if isinstance(item, SpeechPacket) else 0.0)
    clauses: Channel[Clause] = Channel(_CLAUSES + 1)
    for number in range(_CLAUSES):
        clauses.put_nowait(Clause(str(number), str(number), "zh"))
    clauses.close()
    pacer = Pacer(cast("DeviceLink", listener), TimingWheel(), 1, settings.audio.lead_ms, 600_000.0)

    async def produce() -> None:
        await run_tts(clauses, items, speech, settings, queued_ms=lambda: items.weight + pacer.unplayed_ms())
        items.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce())
        tasks.create_task(pacer.play(items, lambda: None))
    listener.starved_ms = pacer.starved_ms


async def _round(workers: int) -> list[_Listener]:
    settings = Settings()
    codec = WorkerPool(workers, "codec")
    chain = VoiceChain([_Cloud(voice_like(DOWNLINK_RATE_HZ, _CLAUSE_S))], 5.0, 5.0, 30.0, time.monotonic)
    speech = ClauseSpeech(chain, codec, settings)
    listeners = [_Listener() for _ in range(_VOICES)]
    busy = asyncio.create_task(_busy())
    with _others():
        async with asyncio.TaskGroup() as tasks:
            for number, listener in enumerate(listeners):
                tasks.create_task(_reply(listener, speech, settings, number / _VOICES))
    busy.cancel()
    codec.close()
    return listeners


def voices() -> list[Row]:
    """Lateness of packets behind the moment at which each is due, for every switch interval and number of workers."""
    found: dict[tuple[float, int], list[_Listener]] = {(ms, n): [] for ms in _INTERVALS_MS for n in _WORKERS}
    before_s = sys.getswitchinterval()
    try:
        for _ in range(_ROUNDS):
            for (interval_ms, workers), listeners in found.items():
                sys.setswitchinterval(interval_ms / 1000.0)
                listeners += on_the_server_loop(_round(workers))
    finally:
        sys.setswitchinterval(before_s)
    return [_row(interval_ms, workers, listeners) for (interval_ms, workers), listeners in found.items()]


def _row(interval_ms: float, workers: int, listeners: list[_Listener]) -> Row:
    late_ms: list[float] = []
    for listener in listeners:
        first_s = listener.at_s[0]
        due: list[Any] = [first_s + max(0.0, 0.06 * (n + 1) - 0.24) for n in range(len(listener.at_s))]
        late_ms += [max(0.0, at_s - due_s) * 1000.0 for at_s, due_s in zip(listener.at_s, due, strict=True)]
    starved = sum(listener.starved_ms > _STARVED_MS for listener in listeners)
    worst_ms = max(listener.starved_ms for listener in listeners)
    p50, p95, p99 = (percentile(late_ms, share) for share in (0.5, 0.95, 0.99))
    note = f"p50 {p50:.1f}, p95 {p95:.1f}; {starved} of {len(listeners)} starved, at most {worst_ms:.0f} ms"
    return Row(f"packets late, switch interval {interval_ms:g} ms, {workers} codec workers, p99", p99, "ms", note)
