"""Recognisers whose answers and moments a test decides, for the order of things around the real ones."""

import asyncio
import threading
from collections.abc import Callable

import numpy as np

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.stages.asr.recogniser import Say
from xiaozhi.stages.asr.streaming import StreamingRecognizer

RATE = 16_000


def sound(seconds: float, value: float = 0.1) -> PcmFloat:
    """float32[n] at 16 kHz; `value` tells pieces apart."""
    return np.full(round(seconds * RATE), value, np.float32)


async def until(condition: Callable[[], bool]) -> None:
    """Let other tasks and threads go on until something holds."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what a worker thread does has no event to wait for
            await asyncio.sleep(0.001)


def noting(texts: list[str]) -> Say:
    """Takes what an utterance says so far into a list."""
    return lambda text, _settled=None: texts.append(text)


class Offline(OfflineRecognizer):
    """Says how much it was given, in tenths of a second (`10` for a second), once it is let go.

    Attributes:
        decoded: the audio of every decode that has begun.
        begun: released once for every decode that begins.
        free: decodes wait for it.
        failing: what decodes raise.
    """

    name = "offline"

    def __init__(self) -> None:
        self.decoded: list[PcmFloat] = []
        self.begun = threading.Semaphore(0)
        self.free = threading.Event()
        self.free.set()
        self.failing: Exception | None = None
        self.closed = False

    def decode(self, pcm: PcmFloat) -> Transcript:
        """See the class."""
        self.decoded.append(pcm)
        self.begun.release()
        assert self.free.wait(10)
        if self.failing is not None:
            raise self.failing
        return Transcript(str(round(len(pcm) / RATE * 10)), language="en", emotion="happy")

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class Streaming(StreamingRecognizer):
    """Says how much it was given, like `Offline`; `failing` is raised by `accept`, `free` holds `finish` back."""

    name = "streaming"

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.free = threading.Event()
        self.free.set()
        self.failing: Exception | None = None
        self.closed = False

    def begin(self) -> "Stream":
        """Begin an utterance."""
        self.streams.append(Stream(self))
        return self.streams[-1]

    def close(self) -> None:
        """Remember it."""
        self.closed = True


class Stream:
    """One utterance; fails a test in which two calls overlap."""

    def __init__(self, engine: Streaming) -> None:
        self.wants_samples = 0
        self._engine = engine
        self._busy = threading.Lock()
        self.pieces: list[PcmFloat] = []

    def _text(self) -> str:
        return str(round(sum(map(len, self.pieces)) / RATE * 10))

    def accept(self, pcm: PcmFloat) -> str:
        """Add to what was given."""
        assert self._busy.acquire(blocking=False), "calls on one stream overlap"
        try:
            if self._engine.failing is not None:
                raise self._engine.failing
            self.pieces.append(pcm)
            return self._text()
        finally:
            self._busy.release()

    def so_far(self, *, stop_words: bool) -> Transcript:
        """The same: nothing is flushed here."""
        return self.finish()

    def finish(self) -> Transcript:
        """The whole."""
        assert self._busy.acquire(blocking=False), "calls on one stream overlap"
        try:
            assert self._engine.free.wait(10)
            return Transcript(self._text())
        finally:
            self._busy.release()
