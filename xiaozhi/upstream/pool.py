"""Several upstreams that can stand in for each other: who is asked next, what came of it, who is well.

The same for chat models, voices and recognisers: what is asked (`T`) is the caller's business. A pool belongs to one
event loop.
"""

import asyncio
import logging
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Final, Generic, Self, TypeVar

from xiaozhi.upstream.breaker import Admission, Breaker, BreakerRules, BreakerState
from xiaozhi.upstream.budget import HedgeBudget
from xiaozhi.upstream.choice import Candidate, choose
from xiaozhi.upstream.failure import FailureKind
from xiaozhi.upstream.latency import RollingLatency

_log = logging.getLogger(__name__)

T = TypeVar("T")

# An average of this age says nothing about now: the upstream is asked again as if it were quick.
_STALE_S: Final = 30.0
# Above this share of streams that broke off, others are preferred; each stream moves the share by a quarter.
_BREAKING_ABOVE: Final = 0.4
_BREAKS_MOVE: Final = 0.25
# One that is not well is looked at so many times as often, so that it is soon used again when it is back.
_LOOKS_AT_UNWELL: Final = 5
# Fewer measurements are no basis for a 90th percentile.
_LEAST_MEASURED: Final = 10


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


class _Member(Generic[T]):
    """One upstream and all that is known of it."""

    def __init__(self, upstream: Upstream[T], rules: BreakerRules) -> None:
        if upstream.weight <= 0 or upstream.max_concurrent < 1:
            raise ValueError(f"{upstream.name}: weight must be above 0 and max_concurrent at least 1")
        self.upstream = upstream
        self.breaker = Breaker(rules, self._changed)
        self.latency = RollingLatency()
        self.counters = Counters()
        self.in_flight = 0
        self.waiting: dict[int, float] = {}  # since when requests wait for their first byte, oldest first
        self.breaks = 0.0  # rolling share of streams that broke off
        self.healthy: bool | None = None
        self.last_error = ""
        self.last_kind: FailureKind | None = None

    def free(self) -> int:
        return self.upstream.max_concurrent - self.in_flight

    def first_byte_s(self, now: float) -> float | None:
        """What to expect: the average, or more when somebody waits for longer already."""
        mean = self.latency.mean_s(now, _STALE_S)
        if not self.waiting:
            return mean
        waited = now - next(iter(self.waiting.values()))
        return waited if mean is None or waited > mean else mean

    def candidate(self, now: float) -> Candidate:
        upstream = self.upstream
        return Candidate(
            upstream.weight,
            self.first_byte_s(now),
            self.free() / upstream.max_concurrent,
            self.breaks > _BREAKING_ABOVE,
        )

    def _changed(self, old: BreakerState, new: BreakerState, now: float) -> None:
        level = logging.WARNING if new is BreakerState.OPEN else logging.INFO
        why = f" for {self.breaker.rests_s(now):.0f} s: {self.last_error}" if new is BreakerState.OPEN else ""
        _log.log(level, "upstream %s: %s, was %s%s", self.upstream.name, new.value, old.value, why)


