"""What all conversations share: models, pools, upstream clients. Built once, started, closed."""

import asyncio
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Protocol, runtime_checkable

import numpy as np

from xiaozhi.agents import Roster
from xiaozhi.audio.echo_likeness import Echoes
from xiaozhi.audio.pcm import UPLINK_RATE_HZ
from xiaozhi.cluster.shared import Shared, join_shared
from xiaozhi.concurrency.retirement import Retirement
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.caches import Caches, open_caches
from xiaozhi.memory import MemoryKeeper
from xiaozhi.memory.summaries import Summariser
from xiaozhi.overload.admission import Admission
from xiaozhi.overload.load_shedder import LoadShedder
from xiaozhi.overload.steps import Step
from xiaozhi.settings import Settings
from xiaozhi.stages.asr.cached import remember
from xiaozhi.stages.asr.engine import OfflineRecognizer, Recognizer
from xiaozhi.stages.asr.registry import Built, build_recognizer
from xiaozhi.stages.asr.remote import WithFallback
from xiaozhi.stages.asr.utterance import Ears
from xiaozhi.stages.llm.engine import ChatModel
from xiaozhi.stages.llm.registry import BuiltChat, build_chat
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.registry import BuiltVoices, build_voices
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import SileroModel, load_silero
from xiaozhi.store import Store
from xiaozhi.store.keeper import StoreKeeper
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN
from xiaozhi.tools.announce import Announce, announce_tools
from xiaozhi.tools.external_config import configured_servers
from xiaozhi.tools.reminder_book import Reminder
from xiaozhi.tools.shared_tools import SharedTools
from xiaozhi.turn.completeness import shipped_model
from xiaozhi.turn.endpointing import plain
from xiaozhi.turn.trace import TurnTrace

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
    """Dropped unheard: the user went on, or said something else after all."""


@dataclass(slots=True)
class UnknownLanguage:
    """Speech that the recogniser in use could not make sense of, because it does not know the language."""

    utterances: int = 0
    last_at: float = 0.0
    """Seconds since 1970."""

    def note(self, _device_id: str, trace: TurnTrace) -> None:
        """A turn is over."""
        if trace.unknown_language:
            self.utterances += 1
            self.last_at = time.time()


@dataclass(frozen=True, slots=True)
class About:
    """What the start-up message says of a stage: which engines and why, and what to do for better ones."""

    lines: tuple[str, ...]
    hint: str = ""


def about_recognizer(built: Built) -> About:
    """Of the recogniser."""
    return About((built.why,), built.hint)


def about_chat(chat: BuiltChat) -> About:
    """Of the chat model."""
    return About((chat.why,), chat.hint)


def about_voices(voices: BuiltVoices) -> About:
    """Of the voices."""
    return About(voices.why, voices.hint)


@runtime_checkable
class Hedges(Protocol):
    """A chat model that may ask a second endpoint; named by what it does, because its module loads a large client."""

    hedging_allowed: bool


async def _nobody_there(_reminder: Reminder) -> bool:
    return False


async def _nobody_else(_text: str, _devices: Sequence[str], _without: str) -> Mapping[str, str]:
    return {}


