"""What devices were told to keep in mind."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from xiaozhi.store import devices
from xiaozhi.store.database import Database

# All of a device's memories go into its prompt: more than this would make every first word later.
MAX_MEMORIES: Final = 200
LONGEST_MEMORY: Final = 500


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
        text = " ".join(text.split())[:LONGEST_MEMORY]
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

        def call(connection: sqlite3.Connection) -> bool:
            done = connection.execute("DELETE FROM memories WHERE id = ? AND device = ?", (memory_id, device_id))
            return done.rowcount > 0

        return await self._database.write(call)

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
    return [Memory(row["id"], row["device"], row["text"], row["created_at"], row["changed_at"]) for row in rows]
