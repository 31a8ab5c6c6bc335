"""Several upstreams that can stand in for each other: who is asked next, what came of it, who is well.

The same for chat models, voices and recognisers: what is asked (`T`) is the caller's business. A pool belongs to one
event loop.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Generic, TypeVar

from xiaozhi.upstream.breaker import Admission, BreakerRules, BreakerState
from xiaozhi.upstream.budget import HedgeBudget
from xiaozhi.upstream.choice import UpstreamStanding, choose, standing, standings
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.health import HealthChecks
from xiaozhi.upstream.latency import RollingLatency
from xiaozhi.upstream.member import Member, Upstream, UpstreamState

T = TypeVar("T")

# Fewer measurements are no basis for a 90th percentile.
_MIN_MEASURED: Final = 10
# Later than so many times the 90th percentile is too late.
_LATE_FACTOR: Final = 3.0
# Beside so many requests one that is slow or unproven is asked as well, where the budget allows it.
_LOOKED_SHARE: Final = 0.1
# Extra requests that looking must leave for hedges.
_KEPT_FOR_HEDGES: Final = 1.0


@dataclass(frozen=True, slots=True)
class PoolRules:
    """How a pool behaves.

    Attributes:
        breaker: of each upstream.
        check_every_s: between two health checks.
        hedge_share: extra requests for each ordinary one.
        hedge_from_s, hedge_to_s: a second upstream is asked after the rolling 90th percentile of the first-byte time,
            but not sooner and not later than this.
    """

    breaker: BreakerRules = field(default_factory=BreakerRules)
    check_every_s: float = 10.0
    hedge_share: float = 0.05
    hedge_from_s: float = 0.6
    hedge_to_s: float = 1.5


class Lease(Generic[T]):
    """The right to ask one upstream once. Say how it ended: `succeeded`, `failed`, or `dropped`."""

    def __init__(
        self, pool: "UpstreamPool[T]", member: Member[T], admission: Admission, now: float, *, doubtful: bool
    ) -> None:
        self._pool = pool
        self._member = member
        self._admission = admission
        self.began = now
        """When it was given, on the pool's clock."""
        self.doubtful = doubtful
        """It was known beforehand that this upstream may be late: slow lately, or failed lately."""
        self._open = True
        member.waiting[id(self)] = now

    @property
    def name(self) -> str:
        """Of the upstream."""
        return self._member.upstream.name

    @property
    def target(self) -> T:
        """What to ask with."""
        return self._member.upstream.target

    @property
    def probe(self) -> bool:
        """The upstream has failed lately and the first byte of this request tells that it is back."""
        return self._admission is Admission.PROBE

    def first_byte(self) -> None:
        """The first useful piece has come; only the first call counts."""
        if self._member.waiting.pop(id(self), None) is not None:
            now = self._pool.now()
            self._member.answered(now, self.began)
            self._pool.measured(self._member, now - self.began)
            if self._admission is Admission.PROBE:  # it is back: others need not wait for the end of this answer
                self._member.breaker.succeeded(self._admission, now)
                self._admission = Admission.ADMITTED

    def succeeded(self) -> None:
        """The answer is complete."""
        if self._close():
            self._member.counters.succeeded += 1
            self._member.ended(broke_off=False)
            self._member.healthy = True
            self._member.breaker.succeeded(self._admission, self._pool.now())

    def failed(self, kind: FailureKind, why: str, *, rest_s: float | None = None) -> None:
        """It went wrong.

        Args:
            kind: how.
            why: one line for people.
            rest_s: the upstream said when to come back, in seconds from now.
        """
        waited = id(self) in self._member.waiting
        if not self._close():
            return
        member, now = self._member, self._pool.now()
        member.counters.failures[kind] += 1
        member.last_error, member.last_kind = why, kind
        breaker = member.breaker
        match kind:
            case FailureKind.REQUEST:
                breaker.dropped(self._admission, now)
            case FailureKind.BROKEN:
                # It is there and starts to answer. Others are preferred, but it is better than nobody.
                member.ended(broke_off=True)
                breaker.succeeded(self._admission, now)
            case FailureKind.REFUSED:
                breaker.failed(self._admission, now, for_good=True)
            case FailureKind.BUSY:
                breaker.failed(self._admission, now, rest_s=rest_s)
            case FailureKind.FIRST_BYTE:
                if waited:
                    member.latency.given_up(now, now - self.began)
                breaker.failed(self._admission, now)
            case _:
                breaker.failed(self._admission, now)

    def dropped(self) -> None:
        """Nobody waits for the end any more."""
        waited = self._member.waiting.get(id(self))
        if not self._close():
            return
        now = self._pool.now()
        self._member.counters.dropped += 1
        if waited is not None:
            self._member.latency.given_up(now, now - waited)
        self._member.breaker.dropped(self._admission, now)

    def _close(self) -> bool:
        was_open, self._open = self._open, False
        if was_open:
            self._member.waiting.pop(id(self), None)
            self._member.in_flight -= 1
            self._pool.freed()
        return was_open


