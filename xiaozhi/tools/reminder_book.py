"""Reminders as they are kept, and when the next one of a series is due."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Literal, Protocol, TypeAlias, get_args

Repeat: TypeAlias = Literal["", "daily", "weekdays", "weekly"]
"""How a reminder comes again; empty for once."""


class Reminder(Protocol):
    """What to say to which device and when (seconds since 1970)."""

    @property
    def id(self) -> int:
        """Its number, over all devices."""
        ...

    @property
    def device(self) -> str:
        """Whose."""
        ...

    @property
    def text(self) -> str:
        """What to say; may be empty."""
        ...

    @property
    def due_at(self) -> float:
        """When."""
        ...

    @property
    def repeat(self) -> str:
        """A `Repeat`; unknown words count as once."""
        ...


class ReminderBook(Protocol):
    """Where reminders are kept; the store's survives restarts."""

    async def add(self, device_id: str, text: str, due_at: float, *, repeat: str = "") -> Reminder:
        """Write one down."""
        ...

    async def done(self, reminder_id: int, *, next_at: float = 0.0) -> bool:
        """It was said; with `next_at` it is due again then."""
        ...

    async def remove(self, device_id: str, reminder_id: int) -> bool:
        """Take one of this device away; False where there is none of it."""
        ...

    async def list(self, device_id: str = "", *, done: bool = False) -> Sequence[Reminder]:
        """Those to come of one device, or of all; the earliest first."""
        ...


@dataclass(frozen=True, slots=True)
class KeptReminder:
    """A reminder of `MemoryBook`."""

    id: int
    device: str
    text: str
    due_at: float
    repeat: str = ""


class MemoryBook:
    """Reminders that last as long as the process, for a server without a store."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kept: dict[int, KeptReminder] = {}

    async def add(self, device_id: str, text: str, due_at: float, *, repeat: str = "") -> KeptReminder:
        """Write one down."""
        reminder = KeptReminder(next(self._numbers), device_id, text, due_at, repeat)
        self._kept[reminder.id] = reminder
        return reminder

    async def done(self, reminder_id: int, *, next_at: float = 0.0) -> bool:
        """It was said; with `next_at` it is due again then."""
        kept = self._kept.pop(reminder_id, None)
        if kept is not None and next_at > 0.0:
            self._kept[reminder_id] = replace(kept, due_at=next_at)
        return kept is not None

    async def remove(self, device_id: str, reminder_id: int) -> bool:
        """Take one of this device away; False where there is none of it."""
        kept = self._kept.get(reminder_id)
        if kept is None or kept.device != device_id:
            return False
        del self._kept[reminder_id]
        return True

    async def list(self, device_id: str = "", *, done: bool = False) -> Sequence[KeptReminder]:
        """Those to come of one device, or of all; what is done is not kept."""
        kept = [each for each in self._kept.values() if not device_id or each.device == device_id]
        return sorted(kept, key=lambda each: (each.due_at, each.id))


def next_due(due_at: float, repeat: str, now: float) -> float:
    """When a reminder of a series comes again, at the same time of the local clock; 0 when it does not.

    Args:
        due_at: when it was due, in seconds since 1970.
        repeat: a `Repeat`.
        now: the result is later than this.
    """
    if not repeat or repeat not in get_args(Repeat):
        return 0.0
    step = timedelta(days=7 if repeat == "weekly" else 1)
    local = datetime.fromtimestamp(due_at)  # without a zone: the clock's hands stay where they are over a DST change
    behind = int((now - due_at) // step.total_seconds())
    local += step * max(0, behind)
    while local.timestamp() <= now or (repeat == "weekdays" and local.weekday() >= 5) or local.timestamp() <= due_at:
        local += step
    return local.timestamp()
