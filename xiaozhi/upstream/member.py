"""One of several upstreams: how the settings describe it, and all that is known of it. Time is passed in."""

import logging
import math
from collections import Counter
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from xiaozhi.upstream.breaker import Breaker, BreakerRules, BreakerState
from xiaozhi.upstream.choice import Candidate
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.latency import RollingLatency

_log = logging.getLogger(__name__)

T = TypeVar("T")

# Above this share of streams that broke off, others are preferred; each stream moves the share by a quarter.
_BREAKING_ABOVE: Final = 0.4
_BREAKS_MOVE: Final = 0.25


@dataclass(frozen=True, slots=True)
class Upstream(Generic[T]):
    """One upstream as the settings describe it.

    Attributes:
        name: for logs and metrics.
        target: what the caller asks with.
        weight: its share of the requests, above 0.
        max_concurrent: requests at the same time.
        tier: `edge`, `cloud` or another word by which the caller prefers.
        free: an extra request costs nothing.
    """

    name: str
    target: T
    weight: float = 1.0
    max_concurrent: int = 50
    tier: str = ""
    free: bool = True


@dataclass(slots=True)
class Counters:
    """What has become of the requests to one upstream."""

    requests: int = 0
    """All, hedges among them."""
    succeeded: int = 0
    dropped: int = 0
    """Ended by us: nobody listened any more, or another was quicker."""
    hedges: int = 0
    """Requests made although another was under way."""
    failures: Counter[FailureKind] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class UpstreamState:
    """How one upstream does, for metrics and people; see `Counters`. Times in seconds, None where unknown."""

    name: str
    tier: str
    breaker: BreakerState
    rests_s: float
    opened: int
    healthy: bool | None
    in_flight: int
    max_concurrent: int
    first_byte_s: float | None
    first_byte_p90_s: float | None
    requests: int
    succeeded: int
    dropped: int
    hedges: int
    failures: dict[str, int]
    last_error: str


class Member(Generic[T]):
    """One upstream and all that is known of it."""

    def __init__(self, upstream: Upstream[T], rules: BreakerRules) -> None:
        if upstream.weight <= 0 or upstream.max_concurrent < 1:
            raise ValueError(f"{upstream.name}: weight must be above 0 and max_concurrent at least 1")
        self.upstream = upstream
        self.breaker = Breaker(rules, self._changed)
        self.latency = RollingLatency()
        self.counters = Counters()
        self.in_flight = 0
        self.waiting: dict[int, float] = {}
        """Since when requests wait for their first byte, oldest first."""
        self._answered_began = -math.inf
        self.breaks = 0.0
        """Rolling share of streams that broke off."""
        self.healthy: bool | None = None
        """What the last health check found."""
        self.last_error = ""
        self.last_kind: FailureKind | None = None

    def free(self) -> int:
        """Slots that are not taken."""
        return self.upstream.max_concurrent - self.in_flight

    def answered(self, now: float, began: float) -> None:
        """The first byte of a request that began at `began` has come."""
        self.latency.add(now, now - began)
        self._answered_began = max(self._answered_began, began)

    def first_byte_s(self, now: float) -> float | None:
        """What the next request should expect, in seconds; None when nothing is known.

        Who waits for longer than usual makes that longer, unless somebody who came later has been answered: then it was
        slow and is well again.
        """
        waits = (began for began in self.waiting.values() if began > self._answered_began)
        began = next(waits, None)
        return self.latency.expected_s(now, 0.0 if began is None else now - began)

    def candidate(self, now: float) -> Candidate:
        """What speaks for it and against it."""
        upstream = self.upstream
        return Candidate(
            upstream.weight,
            self.first_byte_s(now),
            self.free() / upstream.max_concurrent,
            self.breaks > _BREAKING_ABOVE,
            self.latency.usual_s(now),
            self.breaker.state(now) is not BreakerState.CLOSED,
        )

    def ended(self, *, broke_off: bool) -> None:
        """A stream has ended."""
        self.breaks += (float(broke_off) - self.breaks) * _BREAKS_MOVE

    def state(self, now: float) -> UpstreamState:
        """For metrics and people."""
        return UpstreamState(
            name=self.upstream.name,
            tier=self.upstream.tier,
            breaker=self.breaker.state(now),
            rests_s=self.breaker.rests_s(now),
            opened=self.breaker.opened,
            healthy=self.healthy,
            in_flight=self.in_flight,
            max_concurrent=self.upstream.max_concurrent,
            first_byte_s=self.latency.mean_s(now),
            first_byte_p90_s=self.latency.quantile_s(0.9, now),
            requests=self.counters.requests,
            succeeded=self.counters.succeeded,
            dropped=self.counters.dropped,
            hedges=self.counters.hedges,
            failures={kind.value: count for kind, count in self.counters.failures.items()},
            last_error=self.last_error,
        )

    def _changed(self, old: BreakerState, new: BreakerState, now: float) -> None:
        level = logging.WARNING if new is BreakerState.OPEN else logging.INFO
        why = f" for {self.breaker.rests_s(now):.0f} s: {self.last_error}" if new is BreakerState.OPEN else ""
        _log.log(level, "upstream %s: %s, was %s%s", self.upstream.name, new.value, old.value, why)
