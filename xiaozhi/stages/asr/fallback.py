"""A recogniser on another machine with one on this machine behind it."""

import asyncio
import logging
from collections.abc import Sequence

import numpy as np

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Say, Utterance
from xiaozhi.stages.asr.remote_use import RemoteError, RemoteUse

_log = logging.getLogger(__name__)


class Fallback(Recognizer):
    """Asks the first recogniser, and the second where the first fails: in mid-utterance, with all the sound of it.

    Args:
        first: on another machine.
        use: how it does.
        local: takes over.
    """

    def __init__(self, first: Recognizer, use: RemoteUse, local: Recognizer) -> None:
        self.name = f"{first.name}, else {local.name}"
        self.batches = local.batches
        self.remote = self.use = use
        self.first = first
        self.local = local

    def open(self, decoding: Decoding, say: Say | None = None) -> Utterance:
        """Begin an utterance with the first."""
        return _FallbackUtterance(self, decoding, say)

    def tell_names(self, names: Sequence[str]) -> None:
        """The service takes them, if any of the two does."""
        self.first.tell_names(names)

    async def warm(self, pool: WorkerPool) -> None:
        """Run both once."""
        await self.first.warm(pool)
        await self.local.warm(pool)

    async def connect(self) -> None:
        """Open connections ahead; a service that cannot be reached rests."""
        try:
            async with asyncio.timeout(self.use.settings.timeout_s):
                await self.first.connect()
        except (RemoteError, TimeoutError) as error:
            self.use.rest(str(error) or f"{self.first.name}: no answer within {self.use.settings.timeout_s:g} s")

    async def disconnect(self) -> None:
        """Close the connections."""
        await self.first.disconnect()

    def close(self) -> None:
        """Free what both hold here."""
        self.first.close()
        self.local.close()


class _FallbackUtterance:
    """Once the service has failed at an utterance, the rest of it is recognised here as well."""

    def __init__(self, engine: Fallback, decoding: Decoding, say: Say | None) -> None:
        self._engine, self._decoding = engine, decoding
        self._now = engine.first.open(decoding, say)
        self._failed: str | None = None  # why it is not the service
        self._chunks: list[PcmFloat] = []

    @property
    def ready(self) -> bool:
        return self._now.ready

    def feed(self, pcm: PcmFloat, silence_ms: float = 0.0) -> None:
        if self._failed is None:
            self._chunks.append(pcm)
        self._now.feed(pcm, silence_ms)

    async def transcribe(self, question: Question) -> Transcript:
        if self._failed is None:
            try:
                return await self._now.transcribe(question)
            except RemoteError as error:
                if self._failed is None:  # else another question has found out first
                    self._go_local(str(error))
        try:
            return await self._now.transcribe(question)
        except EngineError as error:
            raise EngineError("; ".join(filter(None, (self._failed, str(error))))) from error

    def _go_local(self, why: str) -> None:
        self._failed = why
        self._engine.use.fallbacks += 1
        if why:
            _log.warning("%s recognises instead: %s", self._engine.local.name, why)
        self._now.close()
        self._now = self._engine.local.open(self._decoding)
        if self._chunks:
            self._now.feed(np.concatenate(self._chunks))
        self._chunks.clear()

    def close(self) -> None:
        self._chunks.clear()
        self._now.close()
