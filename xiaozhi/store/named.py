"""What is kept by name: single values such as the generation of a secret, and agents that people made or changed."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

from xiaozhi.store.database import Database, record


class Meta:
    """Texts by key. Every method raises `StoreError` where the file cannot be read or written."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> str | None:
        """The value, or `None` where there is none."""
        return await self._database.read(lambda connection: read_value(connection, key))

    async def put(self, key: str, value: str) -> None:
        """Set a value; it survives a power cut after this returns."""
        await self._database.write(lambda connection: write_value(connection, key, value))

    async def remove(self, key: str) -> None:
        """Take a value away; without effect where there is none."""
        await self._database.change("DELETE FROM meta WHERE key = ?", (key,))


def read_value(connection: sqlite3.Connection, key: str) -> str | None:
    """The value of a key; in the store's thread."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return None if row is None else str(row["value"])


def write_value(connection: sqlite3.Connection, key: str, value: str) -> None:
    """Set the value of a key; in the store's thread."""
    connection.execute(
        "INSERT INTO meta (key, value) VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = excluded.value",
        (key, value),
    )


@dataclass(frozen=True, slots=True)
class StoredAgent:
    """An agent as stored: its definition is the JSON text of what `xiaozhi.agents` reads; here it is only kept."""

    name: str
    definition: str
    changed_at: float = 0.0


class Agents:
    """The table of agents. The presets are files of the package; what is here overrides them by name."""

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now_s = now_s

    async def list(self) -> list[StoredAgent]:
        """Every stored agent by name. Raises `StoreError`."""
        return [record(StoredAgent, row) for row in await self._database.rows("SELECT * FROM agents ORDER BY name")]

    async def put(self, name: str, definition: str) -> None:
        """Make or replace one. Raises `StoreError`."""
        await self._database.change(
            "INSERT INTO agents (name, definition, changed_at) VALUES (?, ?, ?) ON CONFLICT (name)"
            " DO UPDATE SET definition = excluded.definition, changed_at = excluded.changed_at",
            (name, definition, self._now_s()),
        )

    async def remove(self, name: str) -> bool:
        """Delete one; false where there was none. Its devices fall back to the default. Raises `StoreError`."""
        return await self._database.change("DELETE FROM agents WHERE name = ?", (name,)) > 0
