"""Sound to Opus packets: the one way for every clause, whether it is kept in a cache or not."""

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Final

import numpy as np

from xiaozhi.audio.opus import OpusEncoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.channel import SYNTHESIS, Channel, ChannelClosed
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.overload.usage import cores
from xiaozhi.settings.audio import AudioSettings

FRAME_MS: Final = 60
_FRAME_SAMPLES: Final = DOWNLINK_RATE_HZ * FRAME_MS // 1000
# How far a clause's sound may run ahead of the encoder.
_AHEAD_SAMPLES: Final = DOWNLINK_RATE_HZ * 3
# A hop to a thread costs 64-83 us, a frame 250-700 us: eight frames make the hop cheap and still leave the thread to
# the next conversation after a few milliseconds.
_FRAMES_PER_JOB: Final = 8
_JOB_SAMPLES: Final = _FRAMES_PER_JOB * _FRAME_SAMPLES
# A listener who has more than this to hear can wait until a job is full, where a voice sends small pieces. Should it
# stall, what has come is encoded when half of this is left.
_GATHER_ABOVE_MS: Final = 1000.0
# Silence behind the sound of an encoder that ends: libopus in the mode `audio` sounds 312 samples at 48 kHz late.
# Without it a clause loses its end, and a tone that goes on to the last sample makes the packets of the next encoder
# begin with a crack at full scale (measured).
_LOOKAHEAD_SAMPLES: Final = 156


def unheard_ms() -> float:
    """How far ahead of its playing a clause is that nobody listens to, in milliseconds: behind all that is heard."""
    return 60_000.0


def workers_for(cores: int) -> int:
    """Threads that encode on a machine with so many cores.

    They need less than one core for 100 voices, but a single one stops all of them whenever it is kept from its core or
    from the interpreter: with 45 voices on two busy cores 130 of 1080 replies starved with one, 23 with two
    (`bench.micro voices`, three runs).
    """
    return min(4, cores)


@functools.cache
def voice_percent(bitrate_bps: int, complexity: int) -> float:
    """What encoding one voice takes of all cores while it is heard, in percent. Blocking: some 10 ms, once."""
    at_s = np.arange(_JOB_SAMPLES) / DOWNLINK_RATE_HZ
    noise = np.random.default_rng(1).normal(0.0, 400.0, _JOB_SAMPLES)
    voiced = sum(6000.0 / number * np.sin(2.0 * np.pi * 140.0 * number * at_s) for number in range(1, 12))
    speech = (noise + voiced * (0.55 + 0.45 * np.sin(2.0 * np.pi * 4.0 * at_s))).astype(np.int16)
    encoder = OpusEncoder(DOWNLINK_RATE_HZ, FRAME_MS, bitrate_bps, complexity, "audio")
    job_s = math.inf
    for _ in range(3):  # the others only ever slow it down
        began_s = time.thread_time()
        encoder.encode(speech)
        job_s = min(job_s, time.thread_time() - began_s)
    return 100.0 * job_s / (_FRAMES_PER_JOB * FRAME_MS / 1000.0) / cores()


async def encode(
    sound: AsyncGenerator[PcmInt, None],
    codec: WorkerPool,
    audio: AudioSettings,
    *,
    urgent: bool = False,
    ahead_ms: Callable[[], float] = unheard_ms,
) -> AsyncGenerator[bytes, None]:
    """Yield the sound of one clause as Opus packets of 60 ms, as early as they exist; none for no sound.

    Each clause has an encoder of its own and is filled up to whole frames, so that kept and fresh clauses can follow
    each other in any order. Closing the iterator closes `sound`.

    Args:
        sound: int16[n] mono at 24 kHz in pieces of any size.
        codec: the shared pool that encodes.
        audio: bit rate and complexity.
        urgent: somebody waits for the first packet: its frame is encoded alone and before others' work, except for
            those whose sound is about to run out.
        ahead_ms: for how long there is sound before the next packet is needed; from it follows who is encoded first.

    Raises:
        Exception: what `sound` raised, behind the packets of what came before.
    """
    encoder: OpusEncoder | None = None
    pcm: Channel[PcmInt] = Channel(_AHEAD_SAMPLES, len, kind=SYNTHESIS)
    reading = asyncio.create_task(_read(sound, pcm), name="tts-sound")
    rest: PcmInt = np.empty(0, np.int16)
    loop = asyncio.get_running_loop()

    async def gathered(piece: PcmInt) -> PcmInt:
        """The rest and a piece, with what more there is for one job."""
        pieces = [rest, piece]
        spare_ms = ahead_ms() - _GATHER_ABOVE_MS
        until_s = loop.time() + (spare_ms + _GATHER_ABOVE_MS / 2.0) / 1000.0
        while sum(map(len, pieces)) < _JOB_SAMPLES and (len(pcm) or spare_ms > 0.0):
            try:
                async with asyncio.timeout_at(None if len(pcm) else until_s):
                    pieces.append(await pcm.get())
            except (ChannelClosed, TimeoutError):
                break
        return np.concatenate(pieces)

    async def encoded(samples: PcmInt, first: bool = False) -> list[bytes]:
        nonlocal encoder
        if encoder is None:
            encoder = OpusEncoder(DOWNLINK_RATE_HZ, FRAME_MS, audio.bitrate_bps, audio.complexity, "audio")
        made = encoder
        if first:
            return await codec.submit(lambda: made.encode(samples), Priority.FINAL)
        needed_s = loop.time() + ahead_ms() / 1000.0
        return await codec.submit(lambda: made.encode(samples), Priority.PROBE, deadline_s=needed_s)

    try:
        async for piece in pcm:
            rest = await gathered(piece)
            while len(rest) >= _FRAME_SAMPLES:
                first, urgent = urgent, False
                frames = 1 if first else min(len(rest) // _FRAME_SAMPLES, _FRAMES_PER_JOB)
                job, rest = rest[: frames * _FRAME_SAMPLES], rest[frames * _FRAME_SAMPLES :]
                for packet in await encoded(job, first):
                    yield packet
        await reading
        if len(rest) or encoder is not None:
            whole = -(-(len(rest) + _LOOKAHEAD_SAMPLES) // _FRAME_SAMPLES) * _FRAME_SAMPLES
            for packet in await encoded(np.pad(rest, (0, whole - len(rest)))):
                yield packet
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def _read(sound: AsyncGenerator[PcmInt, None], pcm: Channel[PcmInt]) -> None:
    try:
        async with aclosing(sound) as pieces:
            async for piece in pieces:
                if len(piece):
                    await pcm.put(piece)
    finally:
        pcm.close()
