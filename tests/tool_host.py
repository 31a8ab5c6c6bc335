"""What built-in tools are made of, without a store and without devices."""

import itertools
from dataclasses import replace

from xiaozhi.settings import ToolsSettings
from xiaozhi.store.notes import Reminder, Reminders
from xiaozhi.tools.host import ToolHost
from xiaozhi.tools.reminder_clock import ReminderClock
from xiaozhi.tools.web import WebClient


class MemoryBook(Reminders):
    """Reminders that last as long as the process."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._kept: dict[int, Reminder] = {}

    async def add(self, device_id: str, text: str, due_at: float, *, repeat: str = "") -> Reminder:
        reminder = Reminder(next(self._numbers), device_id, text, due_at, repeat)
        self._kept[reminder.id] = reminder
        return reminder

    async def done(self, reminder_id: int, *, next_at: float = 0.0) -> bool:
        kept = self._kept.pop(reminder_id, None)
        if kept is not None and next_at > 0.0:
            self._kept[reminder_id] = replace(kept, due_at=next_at)
        return kept is not None

    async def remove(self, device_id: str, reminder_id: int) -> bool:
        kept = self._kept.get(reminder_id)
        if kept is None or kept.device != device_id:
            return False
        del self._kept[reminder_id]
        return True

    async def list(self, device_id: str = "", *, done: bool = False) -> list[Reminder]:
        kept = [each for each in self._kept.values() if not device_id or each.device == device_id]
        return sorted(kept, key=lambda each: (each.due_at, each.id))


async def never(_reminder: Reminder) -> bool:
    """No device is there."""
    return False


def tool_host() -> ToolHost:
    settings = ToolsSettings()
    return ToolHost(settings, WebClient(settings), reminders=ReminderClock(MemoryBook(), never))
