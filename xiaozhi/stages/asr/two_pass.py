"""Two recognisers as one: a streaming one whose text is there at once, and a better one that confirms or corrects."""

import asyncio
import logging
from dataclasses import replace
from typing import Final

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.recogniser import Question, Recognizer, RecognizerContext, Say, Utterance

_log = logging.getLogger(__name__)

# The confirmation of a two-pass recognition is given up this long after the provisional text: an overloaded pool then
# costs accuracy and no answers.
MAX_CONFIRM_S: Final = 2.0


class TwoPass(Recognizer):
    """A streaming recogniser in front of one that is better.

    Args:
        streaming: gives the text that a reply may be prepared on.
        offline: gives the text that counts.
    """

    name = "two-pass"

    def __init__(self, streaming: Recognizer, offline: Recognizer) -> None:
        self.streaming = streaming
        self.offline = offline
        self.languages = offline.languages
        self.batches = offline.batches

    @classmethod
    def build(cls, context: RecognizerContext) -> "TwoPass":
        """A zipformer and a SenseVoice, each from its folder."""
        from xiaozhi.stages.asr.sense_voice import SenseVoice
        from xiaozhi.stages.asr.zipformer import Zipformer

        streaming = context.settings.model_copy(update={"model_dir": context.settings.streaming_model_dir})
        # The small one first: where it is missing, nobody has waited for the large one.
        first = Zipformer.build(replace(context, settings=streaming))
        second = SenseVoice.build(context)
        both = cls(first, second)
        both.about = f"{cls.name}: {first.about}, confirmed by {second.about}"
        return both

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance with both."""
        return TwoPassUtterance(self, decoding, say)

    async def warm(self, pool: WorkerPool) -> None:
        """Run both once."""
        await self.streaming.warm(pool)
        await self.offline.warm(pool)

    async def connect(self) -> None:
        """Open what either can open ahead."""
        await self.streaming.connect()
        await self.offline.connect()

    async def disconnect(self) -> None:
        """Close the connections of both."""
        await self.streaming.disconnect()
        await self.offline.disconnect()

    def close(self) -> None:
        """Free what both hold."""
        self.streaming.close()
        self.offline.close()


class TwoPassUtterance:
    """Asks for a provisional text and for the text that counts.

    Probes (speech over a reply) want to know only whether words were said: the streaming text answers them. Partial
    texts are the streaming ones, which cost nothing.

    Args:
        engine: both recognisers.
        decoding: what they decode with.
        say: takes the streaming text so far; None where nobody wants it.
    """

    def __init__(self, engine: TwoPass, decoding: Decoding, say: Say | None = None) -> None:
        self._streaming = engine.streaming.open(decoding, say)
        self._offline = engine.offline.open(decoding)

    @property
    def ready(self) -> bool:
        """The text that counts is known."""
        return self._offline.ready

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio to both."""
        self._streaming.feed(pcm, silence_ms)
        self._offline.feed(pcm, silence_ms)

    async def transcribe(self, question: Question) -> Transcript:
        """Recognise with both at once; the streaming one goes first where there is one worker."""
        if question.priority is not Priority.FINAL:
            return await self._streaming.transcribe(question)
        if self._offline.ready:
            return await self._offline.transcribe(question)
        # Begins when this coroutine first waits, that is behind the question to the streaming recogniser.
        confirming = asyncio.create_task(self._offline.transcribe(question), name="asr-confirm")
        try:
            first = await self._first(question)
            if not first.text or confirming.done():
                return await confirming
            question.provisional(first)
            try:
                async with asyncio.timeout(MAX_CONFIRM_S):
                    return await confirming
            except TimeoutError:
                _log.warning("recognition not confirmed within %g s, going on with the provisional text", MAX_CONFIRM_S)
                return first
        finally:
            confirming.cancel()
            await asyncio.gather(confirming, return_exceptions=True)

    async def _first(self, question: Question) -> Transcript:
        try:
            return await self._streaming.transcribe(Question(question.priority, question.is_stale))
        except EngineError as error:
            _log.warning("no provisional text: %s", error)
            return Transcript("")

    def close(self) -> None:
        """Forget the audio."""
        self._streaming.close()
        self._offline.close()
