"""What became of the requests to a recognition service, and whether it may be asked now."""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.upstream.breaker import Admission, Breaker, BreakerRules, BreakerState

_log = logging.getLogger(__name__)


class RemoteError(EngineError):
    """A recogniser on another machine failed; one line saying why, empty where it was not asked at all.

    Args:
        message: which and why.
        rest_s: asking again before has no sense, in seconds; None when nothing is known of that.
    """

    def __init__(self, message: str = "", rest_s: float | None = None) -> None:
        super().__init__(message)
        self.rest_s = rest_s


class RemoteUse:
    """One service, as all conversations use it.

    Args:
        name: of the engine.
        settings: how long, how many, how often.
        clock: monotonic time in seconds.
    """

    def __init__(self, name: str, settings: RemoteAsrSettings, clock: Callable[[], float] = time.monotonic) -> None:
        self.name = name
        self.settings = settings
        self.clock = clock
        self.requests = 0
        """Requests that were made."""
        self.failures = 0
        """Of these, those that failed or were late."""
        self.fallbacks = 0
        """Utterances that were recognised on this machine instead."""
        self.in_flight = 0
        """Requests under way."""
        self.breaker = Breaker(BreakerRules(failures=settings.failures, open_s=settings.retry_after_s))

    @asynccontextmanager
    async def request(self, samples: int) -> AsyncIterator[None]:
        """Ask the service within, if it may be asked; for `timeout_s` at most.

        Args:
            samples: of the sound that it is to recognise, at 16 kHz.

        Raises:
            RemoteError: what was raised within; in time there was none; or, without a text, it may not be asked now.
        """
        too_long = samples > self.settings.max_audio_s * UPLINK_RATE_HZ
        if too_long or self.in_flight >= self.settings.max_concurrent:
            raise RemoteError
        admission = self.breaker.admit(self.clock())
        if admission is Admission.REFUSED:
            raise RemoteError
        pending = True
        self.requests += 1
        self.in_flight += 1
        try:
            try:
                async with asyncio.timeout(self.settings.timeout_s):
                    yield
            except TimeoutError as error:
                raise RemoteError(f"{self.name}: no text within {self.settings.timeout_s:g} s") from error
            pending = False
            if self.breaker.state(self.clock()) is not BreakerState.CLOSED:
                _log.info("recognition by %s is back", self.name)
            self.breaker.succeeded(admission, self.clock())
        except RemoteError as error:
            pending = False
            self.failures += 1
            self.breaker.failed(admission, self.clock(), rest_s=error.rest_s)
            raise
        finally:
            self.in_flight -= 1
            if pending:
                self.breaker.dropped(admission, self.clock())

    def rest(self, why: str) -> None:
        """It cannot be reached: do not ask it for a while."""
        self.breaker.rest(self.clock(), self.settings.retry_after_s)
        _log.warning("recognition passed over for %.0f s: %s", self.settings.retry_after_s, why)
