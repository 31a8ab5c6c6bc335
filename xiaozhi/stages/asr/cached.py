"""A recogniser that knows audio again: exactly the same samples are decoded once."""

import hashlib
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.stages.asr.engine import BatchRecognizer, OfflineRecognizer, Recognizer, Transcript
from xiaozhi.stages.asr.known_languages import languages_of
from xiaozhi.stages.asr.remote import WithFallback
from xiaozhi.stages.asr.two_pass import TwoPass


class CachedRecognizer:
    """An offline recogniser behind a bounded memory of transcripts. Thread-safe, as the recogniser is.

    Hashing costs 0.1 ms for 3 s of audio, a decode of them 100 ms and more.

    Args:
        engine: decodes what is not known.
        ttl_s: how long a transcript is remembered, in seconds.
        max_entries: of transcripts; the least recently used is forgotten first.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        engine: OfflineRecognizer,
        ttl_s: float,
        max_entries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = engine.name
        self.languages = languages_of(engine)
        self.engine = engine
        self.hits = 0
        """Decodes saved."""
        self.misses = 0
        """Decodes made."""
        self._ttl_s = ttl_s
        self._max_entries = max_entries
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Transcript]] = OrderedDict()
        self._lock = threading.Lock()

    def resize(self, ttl_s: float, max_entries: int) -> None:
        """Other limits from now on; what is remembered keeps the life it was given."""
        with self._lock:
            self._ttl_s, self._max_entries = ttl_s, max_entries
            while len(self._known) > max_entries:
                self._known.popitem(last=False)

    def __len__(self) -> int:
        """How many transcripts are remembered."""
        return len(self._known)

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz. Blocking.

        Raises:
            EngineError: the recogniser failed; nothing is remembered.
        """
        key = _key(pcm)
        transcript = self._find(key)
        if transcript is None:
            transcript = self.engine.decode(pcm)
            self._keep(key, transcript)
        return transcript

    def close(self) -> None:
        """Forget everything and close the recogniser."""
        with self._lock:
            self._known.clear()
        self.engine.close()

    def _find(self, key: bytes) -> Transcript | None:
        with self._lock:
            known = self._known.get(key)
            if known is not None and known[0] > self._clock():
                self._known.move_to_end(key)
                self.hits += 1
                return known[1]
            self.misses += 1
            return None

    def _keep(self, key: bytes, transcript: Transcript) -> None:
        with self._lock:
            self._known[key] = (self._clock() + self._ttl_s, transcript)
            self._known.move_to_end(key)
            while len(self._known) > self._max_entries:
                self._known.popitem(last=False)


class CachedBatchRecognizer(CachedRecognizer):
    """The same for a recogniser that decodes several utterances as one.

    Args:
        engine: decodes what is not known.
        ttl_s: how long a transcript is remembered, in seconds.
        max_entries: of transcripts.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        engine: BatchRecognizer,
        ttl_s: float,
        max_entries: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(engine, ttl_s, max_entries, clock)
        self._batch = engine

    def decode_many(self, pcms: Sequence[PcmFloat]) -> list[Transcript]:
        """Recognise utterances; only those that are not known are decoded. Blocking.

        Raises:
            EngineError: the recogniser failed.
        """
        keys = [_key(pcm) for pcm in pcms]
        found = [self._find(key) for key in keys]
        unknown = [index for index, transcript in enumerate(found) if transcript is None]
        if unknown:
            for index, transcript in zip(
                unknown, self._batch.decode_many([pcms[index] for index in unknown]), strict=True
            ):
                found[index] = transcript
                self._keep(keys[index], transcript)
        return [transcript for transcript in found if transcript is not None]


def remember(recognizer: Recognizer, settings: CacheSettings) -> Recognizer:
    """The recogniser with a memory, where the settings want one and it decodes whole utterances."""
    if not settings.recognition:
        return recognizer
    if isinstance(recognizer, WithFallback):  # what is paid for is remembered by the utterance it belongs to
        recognizer.local = _with_memory(recognizer.local, settings)
        return recognizer
    if isinstance(recognizer, TwoPass):
        return TwoPass(recognizer.streaming, _with_memory(recognizer.offline, settings))
    return _with_memory(recognizer, settings) if isinstance(recognizer, OfflineRecognizer) else recognizer


def memory_of(recognizer: Recognizer) -> CachedRecognizer | None:
    """The memory that `remember` has put before a recogniser; None where there is none."""
    if isinstance(recognizer, WithFallback):
        recognizer = recognizer.local
    elif isinstance(recognizer, TwoPass):
        recognizer = recognizer.offline
    return recognizer if isinstance(recognizer, CachedRecognizer) else None


def _with_memory(engine: OfflineRecognizer, settings: CacheSettings) -> CachedRecognizer:
    kind = CachedBatchRecognizer if isinstance(engine, BatchRecognizer) else CachedRecognizer
    return kind(engine, settings.recognition_ttl_s, settings.recognition_entries)  # type: ignore[arg-type]  # just seen


def _key(pcm: PcmFloat) -> bytes:
    return hashlib.blake2b(np.ascontiguousarray(pcm).data, digest_size=16).digest()
