"""A process and its machine watched from outside, once a second: processor time, memory, threads, file descriptors.

Read from /proc, so on Linux only; what another user's process hides is None.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

# The server's own count of its tasks; looked for on `/metrics`, left out where it is not served.
TASKS_GAUGE: Final = "xiaozhi_tasks"
_METRICS_TIMEOUT = aiohttp.ClientTimeout(total=2.0)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look.

    Attributes:
        at_s: on the monotonic clock.
        cpu_share: processor time of the process since the look before, of one core.
        box_share: processor time of everything on the machine since then, of all cores (0 to 1).
        rss_mb: resident memory of the process; `box_memory` the share of the machine's memory that is taken (0 to 1).
        threads, fds: of the process; fds None where they may not be read.
        tasks: asyncio tasks, None where the server does not say.
        parts: `cpu_share` by threads: the event loop, and the others by their names.
    """

    at_s: float
    cpu_share: float
    box_share: float
    rss_mb: float
    box_memory: float
    threads: int
    fds: int | None
    tasks: int | None = None
    parts: dict[str, float] = field(default_factory=dict)


def cpu_s(pid: int) -> float:
    """CPU time that a process has used, in seconds, all threads."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def parts_s(pid: int) -> dict[str, float]:
    """CPU time of the threads of a process, in seconds: `loop` for the main one, the others by their names."""
    found: dict[str, float] = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            head, _, rest = (task / "stat").read_text().rpartition(")")
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has just ended
        fields = rest.split()
        name = "loop" if task.name == str(pid) else head.partition("(")[2]
        found[name] = found.get(name, 0.0) + (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return found


# How the kernel calls what int8 models gain most by, the best first.
_CPU_CLASSES: Final = (
    ("avx512_vnni", "VNNI"),
    ("avx_vnni", "VNNI"),
    ("avx2", "AVX2 only"),
    ("i8mm", "ARM i8mm"),
    ("asimddp", "ARM dotprod"),
    ("asimd", "ARM"),
)


def cpu_class(cpu_info: str) -> str:
    """The class of a processor, from the text of `/proc/cpuinfo`: what all of its cores can do."""
    lines = [line for line in cpu_info.splitlines() if line.startswith(("flags", "Features"))]
    common = set.intersection(*(set(line.partition(":")[2].split()) for line in lines)) if lines else set()
    return next((name for flag, name in _CPU_CLASSES if flag in common), "other")


def this_box() -> str:
    """What the figures were measured on, in one line."""
    info = Path("/proc/cpuinfo").read_text()
    model = next((line.partition(":")[2].strip() for line in info.splitlines() if line.startswith("model name")), "")
    cores = len(os.sched_getaffinity(0))
    return f"{cores} cores of {model or 'an unnamed processor'} ({cpu_class(info)}), load {os.getloadavg()[0]:.1f}"


def rss_mb(pid: int) -> float:
    """Resident memory of a process, in MB."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def threads(pid: int) -> int:
    """Threads of a process."""
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[17])


def fds(pid: int) -> int | None:
    """Open file descriptors of a process; None where they may not be read."""
    try:
        return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    except PermissionError:
        return None


def box_busy_s() -> float:
    """CPU time used on the whole machine, in seconds, all cores."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def box_memory() -> float:
    """Share of the machine's memory that is taken, 0 to 1."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return 1.0 - sizes["MemAvailable"] / sizes["MemTotal"]


def gauge(exposition: str, name: str) -> int | None:
    """The value of a gauge without labels in Prometheus' text format; None where it is not there."""
    for line in exposition.splitlines():
        found, _, value = line.partition(" ")
        if found == name:
            return int(float(value))
    return None


class Watcher:
    """Looks at a process whenever it is told to.

    Args:
        pid: of the process.
        base_url: its HTTP address, to ask for its count of tasks; empty not to ask.
    """

    def __init__(self, pid: int, base_url: str = "") -> None:
        self.pid = pid
        self.samples: list[Sample] = []
        self._base_url = base_url
        self._cpu_s, self._box_s, self._at_s = cpu_s(pid), box_busy_s(), time.monotonic()
        self._parts_s = parts_s(pid)

    async def look(self) -> Sample:
        """Take a sample.

        Raises:
            ProcessLookupError: the process has ended.
        """
        try:
            sample = self._take(await self._tasks())
        except FileNotFoundError as error:
            raise ProcessLookupError(f"process {self.pid} has ended") from error
        self.samples.append(sample)
        return sample

    def _take(self, tasks: int | None) -> Sample:
        now_s, used_s, box_s = time.monotonic(), cpu_s(self.pid), box_busy_s()
        passed_s, parts = max(1e-3, now_s - self._at_s), parts_s(self.pid)
        sample = Sample(
            now_s,
            (used_s - self._cpu_s) / passed_s,
            min(1.0, (box_s - self._box_s) / passed_s / (os.cpu_count() or 1)),
            rss_mb(self.pid),
            box_memory(),
            threads(self.pid),
            fds(self.pid),
            tasks,
            {name: max(0.0, used - self._parts_s.get(name, 0.0)) / passed_s for name, used in parts.items()},
        )
        self._cpu_s, self._box_s, self._at_s, self._parts_s = used_s, box_s, now_s, parts
        return sample

    async def _tasks(self) -> int | None:
        if not self._base_url:
            return None
        try:
            async with (
                aiohttp.ClientSession(timeout=_METRICS_TIMEOUT) as session,
                session.get(f"{self._base_url}/metrics") as response,
            ):
                if response.status == 200:
                    return gauge(await response.text(), TASKS_GAUGE)
                self._base_url = ""  # not served, or not to us: no use in asking every second
                return None
        except (aiohttp.ClientError, TimeoutError):
            return None  # a server too busy to answer in 2 s is no reason to end the bench


@dataclass(frozen=True, slots=True)
class Point:
    """Means of a stretch of samples; `from_s` counts from the first sample."""

    from_s: float
    cpu_share: float
    box_share: float
    rss_mb: float
    threads: int
    fds: int | None


@dataclass(slots=True)
class Series:
    """Samples thinned out to what fits a table."""

    points: list[Point] = field(default_factory=list)

    @classmethod
    def of(cls, samples: Sequence[Sample], most: int = 10) -> "Series":
        """At most `most` stretches of equal length: means, and threads and descriptors at their end."""
        if not samples:
            return cls()
        count = min(most, len(samples))
        points = []
        for number in range(count):
            part = samples[len(samples) * number // count : len(samples) * (number + 1) // count]
            points.append(
                Point(
                    part[0].at_s - samples[0].at_s,
                    sum(sample.cpu_share for sample in part) / len(part),
                    sum(sample.box_share for sample in part) / len(part),
                    sum(sample.rss_mb for sample in part) / len(part),
                    part[-1].threads,
                    part[-1].fds,
                )
            )
        return cls(points)
