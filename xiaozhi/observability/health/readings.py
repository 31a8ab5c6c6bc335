"""What alerts are judged by. Pure."""

from collections import deque
from dataclasses import dataclass
from typing import Final

# Outcomes are counted in so many parts of their window.
_PARTS: Final = 30


@dataclass(frozen=True, slots=True)
class Readings:
    """How the process is doing; None where it is not known, or too little is known to judge.

    Attributes:
        memory_percent: resident memory, of what the process may use.
        cpu_percent: processor time since the last readings, of all cores the process may use.
        asr_wait_ms: age of the oldest utterance that waits for a recogniser.
        disk_percent: used space of the disk with the data folder.
        error_percent: turns of the window that failed.
        cache_hit_percent: questions to the caches that were answered.
        chat_gone: every endpoint rests after failures.
        voices_gone: every voice rests after failures.
        recognition_gone: the remote recogniser rests after failures.
    """

    memory_percent: float | None = None
    cpu_percent: float | None = None
    asr_wait_ms: float | None = None
    disk_percent: float | None = None
    error_percent: float | None = None
    cache_hit_percent: float | None = None
    chat_gone: bool | None = None
    voices_gone: bool | None = None
    recognition_gone: bool | None = None


class Outcomes:
    """Counts good and bad turns over a sliding window.

    Args:
        window_s: its length in seconds; it slides in thirtieths.
    """

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        """May be changed at any time."""
        self._parts: deque[tuple[float, int, int]] = deque()  # since when, turns, of these failed

    def add(self, now_s: float, *, failed: bool) -> None:
        """A turn has ended."""
        if not self._parts or now_s - self._parts[-1][0] >= self.window_s / _PARTS:
            self._parts.append((now_s, 0, 0))
        since_s, turns, bad = self._parts[-1]
        self._parts[-1] = (since_s, turns + 1, bad + failed)

    def counts(self, now_s: float) -> tuple[int, int]:
        """Turns of the window, and how many of them failed."""
        while self._parts and now_s - self._parts[0][0] > self.window_s:
            self._parts.popleft()
        return sum(part[1] for part in self._parts), sum(part[2] for part in self._parts)

    def percent(self, now_s: float, least: int) -> float | None:
        """Failed turns in percent; None below `least` turns."""
        turns, failed = self.counts(now_s)
        return 100.0 * failed / turns if turns >= least else None
