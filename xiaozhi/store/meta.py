"""Single values with a name, such as the generation of a secret."""

import sqlite3

from xiaozhi.store.database import Database


class Meta:
    """Texts by key."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def get(self, key: str) -> str | None:
        """The value, or `None` where there is none.

        Raises:
            StoreError: the file cannot be read.
        """
        return await self._database.read(lambda connection: read_value(connection, key))

    async def put(self, key: str, value: str) -> None:
        """Set a value; it survives a power cut after this returns.

        Raises:
            StoreError: the file cannot be written.
        """
        await self._database.write(lambda connection: write_value(connection, key, value))

    async def remove(self, key: str) -> None:
        """Take a value away; without effect where there is none.

        Raises:
            StoreError: the file cannot be written.
        """
        await self._database.write(lambda connection: connection.execute("DELETE FROM meta WHERE key = ?", (key,)))


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
