"""A circuit breaker: an upstream that keeps failing is left alone for a while, then tried by one request. Pure.

How to use it, for anything that can fail (the times are seconds of any one clock):

    breaker = Breaker(BreakerRules())            # one for each upstream, shared by all conversations
    admission = breaker.admit(now)               # before each request
    if admission is Admission.REFUSED:
        ...                                      # go to the next upstream
    # then exactly one of these, with that same admission:
    breaker.succeeded(admission, now)
    breaker.failed(admission, now)               # or failed(admission, now, rest_s=20.0) when it said when to return
    breaker.dropped(admission, now)              # nobody waited for the end: says nothing about the upstream

`breaker.would_admit(now)` looks without taking the probe. `admit(now, urgent=True)` lets requests through although the
circuit is open, unless the upstream itself said when to return: for when nobody else is left. `recover(now)` tells of
other signs of life, such as a health check that succeeds again: the probe may pass at once.
"""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Final

# What failed a moment ago would fail again.
_NOTHING_NEW_S: Final = 1.0


class BreakerState(Enum):
    """What the breaker does with requests."""

    CLOSED = "closed"
    """They pass."""
    OPEN = "open"
    """They are refused until the upstream has rested."""
    HALF_OPEN = "half-open"
    """One probe passes; its outcome decides."""


class Signal(Enum):
    """What moves a breaker from one state to another."""

    TRIPPED = "tripped"
    """Too many requests have failed, or the upstream asked to be left alone."""
    RESTED = "rested"
    """The time of rest is over."""
    PROBE_SUCCEEDED = "probe succeeded"
    PROBE_FAILED = "probe failed"


_NEXT: Final = {
    (BreakerState.CLOSED, Signal.TRIPPED): BreakerState.OPEN,
    (BreakerState.OPEN, Signal.RESTED): BreakerState.HALF_OPEN,
    (BreakerState.OPEN, Signal.PROBE_SUCCEEDED): BreakerState.CLOSED,  # an urgent probe
    (BreakerState.HALF_OPEN, Signal.PROBE_SUCCEEDED): BreakerState.CLOSED,
    (BreakerState.HALF_OPEN, Signal.PROBE_FAILED): BreakerState.OPEN,
    (BreakerState.HALF_OPEN, Signal.TRIPPED): BreakerState.OPEN,
}


def transition(state: BreakerState, signal: Signal) -> BreakerState:
    """The state after `signal`; the same where the signal means nothing."""
    return _NEXT.get((state, signal), state)


class Admission(Enum):
    """The answer to a request that wants to pass."""

    REFUSED = "refused"
    ADMITTED = "admitted"
    PROBE = "probe"
    """Admitted, and its outcome decides whether others follow."""


@dataclass(frozen=True, slots=True)
class BreakerRules:
    """When to open and for how long.

    Attributes:
        failures: so many in a row open the breaker.
        open_s: how long it stays open.
        window_s, window_min, error_rate: it opens as well when, of at least `window_min` requests of the last
            `window_s`, this share failed: an upstream that fails every other time never fails five times in a row.
    """

    failures: int = 5
    open_s: float = 30.0
    window_s: float = 30.0
    window_min: int = 10
    error_rate: float = 0.5

    def __post_init__(self) -> None:
        if self.failures < 1 or self.window_min < 1 or self.open_s < 0 or not 0 < self.error_rate <= 1:
            raise ValueError("a breaker needs at least one failure, and a rate above 0 and at most 1")


