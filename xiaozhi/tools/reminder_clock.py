"""When reminders are due, and their ringing: on the device when it is connected, at its next connect otherwise."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import Final, Literal, TypeAlias, get_args

from xiaozhi.store.notes import Reminder, Reminders

_log = logging.getLogger(__name__)

_LOOK_AGAIN_S: Final = 30.0
"""The clock of the machine may be set meanwhile, and a book may fail: look at least this often."""

Repeat: TypeAlias = Literal["", "daily", "weekdays", "weekly"]
"""How a reminder comes again; empty for once."""
Ring = Callable[[Reminder], Awaitable[bool]]
"""Says a reminder on its device; False when the device is not connected."""


class ReminderClock:
    """One per process.

    Args:
        book: where reminders are kept.
        ring: says one; called for one reminder of a device at a time.
        late_s: what is later than this is no longer told, in seconds.
        clock: seconds since 1970.
    """

    def __init__(
        self, book: Reminders, ring: Ring, *, late_s: float = 86_400.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.book = book
        """Where reminders are kept."""
        self._ring = ring
        self._late_s = late_s
        self._clock = clock
        self._changed = asyncio.Event()
        self._absent: set[str] = set()
        self._ringing: set[str] = set()
        self.rung = 0
        """Reminders told."""
        self.missed = 0
        """Reminders that came too late to be told."""

    def changed(self) -> None:
        """A reminder was made or taken away."""
        self._changed.set()

    def connected(self, device_id: str) -> None:
        """A device is there: it hears now what it has missed."""
        if device_id in self._absent:
            self._absent.discard(device_id)
            self._changed.set()

    async def run(self) -> None:
        """Ring until cancelled; a reminder that cannot be told, or a book that fails, does not end it."""
        async with asyncio.TaskGroup() as group:
            while True:
                self._changed.clear()
                wait_s = await self._look(group)
                try:
                    async with asyncio.timeout(min(wait_s, _LOOK_AGAIN_S)):
                        await self._changed.wait()
                except TimeoutError:
                    pass

    async def _look(self, group: asyncio.TaskGroup) -> float:
        """Begin to tell what is due; returns the seconds until the next one."""
        try:
            reminders = await self.book.list()
        except Exception as error:  # noqa: BLE001 - a file that cannot be read now may be read later
            _log.warning("reminders cannot be read: %s", error)
            return _LOOK_AGAIN_S
        now = self._clock()
        due: dict[str, list[Reminder]] = {}
        wait_s = _LOOK_AGAIN_S
        for reminder in reminders:
            if reminder.due_at > now:
                wait_s = min(wait_s, reminder.due_at - now)
            elif reminder.due_at + self._late_s < now:
                await self._tick_off(reminder)
                self.missed += 1
            elif reminder.device not in self._absent and reminder.device not in self._ringing:
                due.setdefault(reminder.device, []).append(reminder)
        for device_id, waiting in due.items():
            self._ringing.add(device_id)
            group.create_task(self._tell(device_id, waiting), name=f"reminders-{device_id}")
        return wait_s

    async def _tell(self, device_id: str, reminders: list[Reminder]) -> None:
        try:
            for reminder in reminders:
                if not await self._told(reminder):
                    self._absent.add(device_id)
                    return
                self.rung += 1
                await self._tick_off(reminder)
        finally:
            self._ringing.discard(device_id)
            self._changed.set()

    async def _told(self, reminder: Reminder) -> bool:
        try:
            return await self._ring(reminder)
        except Exception as error:  # noqa: BLE001 - told again at the next connect; the other devices go on
            _log.warning("a reminder of %s could not be told: %s", reminder.device, error)
            return False

    async def _tick_off(self, reminder: Reminder) -> None:
        try:
            await self.book.done(reminder.id, next_at=next_due(reminder.due_at, reminder.repeat, self._clock()))
        except Exception as error:  # noqa: BLE001 - as in _look
            _log.warning("a reminder of %s cannot be ticked off: %s", reminder.device, error)
            self._absent.add(reminder.device)  # or it would be told again at once, without end


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
