"""A timing wheel: what is due at about the same time is called together, from one timer of the loop.

A packet of a reply is due every 60 ms for every device that speaks. A timer, a future and a step of a task for each of
them cost the loop more than the packet itself.
"""

import asyncio
import heapq
import math
from collections.abc import Callable
from typing import Final

SLOT_S: Final = 0.01
"""Calls are up to this late, and never early: a sixth of a packet, and a twentieth of what a device has in store."""
# A due time that rounding has put this little behind a slot belongs into it.
_ROUNDING: Final = 1e-6


class TimingWheel:
    """Calls what is due, from one timer. Must be used on one running loop."""

    def __init__(self) -> None:
        self._slots: dict[int, list[Callable[[], None]]] = {}
        self._order: list[int] = []  # a heap of their numbers
        self._turned = -1  # the newest slot whose calls have been made
        self._timer: asyncio.TimerHandle | None = None

    def at(self, due_s: float, call: Callable[[], None]) -> None:
        """Call this once at `due_s` of the loop's clock, or up to `SLOT_S` later. It must not raise or block."""
        slot = max(math.ceil(due_s / SLOT_S - _ROUNDING), self._turned + 1)
        calls = self._slots.get(slot)
        if calls is not None:
            calls.append(call)
            return
        self._slots[slot] = [call]
        heapq.heappush(self._order, slot)
        if self._order[0] == slot:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_at(self._order[0] * SLOT_S, self._turn)

    def _turn(self) -> None:
        self._timer = None
        now = asyncio.get_running_loop().time() / SLOT_S + _ROUNDING
        while self._order and self._order[0] <= now:
            self._turned = heapq.heappop(self._order)
            for call in self._slots.pop(self._turned):
                call()
        if self._order and self._timer is None:
            self._arm()
