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
_MAX_WARM_UP: Final = 0.5
# Levels are medians over this share at either end of the judged stretch.
_END_SHARE: Final = 0.2
# Parts of the stretch that count as one witness each for the slope's confidence, and Student's t for 18 degrees of
# freedom at 95 %.
_BLOCKS: Final = 20
_STUDENT_T: Final = 2.10


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


def slope_margin(at_s: Sequence[float], values: Sequence[float], blocks: int = _BLOCKS) -> float:
    """Half the width of the slope's 95 % confidence interval, for each hour; NaN where there are too few samples.

    Samples of one second are no independent witnesses (memory comes and goes in waves): the stretch is cut into
    `blocks` parts of equal count, and their means are taken for them.
    """
    count = min(blocks, len(values) // 2)
    if count < 4:
        return math.nan
    cuts = [(len(values) * number // count, len(values) * (number + 1) // count) for number in range(count)]
    times = [sum(at_s[begin:end]) / (end - begin) for begin, end in cuts]
    means = [sum(values[begin:end]) / (end - begin) for begin, end in cuts]
    slope = slope_per_hour(times, means) / 3600.0
    mean_s, mean = sum(times) / count, sum(means) / count
    spread = sum((at - mean_s) ** 2 for at in times)
    rest = sum((value - mean - slope * (at - mean_s)) ** 2 for at, value in zip(times, means, strict=True))
    return 3600.0 * _STUDENT_T * math.sqrt(rest / (count - 2) / spread) if spread else math.nan


@dataclass(frozen=True, slots=True)
class Drift:
    """One quantity over the judged stretch: its level early and late, and its slope by least squares.

    `margin` is half the width of the slope's 95 % confidence interval, for each hour as well.
    """

    name: str
    early: float
    late: float
    per_hour: float
    margin: float = math.nan

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
    from_s = began_s + min(WARM_UP_S, _MAX_WARM_UP * (ended_s - began_s))
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
        slope, margin = slope_per_hour(times, values), slope_margin(times, values)
        found.append(Drift(name, median(values[:end]), median(values[-end:]), slope, margin))
    return found
