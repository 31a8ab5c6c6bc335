"""What a device was told: to keep in mind, and to remind of."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xiaozhi.store import devices
from xiaozhi.store.database import Database, StoreError, record

# All of a device's memories go into its prompt: more than this would make every first word later.
MAX_MEMORIES: Final = 200
LONGEST_TEXT: Final = 500
MAX_REMINDERS: Final = 200


@dataclass(frozen=True, slots=True)
class Memory:
    """One thing to keep in mind; times are seconds since 1970."""

    id: int
    device: str
    text: str
    created_at: float
    changed_at: float


class Memories:
    """The table of memories. At most `MAX_MEMORIES` a device; the oldest goes first."""

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now_s = now_s

    async def list(self, device_id: str) -> list[Memory]:
        """A device's memories, the oldest first. Raises `StoreError`."""
        return await self._database.read(lambda connection: memories_of(connection, device_id))

    async def add(self, device_id: str, text: str) -> Memory:
        """Keep something; what is there in the same words is renewed, not doubled.

        Raises:
            ValueError: there is nothing to keep.
            StoreError: the file cannot be written.
        """
        text = " ".join(text.split())[:LONGEST_TEXT]
        if not text:
            raise ValueError("there is nothing to remember")
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> Memory:
            devices.put(connection, device_id, now, {})
            for known in memories_of(connection, device_id):
                if known.text.casefold() == text.casefold():
                    connection.execute(
                        "UPDATE memories SET changed_at = ?, text = ? WHERE id = ?", (now, text, known.id)
                    )
                    return Memory(known.id, device_id, text, known.created_at, now)
            number = connection.execute(
                "INSERT INTO memories (device, text, created_at, changed_at) VALUES (?, ?, ?, ?)",
                (device_id, text, now, now),
            ).lastrowid
            connection.execute(
                "DELETE FROM memories WHERE device = ? AND id NOT IN"
                " (SELECT id FROM memories WHERE device = ? ORDER BY changed_at DESC, id DESC LIMIT ?)",
                (device_id, device_id, MAX_MEMORIES),
            )
            return Memory(int(number or 0), device_id, text, now, now)

        return await self._database.write(call)

    async def remove(self, device_id: str, memory_id: int) -> bool:
        """Forget one thing of this device; false where there was none of it. Raises `StoreError`."""
        return (
            await self._database.change("DELETE FROM memories WHERE id = ? AND device = ?", (memory_id, device_id)) > 0
        )

    async def forget(self, device_id: str, about: str = "") -> int:
        """Forget what mentions a subject (case does not matter), everything when it is empty; returns how much it was.

        Raises:
            StoreError: the file cannot be written.
        """
        subject = about.casefold().strip()

        def call(connection: sqlite3.Connection) -> int:
            gone = [memory.id for memory in memories_of(connection, device_id) if subject in memory.text.casefold()]
            connection.executemany("DELETE FROM memories WHERE id = ?", [(number,) for number in gone])
            return len(gone)

        return await self._database.write(call)


def memories_of(connection: sqlite3.Connection, device_id: str) -> list[Memory]:
    """A device's memories, the oldest first; in the store's thread."""
    rows = connection.execute("SELECT * FROM memories WHERE device = ? ORDER BY id", (device_id,))
    return [record(Memory, row) for row in rows]


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
                (device_id, text[:LONGEST_TEXT], due_at, repeat[:LONGEST_TEXT], now),
            ).lastrowid
            return Reminder(int(number or 0), device_id, text[:LONGEST_TEXT], due_at, repeat[:LONGEST_TEXT], now)

        return await self._database.write(call)

    async def due(self, now: float) -> list[Reminder]:
        """Those whose time has come and that were not said yet, the earliest first. Raises `StoreError`."""
        rows = await self._database.rows(
            "SELECT * FROM reminders WHERE done_at = 0 AND due_at <= ? ORDER BY due_at, id", (now,)
        )
        return [record(Reminder, row) for row in rows]

    async def done(self, reminder_id: int, *, next_at: float = 0.0) -> bool:
        """It was said; with `next_at` it is due again then. False where it is gone. Raises `StoreError`."""
        column, at = ("due_at", next_at) if next_at > 0.0 else ("done_at", self._now_s())
        return await self._database.change(f"UPDATE reminders SET {column} = ? WHERE id = ?", (at, reminder_id)) > 0

    async def remove(self, device_id: str, reminder_id: int) -> bool:
        """Take one of this device away; false where there was none of it. Raises `StoreError`."""
        return (
            await self._database.change("DELETE FROM reminders WHERE id = ? AND device = ?", (reminder_id, device_id))
            > 0
        )

    async def list(self, device_id: str = "", *, done: bool = False) -> list[Reminder]:
        """Those to come (or, with `done`, all) of one device, or of every device; the earliest first.

        Raises:
            StoreError: the file cannot be read.
        """
        rows = await self._database.rows(
            "SELECT * FROM reminders WHERE (?1 = '' OR device = ?1) AND (?2 OR done_at = 0) ORDER BY due_at, id",
            (device_id, done),
        )
        return [record(Reminder, row) for row in rows]
