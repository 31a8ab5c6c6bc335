"""A queue in front of several workers, arrival by arrival, to hold `xiaozhi.plan.planner.QUEUE` against.

Pure and seeded. Arrivals are Poisson, service times log-normal (as lengths of utterances are, more or less), the next
free worker takes the one that came first.
"""

import heapq
import math
import random
from dataclasses import dataclass

from bench.stats import percentile
from xiaozhi.plan.planner import QUEUE, evaluate


@dataclass(frozen=True, slots=True)
class Queue:
    """One queue in front of equal workers.

    Attributes:
        arrivals_per_s: Poisson arrivals.
        service_s: mean service time.
        service_cv: coefficient of variation of the service time, 0 for always the same.
        workers: how many.
    """

    arrivals_per_s: float
    service_s: float
    service_cv: float
    workers: int

    @property
    def utilisation(self) -> float:
        """Share of the workers' time that is taken; 1 and above: the queue grows for ever."""
        return self.arrivals_per_s * self.service_s / self.workers

    def planned(self) -> dict[str, float]:
        """The figures of `QUEUE`: `waits`, `mean_wait_s`, `wait_p95_s`."""
        return evaluate(QUEUE, {
            "recognition_share": self.utilisation, "service_s": self.service_s, "scatter": self.service_cv,
            "workers": self.workers,
        })  # fmt: skip


@dataclass(frozen=True, slots=True)
class Waits:
    """What was found: seconds, and the share of the workers' time that was taken."""

    mean_s: float
    p95_s: float
    utilisation: float


def simulate(queue: Queue, arrivals: int = 100_000, seed: int = 1) -> Waits:
    """Let so many arrive, the first tenth not counted.

    Raises:
        ValueError: the queue would grow for ever, or nobody arrives.
    """
    if queue.utilisation >= 1 or queue.arrivals_per_s <= 0 or arrivals < 10:
        raise ValueError("only a queue that comes to rest, with arrivals, can be simulated")
    dice = random.Random(seed)
    spread = math.sqrt(math.log(1.0 + queue.service_cv**2))
    middle = math.log(queue.service_s) - spread**2 / 2.0 if queue.service_s else -math.inf
    free_at = [0.0] * queue.workers
    now = busy = 0.0
    waits = []
    for _ in range(arrivals):
        now += dice.expovariate(queue.arrivals_per_s)
        begins = max(now, heapq.heappop(free_at))
        takes = dice.lognormvariate(middle, spread) if queue.service_s else 0.0
        heapq.heappush(free_at, begins + takes)
        busy += takes
        waits.append(begins - now)
    counted = waits[arrivals // 10 :]
    mean_s = sum(counted) / len(counted)
    return Waits(mean_s, percentile(counted, 0.95), busy / (max(now, max(free_at)) * queue.workers))
