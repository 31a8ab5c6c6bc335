"""How long an upstream takes to its first byte, lately. Pure: time is passed in."""

import math
from collections import deque
from typing import Final

# A change is noticed within a few requests, one slow answer does not turn everything round.
_NEWEST_SHARE: Final = 0.3


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
        self._mean_s += (took_s - self._mean_s) * (_NEWEST_SHARE if fresh else 1.0)
        self._samples.append((now, took_s))

    def mean_s(self, now: float, max_age_s: float | None = None) -> float | None:
        """An average in which new measurements count more; None when the newest is too old."""
        limit = self._max_age_s if max_age_s is None else max_age_s
        if not self._samples or now - self._samples[-1][0] > limit:
            return None
        return self._mean_s

    def quantile_s(self, share: float, now: float, *, least: int = 1) -> float | None:
        """The time that `share` (0 to 1) of the measurements kept to; None when there are fewer than `least`."""
        while self._samples and now - self._samples[0][0] > self._max_age_s:
            self._samples.popleft()
        if len(self._samples) < max(1, least):
            return None
        ordered = sorted(took for _, took in self._samples)
        return ordered[max(0, math.ceil(share * len(ordered)) - 1)]