class Lease(Generic[T]):
    """The right to ask one upstream once. Say how it ended; leaving the `with` block without that counts as dropped."""

    def __init__(self, pool: "UpstreamPool[T]", member: _Member[T], admission: Admission, now: float) -> None:
        self._pool = pool
        self._member = member
        self._admission = admission
        self.began = now
        """When it was given, on the pool's clock."""
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
            self._member.latency.add(now, now - self.began)
            self._pool.latency.add(now, now - self.began)
            if self._admission is Admission.PROBE:  # it is back: others need not wait for the end of this answer
                self._member.breaker.succeeded(self._admission, now)
                self._admission = Admission.ADMITTED

    def succeeded(self) -> None:
        """The answer is complete."""
        if self._close():
            self._member.counters.succeeded += 1
            self._member.breaks *= 1.0 - _BREAKS_MOVE
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
                member.breaks += (1.0 - member.breaks) * _BREAKS_MOVE
                breaker.succeeded(self._admission, now)
            case FailureKind.REFUSED:
                breaker.failed(self._admission, now, for_good=True)
            case FailureKind.BUSY:
                breaker.failed(self._admission, now, rest_s=rest_s)
            case FailureKind.FIRST_BYTE:
                if waited:
                    member.latency.add(now, now - self.began)
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
        if waited is not None and now - waited > (self._member.latency.mean_s(now) or 0.0):
            self._member.latency.add(now, now - waited)  # it took at least so long
        self._member.breaker.dropped(self._admission, now)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.dropped()

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
        self._members = [_Member(upstream, rules.breaker) for upstream in upstreams]
        self._rng = rng or random.Random()
        self._freed = asyncio.Event()
        self._checking: asyncio.Task[None] | None = None

    def take(
        self, tiers: Sequence[str] = (), *, without: Collection[str] = (), hedge: bool = False, free_only: bool = False
    ) -> Lease[T] | None:
        """The right to ask one of the upstreams that are well and have a free slot; None when there is none.

        Args:
            tiers: the preferred ones first; tiers that are not named come last. Empty: no preference.
            without: names that are out of the question.
            hedge: this request is an extra one; it never becomes the probe of an upstream that failed.
            free_only: only upstreams where a request costs nothing; for hedges.
        """
        now = self.now()
        open_to = [
            member
            for member in self._members
            if member.upstream.name not in without
            and (member.upstream.free or not free_only)
            and member.free() > 0
            and member.breaker.would_admit(now)
            and not (hedge and member.breaker.state(now) is not BreakerState.CLOSED)
        ]
        chosen = self._choose(open_to, tiers, now)
        if chosen is not None:
            return self._lease(chosen, now, hedge=hedge)
        if hedge:
            return None
        # Nobody is well. One that failed lately may be back: better one request in vain than certainly no answer.
        for member in sorted(self._members, key=lambda member: member.breaker.rests_s(now)):
            if (
                member.upstream.name not in without
                and member.free() > 0
                and not (free_only and not member.upstream.free)
            ):
                lease = self._lease(member, now, urgent=True)
                if lease is not None:
                    return lease
        return None

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

    def freed(self) -> None:
        """A slot has become free."""
        self._freed.set()

    def hedge_after_s(self) -> float:
        """After how long without a first byte a second upstream is asked, in seconds."""
        p90 = self.latency.quantile_s(0.9, self.now(), least=_LEAST_MEASURED)
        rules = self.rules
        return rules.hedge_to_s if p90 is None else min(max(p90, rules.hedge_from_s), rules.hedge_to_s)

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
        return [
            UpstreamState(
                name=one.upstream.name,
                tier=one.upstream.tier,
                breaker=one.breaker.state(now),
                rests_s=one.breaker.rests_s(now),
                opened=one.breaker.opened,
                healthy=one.healthy,
                in_flight=one.in_flight,
                max_concurrent=one.upstream.max_concurrent,
                first_byte_s=one.latency.mean_s(now),
                first_byte_p90_s=one.latency.quantile_s(0.9, now),
                requests=one.counters.requests,
                succeeded=one.counters.succeeded,
                dropped=one.counters.dropped,
                hedges=one.counters.hedges,
                failures={kind.value: count for kind, count in one.counters.failures.items()},
                last_error=one.last_error,
            )
            for one in self._members
        ]

    # Health -------------------------------------------------------------------------------------------------------

    def start_checks(self, check: Callable[[T], Awaitable[str]]) -> None:
        """Look after the upstreams in the background, until `close`; a second call changes nothing.

        Args:
            check: asks one without spending anything; returns why it is not well, or an empty text. Must not raise.
        """
        if self._checking is None:
            self._checking = asyncio.create_task(self._check_for_ever(check), name="upstream-checks")

    async def check_all(self, check: Callable[[T], Awaitable[str]]) -> None:
        """Check every upstream once, all at the same time."""
        await asyncio.gather(*(self._check(member, check) for member in self._members))

    async def close(self) -> None:
        """End the health checks."""
        if self._checking is not None:
            self._checking.cancel()
            await asyncio.gather(self._checking, return_exceptions=True)
            self._checking = None

    async def _check_for_ever(self, check: Callable[[T], Awaitable[str]]) -> None:
        turn = 0
        while True:
            await asyncio.sleep(self.rules.check_every_s / _LOOKS_AT_UNWELL)
            turn += 1
            now = self.now()
            due = [
                member
                for member in self._members
                if turn % _LOOKS_AT_UNWELL == 0
                or member.healthy is False
                or member.breaker.state(now) is not BreakerState.CLOSED
            ]
            await asyncio.gather(*(self._check(member, check) for member in due))

    async def _check(self, member: _Member[T], check: Callable[[T], Awaitable[str]]) -> None:
        why = await check(member.upstream.target)
        was, member.healthy = member.healthy, not why
        if not why:
            if was is False:
                _log.info("upstream %s answers again", member.upstream.name)
            if was is False or member.last_kind is FailureKind.CONNECTION:
                member.breaker.recover(self.now())
            return
        if was is not False:
            _log.warning("upstream %s is not well: %s", member.upstream.name, why)
            return  # once may be chance
        member.last_error = why
        # Twice in a row: leave it alone until the next check but one has found it well.
        member.breaker.rest(self.now(), 2.0 * self.rules.check_every_s)

    # Choosing -----------------------------------------------------------------------------------------------------

    def _choose(self, members: Sequence[_Member[T]], tiers: Sequence[str], now: float) -> _Member[T] | None:
        for tier in tiers:
            if preferred := [member for member in members if member.upstream.tier == tier]:
                return self._one_of(preferred, now)
        return self._one_of(members, now) if members else None

    def _one_of(self, members: Sequence[_Member[T]], now: float) -> _Member[T]:
        return members[choose([member.candidate(now) for member in members], self._rng)]

    def _lease(self, member: _Member[T], now: float, *, hedge: bool = False, urgent: bool = False) -> Lease[T] | None:
        admission = member.breaker.admit(now, urgent=urgent)
        if admission is Admission.REFUSED:
            return None
        member.in_flight += 1
        member.counters.requests += 1
        if hedge:
            self.hedges += 1
            member.counters.hedges += 1
        else:
            self.requests += 1
            self.budget.earn()
        return Lease(self, member, admission, now)
