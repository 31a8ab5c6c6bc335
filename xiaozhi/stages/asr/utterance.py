"""One utterance on its way to text, over the shared recogniser and its pool."""

import logging
from collections.abc import Callable
from typing import Protocol
from weakref import WeakSet

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import Batch, Priority, WorkerPool
from xiaozhi.stages.asr.engine import BatchRecognizer, Recognizer, StreamingRecognizer, Transcript
from xiaozhi.stages.asr.load_gates import EarlyDecodes, Partials, Say
from xiaozhi.stages.asr.offline_utterance import OfflineHearing
from xiaozhi.stages.asr.remote import WithFallback
from xiaozhi.stages.asr.remote_utterance import RemoteHearing
from xiaozhi.stages.asr.streaming_utterance import StreamingHearing
from xiaozhi.stages.asr.two_pass import TwoPass
from xiaozhi.stages.asr.two_pass_utterance import TwoPassHearing

_log = logging.getLogger(__name__)


class Hearing(Protocol):
    """What has been heard of one utterance."""

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add float32[n] at 16 kHz, after which the voice has been silent for `silence_ms`. Never waits."""
        ...

    async def transcribe(
        self,
        priority: Priority,
        is_stale: Callable[[], bool],
        provisional: Callable[[Transcript], None],
        *,
        held: bool = True,
    ) -> Transcript:
        """Recognise everything fed so far. More may be fed while this runs and afterwards.

        Args:
            priority: of the decode.
            is_stale: nobody waits for the answer any more.
            provisional: called at most once, with a text that is known before the one that is returned.
            held: a key is held, and a long silence may hold a whisper that the VAD missed; otherwise all that is
                silent holds nothing, and what has been recognised up to there is the whole text.

        Raises:
            JobDropped: `is_stale()` became true before a worker was free, or the pool is closed.
            EngineError: recognition failed.
        """
        ...

    def close(self) -> None:
        """Forget the audio; a running call is left to finish."""
        ...


class Ears:
    """The shared recogniser with its pool: opens a `Hearing` for each utterance.

    Args:
        engine: the recogniser.
        pool: the threads it runs in.
        early_decode: decode at the first silence of an utterance when a thread is idle.
        partials: hand over texts while somebody speaks.
        batch_size: utterances that are decoded as one where that many wait for a thread.
        max_waiting: jobs that may wait for a thread.
    """

    def __init__(
        self,
        engine: Recognizer,
        pool: WorkerPool,
        *,
        early_decode: bool = True,
        partials: bool = False,
        batch_size: int = 1,
        max_waiting: int = 40,
    ) -> None:
        self.engine = engine
        self.pool = pool
        self._max_waiting = max_waiting
        self.early = EarlyDecodes(wanted=early_decode)
        self.partials = Partials(wanted=partials)
        self.batch = _batch_of(engine, batch_size)
        """What several conversations ask at once is decoded as one, where the settings and the engine allow it."""
        self.hearings: WeakSet[Hearing] = WeakSet()
        """Utterances that are heard with the present engine."""

    def exchange(
        self, engine: Recognizer, *, early_decode: bool, partials: bool, batch_size: int, max_waiting: int
    ) -> WeakSet[Hearing]:
        """Hear every further utterance with this engine and in this manner; open ones stay with the one they have.

        Returns:
            The open ones: while any of them is left the former engine, if it is another, must not be closed.
        """
        before = self.hearings
        if engine is not self.engine:
            self.hearings = WeakSet()
        self.engine = engine
        self.batch = _batch_of(engine, batch_size)
        self.early.wanted, self.partials.wanted = early_decode, partials
        self._max_waiting = max_waiting
        return before

    @property
    def full(self) -> bool:
        """So much waits for recognition that another answer would come too late to be worth waiting for."""
        return self.pool.waiting >= self._max_waiting

    def open(self, say: Say | None = None) -> Hearing:
        """Begin an utterance; `say` takes its text while it goes on, where `partials` are on."""
        hearing = self._open(say)
        self.hearings.add(hearing)
        return hearing

    def _open(self, say: Say | None) -> Hearing:
        if isinstance(self.engine, WithFallback):  # partial texts would cost a request each
            early = self.early if self.engine.settings.early_decode else None
            return RemoteHearing(self.engine, self.pool, early)
        if isinstance(self.engine, TwoPass):
            return TwoPassHearing(self.engine, self.pool, self.early, partials=self.partials, say=say, batch=self.batch)
        if isinstance(self.engine, StreamingRecognizer):
            return StreamingHearing(self.engine, self.pool, partials=self.partials, say=say)
        return OfflineHearing(self.engine, self.pool, self.early, partials=self.partials, say=say, batch=self.batch)


def _batch_of(engine: Recognizer, size: int) -> Batch[PcmFloat, Transcript] | None:
    if size <= 1:
        return None
    offline = engine.offline if isinstance(engine, TwoPass) else engine
    if isinstance(offline, BatchRecognizer):
        return Batch(offline.decode_many, size)
    _log.warning("asr.batch_size has no effect: %s recognises one utterance at a time", engine.name)
    return None
