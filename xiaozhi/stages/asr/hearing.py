"""One utterance on its way to text, over the shared recogniser and its pool."""

import asyncio
import logging
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.stages.asr.engine import (
    EngineError,
    OfflineRecognizer,
    Recognizer,
    RecognizerStream,
    StreamingRecognizer,
    Transcript,
)
from xiaozhi.stages.asr.joining import join
from xiaozhi.stages.asr.two_pass import TwoPass
from xiaozhi.workers import JobDropped, Priority, WorkerPool

_log = logging.getLogger(__name__)

# An utterance that went on after a soft end is decoded from there on, once its first part is this long: decoding time
# grows faster than length, and the text of the first part is known already.
PREFIX_LEAST_S: Final = 3.0
# Silence, in audio time, after which an utterance is decoded early in case it is over: the first silent window of the
# VAD. Measured on 112 recordings in packets of 60 ms: 92 ms before a soft end of 128 ms, and 1.14 decodes for each soft
# end (60 ms: 67 ms before, 1.11 decodes). A zipformer's words for audio that ends 32 ms behind the last voiced sample
# are as good as for audio that ends at the soft end (3 and 4 of 111 differ from those with 600 ms more).
EARLY_SILENCE_MS: Final = 30.0
# Audio behind an early decode that may go undecoded because the VAD found no voice in it. Not endless: a whisper that
# the VAD misses is heard when a key is held (push to talk). Well above every soft end.
UNHEARD_MOST_S: Final = 0.6
# The confirmation of a two-pass recognition is given up this long after the provisional text: an overloaded pool then
# costs accuracy and no answers.
CONFIRM_MOST_S: Final = 2.0


