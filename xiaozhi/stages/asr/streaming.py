"""Recognisers on this machine that decode while somebody speaks."""

import asyncio
import threading
from abc import abstractmethod
from collections import deque
from typing import Protocol

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.offline import EARLY_SILENCE_MS, MAX_UNHEARD_S, faint_noise
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance


class ModelStream(Protocol):
    """One utterance in a streaming model. Calls on one stream never overlap."""

    @property
    def wants_samples(self) -> int:
        """So much more sound makes another step of the model possible: less need not be handed over."""
        ...

    def accept(self, pcm: PcmFloat) -> str:
        """Feed float32[n] at 16 kHz, decode what is ready and return the text so far. Blocking."""
        ...

    def so_far(self, *, stop_words: bool) -> Transcript:
        """The text up to here, of somebody who goes on speaking; words that ask for silence first, if wanted. Blocking.

        It leaves the stream as it is.
        """
        ...

    def finish(self) -> Transcript:
        """Flush with silence and return the whole text. More audio may follow: the user went on. Blocking."""
        ...


class StreamingRecognizer(Recognizer):
    """The base of engines that decode as sound comes; they have to write `begin` and its stream alone."""

    @abstractmethod
    def begin(self) -> ModelStream:
        """Begin an utterance. Cheap; safe from any thread."""

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance."""
        return StreamingUtterance(self, decoding, say)

    async def warm(self, pool: WorkerPool) -> None:
        """Decode a second of faint noise once."""
        stream = self.begin()
        await pool.run(stream.accept, faint_noise())
        await pool.run(stream.finish)


class StreamingUtterance:
    """Feeds the utterance to a streaming recogniser as it arrives, once for each step of the model.

    When the voice falls silent an idle worker flushes the model at once: if nothing voiced follows, that is the text.

    Audio waits outside the pool and is taken by whichever call runs first, so that a question is never behind audio
    that waits for a worker at a lower priority. Utterances are not batched: see `stages/asr/zipformer.py`.

    Args:
        engine: the recogniser.
        decoding: what it decodes with.
        say: takes the text so far; None where nobody wants it.
    """

    def __init__(self, engine: StreamingRecognizer, decoding: Decoding, say: Say | None = None) -> None:
        self._partials, self._early = decoding.partials, decoding.early
        self._say = say
        self._stream = engine.begin()
        self._pool = decoding.pool
        self._fed_samples = 0  # counted on the loop
        self._taken_samples = 0  # counted where they are decoded
        self._voiced_samples = 0  # up to the last voiced one
        self._silence_ms = 0.0
        self._settled_samples = 0  # up to where `_settling` is the text
        self._settling: asyncio.Future[Transcript] | None = None
        self._waiting: deque[PcmFloat] = deque()
        self._feeding: asyncio.Task[None] | None = None
        self._alone = threading.Lock()  # calls on one stream must not overlap; held for one step, about 5 ms
        self._failure: EngineError | None = None
        self.partial = ""
        """The text so far."""

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio and have it decoded in the background."""
        self._waiting.append(pcm)
        self._fed_samples += len(pcm)
        self._voiced_samples = self._fed_samples - round(silence_ms * UPLINK_RATE_HZ / 1000.0)
        self._silence_ms = silence_ms
        self._settle()
        if self._step_is_due() and (self._feeding is None or self._feeding.done()):
            self._feeding = asyncio.create_task(self._drain(), name="asr-feed")

    @property
    def ready(self) -> bool:
        """The whole text is known without waiting."""
        return self._settling is not None and self._settling.done() and self._covers(held=True)

    def _covers(self, *, held: bool) -> bool:
        """Whether the model was flushed behind all that may be speech."""
        settling = self._settling
        if settling is None or self._settled_samples < self._voiced_samples:
            return False
        if settling.done() and (settling.cancelled() or settling.exception() is not None):
            return False
        return not held or self._fed_samples - self._settled_samples <= MAX_UNHEARD_S * UPLINK_RATE_HZ

    def _settle(self) -> None:
        """Flush the model where it is silent and that was not done, if nobody waits for a worker."""
        if self._silence_ms < EARLY_SILENCE_MS or not self._early.on or self._covers(held=False):
            return
        settling = self._pool.start_if_idle(self._finish)
        if settling is not None:
            self._early.begun += 1
            self._settling, self._settled_samples = settling, self._fed_samples
            settling.add_done_callback(self._settled)

    def _settled(self, settling: asyncio.Future[Transcript]) -> None:
        if settling.cancelled() or settling.exception() is not None:  # said when the text is asked for
            return
        said = settling.result()
        if said.text and self._say is not None and settling is self._settling and self._covers(held=False):
            self._partials.shown += self._partials.on
            self._say(said.text, said)

    def _step_is_due(self) -> bool:
        return bool(self._waiting) and self._fed_samples - self._taken_samples >= self._stream.wants_samples

    async def _drain(self) -> None:
        while self._step_is_due() and self._failure is None:
            try:
                before = self.partial
                self.partial = await self._pool.submit(self._accept, Priority.PARTIAL)
                if self.partial and self.partial != before:
                    self._show(self.partial)
                self._settle()
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

    def _probe(self) -> Transcript:
        with self._alone:
            if self._waiting:
                self.partial = self._take()
            return self._stream.so_far(stop_words=self._early.allowed)

    def _take(self) -> str:
        """Decode what waits; the loop may append meanwhile."""
        chunks = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not chunks:
            return self.partial
        pcm = np.concatenate(chunks)
        self._taken_samples += len(pcm)
        return self._stream.accept(pcm)

    async def transcribe(self, question: Question) -> Transcript:
        """Decode what waits, flush, and return the whole text; nothing is provisional."""
        if self._failure is not None:
            raise self._failure
        if self._settling is not None and self._covers(held=question.held):
            self._early.used += 1
            return await asyncio.shield(self._settling)
        call = self._probe if question.priority is Priority.PROBE else self._finish
        return await self._pool.submit(call, question.priority, question.is_stale, within_s=question.within_s)

    def close(self) -> None:
        """Stop decoding in the background; nothing is shown any more."""
        self._say = None
        if self._feeding is not None:
            self._feeding.cancel()