@dataclass(slots=True)
class Services:
    """The shared engines and pools of one process.

    What other settings need is exchanged while the process runs, see `xiaozhi.reload`: read it when a turn begins, and
    write a task that uses it into `retirement` in the same step.
    """

    settings: Settings
    model: SileroModel
    tick: VadBatcher
    ears: Ears
    chat: ChatModel
    voice: VoiceChain
    codec: WorkerPool
    load_shedder: LoadShedder
    admission: Admission
    store: Store
    roster: Roster
    summaries: Summariser
    caches: Caches
    commands: frozenset[str] = frozenset()
    shared: Shared | None = None
    """What the nodes of a cluster share; None for a node that is alone."""
    voice_delay: DelayEstimate = field(default_factory=lambda: DelayEstimate(0.1))
    about: dict[str, About] = field(default_factory=dict)
    """By stage: `vad`, `asr`, `llm`, `tts`."""
    retirement: Retirement = field(default_factory=Retirement)
    """Who uses the engines, and former ones that wait to be closed."""
    speculation: Speculation = field(default_factory=Speculation)
    echoes: Echoes = field(default_factory=Echoes)
    on_turn: list[Callable[[str, TurnTrace], None]] = field(default_factory=list)
    """Told of every finished turn: whose it was and its record."""
    may_speculate: bool = True
    """Replies may be prepared before their turn is over; False under load."""
    unknown_language: UnknownLanguage = field(default_factory=UnknownLanguage)
    ears_are_coming: bool = False
    """A better recogniser is being fetched."""
    takes_devices: bool = True
    """New devices are welcome; False under load."""
    memory: MemoryKeeper = field(init=False)
    """What is kept in mind about users."""
    tools: SharedTools = field(init=False)
    """What models may call."""
    ring: Callable[[Reminder], Awaitable[bool]] = field(default=_nobody_there)
    """Says a reminder on its device; False when it is not connected."""
    announce: Announce = field(default=_nobody_else)
    """Says something on other devices, for the tool."""
    _lesser_sound: Settings = field(init=False)
    _warming: asyncio.Task[None] | None = None
    _warmed_at: float = -math.inf

    def __post_init__(self) -> None:
        self.tools = SharedTools(
            self.settings.tools,
            book=self.store.reminders,
            ring=lambda due: self.ring(due),
            extra=announce_tools(self.settings.push, lambda *said: self.announce(*said)),
        )
        self.use(self.settings)
        self.memory = MemoryKeeper(self)
        self.on_turn += [self.memory.turn, lambda device, trace: self.unknown_language.note(device, trace)]

    @property
    def banner(self) -> list[str]:
        """A line or more per stage for the start-up message."""
        lines: list[str] = []
        for stage, about in self.about.items():
            lines += [f"{stage}  {line}" for line in about.lines]
            lines += [f"     {about.hint}"] if about.hint else []
        return lines

    def use(self, settings: Settings) -> None:
        """Go by these settings from the next turn on; the engines are exchanged by `xiaozhi.reload`."""
        self.settings = settings
        load = self.settings.load
        lesser = {"bitrate_bps": load.quality_bitrate_bps, "complexity": load.quality_complexity}
        audio = self.settings.audio.model_copy(update=lesser)
        self._lesser_sound = self.settings.model_copy(update={"audio": audio})

    def prewarm(self) -> None:
        """A device said hello, so somebody is about to speak: open upstream connections again if they have gone cold.

        In the background, at most one at a time, and without tokens.
        """
        loop = asyncio.get_running_loop()
        if loop.time() - self._warmed_at < _WARM_FOR_S or (self._warming is not None and not self._warming.done()):
            return
        self._warmed_at = loop.time()
        self._warming = loop.create_task(_warm_upstreams(self), name="warm-upstreams")

    def background(self) -> list[asyncio.Task[None]]:
        """Tasks that use the engines without a conversation."""
        return [self._warming] if self._warming is not None and not self._warming.done() else []

    def speech_settings(self) -> Settings:
        """The settings to speak with now: of lesser sound under load."""
        return self._lesser_sound if Step.QUALITY in self.load_shedder.taken else self.settings

    def obey(self, step: Step, taken: bool) -> None:
        """Give something up, or take it back."""
        match step:
            case Step.EXTRAS:
                self.ears.early.allowed = self.ears.partials.allowed = not taken
            case Step.SPECULATION:
                self.may_speculate = not taken
            case Step.QUALITY:
                pass  # asked for by every reply
            case Step.HEDGING:
                if isinstance(self.chat, Hedges):
                    self.chat.hedging_allowed = not taken
            case Step.TURNS:
                self.admission.open = not taken
            case Step.DEVICES:
                self.takes_devices = not taken

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
        StoreError: the store was written by a newer version of this program.
        AgentError: `llm.system_prompt` is no template.
        McpConfigError: the file `tools.mcp_config` cannot be used.
    """
    await asyncio.to_thread(configured_servers, settings.tools)  # what cannot be used is known before anything is open
    models_dir = settings.models.dir
    recognition = WorkerPool(settings.asr.workers, "asr", niceness=settings.asr.niceness)
    codec = WorkerPool(settings.audio.codec_workers, "codec")
    silero = await asyncio.to_thread(load_silero, settings.vad)
    await asyncio.to_thread(shipped_model)  # 80 ms, which no first turn is to wait for
    built = await asyncio.to_thread(build_recognizer, settings.asr, models_dir, SPOKEN_COMMANDS_EN)
    chat = build_chat(settings.llm, settings.server.timezone, edge=settings.cluster.tier == "edge")
    voices = build_voices(settings.tts, models_dir)
    tick = VadBatcher(silero, settings.vad)
    keeper = await StoreKeeper.open(settings)
    try:
        roster = await Roster.load(settings, keeper.store)
    except Exception:
        await keeper.close()
        raise
    try:
        shared = await join_shared(settings.cluster, keeper.store)
    except Exception:
        await keeper.close()
        raise
    link = shared.link if shared is not None else None
    caches = await open_caches(settings, voices.chain, codec, voices.why, link=link)
    services = Services(
        settings=settings,
        model=silero,
        tick=tick,
        ears=Ears(
            remember(built.recognizer, settings.cache),
            recognition,
            early_decode=settings.asr.early_decode,
            partials=settings.asr.partials,
            batch_size=settings.asr.batch_size,
            max_waiting=settings.asr.max_concurrent,
        ),
        chat=chat.model,
        voice=voices.chain,
        codec=codec,
        load_shedder=LoadShedder(settings.load, recognition, codec),
        admission=Admission(settings.load.turns_at_once, settings.load.turn_wait_s),
        store=keeper.store,
        roster=roster,
        summaries=Summariser(chat.model, settings, keeper.store),
        caches=caches,
        commands=frozenset(plain(phrase) for phrase in SPOKEN_COMMANDS_EN),
        shared=shared,
        about={
            "vad": About((silero.name,)),
            "asr": about_recognizer(built),
            "llm": about_chat(chat),
            "tts": about_voices(voices),
        },
    )
    services.load_shedder.tell(services.obey)
    try:
        services.prewarm()
        services.tools.start()
        await warm_recognizer(services.ears.engine, recognition)
        yield services
    finally:
        await services.stop_warming()
        await services.tools.close()
        await services.retirement.close()
        await services.summaries.close()
        await services.memory.close()
        await services.caches.close()
        await services.chat.close()
        await services.voice.close()
        if services.shared is not None:
            await services.shared.close()
        await keeper.close()
        tick.close()
        recognition.close()
        codec.close()
        await close_recognizer(services.ears.engine)


async def close_recognizer(engine: Recognizer) -> None:
    """Free a recogniser and its connections."""
    if isinstance(engine, WithFallback):
        await engine.aclose()
    await asyncio.to_thread(engine.close)


async def warm_recognizer(engine: Recognizer, pool: WorkerPool) -> None:
    """Decode a second of faint noise once, so that the first user does not pay for the first run."""
    noise = np.random.default_rng(1).normal(0.0, 1e-3, UPLINK_RATE_HZ).astype(np.float32)
    began = time.monotonic()
    if isinstance(engine, OfflineRecognizer):
        await pool.run(engine.decode, noise)
    else:
        stream = engine.open()
        await pool.run(stream.accept, noise)
        await pool.run(stream.finish)
    _log.info("recogniser %s warm after %.0f ms", engine.name, (time.monotonic() - began) * 1000.0)


async def _warm_upstreams(services: Services) -> None:
    """Open connections ahead and find out now, not in somebody's first turn, which voices cannot be reached."""
    await services.chat.warm()
    if isinstance(services.ears.engine, WithFallback):
        await services.ears.engine.warm()
    try:
        await services.voice.warm()
    except VoiceError as error:
        _log.warning("no voice is ready: %s", error)
    services.caches.premake()
