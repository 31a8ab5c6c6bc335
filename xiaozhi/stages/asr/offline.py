"""Recognisers on this machine that decode whole utterances."""

import asyncio
import functools
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.concurrency.workers import Batch, Priority, WorkerPool
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import EngineError, Transcript, join
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance

_log = logging.getLogger(__name__)

# An utterance that went on after a soft end is decoded from there on, once its first part is this long: decoding time
# grows faster than length, and the text of the first part is known already. What the cut costs in words was measured
# (`python -m bench.prefix_cut`) with zipformers that were given each part as a whole: English 12.7 % word errors in
# parts, 15.8 % all at once (17 utterances); of the letters of Mandarin 3.1 % changed (35 utterances). The answer then
# needs 3.6 s decoded, not 8 s.
MIN_PREFIX_S: Final = 3.0
# Silence, in audio time, after which an utterance is decoded early in case it is over: the first silent window of the
# VAD. Measured on 112 recordings in packets of 60 ms: 92 ms before a soft end of 128 ms, and 1.14 decodes for each soft
# end (60 ms: 67 ms before, 1.11 decodes). A zipformer's words for audio that ends 32 ms behind the last voiced sample
# are as good as for audio that ends at the soft end (3 and 4 of 111 differ from those with 600 ms more; of joined
# recordings no English word does, and 0.2 % of the letters of Mandarin).
EARLY_SILENCE_MS: Final = 30.0
# Silence behind the last voiced sample that is decoded when a question comes late, as it does under load: without
# speculation after 0.4 to 1.2 s. Two streaming zipformers answer the same as with 700 ms of it for all of 54 Mandarin
# and 54 of 57 English recordings (60 ms: the same; 30 ms: 52), and an early decode has 30 to 60 ms. The lead-in stays:
# with 160 ms of it in place of 320 ([vad] pre_roll_ms) a third of the recordings changes, in one way or the other.
MAX_HANGOVER_MS: Final = 100.0
# Audio behind an early decode that may go undecoded because the VAD found no voice in it, where a key is held: then a
# whisper that the VAD misses is heard. Whoever holds no key is answered by what the VAD finds, and by nothing else.
MAX_UNHEARD_S: Final = 0.6
# New speech that makes another partial text worth a decode; and the share of what must be decoded that must be new, so
# that all partial decodes of a long utterance together cost about five times its last one, not the square of its
# length.
PARTIAL_EVERY_S: Final = 0.6
PARTIAL_NEW_SHARE: Final = 0.2
# Who was quicker to say something may come later, by so many seconds for each second less, and still be decoded first.
# Simulated with two workers at 95 % of what they can do: half of the users are heard after 0.47 s for 0.56 s first come
# first served, 90 % after 1.27 for 1.39 s, the last after 3.9 for 2.7 s; with 1 s: 0.42, 1.15 and 5.6 s.
PATIENCE: Final = 0.25


class OfflineRecognizer(Recognizer):
    """The base of engines that decode a whole utterance at once; they have to write `decode` alone."""

    lone: "OfflineRecognizer | None" = None
    """The same with more threads, for when nobody else is being recognised: soonest, at a higher price."""
    _batch: Batch[PcmFloat, Transcript] | None = None

    @abstractmethod
    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz. Blocking, thread-safe, holds the GIL for less than 5 ms at a time.

        Raises:
            EngineError: it failed on this audio.
        """

    def decode_many(self, pcms: Sequence[PcmFloat]) -> list[Transcript]:
        """Recognise utterances, each float32[n] at 16 kHz; the transcripts come in their order. Blocking."""
        return [self.decode(pcm) for pcm in pcms]

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance."""
        return OfflineUtterance(self, decoding, say)

    def batch(self, decoding: Decoding) -> Batch[PcmFloat, Transcript] | None:
        """What several conversations ask at once is decoded as one; None where settings or engine do not allow it."""
        if not self.batches or decoding.batch_size <= 1:
            return None
        if self._batch is None or self._batch.most != decoding.batch_size:
            cache, many = decoding.cache, self.decode_many
            self._batch = Batch(
                many if cache is None else lambda pcms: cache.decode_many(pcms, many), decoding.batch_size
            )
        return self._batch

    async def warm(self, pool: WorkerPool) -> None:
        """Decode a second of faint noise once."""
        await pool.run(self.decode, faint_noise())


