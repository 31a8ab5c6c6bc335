"""What is kept: caches, the store, summaries; and tools."""

from collections.abc import Iterator
from typing import Final

from prometheus_client.metrics_core import Metric

from xiaozhi.cache.disk import DiskTier
from xiaozhi.cache.memory import MemoryTier
from xiaozhi.conversation.services import Services
from xiaozhi.observability.metrics.families import Figures, counter, counters, gauges

_CACHE: Final = ("cache",)


class CacheMetrics(Figures):
    """Reads caches and the store at each scrape.

    Args:
        services: of the process.
    """

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        yield from self._caches()
        yield from self._speech()
        yield from self._kept()

    def _caches(self) -> Iterator[Metric]:
        hits: dict[tuple[str, ...], float] = {}
        misses: dict[str, float] = {}
        entries: dict[str, float] = {}
        evicted: dict[str, float] = {}
        held: dict[str, float] = {}
        answers, kept = self._services.caches.answers, self._services.caches.speech.cache
        if answers is not None:
            hits |= {
                ("answers", "exact"): answers.hits,
                ("answers", "similar"): answers.similar_hits,
                ("answers", "common"): answers.common_hits,
            }
            misses["answers"], entries["answers"] = answers.misses, len(answers)
            evicted["answers"], held["answers"] = answers.evicted, answers.bytes
            yield counter("xiaozhi_cache_refused", "Questions that must not be answered from a cache.", answers.refused)
        if kept is not None:
            hits |= {("speech", "exact"): kept.hits, ("speech", "joined"): kept.joined}
            misses["speech"] = kept.misses
            yield counter("xiaozhi_speech_unkept", "Clauses made and not kept.", kept.unkept)
        if (memory := self._services.recognition.cache) is not None:
            hits["recognition", "exact"] = memory.hits
            misses["recognition"], entries["recognition"] = memory.misses, len(memory)
        yield counters("xiaozhi_cache_hits", "Questions answered, by how.", ("cache", "how"), hits)
        yield counters("xiaozhi_cache_misses", "Questions not answered.", _CACHE, misses)
        yield counters("xiaozhi_cache_evicted", "Entries forgotten to make room.", _CACHE, evicted)
        yield gauges("xiaozhi_cache_entries", "Entries held.", _CACHE, entries)
        yield gauges("xiaozhi_cache_bytes", "Size of what is held.", _CACHE, held)

    def _speech(self) -> Iterator[Metric]:
        kept = self._services.caches.speech.cache
        if kept is None:
            return
        tiers = [tier for tier in kept.tiers.tiers if isinstance(tier, MemoryTier | DiskTier)]
        one = ("tier",)
        yield counters("xiaozhi_speech_tier_hits", "Clauses found.", one, {t.name: t.hits for t in tiers})
        yield counters("xiaozhi_speech_tier_misses", "Clauses not found.", one, {t.name: t.misses for t in tiers})
        yield counters(
            "xiaozhi_speech_tier_evicted", "Clauses forgotten to make room.", one, {t.name: t.evicted for t in tiers}
        )
        yield gauges("xiaozhi_speech_tier_entries", "Clauses held.", one, {t.name: len(t) for t in tiers})
        yield gauges("xiaozhi_speech_tier_bytes", "Size of what is held.", one, {t.name: t.bytes for t in tiers})
        yield counters(
            "xiaozhi_speech_tier_dropped",
            "Clauses not kept because the disk was too slow or failed.",
            one,
            {t.name: t.dropped for t in tiers if isinstance(t, DiskTier)},
        )

    def _kept(self) -> Iterator[Metric]:
        database, summaries = self._services.store.database, self._services.summaries
        yield counter("xiaozhi_store_commits", "Batches written.", database.commits)
        yield counter("xiaozhi_store_dropped", "Writes not tried because too many waited.", database.dropped)
        yield counter("xiaozhi_store_failed", "Writes that the disk did not take.", database.failed)
        yield counter("xiaozhi_store_set_aside", "Damaged files that were replaced.", database.set_aside)
        yield counter("xiaozhi_summaries_made", "Summaries written.", summaries.made)
        yield counter("xiaozhi_summaries_failed", "Summaries that the model did not manage.", summaries.failed)
        calls = self._services.tools.counters
        yield counter("xiaozhi_tool_calls", "Calls of tools.", calls.calls)
        yield counters(
            "xiaozhi_tool_failures",
            "Calls that did not work out, by why.",
            ("why",),
            {"failed": calls.failed, "timed_out": calls.timed_out, "refused": calls.refused},
        )
