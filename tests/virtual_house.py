"""A conversation in virtual time: whole and real between a device and upstreams that go by the dice, or behave.

The turn machine, the segmenter, the stages, replies and pacing are the product's own; the speech model, recognisers,
the chat model and the voices are stand-ins in the same process. Minutes pass in milliseconds and nothing depends on how
busy the machine is.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from concurrent.futures import Executor
from contextvars import Context
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any, Final, cast

import numpy as np

from tests.virtual_loop import VirtualLoop
from xiaozhi.agents import Roster
from xiaozhi.agents.roster import presets
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ, PcmFloat, PcmInt
from xiaozhi.concurrency.retirement import Retirement
from xiaozhi.concurrency.timing_wheel import TimingWheel
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.conversation.caches import Caches
from xiaozhi.conversation.conversation import Conversation
from xiaozhi.conversation.engines import DelayEstimate
from xiaozhi.conversation.services import Services, Speculation
from xiaozhi.events import MicPacket, ToolCall
from xiaozhi.memory.summaries import Summariser
from xiaozhi.overload.admission import TurnAdmission
from xiaozhi.overload.load_shedder import LoadShedder
from xiaozhi.settings import AsrSettings, Settings
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.offline import OfflineRecognizer
from xiaozhi.stages.asr.recogniser import Recognizer
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.remote import RemoteRecognizer
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.stages.asr.streaming import StreamingRecognizer
from xiaozhi.stages.asr.two_pass import TwoPass
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.stages.llm.engine import ChatError, ChatRequest, Delta
from xiaozhi.stages.tts.clause_speech import ClauseSpeech
from xiaozhi.stages.tts.engine import ClauseVoice, Voice, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.stages.vad.batcher import VadBatcher
from xiaozhi.stages.vad.silero import States, Windows
from xiaozhi.store import Store
from xiaozhi.tools.device import DeviceTools
from xiaozhi.turn.machine import ListeningMode

_TEXTS: Final = (
    "现在几点了",
    "我今天看了一本书",
    "我想去北京因为",
    "turn the volume up",
    "what time is it",
    "嗯",
    "停",
    "好的",
)
_WORDS: Final = _TEXTS[:5]  # that are answered, and interrupt
# What the speech model says is told by how loud the sound is.
_LOUDNESS: Final = {"voice": (0.3, 0.98), "fading": (0.1, 0.75), "murmur": (0.03, 0.55), "hush": (0.002, 0.02)}


class Dead(Exception):
    """A conversation that must live is dead, deaf, or never silent."""


class ConversationLoop(VirtualLoop):
    """Calls for threads are done at once; those for the recogniser take some virtual time."""

    decode_s: Callable[[], float] = staticmethod(lambda: 0.0)

    def call_later(  # type: ignore[override]  # of whatever types
        self, delay: float, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        """At least a microsecond: whoever waits for what rounding has left must not wait for ever."""
        return super().call_later(max(delay, 1e-6), callback, *args, context=context)

    def run_in_executor(  # type: ignore[override]  # of whatever types
        self, executor: Executor | None, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        """See `asyncio.loop.run_in_executor`."""
        future = self.create_future()
        try:
            result, error = func(*args), None
        except Exception as failure:  # noqa: BLE001 - handed to whoever waits, as an executor does
            result, error = None, failure

        def done() -> None:
            if not future.done():
                future.set_exception(error) if error is not None else future.set_result(result)

        prefix = str(getattr(executor, "_thread_name_prefix", ""))
        delay_s = self.decode_s() if prefix.startswith("asr") else 0.0
        if delay_s:
            self.call_later(delay_s, done)
        else:
            done()
        return future


@dataclass
class Fate:
    """What upstreams do, by the dice; in a calm they all work."""

    dice: random.Random
    calm: bool = False
    texts: list[str] = field(default_factory=list)
    """What is understood next; the dice tell when there is none."""

    def one_in(self, times: int) -> bool:
        """Rarely, and never in a calm."""
        return not self.calm and self.dice.random() < 1.0 / times

    def delay_s(self, max_s: float) -> float:
        """Mostly short."""
        return self.dice.uniform(0.0, 0.3) if self.calm or self.dice.random() < 0.7 else self.dice.uniform(0.0, max_s)

    def words(self) -> str:
        """What a recogniser understands.

        Raises:
            EngineError, RuntimeError: it fails.
        """
        if self.texts:
            return self.texts.pop(0)
        if self.one_in(12):
            raise EngineError("the model has lost its weights")
        if self.one_in(30):
            raise RuntimeError("onnxruntime: something")
        if self.one_in(6):
            return self.dice.choice(("", "。"))
        return self.dice.choice(_WORDS if self.calm else _TEXTS)


class _Model:
    """Tells speech by loudness."""

    def probabilities(self, windows: Windows, states: States) -> tuple[PcmFloat, States]:
        loud = np.abs(windows[:, 64:]).mean(axis=1)
        found = np.full(len(loud), 0.01, np.float32)
        for amplitude, probability in sorted(_LOUDNESS.values()):
            found[loud > amplitude * 0.5] = probability
        return found, states


@dataclass
class VirtualRecogniser(OfflineRecognizer):
    """On this machine, or behind `remote_engine` on another."""

    fate: Fate
    name: str = "dice"

    def decode(self, pcm: PcmFloat) -> Transcript:
        return Transcript(self.fate.words(), language="zh")

    async def recognise(self, pcm: PcmFloat) -> Transcript:
        await asyncio.sleep(self.fate.delay_s(5.0))
        if self.fate.one_in(8):
            raise RemoteError("dice: HTTP 500")
        return self.decode(pcm)


class _Service(RemoteRecognizer):
    name = "dice"

    def __init__(self, asked: VirtualRecogniser, settings: RemoteAsrSettings) -> None:
        super().__init__(settings)
        self._asked = asked

    async def recognise(self, pcm: PcmFloat) -> Transcript:
        return await self._asked.recognise(pcm)


@dataclass
class VirtualStreaming(StreamingRecognizer):
    """Its words are known with its last sound."""

    fate: Fate
    name: str = "streaming dice"
    wants_samples: int = 0

    def begin(self) -> "VirtualStreaming":
        return self

    def accept(self, pcm: PcmFloat) -> str:
        return "现在" if len(pcm) else ""

    def so_far(self, *, stop_words: bool) -> Transcript:
        return self.finish()

    def finish(self) -> Transcript:
        return Transcript(self.fate.words(), language="zh")


@dataclass
class _Chat:
    """Answers, calls tools of the device, or fails in any way and at any time."""

    fate: Fate
    name: str = "dice"

    async def stream(self, request: ChatRequest) -> AsyncGenerator[Delta, None]:
        fate = self.fate
        self._fail()
        await asyncio.sleep(fate.delay_s(3.0))
        self._fail()
        if fate.one_in(10):
            return
        if request.tools and request.messages[-1].role != "tool" and fate.one_in(6):
            tool = fate.dice.choice(list(request.tools)).name
            yield Delta(tool_calls=(ToolCall("c1", tool, fate.dice.choice(("{}", '{"volume": 3}', "{"))),))
            return
        for _ in range(fate.dice.randint(1, 3)):
            yield Delta(fate.dice.choice(("好的，", "It is ten past nine. ", "这是一个很长的故事。", "🙂 ")))
            await asyncio.sleep(fate.delay_s(1.0))
            self._fail(times=30)
        yield Delta("完了。")

    def _fail(self, times: int = 12) -> None:
        if self.fate.one_in(times):
            raise self.fate.dice.choice(
                (
                    ChatError("dice: HTTP 500"),
                    UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range(128)"),
                    TypeError("can only concatenate str"),
                    ExceptionGroup("several", [ValueError("one")]),
                )
            )

    async def warm(self) -> str:
        return ""

    async def close(self) -> None:
        pass


@dataclass
class _Voice(ClauseVoice):
    """Speaks a tone, or fails; the last of a chain always speaks."""

    fate: Fate
    name: str
    works: bool = False

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        fate = self.fate
        await asyncio.sleep(fate.delay_s(0.3 if self.works else 3.0))
        if not self.works and fate.one_in(5):
            raise fate.dice.choice((VoiceError("dice: HTTP 500"), ValueError("no header"), TypeError("nothing")))
        for _ in range(fate.dice.randint(1, 3)):
            yield np.full(DOWNLINK_RATE_HZ // 5, 3000, np.int16)
            if not self.works and fate.one_in(10):
                raise VoiceError("dice: broke off")


def _store() -> Store:
    """What a device that is not remembered asks of the store."""
    numbers = iter(range(1, 1_000_000))
    return cast(Store, SimpleNamespace(turns=SimpleNamespace(next_id=lambda: next(numbers)), reminders=None))


def virtual_settings(**turn: object) -> Settings:
    """Of a server with one endpoint and without caches; `turn` is the table of that name."""
    return Settings.model_validate(
        {
            "llm": {
                "history_summary": False,
                "endpoints": [{"name": "dice", "base_url": "http://127.0.0.1:1/v1", "model": "m", "api_key": "k"}],
            },
            "audio": {"complexity": 0, "bitrate_bps": 8000},
            "vad": {"tick_ms": 0},
            "memory": {"engine": "off"},
            "cache": {"answers": False, "speech": False},
            "asr": {"timeout_s": 6.0},
            "turn": {"max_utterance_s": 15.0, **turn},
        }
    )


_PRESETS: Final = tuple(presets())


def some_engine(fate: Fate, settings: Settings) -> Recognizer:
    """A recogniser of any kind."""
    match fate.dice.randrange(4):
        case 0:
            return VirtualStreaming(fate)
        case 1:
            return TwoPass(VirtualStreaming(fate), VirtualRecogniser(fate))
        case 2:
            return remote_engine(VirtualRecogniser(fate), fate, settings, early_decode=fate.dice.random() < 0.7)
    return VirtualRecogniser(fate)


def remote_engine(asked: VirtualRecogniser, fate: Fate, settings: Settings, *, early_decode: bool) -> Fallback:
    """A recogniser on another machine, with one here behind it."""
    rules = settings.asr.remote.model_copy(update={"early_decode": early_decode})
    service = _Service(asked, rules)
    service.remote.clock = asyncio.get_running_loop().time
    return Fallback(service, service.remote, VirtualRecogniser(fate))


def virtual_services(settings: Settings, fate: Fate, engine: Recognizer | None = None) -> Services:
    """Everything a conversation needs. One at a time: the tools, which take long to be made, are made once.

    Args:
        settings: of the server.
        fate: what upstreams do.
        engine: recognises; whole utterances on this machine when left out.
    """
    loop = cast(ConversationLoop, asyncio.get_running_loop())
    loop.decode_s = lambda: fate.delay_s(3.0)
    dice, store, chat = fate.dice, _store(), Chat(settings.llm, [_Chat(fate)])
    recognition, codec = WorkerPool(dice.randint(1, 2), "asr"), WorkerPool(1, "codec")
    voices = [_Voice(fate, "flaky"), _Voice(fate, "local", works=True)]
    parts: dict[str, Any] = {
        "settings": settings,
        "batcher": VadBatcher(_Model(), settings.vad),
        "recognition": Recognition(
            engine or VirtualRecogniser(fate),
            recognition,
            AsrSettings(early_decode=dice.random() < 0.7, partials=dice.random() < 0.3),
        ),
        "chat": chat,
        "voice": (chain := VoiceChain(voices, 2.0, 2.0, 5.0, loop.time)),
        "codec": codec,
        "load_shedder": LoadShedder(settings.load, recognition, codec),
        "admission": TurnAdmission(settings.load.turns_at_once, settings.load.turn_wait_s),
        "store": store,
        "roster": Roster(settings, _PRESETS),
        "summaries": Summariser(chat, settings, store),
        "caches": Caches(settings, ClauseSpeech(chain, codec, settings), None),
    }
    if not _HOUSE:  # its tools take a tenth of a second to be made
        _HOUSE.append(Services(model=cast(Any, None), **parts))
    services = _HOUSE[0]
    for name, part in parts.items():
        setattr(services, name, part)
    services.use(settings)
    services.voice_delay, services.retirement, services.may_speculate = DelayEstimate(0.1), Retirement(), True
    services.speculation, services.pacing = Speculation(), TimingWheel()
    return services


_HOUSE: Final[list[Services]] = []


def use_voices(services: Services, *voices: Voice) -> None:
    """Have replies spoken by these from now on, the best first."""
    services.voice = VoiceChain(voices, 2.0, 2.0, 5.0, asyncio.get_running_loop().time)
    services.caches.speech = ClauseSpeech(services.voice, services.codec, services.settings)


class VirtualDevice:
    """A device and its network, sound in bare samples; a `DeviceLink` that checks what it is told.

    Args:
        fate: what kind of device it is, where that is not said, and what its tools do.
        services: of the server that it is connected with.
        sends: its silence `always`, `gated` (nothing), `dtx` (a packet now and then) or as `empty` packets.
        frame_ms: length of its packets.
        notice: what it hears instead of a conversation.
    """

    def __init__(self, fate: Fate, services: Services, sends: str = "", frame_ms: int = 0, notice: str = "") -> None:
        dice = fate.dice
        self.fate = fate
        self._loop = asyncio.get_running_loop()
        self.mode = ListeningMode.AUTO
        self.state = "idle"
        self.sound = "hush"
        self.stalled = self.unplugged = False
        self.sends = sends or dice.choice(("always", "always", "gated", "dtx", "empty"))
        self.frame_ms = frame_ms or dice.choice((20, 60, 60, 60, 120, 120, 120, 120, 120, 120, 120, 120))
        self.is_firmware = dice.random() < 0.5
        self.start_margin_ms, self.stop_margin_ms = dice.choice(((0.0, 0.0), (40.0, 150.0)))
        self.first_at = -1.0  # when the first packet of all came
        self.heard_at = -1.0
        """When the last packet of a reply came."""
        self.told: list[tuple[float, str]] = []
        """What it was told and when: `stt …`, `start`, `stop` and subtitles."""
        self.hung_up = ""
        """Why the server has hung up."""
        self.wrong = ""
        """What it was told first that no server may tell it; raising it there would be one more fault of a reply."""
        self.deaf_to_reply = False
        """It listens of its own accord while a reply sounds, which is no reason to stop it."""
        self._silenced = -1
        self._late: list[bytes] = []
        self._quiet_ms = 0.0
        self._hangover_ms = dice.choice((0, 60, 200, 400))
        self.tools = DeviceTools(self._tell, services.settings.tools.device)
        self.talk = Conversation(services, self, "anonymous-1", notice=notice)
        self.talk.use_device(self.tools)
        self.running = asyncio.create_task(self.talk.run(), name="conversation")
        self._sending = asyncio.create_task(self._send(), name="device")

    # What it is told (DeviceLink) ---------------------------------------------------------------------------------

    def stt(self, text: str) -> None:
        self._note(f"stt {text}")

    def _note(self, what: str) -> None:
        self.told.append((self._loop.time(), what))

    def emotion(self, name: str) -> None:
        pass

    def tts_start(self) -> None:
        self._note("start")
        self.state, self.deaf_to_reply = "speaking", False

    def sentence_start(self, text: str) -> None:
        self._note(text)

    def audio(self, opus: bytes, generation: int) -> None:
        if self.state != "speaking" and not self.deaf_to_reply:
            self.wrong = self.wrong or "sound for a device that was not told to speak"
        if generation > self._silenced:
            self.heard_at = self._loop.time()
            self.first_at = self.first_at if self.first_at >= 0.0 else self.heard_at

    def silence(self, generation: int) -> None:
        self._silenced = generation

    def untaken_ms(self, generation: int) -> float:
        return 0.0

    def tts_stop(self) -> None:
        self._note("stop")
        self.deaf_to_reply = False
        if self.state != "speaking":
            return
        self.state = "idle" if self.mode is ListeningMode.MANUAL else "listening"
        if self.mode is ListeningMode.AUTO:
            self._loop.call_later(self.fate.dice.uniform(0.0, 0.3), self._listens_again)

    def _listens_again(self) -> None:
        if self.state == "listening" and self.mode is ListeningMode.AUTO:
            self.talk.listen(self.mode)

    def hang_up(self, why: str) -> None:
        if not self.hung_up and self.state == "speaking":
            self.wrong = self.wrong or f"hung up in the midst of speaking: {why}"
        self.hung_up = self.hung_up or why
        self.out_of_range()

    def trace(self, record: Mapping[str, object]) -> None:
        pass

    def _tell(self, message: Mapping[str, object]) -> None:
        """Answer like a device's MCP server: late, wrongly, or not at all."""
        request = cast(dict[str, Any], message["payload"])
        if self.fate.one_in(6) or "id" not in request:
            return
        match request["method"]:
            case "initialize":
                result: dict[str, Any] = {"serverInfo": {"name": "dice", "version": "1"}}
            case "tools/list":
                volume = {"type": "object", "properties": {"volume": {"type": "integer"}}, "required": ["volume"]}
                name = "self.audio_speaker.set_volume"
                result = {"tools": [{"name": name, "description": "Sets the volume", "inputSchema": volume}]}
            case _:
                result = {"content": [{"type": "text", "text": "true"}], "isError": self.fate.one_in(3)}
        reply = {"jsonrpc": "2.0", "id": request["id"], "result": result}
        self._loop.call_later(self.fate.delay_s(4.0), self.tools.receive_mcp, reply)

    # What it does -------------------------------------------------------------------------------------------------

    def listen(self, mode: ListeningMode) -> None:
        self.deaf_to_reply = self.deaf_to_reply or self.state == "speaking"
        self.mode, self.state = mode, "listening"
        self.talk.listen(mode)

    def stop(self) -> None:
        self.deaf_to_reply = self.deaf_to_reply or self.state == "speaking"
        self.state = "idle"
        self.talk.stop_listening()

    def wake_burst(self) -> None:
        for _ in range(self.fate.dice.randint(3, 12)):
            self.talk.hear(MicPacket(self._packet("voice"), bare=True))

    def _packet(self, sound: str) -> bytes:
        pcm = np.full(UPLINK_RATE_HZ * self.frame_ms // 1000, _LOUDNESS[sound][0] * 32_767, np.int16)
        pcm[::2] *= -1
        return pcm.tobytes()

    @property
    def microphone_is_open(self) -> bool:
        over = self.state == "speaking" and self.mode is ListeningMode.REALTIME
        return (self.state == "listening" or over) and not self.unplugged

    async def speak(self, seconds: float, then_s: float = 0.0, sound: str = "voice") -> None:
        """Make a sound for a while, and then none."""
        self.sound = sound
        await asyncio.sleep(seconds)
        self.sound = "hush"
        await asyncio.sleep(then_s)

    async def _send(self) -> None:
        packets = {sound: self._packet(sound) for sound in _LOUDNESS}
        while True:
            await asyncio.sleep(self.frame_ms / 1000.0)
            if self.microphone_is_open:
                packet = self._gated(packets[self.sound])
                if packet is not None:
                    self._late.append(packet)
            if not self.stalled:
                for late in self._late:
                    self.talk.hear(MicPacket(late, bare=True))
                self._late.clear()

    def _gated(self, packet: bytes) -> bytes | None:
        """What of its sound this kind of device sends."""
        quiet = self.sound == "hush" and self.mode is not ListeningMode.MANUAL
        self._quiet_ms = self._quiet_ms + self.frame_ms if quiet else 0.0
        if self.sends == "always" or self._quiet_ms <= self._hangover_ms:
            return packet
        if self.sends == "empty":
            return b""
        if self.sends == "dtx" and self._quiet_ms % 400.0 < self.frame_ms:
            return packet
        return None

    def out_of_range(self) -> None:
        """Not one more packet comes."""
        self._sending.cancel()

    async def close(self) -> None:
        """As the transport does when a device is gone."""
        for task in (self.running, self._sending):
            task.cancel()
        await asyncio.gather(self.running, self._sending, return_exceptions=True)
        await self.tools.close()
