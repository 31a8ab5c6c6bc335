"""One utterance on its way to text, over the shared recogniser and its pool."""

import asyncio
from collections.abc import Callable
from typing import Final, Protocol

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.stages.asr.engine import (
    OfflineRecognizer,
    Recognizer,
    RecognizerStream,
    StreamingRecognizer,
    Transcript,
)
from xiaozhi.workers import JobDropped, Priority, WorkerPool

# An utterance that went on after a soft end is decoded from there on, once its first part is this long: decoding time
# grows faster than length, and the text of the first part is known already.
PREFIX_LEAST_S: Final = 3.0


class Hearing(Protocol):
    """What has been heard of one utterance."""

    def feed(self, pcm: PcmFloat) -> None:
        """Add float32[n] at 16 kHz. Never waits."""
        ...

    async def transcribe(self, priority: Priority, is_stale: Callable[[], bool]) -> Transcript:
        """Recognise everything fed so far. More may be fed while this runs and afterwards.

        Raises:
            JobDropped: `is_stale()` became true before a worker was free.
        """
        ...

    def close(self) -> None:
        """Forget the audio."""
        ...


class OfflineHearing:
    """Buffers the utterance and decodes it whole, or from the last long-enough part that is decoded already."""

    def __init__(self, engine: OfflineRecognizer, pool: WorkerPool) -> None:
        self._engine = engine
        self._pool = pool
        self._chunks: list[PcmFloat] = []
        self._samples = 0
        self._prefix = Transcript("")
        self._prefix_samples = 0

    def feed(self, pcm: PcmFloat) -> None:
        """Add audio."""
        self._chunks.append(pcm)
        self._samples += len(pcm)

    async def transcribe(self, priority: Priority, is_stale: Callable[[], bool]) -> Transcript:
        """Decode what is not decoded yet and join it to what is."""
        prefix, start, end = self._prefix, self._prefix_samples, self._samples
        pcm = self._audio()[start:end]
        if not len(pcm):
            return prefix
        tail = await self._pool.submit(lambda: self._engine.decode(pcm), priority, is_stale)
        whole = join(prefix, tail)
        # Asked for at a pause, so a cut here does not go through a word.
        if priority is Priority.FINAL and end - start >= PREFIX_LEAST_S * UPLINK_RATE_HZ and whole.text:
            self._prefix, self._prefix_samples = whole, end
        return whole

    def _audio(self) -> PcmFloat:
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0] if self._chunks else np.zeros(0, np.float32)

    def close(self) -> None:
        """Forget the audio."""
        self._chunks.clear()
        self._samples = self._prefix_samples = 0


class StreamingHearing:
    """Feeds the utterance to a streaming recogniser as it arrives; at most one call per stream runs at a time."""

    def __init__(self, engine: StreamingRecognizer, pool: WorkerPool) -> None:
        self._stream: RecognizerStream = engine.open()
        self._pool = pool
        self._waiting: list[PcmFloat] = []
        self._feeding: asyncio.Task[None] | None = None
        self._busy = asyncio.Lock()
        self.partial = ""
        """The text so far."""

    def feed(self, pcm: PcmFloat) -> None:
        """Add audio and have it decoded in the background."""
        self._waiting.append(pcm)
        if self._feeding is None or self._feeding.done():
            self._feeding = asyncio.create_task(self._drain(), name="asr-feed")

    async def _drain(self) -> None:
        async with self._busy:
            while self._waiting:
                pcm = self._take()
                try:
                    self.partial = await self._pool.submit(lambda pcm=pcm: self._stream.accept(pcm), Priority.PROBE)  # type: ignore[misc]
                except JobDropped:  # the pool is closing
                    return

    def _take(self) -> PcmFloat:
        pcm = np.concatenate(self._waiting) if len(self._waiting) > 1 else self._waiting[0]
        self._waiting.clear()
        return pcm

    async def transcribe(self, priority: Priority, is_stale: Callable[[], bool]) -> Transcript:
        """Decode what waits, flush, and return the whole text."""
        async with self._busy:
            pcm = self._take() if self._waiting else None

            def finish() -> Transcript:
                if pcm is not None:
                    self._stream.accept(pcm)
                return self._stream.finish()

            return await self._pool.submit(finish, priority, None if pcm is not None else is_stale)

    def close(self) -> None:
        """Forget the audio; a running call is left to finish."""
        self._waiting.clear()
        if self._feeding is not None:
            self._feeding.cancel()


class Ears:
    """The shared recogniser with its pool: opens a `Hearing` for each utterance."""

    def __init__(self, engine: Recognizer, pool: WorkerPool) -> None:
        self.engine = engine
        self.pool = pool

    def open(self) -> Hearing:
        """Begin an utterance."""
        if isinstance(self.engine, StreamingRecognizer):
            return StreamingHearing(self.engine, self.pool)
        return OfflineHearing(self.engine, self.pool)


_CJK_END: Final = range(0x2E80, 0xA000)


def join(first: Transcript, second: Transcript) -> Transcript:
    """Two parts of one utterance as one transcript; a full stop that the cut put between them is taken out."""
    if not first.text:
        return second
    if not second.text:
        return first
    head = first.text.rstrip().rstrip("。.,，")
    tail = second.text.lstrip()
    glue = "" if ord(head[-1:] or " ") in _CJK_END or ord(tail[:1] or " ") in _CJK_END else " "
    return Transcript(
        head + glue + tail,
        language=second.language or first.language,
        emotion=second.emotion or first.emotion,
        events=tuple(dict.fromkeys(first.events + second.events)),
    )