class Hearing(Protocol):
    """What has been heard of one utterance."""

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add float32[n] at 16 kHz, after which the voice has been silent for `silence_ms`. Never waits."""
        ...

    async def transcribe(
        self, priority: Priority, is_stale: Callable[[], bool], provisional: Callable[[Transcript], None]
    ) -> Transcript:
        """Recognise everything fed so far. More may be fed while this runs and afterwards.

        Args:
            priority: of the decode.
            is_stale: nobody waits for the answer any more.
            provisional: called at most once, with a text that is known before the one that is returned.

        Raises:
            JobDropped: `is_stale()` became true before a worker was free, or the pool is closed.
            EngineError: recognition failed.
        """
        ...

    def close(self) -> None:
        """Forget the audio; a running call is left to finish."""
        ...


@dataclass(slots=True)
class EarlyDecodes:
    """Decodes of utterances that were perhaps over, begun by idle workers before anybody asked.

    Attributes:
        allowed: set to False under load: nothing is decoded before it is asked for.
        begun: how many there were.
        used: how many were the answer to a question; the others were wasted.
    """

    allowed: bool = True
    begun: int = 0
    used: int = 0


@dataclass(frozen=True, slots=True)
class _Early:
    """A decode from sample `start` to sample `end`, behind the text `prefix` of what lies before."""

    prefix: Transcript
    start: int
    end: int
    tail: asyncio.Future[Transcript]


class OfflineHearing:
    """Buffers the utterance and decodes it whole, or from the last long-enough part that is decoded already.

    When the voice falls silent and a worker has nothing to do, the utterance is decoded at once: if nothing voiced
    follows, that is the answer to the question at the soft end. At most one such decode runs at a time.
    """

    def __init__(self, engine: OfflineRecognizer, pool: WorkerPool, early: EarlyDecodes) -> None:
        self._engine = engine
        self._pool = pool
        self._counts = early
        self._chunks: list[PcmFloat] = []
        self._samples = 0
        self._voiced_samples = 0  # up to the last voiced one
        self._prefix = Transcript("")
        self._prefix_samples = 0
        self._early: _Early | None = None

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio."""
        self._chunks.append(pcm)
        self._samples += len(pcm)
        self._voiced_samples = self._samples - round(silence_ms * UPLINK_RATE_HZ / 1000.0)
        if silence_ms >= EARLY_SILENCE_MS and self._counts.allowed:
            self._decode_early()

    def _decode_early(self) -> None:
        """Begin to decode, unless that would add nothing or nobody has time."""
        early = self._early
        if early is not None and (early.end >= self._voiced_samples or not early.tail.done()):
            return
        prefix, start, end = self._prefix, self._prefix_samples, self._samples
        if start >= self._voiced_samples:
            return
        pcm = self._audio()[start:end]
        tail = self._pool.start_if_idle(lambda: self._engine.decode(pcm))
        if tail is None:
            return
        tail.add_done_callback(_seen)
        self._counts.begun += 1
        self._early = _Early(prefix, start, end, tail)

    @property
    def covered(self) -> bool:
        """The early decode has all that was voiced, so that its text, there or nearly there, is the whole text."""
        early = self._early
        return (
            early is not None
            and early.end >= self._voiced_samples
            and self._samples - early.end <= UNHEARD_MOST_S * UPLINK_RATE_HZ
            and not _failed(early.tail)
        )

    @property
    def ready(self) -> bool:
        """The whole text is known without waiting."""
        return self.covered and self._early is not None and self._early.tail.done()

    async def transcribe(
        self, priority: Priority, is_stale: Callable[[], bool], provisional: Callable[[Transcript], None]
    ) -> Transcript:
        """Decode what is not decoded yet and join it to what is; nothing is provisional."""
        early = self._early
        if early is not None and self.covered:
            try:
                tail = await asyncio.shield(early.tail)
            except EngineError as error:
                _log.warning("early recognition failed, trying again: %s", error)
            else:
                self._counts.used += 1
                return self._join(early.prefix, tail, early.start, early.end, priority)
        prefix, start, end = self._prefix, self._prefix_samples, self._samples
        pcm = self._audio()[start:end]
        if not len(pcm):
            return prefix
        tail = await self._pool.submit(lambda: self._engine.decode(pcm), priority, is_stale)
        return self._join(prefix, tail, start, end, priority)

    def _join(self, prefix: Transcript, tail: Transcript, start: int, end: int, priority: Priority) -> Transcript:
        whole = join(prefix, tail)
        # Asked for at a pause, so a cut here does not go through a word.
        long_enough = end - start >= PREFIX_LEAST_S * UPLINK_RATE_HZ
        if priority is Priority.FINAL and long_enough and whole.text and end > self._prefix_samples:
            self._prefix, self._prefix_samples = whole, end
        return whole

    def _audio(self) -> PcmFloat:
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0] if self._chunks else np.zeros(0, np.float32)

    def close(self) -> None:
        """Forget the audio."""
        self._chunks.clear()
        self._samples = self._prefix_samples = self._voiced_samples = 0
        self._early = None


def _seen(done: asyncio.Future[Transcript]) -> None:
    """Look at the exception of an early decode, which perhaps nobody waits for."""
    if not done.cancelled():
        done.exception()


def _failed(future: asyncio.Future[Transcript]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)


