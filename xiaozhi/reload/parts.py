"""The engines that changed settings need: built beside those in use, then put into their places."""

import asyncio
import logging
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Final

from xiaozhi.agents import Roster
from xiaozhi.conversation.caches import Caches, open_caches
from xiaozhi.conversation.engines import About
from xiaozhi.conversation.services import Services, UnknownLanguage
from xiaozhi.overload.steps import Step
from xiaozhi.settings import Settings
from xiaozhi.settings.schema import applies
from xiaozhi.stages.asr.recogniser import Recognizer
from xiaozhi.stages.asr.registry import build_recognizer, close_recognizer, warm_recognizer
from xiaozhi.stages.llm.chat import Chat
from xiaozhi.stages.llm.registry import build_chat
from xiaozhi.stages.tts.encoding import voice_percent
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.vad.silero import SileroModel, load_silero
from xiaozhi.text.commands import SPOKEN_COMMANDS_EN

_log = logging.getLogger(__name__)

# An upstream that is slow or away must not hold up the change that perhaps mends it.
_WARM_S: Final = 5.0
# A clause that a former voice makes may have been joined by a reply that came later; clauses are over within seconds.
_LINGER_S: Final = 10.0

# Where sound that is kept for later comes from.
_OF_CACHES: Final = frozenset({"llm", "tts", "audio", "cache"})


@dataclass(slots=True)
class Parts:
    """What is new; None is as it was."""

    settings: Settings
    model: SileroModel | None = None
    recognizer: Recognizer | None = None
    chat: Chat | None = None
    voice: VoiceChain | None = None
    roster: Roster | None = None
    caches: Caches | None = None
    voice_percent: float | None = None
    about: dict[str, About] = field(default_factory=dict)


async def build_parts(services: Services, settings: Settings, keys: Collection[str]) -> Parts:
    """Build and warm what the changed settings need. Nothing that is in use is touched but the limits of caches.

    Args:
        services: of the process.
        settings: the new ones.
        keys: what differs in them.

    Raises:
        EngineError, VoiceError, VadError, AgentError, StoreError: a part cannot be built; those that were are closed.
    """
    parts = Parts(settings)
    try:
        await _build(parts, services, keys)
    except BaseException:
        await discard(parts, services)
        raise
    return parts


def engines_for(keys: Collection[str]) -> set[str]:
    """The tables whose engines read one of these settings when they are built: what applies with the next turn."""
    return {key.partition(".")[0] for key in keys if applies(key) == "next turn"}


async def _build(parts: Parts, services: Services, keys: Collection[str]) -> None:
    settings, models_dir = parts.settings, parts.settings.models.dir
    tables, engines = {key.partition(".")[0] for key in keys}, engines_for(keys)
    if "agents" in tables or "llm.system_prompt" in keys:
        parts.roster = await Roster.load(settings, services.store)
    if "vad" in engines:
        parts.model = await asyncio.to_thread(load_silero, settings.vad)
        parts.about["vad"] = About((parts.model.name,))
    if "asr" in engines:
        built = await asyncio.to_thread(
            build_recognizer, settings.asr, models_dir, SPOKEN_COMMANDS_EN, services.quickest
        )
        parts.recognizer = built.recognizer
        parts.about["asr"] = About((built.why,), built.hint)
        await warm_recognizer(parts.recognizer, services.recognition.pool)
        await parts.recognizer.connect()
    if "llm" in engines:
        chat = build_chat(settings.llm, settings.server.timezone, edge=settings.cluster.tier == "edge")
        parts.chat = chat.chat
        parts.about["llm"] = About((chat.why,), chat.hint)
        try:
            async with asyncio.timeout(_WARM_S):
                await chat.chat.warm()
        except TimeoutError:
            _log.warning("the new endpoints do not answer yet")
    if "tts" in engines:
        voices = await asyncio.to_thread(build_voices, settings.tts, models_dir)
        parts.voice = voices.chain
        parts.about["tts"] = About(voices.why, voices.hint)
        try:
            async with asyncio.timeout(_WARM_S):
                await voices.chain.warm()
        except (TimeoutError, VoiceError) as error:
            _log.warning("no new voice is ready: %s", error or "too slow")
    if "audio" in tables:
        audio = settings.audio
        parts.voice_percent = await services.codec.run(voice_percent, audio.bitrate_bps, audio.complexity)
    if tables & _OF_CACHES:
        about = parts.about.get("tts", services.about["tts"])
        voice = parts.voice or services.voice
        parts.caches = await open_caches(settings, voice, services.codec, about.lines, services.caches)


async def discard(parts: Parts, services: Services) -> None:
    """Close parts that are not going to be used."""
    if parts.chat is not None:
        await parts.chat.close()
    if parts.voice is not None:
        await parts.voice.close()
    if parts.recognizer is not None:
        await close_recognizer(parts.recognizer)
    if parts.caches is not None:
        await parts.caches.close_all_but(services.caches)


def exchange(services: Services, parts: Parts) -> None:
    """Put the parts into their places, in one step; the former ones are closed when nobody uses them any more."""
    before, settings = services.settings, parts.settings
    retirement = services.retirement
    chat = parts.chat or services.chat
    # What goes on without a reply uses the engines as well.
    for task in [*services.background(), *services.summaries.renew(chat, settings)]:
        retirement.until(task)
    services.use(settings)
    services.about = services.about | parts.about
    if parts.roster is not None:
        services.roster = parts.roster
    if parts.model is not None:
        services.model = parts.model
    services.batcher.exchange(services.model, settings.vad)
    if parts.chat is not None:
        retirement.retire(services.chat.close)
        services.chat = chat
        services.obey(Step.HEDGING, Step.HEDGING in services.load_shedder.taken)
    if parts.voice is not None:
        retirement.retire(services.voice.close, linger_s=_LINGER_S)
        services.voice = parts.voice
    if parts.caches is not None:
        former, caches = services.caches, parts.caches
        former.give_up_premaking()
        retirement.retire(lambda: former.close_all_but(caches), linger_s=_LINGER_S)
        services.caches = caches
        caches.premake()
    if parts.recognizer is not None or parts.voice is not None or parts.caches is not None:
        services.for_agents.renew()
    if parts.voice_percent is not None:
        services.load_shedder.voice_percent = parts.voice_percent
    _exchange_recognizer(services, parts, before)
    services.load_shedder.retune(settings.load)
    services.admission.retune(settings.load.turns_at_once, settings.load.turn_wait_s)


def _exchange_recognizer(services: Services, parts: Parts, before: Settings) -> None:
    former = services.recognition.engine
    open_utterances = services.recognition.exchange(
        parts.recognizer or former, parts.settings.asr, parts.settings.cache
    )
    if parts.recognizer is not None:
        services.unknown_language = UnknownLanguage()
        # An utterance is over by then, and its last decode given up.
        max_s = before.turn.max_utterance_s + before.asr.timeout_s
        services.retirement.retire(lambda: close_recognizer(former), in_use=lambda: bool(open_utterances), max_s=max_s)
