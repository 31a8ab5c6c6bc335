"""The recogniser in use, shared by all conversations, and what it decodes with."""

import logging
from weakref import WeakSet

from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.stages.asr.decoding import Decoding, TranscriptCache
from xiaozhi.stages.asr.recogniser import Recognizer, Say, Utterance

_log = logging.getLogger(__name__)


class Recognition(Decoding):
    """Opens an utterance for each thing that is said.

    Args:
        engine: the recogniser.
        pool: the threads that local models run in.
        settings: what is decoded unasked, how many as one, how many may wait.
        cache: whether transcripts are kept, and how many; None keeps none.
    """

    def __init__(
        self,
        engine: Recognizer,
        pool: WorkerPool,
        settings: AsrSettings | None = None,
        cache: CacheSettings | None = None,
    ) -> None:
        super().__init__(pool)
        self.engine = engine
        self.utterances: WeakSet[Utterance] = WeakSet()
        """Those that are heard with the present engine."""
        if cache is not None and cache.recognition:
            self.cache = TranscriptCache(cache.recognition_ttl_s, cache.recognition_entries)
        self._follow(settings or AsrSettings())

    def _follow(self, settings: AsrSettings) -> None:
        self.early.wanted, self.partials.wanted = settings.early_decode, settings.partials
        self.second_pass.wanted, self.second_pass.wait_s = settings.early_decode, settings.second_pass_wait_ms / 1000.0
        self.batch_size, self._max_waiting = settings.batch_size, settings.max_concurrent
        self.max_wait_s = settings.max_wait_s
        if self.batch_size > 1 and not self.engine.batches:
            _log.warning("asr.batch_size has no effect: %s recognises one utterance at a time", self.engine.name)

    def exchange(self, engine: Recognizer, settings: AsrSettings, cache: CacheSettings) -> WeakSet[Utterance]:
        """Hear every further utterance with this engine and by these settings; open ones stay with the one they have.

        Returns:
            The open ones: while any of them is left the former engine, if it is another, must not be closed.
        """
        before = self.utterances
        if engine is not self.engine:
            self.engine = engine
            self.utterances = WeakSet()
            if self.cache is not None:  # another engine hears other words
                self.cache = TranscriptCache(cache.recognition_ttl_s, cache.recognition_entries)
        elif self.cache is not None:
            self.cache.resize(cache.recognition_ttl_s, cache.recognition_entries)
        self._follow(settings)
        return before

    @property
    def full(self) -> bool:
        """So much waits for recognition that another answer would come too late to be worth waiting for."""
        return self.pool.waiting >= self._max_waiting

    def begin(self, say: Say | None = None) -> Utterance:
        """Begin an utterance; `say` takes its text while it goes on."""
        utterance = self.engine.open(self, say)
        self.utterances.add(utterance)
        return utterance
