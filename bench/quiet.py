"""Whether the machine is quiet: what others take of its processors while a bench measures.

Our own share is that of this process and of its children that have ended, so look when they have; what else the
machine was busy with is others'.
"""

import os
import resource
import time
from typing import Final

from bench.sampling import box_busy_s

# Above this share of all cores, what is measured is not only ours.
DISTURBED: Final = 0.1


def own_cpu_s() -> float:
    """Processor time of this process and of the children that have ended, theirs included, in seconds."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


class Others:
    """Watches from its making on."""

    def __init__(self) -> None:
        self._at_s, self._box_s, self._own_s = time.monotonic(), box_busy_s(), own_cpu_s()

    def share(self) -> float:
        """What others have taken of all cores since then, 0 to 1."""
        passed_s = max(1e-3, time.monotonic() - self._at_s)
        theirs_s = (box_busy_s() - self._box_s) - (own_cpu_s() - self._own_s)
        return min(1.0, max(0.0, theirs_s / passed_s / (os.cpu_count() or 1)))


def others_for(seconds: float) -> float:
    """The same share, of a while in which we do nothing."""
    others = Others()
    time.sleep(seconds)
    return others.share()
