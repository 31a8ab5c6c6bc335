"""The caches of one process: built from the settings, filled ahead, closed."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, get_args

from xiaozhi.cache.answers import AnswerCache, AnswerLimits
from xiaozhi.cache.disk import DiskTier
from xiaozhi.cache.disk_file import FILE_NAME
from xiaozhi.cache.memory import MemoryTier
from xiaozhi.cache.preload import BUILT_IN, PreloadError, read_replies
from xiaozhi.cache.redis_answers import SharedAnswers
from xiaozhi.cache.redis_tier import RedisTier
from xiaozhi.cache.speech import SpeechCache
from xiaozhi.cache.tier import Tier, Tiers
from xiaozhi.cluster.link import RedisLink
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.events import Clause
from xiaozhi.settings import Settings
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.settings.llm import DEFAULT_SYSTEM_PROMPT
from xiaozhi.stages.llm.cached import CachedAnswers, models_key, said
from xiaozhi.stages.llm.stage import run_llm
from xiaozhi.stages.tts.clause_speech import ClauseSpeech, voice_fingerprints
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.text.language import language_of
from xiaozhi.text.messages import Key, message

if TYPE_CHECKING:
    from xiaozhi.cache.embeddings import Embeddings

_log = logging.getLogger(__name__)

_MB: Final = 1024 * 1024
# Common replies that are spoken ahead of time at most; the others are kept when they are first said.
_MAX_PREMADE: Final = 100


@dataclass(slots=True)
class Caches:
    """What one process keeps.

    Attributes:
        speech: makes clauses into packets, through a cache where that is not switched off.
        answers: of the language model; None when switched off or when there is no model.
        common: answers that are there from the start, for making their speech ahead.
        shared: answers of all nodes; None for a node that is alone.
    """

    settings: Settings
    speech: ClauseSpeech
    answers: AnswerCache | None
    common: tuple[str, ...] = ()
    shared: SharedAnswers | None = None
    link: RedisLink | None = None
    _embeddings: "Embeddings | None" = None
    _models: str = ""
    _premaking: asyncio.Task[None] | None = field(default=None, init=False)

    @property
    def lookup(self) -> CachedAnswers | None:
        """Answers that need no model; None when they are switched off."""
        if self.answers is None:
            return None
        return CachedAnswers(self.answers, self._embeddings, self._models, self.shared)

    def premake(self) -> None:
        """Have common phrases spoken in the background; call it when it is known which voices work."""
        if self.speech.cache is not None and self.settings.cache.premake and self._premaking is None:
            self._premaking = asyncio.create_task(self._premake(), name="premake")

    async def _premake(self) -> None:
        clauses = own_sentences()
        for answer in self.common[:_MAX_PREMADE]:
            clauses += await clauses_of(answer, self.settings)
        ready = await self.speech.premake(clauses)
        _log.info("%d common phrases can be said without synthesis", ready)

    async def premade(self) -> None:
        """Wait until the common phrases have been made."""
        if self._premaking is not None:
            await self._premaking

    def give_up_premaking(self) -> None:
        """Let the making of common phrases end soon, if it is under way."""
        if self._premaking is not None:
            self._premaking.cancel()

    async def close(self) -> None:
        """Stop what is under way, and write what is to be kept."""
        await self.close_all_but(None)

    async def close_all_but(self, others: "Caches | None") -> None:
        """Close what `others`, which have taken over, do not use as well."""
        self.give_up_premaking()
        if self._premaking is not None:
            await asyncio.gather(self._premaking, return_exceptions=True)
        cache = self.speech.cache
        if cache is not None and (others is None or cache is not others.speech.cache):
            await cache.close()
        if self.shared is not None and (others is None or self.shared is not others.shared):
            await self.shared.close()
        if self._embeddings is not None and (others is None or self._embeddings is not others._embeddings):
            await self._embeddings.close()


async def open_caches(
    settings: Settings,
    chain: VoiceChain,
    codec: WorkerPool,
    about: Sequence[str],
    before: Caches | None = None,
    link: RedisLink | None = None,
) -> Caches:
    """Build the caches that the settings want and open the one on disk.

    Args:
        settings: all of them: keys depend on many.
        chain: the voices.
        codec: the shared pool that encodes.
        about: lines about the voices, each beginning with its name.
        before: those of the settings before; what they hold is taken over, and `close_all_but` closes what is left.
        link: to what the nodes share; that of `before` when left out.
    """
    cache = settings.cache
    link = link or (before.link if before is not None else None)
    names = [state.name for state in chain.states]
    kept = await _speech_cache(settings, before.speech.cache if before is not None else None, link)
    speech = ClauseSpeech(chain, codec, settings, kept, voice_fingerprints(names, settings.tts, about))
    if not cache.answers or not settings.llm.endpoints:  # the built-in responder answers at once anyway
        return Caches(settings, speech, None, link=link)
    answers = _answer_cache(cache, before.answers if before is not None else None)
    replies = await asyncio.to_thread(_common_replies, cache, settings.llm.system_prompt)
    answers.forget_common()
    answers.preload(replies)
    embeddings = None
    if before is not None and before.settings.cache.embeddings == cache.embeddings:
        embeddings = before._embeddings
    if embeddings is None and cache.embeddings.base_url:
        from xiaozhi.cache.embeddings import Embeddings  # with its client, which takes half a second to load

        embeddings = Embeddings(cache.embeddings, time.monotonic)
    shared = before.shared if before is not None else None
    if shared is None and link is not None:
        shared = SharedAnswers(link, link.settings.cache_ttl_s)
    common = tuple(dict.fromkeys(answer for _, answer in replies))
    return Caches(settings, speech, answers, common, shared, link, embeddings, models_key(settings.llm))


async def _speech_cache(settings: Settings, before: SpeechCache | None, link: RedisLink | None) -> SpeechCache | None:
    """That of before with other limits, or a new one where the tiers are not the same; None when switched off."""
    cache = settings.cache
    if not cache.speech:
        return None
    had_disk = before is not None and any(isinstance(tier, DiskTier) for tier in before.tiers.tiers)
    # The longest life that any tier gives; each has its own below it.
    longest_s = max(cache.speech_memory_ttl_s, cache.disk_ttl_s)
    if before is not None and had_disk == bool(cache.disk_mb):
        for tier in before.tiers.tiers:
            if isinstance(tier, MemoryTier):
                tier.resize(cache.speech_memory_mb * _MB, cache.speech_memory_ttl_s)
            elif isinstance(tier, DiskTier):
                tier.resize(cache.disk_mb * _MB, cache.disk_ttl_s)
        before.tiers = Tiers(before.tiers.tiers, longest_s)
        return before
    tiers: list[Tier] = [MemoryTier(cache.speech_memory_mb * _MB, cache.speech_memory_ttl_s)]
    if link is not None:
        tiers.append(RedisTier(link, link.settings.cache_ttl_s))
    if cache.disk_mb:
        disk = DiskTier(settings.server.data_dir / FILE_NAME, cache.disk_mb * _MB, cache.disk_ttl_s)
        await disk.open()
        tiers.append(disk)
    return SpeechCache(Tiers(tiers, longest_s))


def _answer_cache(cache: CacheSettings, before: AnswerCache | None) -> AnswerCache:
    limits = AnswerLimits(
        max_entries=cache.max_entries,
        max_bytes=cache.max_mb * _MB,
        ttl_s=cache.ttl_s,
        similar=cache.similar,
        threshold=cache.threshold,
        embedding_threshold=cache.embeddings.threshold,
    )
    if before is None:
        return AnswerCache(limits)
    before.resize(limits)
    return before


def _common_replies(cache: CacheSettings, system_prompt: str) -> list[tuple[str, str]]:
    """Those of the owner's file go over the built-in ones; a file that cannot be used is logged and left out."""
    replies: list[tuple[str, str]] = []
    files = [BUILT_IN] if cache.common_replies and system_prompt == DEFAULT_SYSTEM_PROMPT else []
    for path in [*files, *([cache.preload] if cache.preload is not None else [])]:
        try:
            replies += read_replies(path)
        except PreloadError as error:
            _log.warning("cache.preload: %s", error)
    return replies


def own_sentences() -> list[Clause]:
    """What the server says of its own accord, in both languages, as replies say it."""
    clauses = []
    for key in get_args(Key):
        for language in ("zh", "en"):
            text = message(key, language)
            clauses.append(Clause(text, text, language))
    return clauses


async def clauses_of(answer: str, settings: Settings) -> list[Clause]:
    """The clauses in which an answer is spoken when it is there all at once."""
    clauses: Channel[Clause] = Channel(float("inf"))
    await run_llm(
        said(answer),
        clauses,
        language=language_of(answer),
        settings=settings,
        on_first_token=lambda: None,
        on_first_clause=lambda: None,
        queued_ms=lambda: 0.0,
    )
    return clauses.drain()
