"""The store of a running server: opened with its settings, swept now and then, closed."""

import asyncio
import logging
from typing import Final

from xiaozhi.settings import Settings
from xiaozhi.store.database import StoreError
from xiaozhi.store.store import Store

_log = logging.getLogger(__name__)

_SWEEP_EVERY_S: Final = 6 * 3600.0
# A machine without a battery may start years ahead, where all that is kept is too old: it has its time by then.
_FIRST_SWEEP_S: Final = 600.0


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
