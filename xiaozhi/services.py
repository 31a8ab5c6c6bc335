"""What all conversations share: models, pools, upstream clients. Built once, started, closed."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.settings import Settings
from xiaozhi.stages.asr.engine import OfflineRecognizer
from xiaozhi.stages.asr.hearing import Ears
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.llm.engine import ChatModel
from xiaozhi.stages.llm.registry import build_chat
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.vad.silero import load_silero
from xiaozhi.stages.vad.tick import UplinkTick
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN
from xiaozhi.turn.endpointing import plain
from xiaozhi.workers import WorkerPool

_log = logging.getLogger(__name__)

# Keep-alive connections outlive this; servers and their balancers close idle ones after 60 to 120 s as a rule.
_WARM_FOR_S: Final = 50.0


class DelayEstimate:
    """A rolling guess of how long something takes: an exponential average that leans to the early side.

    Args:
        first_s: the guess before the first measurement.
    """

    def __init__(self, first_s: float) -> None:
        self._mean_s = first_s

    def took(self, delay_s: float) -> None:
        """One measurement, in seconds."""
        # Early sounds count more than late ones: a guess that is too late delays the listener, one too early does not.
        self._mean_s += (0.5 if delay_s < self._mean_s else 0.1) * (delay_s - self._mean_s)

    def expected_s(self) -> float:
        """The guess for the next one, in seconds."""
        return self._mean_s


@dataclass(slots=True)
class Speculation:
    """What became of replies prepared before their turn was over."""

    started: int = 0
    committed: int = 0
    wasted: int = 0
    """Dropped unheard: the talker went on, or said something else after all."""


@dataclass(slots=True)
class Services:
    """The shared engines and pools of one process."""

    settings: Settings
    tick: UplinkTick
    ears: Ears
    chat: ChatModel
    voice: VoiceChain
    codec: WorkerPool
    commands: frozenset[str] = frozenset()
    voice_delay: DelayEstimate = field(default_factory=lambda: DelayEstimate(0.1))
    banner: list[str] = field(default_factory=list)
    """One line per stage for the start-up message: which engine, why, and what to do for a better one."""
    speculation: Speculation = field(default_factory=Speculation)
    _warming: asyncio.Task[None] | None = None
    _warmed_at: float = -math.inf

    def prewarm(self) -> None:
        """A device said hello, so somebody is about to speak: open upstream connections again if they have gone cold.

        In the background, at most one at a time, and without tokens.
        """
        loop = asyncio.get_running_loop()
        if loop.time() - self._warmed_at < _WARM_FOR_S or (self._warming is not None and not self._warming.done()):
            return
        self._warmed_at = loop.time()
        self._warming = loop.create_task(_warm_upstreams(self), name="warm-upstreams")

    async def stop_warming(self) -> None:
        """End a prewarming that is under way."""
        if self._warming is not None:
            self._warming.cancel()
            await asyncio.gather(self._warming, return_exceptions=True)


@asynccontextmanager
async def running_services(settings: Settings) -> AsyncIterator[Services]:
    """Load every model, warm it, and close everything at the end.

    Raises:
        EngineError, VoiceError, VadError: a part that was asked for by name cannot be used; one line says what to do.
    """
    models_dir = settings.models.dir
    recognition = WorkerPool(settings.asr.workers, "asr")
    codec = WorkerPool(settings.audio.codec_workers, "codec")
    silero = await asyncio.to_thread(load_silero, settings.vad, models_dir)
    built = await asyncio.to_thread(build_recognizer, settings.asr, models_dir, SPOKEN_COMMANDS_EN)
    chat = build_chat(settings.llm)
    voices = build_voices(settings.tts, models_dir)
    tick = UplinkTick(silero, settings.vad)
    services = Services(
        settings=settings,
        tick=tick,
        ears=Ears(
            built.recognizer,
            recognition,
            early_decode=settings.asr.early_decode,
            most_waiting=settings.asr.max_concurrent,
        ),
        chat=chat.model,
        voice=voices.chain,
        codec=codec,
        commands=frozenset(plain(phrase) for phrase in SPOKEN_COMMANDS_EN),
        banner=[
            f"vad  {silero.name}",
            f"asr  {built.why}",
            *([f"     {built.hint}"] if built.hint else []),
            f"llm  {chat.why}",
            *([f"     {chat.hint}"] if chat.hint else []),
            *(f"tts  {line}" for line in voices.why),
            *([f"     {voices.hint}"] if voices.hint else []),
        ],
    )
    try:
        services.prewarm()
        await _warm_recogniser(services)
        yield services
    finally:
        await services.stop_warming()
        await services.chat.close()
        await services.voice.close()
        tick.close()
        recognition.close()
        codec.close()
        await asyncio.to_thread(built.recognizer.close)


async def _warm_recogniser(services: Services) -> None:
    """Decode a second of faint noise once, so that the first talker does not pay for the first run."""
    engine = services.ears.engine
    noise = np.random.default_rng(1).normal(0.0, 1e-3, UPLINK_RATE_HZ).astype(np.float32)
    began = time.monotonic()
    if isinstance(engine, OfflineRecognizer):
        await services.ears.pool.run(engine.decode, noise)
    else:
        stream = engine.open()
        await services.ears.pool.run(stream.accept, noise)
        await services.ears.pool.run(stream.finish)
    _log.info("recogniser %s warm after %.0f ms", engine.name, (time.monotonic() - began) * 1000.0)


async def _warm_upstreams(services: Services) -> None:
    """Open connections ahead and find out now, not in somebody's first turn, which voices cannot be reached."""
    await services.chat.warm()
    try:
        await services.voice.warm()
    except VoiceError as error:
        _log.warning("no voice is ready: %s", error)
