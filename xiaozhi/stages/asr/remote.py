"""Recognisers on other machines, each in front of one that runs here and takes over when the other fails."""

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Final, Protocol

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.engine import EngineError, OfflineRecognizer, StreamingRecognizer, Transcript
from xiaozhi.upstream.breaker import Admission, Breaker, BreakerRules, BreakerState

_log = logging.getLogger(__name__)
_MAX_SHOWN_CHARS: Final = 120


class RemoteError(EngineError):
    """A recogniser on another machine failed; one line saying why.

    Args:
        message: which and why.
        rest_s: asking again before has no sense, in seconds; None when nothing is known of that.
    """

    def __init__(self, message: str, rest_s: float | None = None) -> None:
        super().__init__(message)
        self.rest_s = rest_s


class RemoteRecognizer(Protocol):
    """Recognises whole utterances on another machine. One object serves every conversation."""

    name: str

    async def recognise(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz. Cancelling closes the request at once.

        Raises:
            RemoteError: refused, broke, or answered something that is no text.
        """
        ...

    async def warm(self) -> None:
        """Open what can be opened ahead, without spending money.

        Raises:
            RemoteError: it cannot be reached, or refuses the key.
        """
        ...

    async def aclose(self) -> None:
        """Close the connections."""
        ...


class WithFallback:
    """A remote recogniser with a local one behind it.

    By itself (`decode`) it is the local one; `Ears` knows how to use both.

    Args:
        remote: is asked first.
        local: takes over.
        settings: how long, how many, how often.
        clock: monotonic time in seconds.
    """

    def __init__(
        self,
        remote: RemoteRecognizer,
        local: OfflineRecognizer,
        settings: RemoteAsrSettings,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = f"{remote.name}, else {local.name}"
        self.remote = remote
        self.local = local
        self.settings = settings
        self.requests = 0
        """Utterances that the remote recogniser was asked for."""
        self.failures = 0
        """Requests that failed or were late."""
        self.fallbacks = 0
        """Utterances that the local recogniser decoded instead."""
        self.in_flight = 0
        """Requests under way."""
        self.breaker = Breaker(BreakerRules(failures=settings.failures, open_s=settings.retry_after_s))
        self._clock = clock

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz with the local recogniser. Blocking.

        Raises:
            EngineError: it failed on this audio.
        """
        return self.local.decode(pcm)

    def close(self) -> None:
        """Free what the local recogniser holds; `aclose` closes the connections."""
        self.local.close()

    async def warm(self) -> None:
        """Open a connection ahead; a remote recogniser that cannot be reached rests."""
        try:
            async with asyncio.timeout(self.settings.timeout_s):
                await self.remote.warm()
        except (RemoteError, TimeoutError) as error:
            why = str(error) or f"{self.remote.name}: no answer within {self.settings.timeout_s:g} s"
            self.breaker.rest(self._clock(), self.settings.retry_after_s)
            _log.warning("recognition passed over for %.0f s: %s", self.settings.retry_after_s, why)

    async def aclose(self) -> None:
        """Close the connections."""
        await self.remote.aclose()

    async def recognise(
        self, pcm: PcmFloat, pool: WorkerPool, priority: Priority, is_stale: Callable[[], bool] = lambda: False
    ) -> Transcript:
        """Recognise float32[n] at 16 kHz; the local recogniser runs in `pool`, the remote one takes no thread.

        Raises:
            EngineError: both failed; or the local one, where the remote one was not asked.
            JobDropped: nobody waits any more, found when a thread was free.
        """
        why = ""
        if self._may_ask(pcm):
            admission = self.breaker.admit(self._clock())
            if admission is not Admission.REFUSED:
                try:
                    return await self._ask(pcm, admission)
                except RemoteError as error:
                    why = str(error)
        self.fallbacks += 1
        try:
            return await pool.submit(lambda: self.local.decode(pcm), priority, is_stale)
        except EngineError as error:
            raise EngineError("; ".join(filter(None, (why, str(error))))) from error

    def _may_ask(self, pcm: PcmFloat) -> bool:
        short_enough = len(pcm) <= self.settings.max_audio_s * UPLINK_RATE_HZ
        return short_enough and self.in_flight < self.settings.max_concurrent

    async def _ask(self, pcm: PcmFloat, admission: Admission) -> Transcript:
        pending = True
        self.requests += 1
        self.in_flight += 1
        try:
            try:
                async with asyncio.timeout(self.settings.timeout_s):
                    transcript = await self.remote.recognise(pcm)
            except TimeoutError as error:
                raise RemoteError(f"{self.remote.name}: no text within {self.settings.timeout_s:g} s") from error
            pending = False
            if self.breaker.state(self._clock()) is not BreakerState.CLOSED:
                _log.info("recognition by %s is back", self.remote.name)
            self.breaker.succeeded(admission, self._clock())
            return transcript
        except RemoteError as error:
            pending = False
            self.failures += 1
            self.breaker.failed(admission, self._clock(), rest_s=error.rest_s)
            _log.warning("%s recognises instead: %s", self.local.name, error)
            raise
        finally:
            self.in_flight -= 1
            if pending:
                self.breaker.dropped(admission, self._clock())


def to_text(text: object, name: str, max_chars: int) -> Transcript:
    """What a server answered, without SenseVoice's tags and not longer than it may be.

    Raises:
        RemoteError: it is no text.
    """
    from xiaozhi.stages.asr.sense_voice import to_transcript

    if not isinstance(text, str):
        raise RemoteError(f"{name}: answered without a text")
    cut = text[:max_chars]
    tags = cut.replace("|>", "<|").split("<|")[1::2]
    language = next((tag for tag in tags if tag in ("zh", "en", "ja", "ko", "yue")), "")
    emotion = next((tag for tag in tags if tag in ("HAPPY", "SAD", "ANGRY", "FEARFUL", "DISGUSTED", "SURPRISED")), "")
    return to_transcript(cut, language, emotion)


def one_short_line(text: str) -> str:
    """One line of at most 120 characters."""
    line = " ".join(text.split())
    return line if len(line) <= _MAX_SHOWN_CHARS else line[: _MAX_SHOWN_CHARS - 1] + "…"


class Whole:
    """A streaming recogniser as one that decodes whole utterances.

    Args:
        engine: recognises.
    """

    def __init__(self, engine: StreamingRecognizer) -> None:
        self.name = engine.name
        self._engine = engine

    def decode(self, pcm: PcmFloat) -> Transcript:
        """Recognise float32[n] at 16 kHz. Blocking.

        Raises:
            EngineError: it failed on this audio.
        """
        stream = self._engine.open()
        stream.accept(pcm)
        return stream.finish()

    def close(self) -> None:
        """Free what the engine holds."""
        self._engine.close()
