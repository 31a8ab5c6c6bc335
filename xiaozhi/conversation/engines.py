"""What every turn goes through: models, voices, pools, caches. Shared by all conversations."""

import asyncio
import logging
import math
from dataclasses import dataclass, field
from typing import Final

from xiaozhi.agents import Roster
from xiaozhi.concurrency.retirement import Retirement
from xiaozhi.concurrency.timing_wheel import TimingWheel
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.agent_engines import AgentEngines
from xiaozhi.conversation.caches import Caches
from xiaozhi.overload.admission import TurnAdmission
from xiaozhi.overload.load_shedder import LoadShedder
from xiaozhi.overload.steps import Step
from xiaozhi.plan.calibration import Calibration
from xiaozhi.settings import Settings
from xiaozhi.stages.asr.recogniser import Quickest
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import SileroModel

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


@dataclass(frozen=True, slots=True)
class About:
    """What the start-up message says of a stage: which engines and why, and what to do for better ones."""

    lines: tuple[str, ...]
    hint: str = ""


@dataclass(slots=True, kw_only=True)
class Engines:
    """What is exchanged while the process runs, when other settings need it (`xiaozhi.reload`), or given up under load.

    Read it when a turn begins, and write a task that uses it into `retirement` in the same step.
    """

    settings: Settings
    model: SileroModel
    batcher: VadBatcher
    recognition: Recognition
    chat: Chat
    voice: VoiceChain
    codec: WorkerPool
    caches: Caches
    roster: Roster
    load_shedder: LoadShedder
    admission: TurnAdmission
    about: dict[str, About] = field(default_factory=dict)
    """By stage: `vad`, `asr`, `llm`, `tts`; and `box`, how quick it is."""
    calibration: Calibration | None = None
    """How quick this box was measured to be; None before it was."""
    retirement: Retirement = field(default_factory=Retirement)
    """Who uses the engines, and former ones that wait to be closed."""
    pacing: TimingWheel = field(default_factory=TimingWheel)
    """Lets out the packets of all replies."""
    voice_delay: DelayEstimate = field(default_factory=lambda: DelayEstimate(0.1))
    """From a first clause to its first sound."""
    for_agents: AgentEngines = field(init=False)
    """What agents have of their own."""
    recogniser_is_coming: bool = False
    """A better recogniser is being fetched."""
    may_speculate: bool = True
    """Replies may be prepared before their turn is over; False under load."""
    takes_devices: bool = True
    """New devices are welcome; False under load."""
    _lesser_sound: Settings = field(init=False)
    _warming: asyncio.Task[None] | None = None
    _expecting: set[asyncio.Task[None]] = field(default_factory=set)
    _warmed_at: float = -math.inf

    def __post_init__(self) -> None:
        self.for_agents = AgentEngines(self)
        self.use(self.settings)
        self.load_shedder.tell(self.obey)

    @property
    def quickest(self) -> Quickest:
        """How to recognise soonest here."""
        return self.calibration.quickest if self.calibration is not None else Quickest()

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
        self._warming = loop.create_task(self._warm_upstreams(), name="warm-upstreams")

    def expect_reply(self) -> None:
        """Somebody has perhaps finished speaking: have the voice's connection open when its first clause is there."""
        task = asyncio.get_running_loop().create_task(self.voice.expect_text(), name="expect-text")
        self._expecting.add(task)
        task.add_done_callback(self._expecting.discard)

    def background(self) -> list[asyncio.Task[None]]:
        """Tasks that use the engines without a conversation."""
        return [*self._expecting, *filter(None, [self._warming])]

    def speech_settings(self) -> Settings:
        """The settings to speak with now: of lesser sound under load."""
        return self._lesser_sound if Step.QUALITY in self.load_shedder.taken else self.settings

    def obey(self, step: Step, taken: bool) -> None:
        """Give something up, or take it back."""
        match step:
            case Step.EXTRAS:
                self.recognition.partials.allowed = not taken
                self.batcher.half_duplex = taken
            case Step.SECOND_PASS:
                self.recognition.second_pass.allowed = not taken
            case Step.SPECULATION:
                self.may_speculate = not taken
            case Step.QUALITY:
                pass  # asked for by every reply
            case Step.HEDGING:
                self.chat.hedging_allowed = not taken
            case Step.TURNS:
                # An early decode takes an idle worker only, and is nearly always the answer: last to go.
                self.admission.open = self.recognition.early.allowed = not taken
            case Step.DEVICES:
                self.takes_devices = not taken

    async def stop_warming(self) -> None:
        """End what is under way of that."""
        tasks = self.background()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _warm_upstreams(self) -> None:
        """Open connections ahead and find out now, not in somebody's first turn, which voices cannot be reached."""
        await self.chat.warm()
        await self.recognition.engine.connect()
        try:
            await self.voice.warm()
        except VoiceError as error:
            _log.warning("no voice is ready: %s", error)
        self.caches.premake()
