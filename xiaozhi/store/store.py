"""The store as one object: a file and its tables; and that of a running server, swept now and then."""

import asyncio
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from xiaozhi.settings import Settings
from xiaozhi.store.database import Database, StoreError
from xiaozhi.store.devices import Devices
from xiaozhi.store.named import Agents, Meta
from xiaozhi.store.notes import Memories, Reminders
from xiaozhi.store.opening import MEMORY
from xiaozhi.store.pending import PendingClients
from xiaozhi.store.turns import Turns

_log = logging.getLogger(__name__)

_SWEEP_EVERY_S: Final = 6 * 3600.0
# A machine without a battery may start years ahead, where all that is kept is too old: it has its time by then.
_FIRST_SWEEP_S: Final = 600.0


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


class StoreKeeper:
    """Holds the store open and deletes what is older than the settings allow. Made by `open`."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.store = store
        self._settings = settings.store
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep(), name="sweep-store")

    @classmethod
    async def open(cls, settings: Settings) -> "StoreKeeper":
        """Open the file the settings name.

        Raises:
            StoreError: it was written by a newer version of this program, or its folder cannot be made.
        """
        return cls(await Store.open(settings.server.data_dir / settings.store.file), settings)

    async def close(self) -> None:
        """Write what waits and close the file."""
        self._sweeping.cancel()
        await asyncio.gather(self._sweeping, return_exceptions=True)
        await self.store.close()

    async def _sweep(self) -> None:
        await asyncio.sleep(_FIRST_SWEEP_S)
        while True:
            try:
                gone = await self.store.turns.sweep(self._settings.keep_days, self._settings.keep_turns_per_device)
                strangers = await self.store.devices.sweep()
            except StoreError as error:
                _log.debug("not swept: %s", error)  # the store has said it already
            else:
                if gone:
                    _log.info("%d old turns deleted from the store", gone)
                if strangers:
                    _log.info("%d devices that were never bound deleted from the store", strangers)
            await asyncio.sleep(_SWEEP_EVERY_S)
