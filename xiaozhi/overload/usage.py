"""How much memory and processor the process uses and may use, and giving back what memory it does not need."""

import ctypes
import os
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Final

_STATUS: Final = Path("/proc/self/status")
# Where a container's or a service's own limit stands: control groups version 2, then 1.
_LIMITS: Final = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
_MEMINFO: Final = Path("/proc/meminfo")
# Two questions in a moment would say nothing.
_CPU_EVERY_S: Final = 0.5


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class CpuMeter:
    """How much of the processor this process has used since the last question.

    Args:
        clock: monotonic time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._at_s, self._used_s = clock(), time.process_time()
        self._percent: float | None = None

    def percent(self) -> float | None:
        """Of all cores that it may use, 0 to 100; None when not enough time has passed to say."""
        at_s, used_s = self._clock(), time.process_time()
        if at_s - self._at_s >= _CPU_EVERY_S:
            self._percent = min(100.0, 100.0 * (used_s - self._used_s) / (at_s - self._at_s) / cores())
            self._at_s, self._used_s = at_s, used_s
        return self._percent


def used_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell (not Linux)."""
    return _kilobytes(_STATUS, "VmRSS:") * 1024


@cache
def limit_bytes() -> int:
    """What this process may use: its control group's limit or else the machine's memory; 0 where that is unknown."""
    machine = _kilobytes(_MEMINFO, "MemTotal:") * 1024
    for path in (*_own_group(), *_LIMITS):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        if text.isdecimal():  # "max" means no limit
            return min(int(text), machine) if machine else int(text)
    return machine


def used_percent() -> float:
    """Resident memory in percent of what may be used; 0 where one of them is unknown."""
    limit = limit_bytes()
    return 100.0 * used_bytes() / limit if limit else 0.0


def give_back() -> None:
    """Hand free memory that the C library keeps for later back to the system. Blocking: up to some 100 ms.

    Loading models claims and frees hundreds of megabytes in pieces that glibc does not return by itself. Measured after
    rewriting a full-size SenseVoice: 498 MB before, 94 MB after. Elsewhere than on glibc nothing happens.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def _own_group() -> tuple[Path, ...]:
    """The limit of the service's own control group (systemd's MemoryMax), where version 2 is mounted."""
    try:
        lines = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return ()
    return tuple(Path("/sys/fs/cgroup") / line[3:].lstrip("/") / "memory.max" for line in lines if line[:3] == "0::")


def _kilobytes(path: Path, field: str) -> int:
    try:
        with path.open() as lines:
            for line in lines:
                if line.startswith(field):
                    return int(line.split()[1])
    except OSError:
        return 0
    return 0