def faint_noise() -> PcmFloat:
    """A second in which nothing is said, float32[16000] at 16 kHz."""
    return np.random.default_rng(1).normal(0.0, 1e-3, UPLINK_RATE_HZ).astype(np.float32)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """A decode from sample `start` to sample `end`, behind the text `prefix` of what lies before.

    `in_silence`: begun because the utterance was perhaps over; otherwise in the middle of speech, for a partial text.
    """

    prefix: Transcript
    start: int
    end: int
    tail: asyncio.Future[Transcript]
    in_silence: bool

    @property
    def reaches(self) -> int:
        """The last voiced sample for which this is the whole text: a last sound needs a little silence behind it."""
        return self.end if self.in_silence else self.end - round(EARLY_SILENCE_MS * UPLINK_RATE_HZ / 1000.0)


class OfflineUtterance:
    """Buffers the utterance and decodes it whole, or from the last long-enough part that is decoded already.

    Idle workers decode ahead: when the voice falls silent, in case the utterance is over, and, where partial texts are
    shown, while it goes on. If nothing voiced follows, the text is the answer to the question at the soft end. At most
    one such decode of a kind runs at a time, and the one in silence does not wait for the other.

    Args:
        engine: the recogniser.
        decoding: what it decodes with.
        say: takes the partial texts; None where nobody wants them.
    """

    def __init__(self, engine: OfflineRecognizer, decoding: Decoding, say: Say | None = None) -> None:
        self._engine = engine
        self._pool = decoding.pool
        self._early = decoding.early
        self._partials = decoding.partials
        self._cache = decoding.cache
        self._batch = engine.batch(decoding)
        self._say = say
        self._chunks: list[PcmFloat] = []
        self._samples = 0
        self._voiced_samples = 0  # up to the last voiced one
        self._prefix = Transcript("")
        self._prefix_samples = 0
        self._ahead: _Ahead | None = None
        self._known_samples = 0  # up to where a text has been shown or answered

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio."""
        self._chunks.append(pcm)
        self._samples += len(pcm)
        self._voiced_samples = self._samples - round(silence_ms * UPLINK_RATE_HZ / 1000.0)
        if silence_ms >= EARLY_SILENCE_MS and self._early.on:
            self._decode_ahead(in_silence=True)
        elif self._partial_is_due():
            self._decode_ahead(in_silence=False)

    def _partial_is_due(self) -> bool:
        if self._say is None or not self._partials.on:
            return False
        last = max(self._prefix_samples, self._ahead.end if self._ahead is not None else 0)
        tail = self._samples - self._prefix_samples
        return self._voiced_samples - last >= max(PARTIAL_EVERY_S * UPLINK_RATE_HZ, PARTIAL_NEW_SHARE * tail)

    def _decode_ahead(self, *, in_silence: bool) -> None:
        """Begin to decode, unless that would add nothing or nobody has time."""
        ahead = self._ahead
        if ahead is not None and (
            ahead.reaches >= self._voiced_samples or (not ahead.tail.done() and (ahead.in_silence or not in_silence))
        ):
            return
        prefix, start, end = self._prefix, self._prefix_samples, self._samples
        if start >= self._voiced_samples:
            return
        pcm = self._audio()[start:end]
        kind = self._early if in_silence else self._partials
        tail = self._pool.start_if_idle(lambda: self._decode(pcm), leave=min(kind.leave, self._pool.workers - 1))
        if tail is None:
            return
        kind.begun += 1
        self._ahead = _Ahead(prefix, start, end, tail, in_silence)
        tail.add_done_callback(functools.partial(self._decoded_ahead, self._ahead))

    def _decoded_ahead(self, ahead: _Ahead, done: asyncio.Future[Transcript]) -> None:
        """Say what was said so far, and look at the exception of a decode that perhaps nobody waits for."""
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            if not ahead.in_silence:  # the other is said when its text is asked for
                _log.warning("recognition of a partial text failed: %s", error)
            return
        settled = ahead.in_silence and ahead.reaches >= self._voiced_samples
        if not settled and not self._partials.on:
            return
        if self._say is None or ahead.end <= self._known_samples:
            self._partials.dropped += self._partials.on
            return
        self._known_samples = ahead.end
        whole = join(ahead.prefix, done.result())
        if whole.text:
            self._partials.shown += self._partials.on
            self._say(whole.text, whole) if settled else self._say(whole.text)

    @property
    def covered(self) -> bool:
        """A decode ahead has all that may be speech, so that its text, there or nearly there, is the whole text."""
        return self._covers(held=True)

    def _covers(self, *, held: bool) -> bool:
        ahead = self._ahead
        if ahead is None or ahead.reaches < self._voiced_samples or _failed(ahead.tail):
            return False
        return not held or self._samples - ahead.end <= MAX_UNHEARD_S * UPLINK_RATE_HZ

    @property
    def ready(self) -> bool:
        """The whole text is known without waiting."""
        return self.covered and self._ahead is not None and self._ahead.tail.done()

    async def transcribe(self, question: Question) -> Transcript:
        """Decode what is not decoded yet and join it to what is; nothing is provisional."""
        ahead = self._ahead
        if ahead is not None and self._covers(held=question.held):
            try:
                tail = await asyncio.shield(ahead.tail)
            except EngineError as error:
                _log.warning("early recognition failed, trying again: %s", error)
            else:
                (self._early if ahead.in_silence else self._partials).used += 1
                return self._join(ahead.prefix, tail, ahead.start, ahead.end, question.priority)
        prefix, start, end = self._prefix, self._prefix_samples, self._samples
        if not question.held:  # silence has no words, and costs as much as speech
            end = max(start, min(end, self._voiced_samples + round(MAX_HANGOVER_MS * UPLINK_RATE_HZ / 1000.0)))
        pcm = self._audio()[start:end]
        if not len(pcm):
            return prefix
        # The shortest of equals first: so the many wait least, and none is overtaken by who comes much later.
        handicap_s, within_s = PATIENCE * len(pcm) / UPLINK_RATE_HZ, question.within_s
        who = (question.priority, question.is_stale)
        if self._batch is not None:
            tail = await self._pool.submit_to(self._batch, pcm, *who, handicap_s=handicap_s, within_s=within_s)
        else:
            tail = await self._pool.submit(lambda: self._decode(pcm), *who, handicap_s=handicap_s, within_s=within_s)
        return self._join(prefix, tail, start, end, question.priority)

    def _decode(self, pcm: PcmFloat) -> Transcript:
        """In a worker."""
        lone = self._engine.lone
        decode = lone.decode if lone is not None and self._pool.lone else self._engine.decode
        return decode(pcm) if self._cache is None else self._cache.decode(pcm, decode)

    def _join(self, prefix: Transcript, tail: Transcript, start: int, end: int, priority: Priority) -> Transcript:
        whole = join(prefix, tail)
        self._known_samples = max(self._known_samples, end)
        # Asked for at a pause, so a cut here does not go through a word.
        long_enough = end - start >= MIN_PREFIX_S * UPLINK_RATE_HZ
        if priority is Priority.FINAL and long_enough and whole.text and end > self._prefix_samples:
            self._prefix, self._prefix_samples = whole, end
        return whole

    def _audio(self) -> PcmFloat:
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        return self._chunks[0] if self._chunks else np.zeros(0, np.float32)

    def close(self) -> None:
        """Forget the audio; nothing is shown any more."""
        self._chunks.clear()
        self._samples = self._prefix_samples = self._voiced_samples = 0
        self._ahead = self._say = None


def _failed(future: asyncio.Future[Transcript]) -> bool:
    return future.done() and (future.cancelled() or future.exception() is not None)
