"""Looks whether a settings file has changed, once a second; a signal asks for the same at once."""

import asyncio
import logging
import stat
from pathlib import Path
from typing import Final, TypeAlias

from xiaozhi.reload.reloader import Reloader
from xiaozhi.settings.load import local_of

_log = logging.getLogger(__name__)

_LOOK_EVERY_S: Final = 1.0

Sign: TypeAlias = tuple[int, int, int]
"""By which a change of a file is seen: time of change in ns, size, number of the file."""


def sign_of(path: Path) -> Sign | None:
    """The sign of a file; None while there is none, or it cannot be seen."""
    try:
        seen = path.stat()
    except OSError:
        return None
    return (seen.st_mtime_ns, seen.st_size, seen.st_ino) if stat.S_ISREG(seen.st_mode) else None


class Changes:
    """Says when the owner's file and the console's, of which one was being written, have come to rest. Pure.

    Args:
        owners: sign of the owner's file as it was read.
        local: sign of the console's.
    """

    def __init__(self, owners: Sign | None, local: Sign | None = None) -> None:
        self._taken = self._seen = (owners, local)

    def look(self, owners: Sign | None, local: Sign | None = None) -> bool:
        """Whether to read the files now: one is another, and both are the same as the last time they were looked at.

        An owner's file that is away is being replaced; nothing is read then. The console's may go for good.
        """
        sign = (owners, local)
        settled, self._seen = sign == self._seen, sign
        away = owners is None and self._taken[0] is not None
        if away or not settled or sign == self._taken:
            return False
        self._taken = sign
        return True


class FileWatch:
    """Reloads when a settings file has changed or somebody asks for it.

    Args:
        reloader: reads and applies.
        path: of the owner's file; neither it nor the console's beside it need be there yet.
    """

    def __init__(self, reloader: Reloader, path: Path) -> None:
        self._reloader = reloader
        self._paths = (path, local_of(path))
        self._asked = asyncio.Event()
        self._changes = Changes(None)  # it may have changed while the models were loaded: it is read once more

    def ask(self) -> None:
        """Read the settings again now, whether the file has changed or not."""
        self._asked.set()

    async def run(self, *, looks: bool) -> None:
        """Run until cancelled.

        Args:
            looks: look at the file; otherwise only `ask` has an effect.
        """
        while True:
            asked = True
            try:
                async with asyncio.timeout(_LOOK_EVERY_S if looks else None):
                    await self._asked.wait()
            except TimeoutError:
                asked = False
                if not self._changes.look(*await asyncio.to_thread(lambda: [sign_of(path) for path in self._paths])):
                    continue
            self._asked.clear()
            try:
                await self._reloader.reload(asked=asked)
            except Exception:  # noqa: BLE001 - serving goes on with what was there before; it is logged whole
                _log.exception("reading the settings again failed")
