"""An utterance on its way to text with a recogniser on another machine."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.load_gates import EarlyDecodes
from xiaozhi.stages.asr.offline_utterance import EARLY_SILENCE_MS, MAX_UNHEARD_S
from xiaozhi.stages.asr.remote import WithFallback


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request for the first `samples` samples; `early`: begun before anybody asked."""

    samples: int
    task: asyncio.Task[Transcript]
    early: bool


class RemoteHearing:
    """Buffers the utterance and sends it whole.

    Requests cost money: one text serves every question until something voiced follows, at most one request of an
    utterance is under way, and one that is overtaken is closed. One that somebody waits for is overtaken by another
    question alone, and never by silence.

    Args:
        engine: the recogniser with its fallback.
        pool: the threads that the fallback runs in.
        early: whether to ask at the first silence; None for never.
    """

    def __init__(self, engine: WithFallback, pool: WorkerPool, early: EarlyDecodes | None = None) -> None:
        self._engine = engine
        self._pool = pool
        self._early = early
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
            self._ask(Priority.PROBE, early=True)

    def _covers(self, *, held: bool) -> bool:
        """Whether the last request has all that may be speech; one that is under way has where it has all voiced."""
        asked = self._asked
        if asked is None or asked.samples < self._voiced_samples:
            return False
        if not asked.task.done():
            return True
        if asked.task.cancelled() or asked.task.exception() is not None:
            return False
        return not held or self._samples - asked.samples <= MAX_UNHEARD_S * UPLINK_RATE_HZ

    async def transcribe(
        self,
        priority: Priority,
        is_stale: Callable[[], bool],
        provisional: Callable[[Transcript], None],
        *,
        held: bool = True,
    ) -> Transcript:
        """Ask for the whole utterance, unless that text is known or on its way; nothing is provisional."""
        if not self._samples:
            return Transcript("")
        asked = self._asked if self._covers(held=held) else None
        if asked is None:
            asked = self._ask(priority, early=False)
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

    def _ask(self, priority: Priority, *, early: bool) -> _Asked:
        self._give_up()
        if len(self._chunks) > 1:
            self._chunks = [np.concatenate(self._chunks)]
        request = self._engine.recognise(self._chunks[0], self._pool, priority)
        task = asyncio.get_running_loop().create_task(request, name="asr-remote")
        task.add_done_callback(_look)
        self._asked = _Asked(self._samples, task, early)
        return self._asked

    def _give_up(self) -> None:
        if self._asked is not None:
            self._asked.task.cancel()
            self._asked = None


def _look(task: asyncio.Task[Transcript]) -> None:
    """Look at the exception of a request that perhaps nobody waits for."""
    if not task.cancelled():
        task.exception()
