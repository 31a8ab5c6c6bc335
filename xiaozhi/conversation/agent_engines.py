"""The recognisers and voices that agents name beside the server's own.

Each is made once, shared, and closed when no agent names it any more. While one is being made, or cannot be, the
server's own stands in for it.
"""

import asyncio
import logging
import math
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from xiaozhi.agents import Agent
from xiaozhi.settings.asr import RECOGNIZERS
from xiaozhi.settings.tts import VOICES
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.recogniser import Recognizer, RecognizerContext, Say, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.registry import build_alone, close_recognizer, keyless, warm_recognizer
from xiaozhi.stages.tts.clause_speech import ClauseSpeech, voice_fingerprints
from xiaozhi.stages.tts.engine import Voice, VoiceError
from xiaozhi.stages.tts.registry import build_voice
from xiaozhi.store import Store
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN

if TYPE_CHECKING:
    from xiaozhi.conversation.engines import Engines
    from xiaozhi.settings import Settings

_log = logging.getLogger(__name__)

# A clause that a former voice makes may have been joined by a reply that came later; clauses are over within seconds.
_LINGER_S: Final = 10.0
# How soon a new name is known to recognisers, and how many are looked at: services take a hundred words.
_NAMES_S: Final = 10.0
_MAX_NAMES: Final = 1000


def faults(agent: Agent, settings: "Settings") -> dict[str, str]:
    """What an agent names that there is not, or that lacks its key: a line each, with what to do. Pure.

    Returns:
        The lines by what they are about: `recogniser`, `endpoint`, `voice`.
    """
    lines = {}
    name, engine = agent.recognizer, agent.voice.engine
    if name not in ("", "auto", *RECOGNIZERS):
        lines["recogniser"] = f"there is no recogniser {name!r}: one of {', '.join(RECOGNIZERS)}"
    elif missing := keyless(name, settings.asr):
        lines["recogniser"] = f"recogniser {name}: {missing}"
    endpoints = [endpoint.name for endpoint in settings.llm.endpoints]
    if agent.endpoint and agent.endpoint not in endpoints:
        known = ", ".join(endpoints) or "none is set"
        lines["endpoint"] = f"there is no endpoint {agent.endpoint!r} in llm.endpoints: {known}"
    if engine and engine not in VOICES:
        lines["voice"] = f"there is no voice engine {engine!r}: one of {', '.join(VOICES)}"
    elif engine and (missing := getattr(settings.tts, engine).missing(f"tts.{engine}")):
        lines["voice"] = f"voice {engine}: {missing}"
    return lines


@dataclass(slots=True)
class _OwnVoice:
    """What agents speak with, and what is to be closed, where it is none of the server's."""

    speech: ClauseSpeech
    owned: Voice | None


