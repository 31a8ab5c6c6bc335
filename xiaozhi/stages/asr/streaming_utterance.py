"""An utterance on its way to text with a recogniser that hears while somebody speaks."""

import asyncio
import threading
from collections import deque
from collections.abc import Callable

import numpy as np

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool
from xiaozhi.stages.asr.engine import EngineError, RecognizerStream, StreamingRecognizer, Transcript
from xiaozhi.stages.asr.load_gates import Partials, Say


class StreamingHearing:
    """Feeds the utterance to a streaming recogniser as it arrives.

    Audio waits outside the pool and is taken by whichever call runs first, so that a question is never behind audio
    that waits for a worker at a lower priority. Utterances are not batched: see `stages/asr/zipformer.py`.

    Args:
        engine: the recogniser.
        pool: the threads it runs in.
        partials: whether the text so far is shown.
        say: takes it; None where nobody wants it.
    """

    def __init__(
        self,
        engine: StreamingRecognizer,
        pool: WorkerPool,
        *,
        partials: Partials | None = None,
        say: Say | None = None,
    ) -> None:
        self._partials = partials or Partials()
        self._say = say
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
                before = self.partial
                self.partial = await self._pool.submit(self._accept, Priority.PARTIAL)
                if self.partial and self.partial != before:
                    self._show(self.partial)
            except JobDropped:  # the pool is closing
                return
            except EngineError as error:  # said when the text is asked for
                self._failure = error

    def _show(self, text: str) -> None:
        if self._say is not None and self._partials.on:
            self._partials.shown += 1
            self._say(text)

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
        self,
        priority: Priority,
        is_stale: Callable[[], bool],
        provisional: Callable[[Transcript], None],
        *,
        held: bool = True,
    ) -> Transcript:
        """Decode what waits, flush, and return the whole text; nothing is provisional."""
        if self._failure is not None:
            raise self._failure
        return await self._pool.submit(self._finish, priority, is_stale)

    def close(self) -> None:
        """Stop decoding in the background; nothing is shown any more."""
        self._say = None
        if self._feeding is not None:
            self._feeding.cancel()
