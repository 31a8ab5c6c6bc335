"""The engines that changed settings need: built beside those in use, then put into their places."""

import asyncio
import logging
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final

from xiaozhi.agents import Roster
from xiaozhi.conversation.caches import Caches, open_caches
from xiaozhi.conversation.services import (
    About,
    Services,
    UnknownLanguage,
    about_chat,
    about_recognizer,
    about_voices,
    close_recognizer,
    warm_recognizer,
)
from xiaozhi.overload.steps import Step
from xiaozhi.settings import Settings
from xiaozhi.stages.asr.cached import memory_of, remember
from xiaozhi.stages.asr.engine import Recognizer
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.remote import WithFallback
from xiaozhi.stages.llm.engine import ChatModel
from xiaozhi.stages.llm.registry import build_chat
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

# Settings that only those who use an engine read, not the engine itself; and those that its model is made of.
NOT_OF_CHAT: Final = frozenset(
    {
        "llm.system_prompt",
        "llm.history_turns",
        "llm.history_max_tokens",
        "llm.history_summary",
        "llm.reply_max_chars",
        "llm.reply_max_s",
    }
)
NOT_OF_VOICES: Final = frozenset(
    {
        "tts.parallel_clauses",
        "tts.first_clause_min_chars",
        "tts.first_clause_max_chars",
        "tts.first_clause_wait_ms",
    }
)
NOT_OF_RECOGNIZER: Final = frozenset(
    {"asr.early_decode", "asr.partials", "asr.max_concurrent", "asr.batch_size", "asr.timeout_s"}
)
OF_VAD_MODEL: Final = frozenset(
    {"vad.model", "vad.threads", "vad.graph_optimization", "vad.provider", "vad.gpu_memory_mb"}
)


@dataclass(slots=True)
class Parts:
    """What is new; None is as it was."""

    settings: Settings
    model: SileroModel | None = None
    recognizer: Recognizer | None = None
    chat: ChatModel | None = None
    voice: VoiceChain | None = None
    roster: Roster | None = None
    caches: Caches | None = None
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


async def _build(parts: Parts, services: Services, keys: Collection[str]) -> None:
    settings, models_dir = parts.settings, parts.settings.models.dir
    if _any(keys, ("llm.system_prompt", "agents")):
        parts.roster = await Roster.load(settings, services.store)
    if _any(keys, OF_VAD_MODEL):
        parts.model = await asyncio.to_thread(load_silero, settings.vad)
        parts.about["vad"] = About((parts.model.name,))
    if _any(keys, ("asr",), NOT_OF_RECOGNIZER):
        built = await asyncio.to_thread(build_recognizer, settings.asr, models_dir, SPOKEN_COMMANDS_EN)
        parts.recognizer = remember(built.recognizer, settings.cache)
        parts.about["asr"] = about_recognizer(built)
        await warm_recognizer(parts.recognizer, services.ears.pool)
        if isinstance(parts.recognizer, WithFallback):
            await parts.recognizer.warm()
    if _any(keys, ("llm",), NOT_OF_CHAT):
        chat = build_chat(settings.llm, settings.server.timezone, edge=settings.cluster.tier == "edge")
        parts.chat = chat.model
        parts.about["llm"] = about_chat(chat)
        try:
            async with asyncio.timeout(_WARM_S):
                await chat.model.warm()
        except TimeoutError:
            _log.warning("the new endpoints do not answer yet")
    if _any(keys, ("tts",), NOT_OF_VOICES):
        voices = await asyncio.to_thread(build_voices, settings.tts, models_dir)
        parts.voice = voices.chain
        parts.about["tts"] = about_voices(voices)
        try:
            async with asyncio.timeout(_WARM_S):
                await voices.chain.warm()
        except (TimeoutError, VoiceError) as error:
            _log.warning("no new voice is ready: %s", error or "too slow")
    if _any(keys, ("llm", "tts", "audio", "cache")):
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
    services.tick.exchange(services.model, settings.vad)
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
    _exchange_recognizer(services, parts, before)
    services.load_shedder.retune(settings.load)
    services.admission.retune(settings.load.turns_at_once, settings.load.turn_wait_s)


def _exchange_recognizer(services: Services, parts: Parts, before: Settings) -> None:
    asr, cache = parts.settings.asr, parts.settings.cache
    former = services.ears.engine
    hearings = services.ears.exchange(
        parts.recognizer or former,
        early_decode=asr.early_decode,
        partials=asr.partials,
        batch_size=asr.batch_size,
        max_waiting=asr.max_concurrent,
    )
    memory = memory_of(services.ears.engine)
    if memory is not None:
        memory.resize(cache.recognition_ttl_s, cache.recognition_entries)
    if parts.recognizer is not None:
        services.unknown_language = UnknownLanguage()
        # An utterance is over by then, and its last decode given up.
        max_s = before.turn.max_utterance_s + before.asr.timeout_s
        services.retirement.retire(lambda: close_recognizer(former), in_use=lambda: bool(hearings), max_s=max_s)


def _any(keys: Iterable[str], tables: Iterable[str], but: Collection[str] = ()) -> bool:
    """Whether one of the keys is one of `tables` or lies within one, and is none of `but`."""
    names = tuple(tables)
    return any(key not in but and any(key == name or key.startswith(f"{name}.") for name in names) for key in keys)
