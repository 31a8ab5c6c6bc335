"""Agents that people made or changed, by name."""

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

from xiaozhi.store.database import Database


@dataclass(frozen=True, slots=True)
class Agent:
    """An agent as stored: its definition is the JSON text of what `xiaozhi.agents` reads; here it is only kept."""

    name: str
    definition: str
    changed_at: float = 0.0


class Agents:
    """The table of agents. The presets are files of the package; what is here overrides them by name."""

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self._database = database
        self._now_s = now_s

    async def list(self) -> list[Agent]:
        """Every stored agent by name. Raises `StoreError`."""

        def call(connection: sqlite3.Connection) -> list[Agent]:
            rows = connection.execute("SELECT name, definition, changed_at FROM agents ORDER BY name")
            return [Agent(row["name"], row["definition"], row["changed_at"]) for row in rows]

        return await self._database.read(call)

    async def put(self, name: str, definition: str) -> None:
        """Make or replace one. Raises `StoreError`."""
        now = self._now_s()

        def call(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO agents (name, definition, changed_at) VALUES (?, ?, ?) ON CONFLICT (name)"
                " DO UPDATE SET definition = excluded.definition, changed_at = excluded.changed_at",
                (name, definition, now),
            )

        await self._database.write(call)

    async def remove(self, name: str) -> bool:
        """Delete one; false where there was none. Its devices fall back to the default. Raises `StoreError`."""

        def call(connection: sqlite3.Connection) -> bool:
            return connection.execute("DELETE FROM agents WHERE name = ?", (name,)).rowcount > 0

        return await self._database.write(call)