class StreamingHearing:
    """Feeds the utterance to a streaming recogniser as it arrives.

    Audio waits outside the pool and is taken by whichever call runs first, so that a question is never behind audio
    that waits for a worker at a lower priority.
    """

    def __init__(self, engine: StreamingRecognizer, pool: WorkerPool) -> None:
        self._stream: RecognizerStream = engine.open()
        self._pool = pool
        self._waiting: deque[PcmFloat] = deque()
        self._feeding: asyncio.Task[None] | None = None
        self._alone = threading.Lock()  # calls on one stream must not overlap; held for one step, about 5 ms
        self._failure: EngineError | None = None
        self.partial = ""
        """The text so far."""

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio and have it decoded in the background; how long the voice is silent does not matter."""
        self._waiting.append(pcm)
        if self._feeding is None or self._feeding.done():
            self._feeding = asyncio.create_task(self._drain(), name="asr-feed")

    async def _drain(self) -> None:
        while self._waiting and self._failure is None:
            try:
                self.partial = await self._pool.submit(self._accept, Priority.PARTIAL)
            except JobDropped:  # the pool is closing
                return
            except EngineError as error:  # said when the text is asked for
                self._failure = error

    def _accept(self) -> str:
        with self._alone:
            return self._take()

    def _finish(self) -> Transcript:
        with self._alone:
            if self._waiting:
                self.partial = self._take()
            return self._stream.finish()

    def _take(self) -> str:
        """Decode what waits; the loop may append meanwhile."""
        chunks = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not chunks:
            return self.partial
        return self._stream.accept(np.concatenate(chunks))

    async def transcribe(
        self, priority: Priority, is_stale: Callable[[], bool], provisional: Callable[[Transcript], None]
    ) -> Transcript:
        """Decode what waits, flush, and return the whole text; nothing is provisional."""
        if self._failure is not None:
            raise self._failure
        return await self._pool.submit(self._finish, priority, is_stale)

    def close(self) -> None:
        """Stop decoding in the background."""
        if self._feeding is not None:
            self._feeding.cancel()


class TwoPassHearing:
    """Asks a streaming recogniser for a provisional text and an offline one for the text that counts.

    Probes (speech over a reply) want to know only whether words were said: the streaming text answers them.
    """

    def __init__(self, engine: TwoPass, pool: WorkerPool, early: EarlyDecodes) -> None:
        self._streaming = StreamingHearing(engine.streaming, pool)
        self._offline = OfflineHearing(engine.offline, pool, early)

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio to both."""
        self._streaming.feed(pcm)
        self._offline.feed(pcm, silence_ms)

    async def transcribe(
        self, priority: Priority, is_stale: Callable[[], bool], provisional: Callable[[Transcript], None]
    ) -> Transcript:
        """Recognise with both at once; the streaming one goes first where there is one worker."""
        if priority is not Priority.FINAL:
            return await self._streaming.transcribe(priority, is_stale, provisional)
        if self._offline.ready:
            return await self._offline.transcribe(priority, is_stale, provisional)
        confirming = asyncio.create_task(
            self._offline.transcribe(priority, is_stale, provisional), name="asr-confirm"
        )  # begins when this coroutine first waits, that is behind the question to the streaming recogniser
        try:
            first = await self._first(priority, is_stale)
            if not first.text or confirming.done():
                return await confirming
            provisional(first)
            try:
                async with asyncio.timeout(CONFIRM_MOST_S):
                    return await confirming
            except TimeoutError:
                _log.warning(
                    "recognition not confirmed within %g s, going on with the provisional text", CONFIRM_MOST_S
                )
                return first
        finally:
            confirming.cancel()
            await asyncio.gather(confirming, return_exceptions=True)

    async def _first(self, priority: Priority, is_stale: Callable[[], bool]) -> Transcript:
        try:
            return await self._streaming.transcribe(priority, is_stale, lambda _text: None)
        except EngineError as error:
            _log.warning("no provisional text: %s", error)
            return Transcript("")

    def close(self) -> None:
        """Forget the audio."""
        self._streaming.close()
        self._offline.close()


class Ears:
    """The shared recogniser with its pool: opens a `Hearing` for each utterance.

    Args:
        engine: the recogniser.
        pool: the threads it runs in.
        early_decode: decode at the first silence of an utterance when a thread is idle.
        most_waiting: jobs that may wait for a thread.
    """

    def __init__(
        self, engine: Recognizer, pool: WorkerPool, *, early_decode: bool = True, most_waiting: int = 40
    ) -> None:
        self.engine = engine
        self.pool = pool
        self._most_waiting = most_waiting
        self.early = EarlyDecodes(allowed=early_decode)

    @property
    def full(self) -> bool:
        """So much waits for recognition that another answer would come too late to be worth waiting for."""
        return self.pool.waiting >= self._most_waiting

    def open(self) -> Hearing:
        """Begin an utterance."""
        if isinstance(self.engine, TwoPass):
            return TwoPassHearing(self.engine, self.pool, self.early)
        if isinstance(self.engine, StreamingRecognizer):
            return StreamingHearing(self.engine, self.pool)
        return OfflineHearing(self.engine, self.pool, self.early)