class Breaker:
    """One upstream's breaker.

    Args:
        rules: when to open.
        on_change: called with the old state, the new one and the time, at every change.
    """

    def __init__(
        self,
        rules: BreakerRules = BreakerRules(),
        on_change: Callable[[BreakerState, BreakerState, float], None] | None = None,
    ) -> None:
        self._rules = rules
        self._on_change = on_change
        self._state = BreakerState.CLOSED
        self._open_until = 0.0
        self._row = 0
        self._probing = False
        self._asked_to_rest = False
        self._failed_at = -math.inf
        self._recent: deque[tuple[float, bool]] = deque()  # when a request ended, and whether it failed
        self._recent_failed = 0
        self.opened = 0
        """How often it has opened."""

    def state(self, now: float) -> BreakerState:
        """What it does now."""
        if self._state is BreakerState.OPEN and now >= self._open_until:
            return transition(self._state, Signal.RESTED)
        return self._state

    def rests_s(self, now: float) -> float:
        """How long it stays open yet, in seconds; 0 when it is not open."""
        return max(0.0, self._open_until - now) if self._state is BreakerState.OPEN else 0.0

    def would_admit(self, now: float) -> bool:
        """Whether `admit` would let a request pass, without letting one."""
        state = self.state(now)
        return state is BreakerState.CLOSED or (state is BreakerState.HALF_OPEN and not self._probing)

    def would_probe(self, now: float) -> bool:
        """Whether an urgent request would be the probe and could tell something new.

        It is not closed, nobody tries it now or did so a moment ago, and it did not ask for rest.
        """
        tried = self._probing or now < self._failed_at + _NOTHING_NEW_S
        return self.state(now) is not BreakerState.CLOSED and not tried and not self._asked_to_rest

    def admit(self, now: float, *, urgent: bool = False) -> Admission:
        """May a request pass? `urgent`: also before the rest is over. Report its outcome afterwards."""
        if self.state(now) is not self._state:
            self._signal(Signal.RESTED, now)
        if self._state is BreakerState.CLOSED:
            return Admission.ADMITTED
        if self._state is BreakerState.OPEN and (self._asked_to_rest or not urgent):
            return Admission.REFUSED
        if self._probing:
            return Admission.ADMITTED if urgent else Admission.REFUSED
        self._probing = True
        return Admission.PROBE

    def succeeded(self, admission: Admission, now: float) -> None:
        """An admitted request went well. One from before the breaker opened closes nothing."""
        self._ended(admission, now, failed=False)
        if admission is Admission.PROBE:
            self._signal(Signal.PROBE_SUCCEEDED, now)
        if self._state is BreakerState.CLOSED:
            self._row = 0

    def failed(self, admission: Admission, now: float, *, rest_s: float | None = None, for_good: bool = False) -> None:
        """An admitted request failed.

        Args:
            admission: what the request was let in with.
            now: the time.
            rest_s: the upstream said when to come back: opens at once, for so long.
            for_good: it is plain that it will fail again: opens at once.
        """
        self._ended(admission, now, failed=True)
        self._failed_at = now
        self._row += 1
        if rest_s is not None:
            self._asked_to_rest = True
            self.rest(now, rest_s)
        elif admission is Admission.PROBE:
            self._open_until = now + self._rules.open_s
            self._signal(Signal.PROBE_FAILED, now)
        elif self._state is BreakerState.CLOSED and (for_good or self._too_many()):
            self.rest(now, self._rules.open_s)

    def dropped(self, admission: Admission, now: float) -> None:
        """Nobody waited for the end of an admitted request; if it was the probe, another may follow."""
        if admission is Admission.PROBE:
            self._probing = False

    def rest(self, now: float, seconds: float) -> None:
        """Open, whatever the count, and stay open at least so long."""
        self._open_until = max(self._open_until, now + seconds)
        self._signal(Signal.TRIPPED, now)

    def recover(self, now: float) -> None:
        """There are other signs of life: let the probe pass now, unless the upstream said when to come back."""
        if self._state is BreakerState.OPEN and not self._asked_to_rest:
            self._open_until = now

    def _too_many(self) -> bool:
        rules, count = self._rules, len(self._recent)
        return self._row >= rules.failures or (
            count >= rules.window_min and self._recent_failed >= rules.error_rate * count
        )

    def _ended(self, admission: Admission, now: float, *, failed: bool) -> None:
        if admission is Admission.REFUSED:
            raise ValueError("a request that was refused has no outcome")
        if admission is Admission.PROBE:
            self._probing = False
        self._recent.append((now, failed))
        self._recent_failed += failed
        while self._recent and self._recent[0][0] < now - self._rules.window_s:
            self._recent_failed -= self._recent.popleft()[1]

    def _signal(self, signal: Signal, now: float) -> None:
        old, self._state = self._state, transition(self._state, signal)
        if self._state is old:
            return
        if self._state is not BreakerState.OPEN:
            self._asked_to_rest = False
        if self._state is BreakerState.OPEN:
            self.opened += 1
        elif self._state is BreakerState.CLOSED:
            self._row = 0
            self._recent.clear()
            self._recent_failed = 0
        if self._on_change is not None:
            self._on_change(old, self._state, now)
