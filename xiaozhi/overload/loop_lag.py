"""How late the event loop is, and who made it late.

A timer on the loop compares when it should have run with when it ran. A thread looks at that timer from outside: while
it is overdue, the loop's thread is inside the call that blocks it, and its stack names the offender. Both wake ten
times a second, which costs less than a thousandth of a core.
"""

import asyncio
import logging
import math
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Final

_log = logging.getLogger(__name__)

_EVERY_S: Final = 0.1
# Lateness is remembered this long, so that whoever looks between two stalls still sees them.
_WINDOW_S: Final = 2.0
# Frames of the offender's stack in the log, innermost last.
_FRAMES: Final = 4
# One line for so long at most: a loop that is blocked all the time must not be kept busy with saying so.
_QUIET_S: Final = 60.0
_UNSEEN: Final = "nobody was seen, so it was a call that kept the interpreter to itself, or the machine is overloaded"


class StallReport:
    """What is told of stalls: one line a minute at most, about all of them since the last. Pure: time is passed in."""

    def __init__(self) -> None:
        self._told_at_s = -math.inf
        self._count = 0
        self._worst = (0.0, "")

    def add(self, late_ms: float, during: str) -> None:
        """The loop stood still; `during` says what ran meanwhile."""
        self._count += 1
        self._worst = max(self._worst, (late_ms, during))

    def due(self, now_s: float) -> str:
        """The line that is to be told now; empty when there is none."""
        if not self._count or now_s - self._told_at_s < _QUIET_S:
            return ""
        how_often = "" if self._count == 1 else f" {self._count} times in the last minute, at worst"
        text = f"the event loop stood still{how_often} for {self._worst[0]:.0f} ms: {self._worst[1]}"
        self._told_at_s, self._count, self._worst = now_s, 0, (0.0, "")
        return text


class LoopLag:
    """Measures the loop it is started on.

    Args:
        blame_above_ms: delays above this are counted, and summed up in the log once a minute with the code that ran
            during the worst; 0 never looks.
    """

    def __init__(self, blame_above_ms: float) -> None:
        self.worst_ms = 0.0
        """The longest delay since the start."""
        self.stalls = 0
        """Delays above `blame_above_ms`."""
        self.observe: Callable[[float], None] | None = None
        """Called with every measured delay, in seconds."""
        self._blame_s = blame_above_ms / 1000.0
        self._recent: deque[tuple[float, float]] = deque(maxlen=round(_WINDOW_S / _EVERY_S))  # (when, how late in ms)
        self._due_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._offender: tuple[float, str] | None = None  # due time of the overdue timer and what ran then
        self._report = StallReport()

    def start(self) -> None:
        """Begin on the running loop."""
        self._arm()
        if self._blame_s > 0.0:
            self._watcher = threading.Thread(
                target=self._watch, args=(threading.get_ident(),), name="loop-lag", daemon=True
            )
            self._watcher.start()

    def stop(self) -> None:
        """End; harmless when it has not begun."""
        self._stop.set()
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.join()

    def lag_ms(self) -> float:
        """The second longest delay of the last two seconds: one long call is a fault to mend, several are load."""
        now_s = time.monotonic()
        while self._recent and self._recent[0][0] < now_s - _WINDOW_S:
            self._recent.popleft()
        return sorted((0.0, 0.0, *(late_ms for _, late_ms in self._recent)))[-2]

    def _arm(self) -> None:
        self._due_s = time.monotonic() + _EVERY_S
        self._timer = asyncio.get_running_loop().call_later(_EVERY_S, self._beat)

    def _beat(self) -> None:
        now_s = time.monotonic()
        late_s = max(0.0, now_s - self._due_s)
        late_ms = late_s * 1000.0
        self.worst_ms = max(self.worst_ms, late_ms)
        self._recent.append((now_s, late_ms))
        if self.observe is not None:
            self.observe(late_s)
        if self._blame_s and late_s >= self._blame_s:
            self.stalls += 1
            self._blame(late_ms)
        if text := self._report.due(now_s):
            _log.warning("%s", text)
        self._arm()

    def _blame(self, late_ms: float) -> None:
        seen, self._offender = self._offender, None
        during = seen[1] if seen is not None and seen[0] == self._due_s else _UNSEEN
        self._report.add(late_ms, during)

    # In the thread ------------------------------------------------------------------------------------------------

    def _watch(self, loop_thread: int) -> None:
        while not self._stop.wait(max(0.01, self._due_s + self._blame_s - time.monotonic())):
            due_s = self._due_s
            if time.monotonic() - due_s < self._blame_s or (self._offender and self._offender[0] == due_s):
                self._stop.wait(self._blame_s / 2.0)
                continue
            frame = sys._current_frames().get(loop_thread)
            if frame is not None:
                self._offender = (due_s, _describe(frame))


def _describe(frame: FrameType) -> str:
    """The innermost calls as `file:line function`, outermost first."""
    stack = traceback.extract_stack(frame)[-_FRAMES:]
    return " > ".join(f"{Path(entry.filename).name}:{entry.lineno} {entry.name}" for entry in stack)
