"""Recognisers on other machines that are sent whole utterances."""

import asyncio
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.concurrency.workers import JobDropped
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.offline import EARLY_SILENCE_MS, MAX_UNHEARD_S
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance
from xiaozhi.stages.asr.remote_use import RemoteError, RemoteUse
from xiaozhi.stages.asr.tagged_text import to_transcript


class RemoteRecognizer(Recognizer):
    """The base of engines that recognise whole utterances on another machine; they have to write `recognise` alone.

    Args:
        settings: limits.
    """

    remote: RemoteUse

    def __init__(self, settings: RemoteAsrSettings) -> None:
        self.remote = RemoteUse(self.name, settings)

    @abstractmethod
    async def recognise(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz. Cancelling closes the request at once.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance; nothing is said while it goes on, because each text would cost a request."""
        return RequestUtterance(self, decoding)


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request for the first `samples` samples; `early`: begun before anybody asked."""

    samples: int
    task: asyncio.Task[Transcript]
    early: bool


class RequestUtterance:
    """Buffers the utterance and sends it whole.

    Requests cost money: one text serves every question until something voiced follows, at most one request of an
    utterance is under way, and one that is overtaken is closed. One that somebody waits for is overtaken by another
    question alone, and never by silence.

    Args:
        engine: the recogniser.
        decoding: whether to ask at the first silence, which `asr.remote.early_decode` has to allow as well.
    """

    ready = False

    def __init__(self, engine: RemoteRecognizer, decoding: Decoding) -> None:
        self._engine = engine
        self._early = decoding.early if engine.remote.settings.early_decode else None
        self._chunks: list[PcmFloat] = []
        self._samples = 0
        self._voiced_samples = 0  # up to the last voiced one
        self._asked: _Asked | None = None
        self._awaited = 0  # questions that wait for their answer

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio."""
        self._chunks.append(pcm)
        self._samples += len(pcm)
        self._voiced_samples = self._samples - round(silence_ms * UPLINK_RATE_HZ / 1000.0)
        early = self._early
        if early is None or not early.on or silence_ms < EARLY_SILENCE_MS or self._awaited:
            return
        if self._voiced_samples > (self._asked.samples if self._asked is not None else 0):
            early.begun += 1
            self._ask(early=True)

    def _covers(self, *, held: bool) -> bool:
        """Whether the last request has all that may be speech; one that is under way has where it has all voiced."""
        asked = self._asked
        if asked is None or asked.samples < self._voiced_samples or asked.task.cancelled():
            return False
        return not asked.task.done() or not held or self._samples - asked.samples <= MAX_UNHEARD_S * UPLINK_RATE_HZ

    async def transcribe(self, question: Question) -> Transcript:
        """Ask for the whole utterance, unless that text is known or on its way; nothing is provisional.

        Raises:
            RemoteError: the request failed, this one or an early one for the same words.
        """
        if not self._samples:
            return Transcript("")
        asked = self._asked if self._covers(held=question.held) else None
        if asked is None:
            asked = self._ask(early=False)
        elif asked.early and self._early is not None:
            self._early.used += 1
        self._awaited += 1
        try:
            return await asyncio.shield(asked.task)
        except asyncio.CancelledError:
            if asked.task.cancelled():
                raise JobDropped("overtaken") from None
            if self._asked is asked:  # the question was given up: nobody pays for the answer
                asked.task.cancel()
            raise
        finally:
            self._awaited -= 1

    def close(self) -> None:
        """Forget the audio and close the request."""
        self._chunks.clear()
        self._samples = self._voiced_samples = 0
        self._give_up()

    def _ask(self, *, early: bool) -> _Asked:
        self._give_up()
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        task = asyncio.get_running_loop().create_task(self._request(self._chunks[0]), name="asr-remote")
        task.add_done_callback(_look)
        self._asked = _Asked(self._samples, task, early)
        return self._asked

    async def _request(self, pcm: PcmFloat) -> Transcript:
        async with self._engine.remote.request(len(pcm)):
            return await self._engine.recognise(pcm)

    def _give_up(self) -> None:
        if self._asked is not None:
            self._asked.task.cancel()
            self._asked = None


def _look(task: asyncio.Task[Transcript]) -> None:
    """Look at the exception of a request that perhaps nobody waits for."""
    if not task.cancelled():
        task.exception()


def to_text(text: object, name: str, max_chars: int) -> Transcript:
    """What a server answered, without SenseVoice's tags and not longer than it may be.

    Raises:
        RemoteError: it is no text.
    """
    if not isinstance(text, str):
        raise RemoteError(f"{name}: answered without a text")
    cut = text[:max_chars]
    tags = cut.replace("|>", "<|").split("<|")[1::2]
    language = next((tag for tag in tags if tag in ("zh", "en", "ja", "ko", "yue")), "")
    emotion = next((tag for tag in tags if tag in ("HAPPY", "SAD", "ANGRY", "FEARFUL", "DISGUSTED", "SURPRISED")), "")
    return to_transcript(cut, language, emotion)
