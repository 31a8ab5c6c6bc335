"""What devices were told to remind of."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xiaozhi.store import devices
from xiaozhi.store.database import Database, StoreError

MAX_REMINDERS: Final = 200
_LONGEST: Final = 500


@dataclass(frozen=True, slots=True)
class Reminder:
    """One reminder; times are seconds since 1970.

    Attributes:
        id: its number, over all devices.
        device: whose.
        text: what to say.
        due_at: when.
        repeat: how it comes again, in words the reminding part defines (`daily`, `weekly` …); empty for once.
        created_at: when it was made.
        done_at: when it was said; 0 while it is to come.
    """

    id: int
    device: str
    text: str
    due_at: float
    repeat: str = ""
    created_at: float = 0.0
    done_at: float = 0.0


class Reminders:
    """The table of reminders; at most `MAX_REMINDERS` to come for a device."""

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now_s = now_s

    async def add(self, device_id: str, text: str, due_at: float, *, repeat: str = "") -> Reminder:
        """Make one.

        Raises:
            StoreError: the device has too many already, or the file cannot be written.
        """
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> Reminder:
            devices.put(connection, device_id, now, {})
            to_come = connection.execute(
                "SELECT count(*) FROM reminders WHERE device = ? AND done_at = 0", (device_id,)
            ).fetchone()[0]
            if to_come >= MAX_REMINDERS:
                raise StoreError(f"this device has {MAX_REMINDERS} reminders already; remove some first")
            number = connection.execute(
                "INSERT INTO reminders (device, text, due_at, repeat, created_at) VALUES (?, ?, ?, ?, ?)",
                (device_id, text[:_LONGEST], due_at, repeat[:_LONGEST], now),
            ).lastrowid
            return Reminder(int(number or 0), device_id, text[:_LONGEST], due_at, repeat[:_LONGEST], now)

        return await self._database.write(call)

    async def due(self, now: float) -> list[Reminder]:
        """Those whose time has come and that were not said yet, the earliest first. Raises `StoreError`."""

        def call(connection: sqlite3.Connection) -> list[Reminder]:
            rows = connection.execute(
                "SELECT * FROM reminders WHERE done_at = 0 AND due_at <= ? ORDER BY due_at, id", (now,)
            )
            return [_reminder(row) for row in rows]

        return await self._database.read(call)

    async def done(self, reminder_id: int, *, next_at: float = 0.0) -> bool:
        """It was said; with `next_at` it is due again then. False where it is gone. Raises `StoreError`."""
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> bool:
            if next_at > 0.0:
                done = connection.execute("UPDATE reminders SET due_at = ? WHERE id = ?", (next_at, reminder_id))
            else:
                done = connection.execute("UPDATE reminders SET done_at = ? WHERE id = ?", (now, reminder_id))
            return done.rowcount > 0

        return await self._database.write(call)

    async def remove(self, device_id: str, reminder_id: int) -> bool:
        """Take one of this device away; false where there was none of it. Raises `StoreError`."""

        def call(connection: sqlite3.Connection) -> bool:
            done = connection.execute("DELETE FROM reminders WHERE id = ? AND device = ?", (reminder_id, device_id))
            return done.rowcount > 0

        return await self._database.write(call)

    async def list(self, device_id: str = "", *, done: bool = False) -> list[Reminder]:
        """Those to come (or, with `done`, all) of one device, or of every device; the earliest first.

        Raises:
            StoreError: the file cannot be read.
        """

        def call(connection: sqlite3.Connection) -> list[Reminder]:
            rows = connection.execute(
                "SELECT * FROM reminders WHERE (?1 = '' OR device = ?1) AND (?2 OR done_at = 0) ORDER BY due_at, id",
                (device_id, done),
            )
            return [_reminder(row) for row in rows]

        return await self._database.read(call)


def _reminder(row: sqlite3.Row) -> Reminder:
    return Reminder(
        row["id"], row["device"], row["text"], row["due_at"], row["repeat"], row["created_at"], row["done_at"]
    )
