"""An utterance on its way to text with two recognisers."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import Batch, Priority, WorkerPool
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.load_gates import EarlyDecodes, Partials, Say
from xiaozhi.stages.asr.offline_utterance import OfflineHearing
from xiaozhi.stages.asr.streaming_utterance import StreamingHearing
from xiaozhi.stages.asr.two_pass import TwoPass

_log = logging.getLogger(__name__)

# The confirmation of a two-pass recognition is given up this long after the provisional text: an overloaded pool then
# costs accuracy and no answers.
MAX_CONFIRM_S: Final = 2.0


class TwoPassHearing:
    """Asks a streaming recogniser for a provisional text and an offline one for the text that counts.

    Probes (speech over a reply) want to know only whether words were said: the streaming text answers them. Partial
    texts are the streaming ones, which cost nothing.
    """

    def __init__(
        self,
        engine: TwoPass,
        pool: WorkerPool,
        early: EarlyDecodes,
        *,
        partials: Partials | None = None,
        say: Say | None = None,
        batch: Batch[PcmFloat, Transcript] | None = None,
    ) -> None:
        self._streaming = StreamingHearing(engine.streaming, pool, partials=partials, say=say)
        self._offline = OfflineHearing(engine.offline, pool, early, batch=batch)

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        """Add audio to both."""
        self._streaming.feed(pcm)
        self._offline.feed(pcm, silence_ms)

    async def transcribe(
        self,
        priority: Priority,
        is_stale: Callable[[], bool],
        provisional: Callable[[Transcript], None],
        *,
        held: bool = True,
    ) -> Transcript:
        """Recognise with both at once; the streaming one goes first where there is one worker."""
        if priority is not Priority.FINAL:
            return await self._streaming.transcribe(priority, is_stale, provisional)
        if self._offline.ready:
            return await self._offline.transcribe(priority, is_stale, provisional, held=held)
        confirming = asyncio.create_task(
            self._offline.transcribe(priority, is_stale, provisional, held=held), name="asr-confirm"
        )  # begins when this coroutine first waits, that is behind the question to the streaming recogniser
        try:
            first = await self._first(priority, is_stale)
            if not first.text or confirming.done():
                return await confirming
            provisional(first)
            try:
                async with asyncio.timeout(MAX_CONFIRM_S):
                    return await confirming
            except TimeoutError:
                _log.warning("recognition not confirmed within %g s, going on with the provisional text", MAX_CONFIRM_S)
                return first
        finally:
            confirming.cancel()
            await asyncio.gather(confirming, return_exceptions=True)

    async def _first(self, priority: Priority, is_stale: Callable[[], bool]) -> Transcript:
        try:
            return await self._streaming.transcribe(priority, is_stale, lambda _text: None)
        except EngineError as error:
            _log.warning("no provisional text: %s", error)
            return Transcript("")

    def close(self) -> None:
        """Forget the audio."""
        self._streaming.close()
        self._offline.close()
