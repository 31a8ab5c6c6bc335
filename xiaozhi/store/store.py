"""The store as one object: a file and its tables."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

from xiaozhi.store.agents import Agents
from xiaozhi.store.database import Database, StoreError
from xiaozhi.store.devices import Devices
from xiaozhi.store.memories import Memories
from xiaozhi.store.meta import Meta
from xiaozhi.store.opening import MEMORY
from xiaozhi.store.pending import PendingClients
from xiaozhi.store.reminders import Reminders
from xiaozhi.store.turns import Turns


class Store:
    """What survives a restart. Made by `open`.

    Args:
        database: the file and its thread.
        now_s: wall time, seconds since 1970.
    """

    def __init__(self, database: Database, now_s: Callable[[], float] = time.time) -> None:
        self.database = database
        self.meta = Meta(database)
        self.devices = Devices(database, now_s)
        self.pending = PendingClients(database, now_s)
        self.agents = Agents(database, now_s)
        self.turns = Turns(database, now_s)
        self.memories = Memories(database, now_s)
        self.reminders = Reminders(database, now_s)

    @classmethod
    async def open(cls, path: Path | str, *, now_s: Callable[[], float] = time.time) -> "Store":
        """Open a file, making it and its folder where they are not there; `:memory:` keeps nothing.

        A damaged file is set aside and a new one begun; where nothing can be written, memory takes its place. Both are
        logged.

        Raises:
            StoreError: the file was written by a newer version of this program.
        """
        store = cls(await asyncio.to_thread(_open, path), now_s)
        await store.turns.prepare()
        return store

    async def close(self) -> None:
        """Write what waits and close the file."""
        await self.database.close()


def _open(path: Path | str) -> Database:
    if path != MEMORY:
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise StoreError(f"{path.parent} cannot be made: {error.strerror}") from error
    return Database(path)
