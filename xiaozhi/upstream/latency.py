"""How long an upstream takes to its first byte, lately, and what to expect of the next one. Pure: time is passed in."""

import math
from collections import deque
from typing import Final

# A slow answer may be chance: it moves the average by a third. A quick one cannot be: the upstream is well again.
_SLOWER_SHARE: Final = 0.3
_QUICKER_SHARE: Final = 0.7
# A wait of this many times the average is no longer spread: the answer is late.
_LATE_FACTOR: Final = 1.5
# Who has waited for so long without an answer is best told to expect as long again.
_AS_LONG_AGAIN: Final = 2.0
# What was seen so long ago counts a third (1/e): times change, and nobody sees it where nobody asks.
_FADES_S: Final = 10.0
# What an upstream does when it is well: a tenth of its answers are quicker, even where it was slow for minutes.
_USUAL_SHARE: Final = 0.1


class RollingLatency:
    """The last measurements of a time.

    Args:
        size: how many are kept.
        max_age_s: older ones say nothing about now.
    """

    def __init__(self, size: int = 100, max_age_s: float = 300.0) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=size)
        self._max_age_s = max_age_s
        self._mean_s = 0.0

    def add(self, now: float, took_s: float) -> None:
        """One measurement, in seconds."""
        fresh = bool(self._samples) and now - self._samples[-1][0] <= self._max_age_s
        share = _SLOWER_SHARE if took_s > self._mean_s else _QUICKER_SHARE
        self._mean_s += (took_s - self._mean_s) * (share if fresh else 1.0)
        self._samples.append((now, took_s))

    def given_up(self, now: float, waited_s: float) -> None:
        """Nobody waits any longer: it would have taken at least so long, in seconds. Tells nothing unless late."""
        if not self.is_late(now, waited_s):
            return
        self.add(now, waited_s)
        self._mean_s = max(self._mean_s, _AS_LONG_AGAIN * waited_s)

    def is_late(self, now: float, waited_s: float) -> bool:
        """Whether an answer that has not come after so long, in seconds, is later than usual."""
        mean = self.mean_s(now)
        return mean is None or waited_s > _LATE_FACTOR * mean

    @property
    def newest_at(self) -> float:
        """When the newest measurement was made; minus infinity when there is none."""
        return self._samples[-1][0] if self._samples else -math.inf

    def mean_s(self, now: float) -> float | None:
        """An average in which new measurements count more; None when the newest is too old."""
        if not self._samples or now - self._samples[-1][0] > self._max_age_s:
            return None
        return self._mean_s

    def usual_s(self, now: float) -> float | None:
        """How long it takes when it is well: the lowest tenth; None when nothing is known."""
        return self.quantile_s(_USUAL_SHARE, now)

    def expected_s(self, now: float, waited_s: float = 0.0) -> float | None:
        """What the next request should expect, in seconds; None when nothing is known.

        The average, which fades towards what is usual while nobody asks; more where somebody waits for longer already.

        Args:
            now: the time.
            waited_s: how long the oldest request that has no answer has waited.
        """
        mean, usual = self.mean_s(now), self.usual_s(now)
        if mean is None or usual is None:
            return waited_s or None
        if waited_s > _LATE_FACTOR * mean:
            return _AS_LONG_AGAIN * waited_s
        age_s = now - self._samples[-1][0]
        return max(waited_s, usual + (mean - usual) * math.exp(-age_s / _FADES_S))

    def quantile_s(self, share: float, now: float, *, least: int = 1) -> float | None:
        """The time that `share` (0 to 1) of the measurements kept to; None when there are fewer than `least`."""
        while self._samples and now - self._samples[0][0] > self._max_age_s:
            self._samples.popleft()
        if len(self._samples) < max(1, least):
            return None
        ordered = sorted(took for _, took in self._samples)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