class AgentEngines:
    """What agents have of their own.

    Args:
        engines: the server's, with the agents.
    """

    def __init__(self, engines: "Engines") -> None:
        self._engines = engines
        # By name; and what is to be closed, where it is none of the server's.
        self._recognitions: dict[str, tuple[Recognition, Recognizer | None]] = {}
        self._voices: dict[str, _OwnVoice] = {}
        self._making: dict[str, asyncio.Task[None]] = {}
        self.failed: dict[str, str] = {}
        """Why an engine (`recogniser NAME`, `voice NAME`) could not be made; not tried again with these settings."""
        self._told: set[str] = set()
        self._names: list[str] = []
        self._learnt_at = -math.inf

    def recognition(self, agent: Agent) -> Recognition:
        """What an agent hears with now."""
        name = agent.recognizer
        if found := self._recognitions.get(name):
            return found[0]
        servers = self._engines.recognition.engine
        if name in RECOGNIZERS and name not in (self._engines.settings.asr.engine, servers.name):
            self._make("recogniser", name, agent, lambda: self._make_recognizer(name))
        return self._engines.recognition

    def speech(self, agent: Agent | None) -> ClauseSpeech:
        """What an agent speaks with now; that of the server for nobody in particular."""
        name = agent.voice.engine if agent is not None else ""
        if found := self._voices.get(name):
            return found.speech
        if agent is not None and name in VOICES and name != self._engines.settings.tts.engines[0]:
            self._make("voice", name, agent, lambda: self._make_voice(name))
        return self._engines.caches.speech

    def prepare(self, agent: Agent) -> None:
        """An agent answers from now on: make what it names, in the background, and close what no agent names."""
        for line in faults(agent, self._engines.settings).values():
            self._tell(f"agent {agent.name}: {line}; the server's own is used")
        self.recognition(agent)
        self.speech(agent)
        agents = [*self._engines.roster, agent]
        for name in self._recognitions.keys() - {one.recognizer for one in agents}:
            self._retire_recognizer(name)
        for name in self._voices.keys() - {one.voice.engine for one in agents}:
            self._retire_voice(name)

    async def learn_names(self, store: Store) -> None:
        """Tell recognisers the names that are said in this house, where `asr.remote.send_names` allows it.

        People's own agents, devices and their owners come first, and then the agents that came along. Looks into the
        store now and then only.

        Raises:
            StoreError: the store cannot be read.
        """
        now = asyncio.get_running_loop().time()
        if now - self._learnt_at < _NAMES_S:
            return
        self._learnt_at = now
        roster, found = self._engines.roster, list[str]()
        if self._engines.settings.asr.remote.send_names:
            agents = sorted(roster, key=lambda agent: roster.origin(agent) == "preset")
            own = [name for agent in agents if roster.origin(agent) != "preset" for name in agent.names]
            devices = await store.devices.list()
            contacts = [name for device in devices for name in (device.name, device.owner)]
            found = [*roster.default.names, *own, *contacts, *(name for agent in agents for name in agent.names)]
        self._names = found[:_MAX_NAMES]
        for recognition in (self._engines.recognition, *(one for one, _ in self._recognitions.values())):
            recognition.engine.tell_names(self._names)

    def renew(self) -> None:
        """Other settings hold: what is made by the former ones is closed when its users have gone, and made anew."""
        for task in self._making.values():
            task.cancel()
        for name in tuple(self._recognitions):
            self._retire_recognizer(name)
        for name in tuple(self._voices):
            self._retire_voice(name)
        self._making.clear()
        self.failed.clear()
        self._told.clear()
        self._learnt_at = -math.inf

    async def close(self) -> None:
        """Close all of them; the process ends."""
        making = list(self._making.values())
        for task in making:
            task.cancel()
        await asyncio.gather(*making, return_exceptions=True)
        for _, engine in self._recognitions.values():
            if engine is not None:
                await close_recognizer(engine)
        for one in self._voices.values():
            if one.owned is not None:
                await one.owned.close()
        self._recognitions.clear()
        self._voices.clear()

    async def made(self) -> None:
        """Wait for what is being made."""
        await asyncio.gather(*self._making.values(), return_exceptions=True)

    # Making -------------------------------------------------------------------------------------------------------

    def _make(self, kind: str, name: str, agent: Agent, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Begin to make something, unless that is under way or has failed."""
        what = f"{kind} {name}"
        if what in self._making or what in self.failed or kind in faults(agent, self._engines.settings):
            return

        async def make() -> None:
            try:
                await work()
            except (EngineError, VoiceError) as error:
                self.failed[what] = str(error)
                self._tell(f"agent {agent.name}: {what} cannot be used: {error}; the server's own is used")
            finally:
                if self._making.get(what) is asyncio.current_task():
                    del self._making[what]

        self._making[what] = asyncio.get_running_loop().create_task(make(), name=f"make-{what}")

    async def _make_recognizer(self, name: str) -> None:
        engines, settings = self._engines, self._engines.settings
        servers = engines.recognition.engine
        if isinstance(servers, Fallback) and servers.local.name == name:  # one model of it is enough
            recognition = self._recognition(servers.local)
            recognition.utterances = engines.recognition.utterances
            self._recognitions[name] = recognition, None
            return
        context = RecognizerContext(settings.asr, settings.models.dir, SPOKEN_COMMANDS_EN)
        engine = await asyncio.to_thread(build_alone, name, context)
        try:
            use: Recognizer = engine
            if engine.remote is not None:
                use = Fallback(engine, engine.remote, _ServersOwn(engines))
            engine.tell_names(self._names)
            await warm_recognizer(engine, engines.recognition.pool)
            await use.connect()
        except BaseException:
            await asyncio.shield(close_recognizer(engine))
            raise
        self._recognitions[name] = self._recognition(use), engine

    def _recognition(self, engine: Recognizer) -> Recognition:
        servers, settings = self._engines.recognition, self._engines.settings
        recognition = Recognition(engine, servers.pool, settings.asr, settings.cache)
        recognition.early, recognition.partials = servers.early, servers.partials  # one load, one word about it
        return recognition

    async def _make_voice(self, name: str) -> None:
        engines, settings = self._engines, self._engines.settings
        if (servers := engines.voice.voice(name)) is not None:
            self._voices[name] = _OwnVoice(engines.caches.speech.led_by(servers, {}), None)
            return
        voice, about = await asyncio.to_thread(build_voice, name, settings.tts, settings.models.dir)
        try:
            async with asyncio.timeout(settings.tts.first_audio_timeout_s):
                await voice.warm()
        except (VoiceError, TimeoutError) as error:
            _log.warning("%s", str(error) or f"{name}: does not answer yet")
        except BaseException:
            await asyncio.shield(voice.close())
            raise
        prints = voice_fingerprints([name], settings.tts, [about])
        self._voices[name] = _OwnVoice(engines.caches.speech.led_by(voice, prints), voice)

    def _tell(self, line: str) -> None:
        """In the log, once."""
        if line not in self._told:
            self._told.add(line)
            _log.warning("%s", line)

    # Closing ------------------------------------------------------------------------------------------------------

    def _retire_recognizer(self, name: str) -> None:
        recognition, engine = self._recognitions.pop(name)
        if engine is None:
            return
        settings = self._engines.settings
        self._engines.retirement.retire(
            lambda: close_recognizer(engine),
            in_use=lambda: bool(recognition.utterances),
            max_s=settings.turn.max_utterance_s + settings.asr.timeout_s,
        )

    def _retire_voice(self, name: str) -> None:
        one = self._voices.pop(name)
        if one.owned is not None:
            self._engines.retirement.retire(one.owned.close, linger_s=_LINGER_S)


class _ServersOwn(Recognizer):
    """The recogniser of the server, whichever it is, behind one of an agent."""

    def __init__(self, engines: "Engines") -> None:
        self._engines = engines
        self.name = engines.recognition.engine.name

    def open(self, _decoding: Decoding, say: Say | None = None) -> Utterance:
        return self._engines.recognition.begin(say)


class AgentEars:
    """What one conversation hears with: the recogniser of the agent that answers when an utterance begins.

    Args:
        engines: of the agents.
        agent: who answers now.
    """

    def __init__(self, engines: AgentEngines, agent: Callable[[], Agent]) -> None:
        self._engines, self._agent = engines, agent

    @property
    def full(self) -> bool:
        """So much waits for recognition that another answer would come too late to be worth waiting for."""
        return self._engines.recognition(self._agent()).full

    @property
    def max_wait_s(self) -> float:
        """A question that no worker has begun by then is given up, in seconds."""
        return self._engines.recognition(self._agent()).max_wait_s

    def begin(self, say: Say | None = None) -> Utterance:
        """Begin an utterance, see `Recognition.begin`."""
        return self._engines.recognition(self._agent()).begin(say)
