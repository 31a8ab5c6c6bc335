"""Two recognisers as one: a streaming one whose text is there at once, and a better one that confirms or corrects."""

import asyncio
import logging
from dataclasses import replace
from typing import Final

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool
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
        self.about = f"{self.name}: {streaming.about}, confirmed by {offline.about}"
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
        return cls(first, second)

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
    texts are the streaming ones, which cost nothing. Under load, and where no worker is free soon enough for a second
    pass, the streaming text is the answer.

    Args:
        engine: both recognisers.
        decoding: what they decode with.
        say: takes the streaming text so far; None where nobody wants it.
    """

    def __init__(self, engine: TwoPass, decoding: Decoding, say: Say | None = None) -> None:
        self._second = decoding.second_pass
        self._streaming = engine.streaming.open(decoding, say)
        confirming = Decoding(
            decoding.pool, self._second, batch_size=decoding.batch_size, cache=decoding.cache
        )  # begun early as often as second passes may be
        self._offline = engine.offline.open(confirming)

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
        if not self._second.allowed:
            return self._unconfirmed(await self._first(question)) or await self._offline.transcribe(question)
        # Begins when this coroutine first waits, that is behind the question to the streaming recogniser.
        soon = replace(question, within_s=min(question.within_s, self._second.wait_s))
        confirming = asyncio.create_task(self._offline.transcribe(soon), name="asr-confirm")
        try:
            first = await self._first(question)
            if first.text and not confirming.done():
                question.provisional(first)
            try:
                async with asyncio.timeout(MAX_CONFIRM_S if first.text else None):
                    return await confirming
            except JobDropped:
                if question.is_stale():
                    raise
                return self._unconfirmed(first) or await self._offline.transcribe(question)
            except TimeoutError:
                _log.warning("recognition not confirmed within %g s, going on with the provisional text", MAX_CONFIRM_S)
                return first
        finally:
            confirming.cancel()
            await asyncio.gather(confirming, return_exceptions=True)

    def _unconfirmed(self, first: Transcript) -> Transcript | None:
        """The streaming text as the answer; None where it has none."""
        self._second.left_out += bool(first.text)
        return first if first.text else None

    async def _first(self, question: Question) -> Transcript:
        try:
            return await self._streaming.transcribe(replace(question, provisional=lambda _text: None))
        except EngineError as error:
            _log.warning("no provisional text: %s", error)
            return Transcript("")

    def close(self) -> None:
        """Forget the audio."""
        self._streaming.close()
        self._offline.close()
