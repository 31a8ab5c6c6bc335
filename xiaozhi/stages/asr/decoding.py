"""What the recognisers of a process share: threads, transcripts of sound that is known, what may be done unasked."""

import hashlib
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from cachetools import TLRUCache

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.stages.asr.engine import Transcript


@dataclass(slots=True)
class EarlyDecodes:
    """Decodes of utterances that were perhaps over, begun by idle workers before anybody asked.

    Attributes:
        allowed: set to False under the heaviest load: nothing is decoded before it is asked for.
        wanted: by the settings.
        begun: how many there were.
        used: how many were the answer to a question; the others were wasted.
        leave: workers that stay idle beside them, where there are more than one.
    """

    allowed: bool = True
    wanted: bool = True
    begun: int = 0
    used: int = 0
    leave: int = 0

    @property
    def on(self) -> bool:
        """They are wanted and allowed."""
        return self.wanted and self.allowed


@dataclass(slots=True)
class Partials(EarlyDecodes):
    """Texts of utterances that go on, for the device to show; nothing is decoded for them and shown under load.

    Attributes:
        begun: decodes made for them; a streaming recogniser needs none.
        shown: how many texts were handed over.
        dropped: how many came when a newer one was known, or the utterance was over.
    """

    wanted: bool = False
    leave: int = 1  # a partial text is worth less than anybody's answer
    shown: int = 0
    dropped: int = 0


@dataclass(slots=True)
class SecondPass(EarlyDecodes):
    """Whole decodes that confirm what a streaming recogniser has heard; none under load.

    Attributes:
        begun: those that idle workers began before anybody asked, and `used`, `wanted` likewise.
        wait_s: what has not begun so long after it was asked for is left out.
        left_out: streamed texts that were answered without one.
    """

    leave: int = 1  # streams are first
    wait_s: float = math.inf
    left_out: int = 0


class TranscriptCache:
    """Transcripts of one recogniser by exactly the same samples. Thread-safe.

    Hashing costs 0.1 ms for 3 s of audio, a decode of them 100 ms and more.

    Args:
        ttl_s: how long a transcript is kept, in seconds.
        max_entries: of transcripts; the least recently used is forgotten first.
        clock: monotonic time in seconds.
    """

    def __init__(self, ttl_s: float, max_entries: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.hits = 0
        """Decodes saved."""
        self.misses = 0
        """Decodes made."""
        self._ttl_s = ttl_s
        self._clock = clock
        self._known: TLRUCache[bytes, Transcript] = self._table(max_entries)
        self._lock = threading.Lock()

    def _table(self, max_entries: int) -> TLRUCache[bytes, Transcript]:
        return TLRUCache(max_entries, ttu=lambda _key, _value, now_s: now_s + self._ttl_s, timer=self._clock)

    def resize(self, ttl_s: float, max_entries: int) -> None:
        """Other limits from now on."""
        with self._lock:
            self._ttl_s = ttl_s
            if max_entries != self._known.maxsize:
                known, self._known = self._known, self._table(max_entries)
                self._known.update(known)

    def __len__(self) -> int:
        """How many transcripts are kept."""
        return len(self._known)

    def decode(self, pcm: PcmFloat, decode: Callable[[PcmFloat], Transcript]) -> Transcript:
        """The transcript of float32[n] at 16 kHz, by `decode` where it is not known; what that raises is not kept."""
        return self.decode_many([pcm], lambda pcms: [decode(pcms[0])])[0]

    def decode_many(
        self, pcms: Sequence[PcmFloat], decode_many: Callable[[Sequence[PcmFloat]], Sequence[Transcript]]
    ) -> list[Transcript]:
        """The transcripts of several utterances in their order; only those that are not known are decoded."""
        keys = [hashlib.blake2b(np.ascontiguousarray(pcm).data, digest_size=16).digest() for pcm in pcms]
        with self._lock:
            found = [self._known.get(key) for key in keys]
        unknown = [index for index, transcript in enumerate(found) if transcript is None]
        self.hits += len(found) - len(unknown)
        self.misses += len(unknown)
        if unknown:
            made = decode_many([pcms[index] for index in unknown])
            with self._lock:
                for index, transcript in zip(unknown, made, strict=True):
                    found[index] = self._known[keys[index]] = transcript
        return [transcript for transcript in found if transcript is not None]


@dataclass(slots=True)
class Decoding:
    """What recognisers decode with.

    Attributes:
        pool: the threads of local models.
        early: whether utterances are decoded before anybody asks.
        partials: whether texts are shown while somebody speaks.
        second_pass: whether streamed texts are confirmed by a whole decode.
        batch_size: utterances that are decoded as one where that many wait for a thread and the engine can.
        cache: transcripts of the recogniser in use; None keeps none.
    """

    pool: WorkerPool
    early: EarlyDecodes = field(default_factory=EarlyDecodes)
    partials: Partials = field(default_factory=Partials)
    second_pass: SecondPass = field(default_factory=SecondPass)
    batch_size: int = 1
    cache: TranscriptCache | None = None
