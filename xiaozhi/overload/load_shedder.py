"""Reads the load, decides what to give up, and tells those concerned."""

import asyncio
import logging
from collections import Counter
from collections.abc import Callable

from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.overload.loop_lag import LoopLag
from xiaozhi.overload.steps import Readings, Step, Steps
from xiaozhi.overload.usage import used_percent
from xiaozhi.settings import LoadSettings

_log = logging.getLogger(__name__)

# Reading the memory opens a file; it changes slowly.
_MEMORY_EVERY = 10


class LoadShedder:
    """Keeps the process answering under load; one for all conversations.

    Args:
        settings: the `[load]` table.
        recognition: its waiting utterances are the main sign of load.
        codec: the pool that encodes.
        voice_percent: share of the cores that encoding one reply takes while it is played, in percent.
    """

    def __init__(
        self, settings: LoadSettings, recognition: WorkerPool, codec: WorkerPool, voice_percent: float = 0.0
    ) -> None:
        self.lag = LoopLag(settings.blame_ms)
        self.readings = Readings()
        """The newest readings."""
        self.voice_percent = voice_percent
        """What encoding one reply takes of the cores, in percent, at full effort."""
        self.voices = 0
        """Replies that are being made now."""
        self.times_taken: Counter[Step] = Counter()
        """How often each step was taken, since the start."""
        self._settings = settings
        self._recognition = recognition
        self._codec = codec
        self._steps = Steps(settings)
        self._listeners: list[Callable[[Step, bool], None]] = []
        self._rounds = 0
        self._memory_percent = 0.0

    @property
    def taken(self) -> frozenset[Step]:
        """The steps that are taken now."""
        return self._steps.taken

    def retune(self, settings: LoadSettings) -> None:
        """Other thresholds from the next check on; who is blamed for a slow loop stays as it was."""
        self._settings = settings
        self._steps.retune(settings)
        if not settings.shed:
            for step in self._steps.release():
                self._tell(step, taken=False)

    def tell(self, listener: Callable[[Step, bool], None]) -> None:
        """Have `listener` called with each step as it is taken (True) or taken back (False)."""
        self._listeners.append(listener)

    async def watch(self) -> None:
        """Watch until cancelled."""
        self.lag.start()
        try:
            while True:
                await asyncio.sleep(self._settings.check_ms / 1000.0)
                self.check()
        finally:
            self.lag.stop()

    def check(self) -> None:
        """Read everything once and act on it."""
        if self._rounds % _MEMORY_EVERY == 0:
            self._memory_percent = used_percent()
        self._rounds += 1
        self.readings = Readings(
            asr_wait_ms=self._recognition.oldest_wait_s() * 1000.0,
            codec_wait_ms=self._codec.oldest_wait_s() * 1000.0,
            codec_percent=self.voices * self.voice_percent,
            loop_lag_ms=self.lag.lag_ms(),
            memory_percent=self._memory_percent,
        )
        if not self._settings.shed:
            return
        for change in self._steps.update(asyncio.get_running_loop().time(), self.readings):
            if change.taken:
                self.times_taken[change.step] += 1
            _log.log(
                logging.WARNING if change.taken else logging.INFO,
                "load: %s %s (%s)",
                change.step.value,
                "given up" if change.taken else "back",
                change.reason,
            )
            self._tell(change.step, taken=change.taken)

    def _tell(self, step: Step, *, taken: bool) -> None:
        for listener in self._listeners:
            listener(step, taken)
