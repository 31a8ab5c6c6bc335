"""How the cost of something grows with its input."""

import time
from collections.abc import Callable


def growth(work: Callable[[int], object], length: int) -> float:
    """How many times as much CPU time of this thread four times the length takes: 4 where the cost grows with it.

    The least of several tries counts, so that whatever else disturbs the machine does not.
    """

    def cost_s(size: int) -> float:
        costs_s = []
        for _ in range(3):
            began_s = time.thread_time()
            work(size)
            costs_s.append(time.thread_time() - began_s)
        return min(costs_s)

    work(length)  # what is made once
    return cost_s(4 * length) / max(cost_s(length), 1e-4)
