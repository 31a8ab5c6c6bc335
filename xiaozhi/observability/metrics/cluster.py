"""What a node of a cluster counts; nothing on a server that is alone."""

from collections.abc import Callable, Iterator

from prometheus_client.metrics_core import Metric

from xiaozhi.cache.redis_tier import RedisTier
from xiaozhi.cluster.node import ClusterNode
from xiaozhi.conversation.services import Services
from xiaozhi.observability.metrics.families import Figures, counter, counters, gauge


class ClusterMetrics(Figures):
    """Reads the link to Redis and this node's place at each scrape.

    Args:
        services: of the process.
        node: this node; None as long as it has not joined.
    """

    def __init__(self, services: Services, node: Callable[[], ClusterNode | None]) -> None:
        self._services = services
        self._node = node

    def collect(self) -> Iterator[Metric]:
        """Read everything once."""
        shared, node = self._services.shared, self._node()
        if shared is None:
            return
        yield counter("xiaozhi_redis_requests", "Questions put to Redis.", shared.link.asked)
        yield counter("xiaozhi_redis_failures", "Of these, questions without an answer in time.", shared.link.failed)
        yield counter("xiaozhi_redis_spared", "Questions not asked because Redis has just failed.", shared.link.spared)
        talks = shared.conversations
        yield counters(
            "xiaozhi_shared_conversations",
            "Ends of conversations: taken over from another node, written for others, not written.",
            ("what",),
            {"taken_over": talks.taken_over, "written": talks.written, "dropped": talks.dropped},
        )
        yield from self._caches()
        if node is not None:
            registry = node.registry
            yield gauge("xiaozhi_nodes", "Nodes that are known, this one among them.", len(registry.nodes))
            yield counters(
                "xiaozhi_heartbeats",
                "Heartbeats of this node, by outcome.",
                ("outcome",),
                {"written": registry.beats, "missed": registry.missed},
            )
            yield counter("xiaozhi_devices_sent_elsewhere", "Devices told another address.", registry.sent_elsewhere)

    def _caches(self) -> Iterator[Metric]:
        caches = self._services.caches
        kept = caches.speech.cache.tiers.tiers if caches.speech.cache is not None else ()
        tiers = dict[str, tuple[int, int, int]]()
        if (speech := next((tier for tier in kept if isinstance(tier, RedisTier)), None)) is not None:
            tiers["speech"] = (speech.hits, speech.misses, speech.dropped)
        if (answers := caches.shared) is not None:
            tiers["answers"] = (answers.hits, answers.misses, answers.dropped)
        one = ("cache",)
        yield counters("xiaozhi_redis_cache_hits", "Found in Redis.", one, {n: t[0] for n, t in tiers.items()})
        yield counters("xiaozhi_redis_cache_misses", "Not found in Redis.", one, {n: t[1] for n, t in tiers.items()})
        yield counters("xiaozhi_redis_cache_dropped", "Not kept in Redis.", one, {n: t[2] for n, t in tiers.items()})
