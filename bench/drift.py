"""Whether something grows: a slope by least squares, and levels early and late in a run. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Final

from bench.sampling import Sample

# What may grow in the judged stretch.
FLAT: Final = 0.03
# Connections and pool threads come and go with the load: so many more or less of them are no growth.
SLACK: Final = {"fds": 8.0, "threads": 4.0, "tasks": 12.0}
# Memory, pools and caches find their size in the first minutes; a shorter run gives them half of itself.
WARM_UP_S: Final = 600.0
_WARM_UP_MOST: Final = 0.5
# Levels are medians over this share at either end of the judged stretch.
_END_SHARE: Final = 0.2


def slope_per_hour(at_s: Sequence[float], values: Sequence[float]) -> float:
    """Growth for each hour by least squares; NaN where two different times are not there."""
    count = len(at_s)
    if count < 2:
        return math.nan
    mean_s, mean = sum(at_s) / count, sum(values) / count
    spread = sum((at - mean_s) ** 2 for at in at_s)
    if spread == 0.0:
        return math.nan
    return 3600.0 * sum((at - mean_s) * (value - mean) for at, value in zip(at_s, values, strict=True)) / spread


@dataclass(frozen=True, slots=True)
class Drift:
    """One quantity over the judged stretch: its level early and late, and its slope by least squares."""

    name: str
    early: float
    late: float
    per_hour: float

    @property
    def growth(self) -> float:
        """Late against early, as a share."""
        return self.late / self.early - 1.0 if self.early else math.nan

    @property
    def flat(self) -> bool:
        """It did not grow by more than 3 %, or by no more than a handful where single ones come and go."""
        return self.late - self.early <= max(FLAT * self.early, SLACK.get(self.name, 0.0))


def judged(samples: Sequence[Sample]) -> list[Sample]:
    """The samples behind the warm-up: from minute 10 on, or the second half of a shorter run."""
    if not samples:
        return []
    began_s, ended_s = samples[0].at_s, samples[-1].at_s
    from_s = began_s + min(WARM_UP_S, _WARM_UP_MOST * (ended_s - began_s))
    return [sample for sample in samples if sample.at_s >= from_s]


def drifts(samples: Sequence[Sample]) -> list[Drift]:
    """Memory, threads, file descriptors and tasks of a run; what could not be read is left out."""
    stretch = judged(samples)
    found = []
    for name in ("rss_mb", "threads", "fds", "tasks"):
        known = [(sample.at_s, float(value)) for sample in stretch if (value := getattr(sample, name)) is not None]
        if len(known) < 2:
            continue
        times, values = zip(*known, strict=True)
        end = max(1, int(_END_SHARE * len(values)))
        found.append(Drift(name, median(values[:end]), median(values[-end:]), slope_per_hour(times, values)))
    return found