class UpstreamPool(Generic[T]):
    """The upstreams of one kind.

    Args:
        upstreams: at least one.
        rules: breakers, health checks, hedges.
        rng: chooses; seeded in tests.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        upstreams: Sequence[Upstream[T]],
        rules: PoolRules = PoolRules(),
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if not upstreams:
            raise ValueError("there must be an upstream")
        self.rules = rules
        self.now = clock
        self.latency = RollingLatency()
        self.requests = 0
        """Requests without hedges."""
        self.hedges = 0
        self.failovers = 0
        """Requests made because another had failed."""
        self.budget = HedgeBudget(rules.hedge_share)
        self._members = [Member(upstream, rules.breaker) for upstream in upstreams]
        self._rng = rng or random.Random()
        self._freed = asyncio.Event()
        self.checks = HealthChecks(self._members, rules.check_every_s, clock)
        """Looks after them in the background, once begun."""

    def take(
        self,
        tiers: Sequence[str] = (),
        *,
        without: Collection[str] = (),
        hedge: bool = False,
        free_only: bool = False,
        explore: bool = True,
        probe: bool = False,
        prefer: str = "",
    ) -> Lease[T] | None:
        """The right to ask one of the upstreams that are well and have a free slot; None when there is none.

        Args:
            tiers: the preferred ones first; tiers that are not named come last. Empty: no preference.
            without: names that are out of the question.
            hedge: this request is an extra one; it never becomes the probe of an upstream that failed.
            free_only: only upstreams where a request costs nothing; for hedges.
            explore: a few requests go to those that are worse, to notice when they are well again.
            probe: where nobody is well a hedge may become the probe of one that failed.
            prefer: the name of one that is taken, if it is well and free, whatever speaks for the others.
        """
        now = self.now()
        open_to = [
            member
            for member in self._members
            if (member.upstream.free or not free_only)
            and not (hedge and member.breaker.state(now) is not BreakerState.CLOSED)
        ]
        chosen = self._well(open_to, now, tiers, without, prefer, explore=explore and not hedge)
        if chosen is not None:
            return self._lease(chosen, now, hedge=hedge)
        if hedge and not probe:
            return None
        # Nobody is well. One that failed lately may be back: better one request in vain than certainly no answer.
        for member in sorted(self._members, key=lambda member: member.breaker.rests_s(now)):
            if (
                member.upstream.name not in without
                and member.free() > 0
                and not (free_only and not member.upstream.free)
                and not (hedge and not member.breaker.would_probe(now))
            ):
                lease = self._lease(member, now, hedge=hedge, urgent=True)
                if lease is not None:
                    return lease
        return None

    def likely(self, tiers: Sequence[str] = (), *, without: Collection[str] = (), prefer: str = "") -> str:
        """The name of one that `take` might choose now, by the same chances; empty where nobody is well and free."""
        chosen = self._well(self._members, self.now(), tiers, without, prefer, explore=True)
        return "" if chosen is None else chosen.upstream.name

    def look(self, beside: str, *, without: Collection[str] = (), free_only: bool = False) -> Lease[T] | None:
        """Now and then, the right to ask one that is worse, beside a request that somebody waits for.

        So nobody has to wait for the answer of an upstream that may still be slow. It counts as an extra request, and
        is only made where enough of those are left for hedges.

        Args:
            beside: the upstream that is asked for the answer.
            without: names that are out of the question.
            free_only: only upstreams where a request costs nothing.
        """
        now = self.now()
        usable = [
            one
            for one in self._members
            if one.upstream.name not in without and one.free() > 0 and one.breaker.would_admit(now)
        ]
        if len(usable) < 2:
            return None
        ranks = standings([member.candidate(now) for member in usable])
        worse = [
            member
            for member, rank in zip(usable, ranks, strict=True)
            if rank >= UpstreamStanding.UNPROVEN
            and member.upstream.name != beside
            and not member.waiting
            and (member.upstream.free or not free_only)
        ]
        if not worse or self._rng.random() >= _LOOKED_SHARE or not self.budget.spend(keep=_KEPT_FOR_HEDGES):
            return None
        lease = self._lease(min(worse, key=lambda member: member.latency.newest_at), now, hedge=True)
        if lease is None:
            self.budget.give_back()
        return lease

    def failed_ones(self, without: Collection[str]) -> bool:
        """Whether there is one, other than those named, of which only a probe would tell whether it is back."""
        now = self.now()
        return any(
            member.upstream.name not in without and member.free() > 0 and member.breaker.would_probe(now)
            for member in self._members
        )

    def others(self, without: Collection[str], *, quicker_than_s: float | None = None) -> bool:
        """Whether `take` would find one that is well and free, other than those named.

        Args:
            without: names that are out of the question.
            quicker_than_s: one that is known to take longer to its first byte does not count.
        """
        now = self.now()
        for member in self._members:
            if member.upstream.name in without or member.free() <= 0 or not member.breaker.would_admit(now):
                continue
            expected = member.first_byte_s(now)
            if quicker_than_s is None or expected is None or expected < quicker_than_s:
                return True
        return False

    def full(self, without: Collection[str] = ()) -> bool:
        """Whether waiting for a free slot has sense: somebody who is well has none."""
        now = self.now()
        return any(
            member.upstream.name not in without and member.free() <= 0 and member.breaker.would_admit(now)
            for member in self._members
        )

    async def wait_for_slot(self) -> None:
        """Wait until some request has ended."""
        self._freed.clear()
        await self._freed.wait()

    def measured(self, member: Member[T], took_s: float) -> None:
        """An upstream has shown how long it takes to its first byte, in seconds.

        What slow ones take while others are well says nothing about when an answer is late.
        """
        now = self.now()
        if not self._is_slow(member, now) or all(self._is_slow(other, now) for other in self._members):
            self.latency.add(now, took_s)

    def freed(self) -> None:
        """A slot has become free."""
        self._freed.set()

    def late_after_s(self) -> float:
        """After how long without a first byte a request is hopeless where others are well, in seconds."""
        p90 = self.latency.quantile_s(0.9, self.now(), least=_MIN_MEASURED)
        return math.inf if p90 is None else max(_LATE_FACTOR * p90, self.rules.hedge_to_s)

    def hedge_after_s(self) -> float:
        """After how long without a first byte a second upstream is asked, in seconds."""
        p90 = self.latency.quantile_s(0.9, self.now(), least=_MIN_MEASURED)
        rules = self.rules
        return rules.hedge_to_s if p90 is None else min(max(p90, rules.hedge_from_s), rules.hedge_to_s)

    def suspect(self, name: str) -> bool:
        """Somebody else has found an upstream dead: the next request there is a probe, and others go elsewhere.

        Returns:
            Whether it was trusted until now.
        """
        now = self.now()
        for member in self._members:
            if member.upstream.name == name and member.breaker.state(now) is BreakerState.CLOSED:
                member.last_error = "another node has found it dead"
                member.breaker.rest(now, 0.0)
                return True
        return False

    def is_well(self, tier: str) -> bool:
        """Whether an upstream of a tier takes requests."""
        now = self.now()
        return any(
            member.upstream.tier == tier and member.breaker.state(now) is BreakerState.CLOSED
            for member in self._members
        )

    def busy_share(self, tier: str) -> float:
        """How many of a tier's slots are taken, 0 to 1; 1 where no upstream of the tier is well."""
        now = self.now()
        well = [one for one in self._members if one.upstream.tier == tier and one.breaker.would_admit(now)]
        slots = sum(member.upstream.max_concurrent for member in well)
        return sum(member.in_flight for member in well) / slots if slots else 1.0

    @property
    def tiers(self) -> frozenset[str]:
        """The tiers that have an upstream."""
        return frozenset(member.upstream.tier for member in self._members)

    def states(self) -> list[UpstreamState]:
        """How every upstream does, in the order of the settings."""
        now = self.now()
        return [member.state(now) for member in self._members]

    # Choosing -----------------------------------------------------------------------------------------------------

    def _well(
        self,
        members: Sequence[Member[T]],
        now: float,
        tiers: Sequence[str],
        without: Collection[str],
        prefer: str,
        *,
        explore: bool,
    ) -> Member[T] | None:
        """The one that is preferred, or one that is chosen, of those that are well and have a free slot."""
        open_to = [
            member
            for member in members
            if member.upstream.name not in without and member.free() > 0 and member.breaker.would_admit(now)
        ]
        preferred = next((member for member in open_to if member.upstream.name == prefer), None)
        return preferred or self._choose(open_to, tiers, now, explore=explore)

    def _choose(
        self, members: Sequence[Member[T]], tiers: Sequence[str], now: float, *, explore: bool
    ) -> Member[T] | None:
        for tier in tiers:
            if preferred := [member for member in members if member.upstream.tier == tier]:
                return self._one_of(preferred, now, explore=explore)
        return self._one_of(members, now, explore=explore) if members else None

    def _is_slow(self, member: Member[T], now: float) -> bool:
        known = [took for one in self._members if (took := one.first_byte_s(now)) is not None]
        return (
            standing(replace(member.candidate(now), unproven=False), min(known, default=0.0)) is UpstreamStanding.SLOW
        )

    def _one_of(self, members: Sequence[Member[T]], now: float, *, explore: bool) -> Member[T]:
        return members[choose([member.candidate(now) for member in members], self._rng, explore=explore)]

    def _lease(self, member: Member[T], now: float, *, hedge: bool = False, urgent: bool = False) -> Lease[T] | None:
        admission = member.breaker.admit(now, urgent=urgent)
        if admission is Admission.REFUSED:
            return None
        doubtful = admission is Admission.PROBE or self._is_slow(member, now)
        member.in_flight += 1
        member.counters.requests += 1
        if hedge:
            self.hedges += 1
            member.counters.hedges += 1
        else:
            self.requests += 1
            self.budget.earn()
        return Lease(self, member, admission, now, doubtful=doubtful)
