"""Who still uses what has been exchanged: it is closed when the last of them is gone."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

_log = logging.getLogger(__name__)

# Nobody waits for a former engine to be closed.
_LOOK_EVERY_S: Final = 0.25


class Retirement:
    """Tasks that use the shared engines of a process, and former engines that wait for them to end.

    A task is written down when it takes its engines, in the same step; so whoever is written down when an engine is
    exchanged may hold the former one, and whoever comes later cannot.
    """

    def __init__(self) -> None:
        self.closed = 0
        """Former engines that were closed because their last user had gone."""
        self._here: set[asyncio.Future[Any]] = set()
        self._retired: dict[asyncio.Task[None], Callable[[], Awaitable[None]]] = {}

    @property
    def retiring(self) -> int:
        """Former engines that are still used."""
        return len(self._retired)

    def until(self, task: asyncio.Future[Any]) -> None:
        """This task uses what is there now, until it is done."""
        self._here.add(task)
        task.add_done_callback(self._here.discard)

    def retire(
        self,
        close: Callable[[], Awaitable[None]],
        *,
        in_use: Callable[[], bool] = lambda: False,
        linger_s: float = 0.0,
        max_s: float = float("inf"),
    ) -> None:
        """Close something that has just been exchanged, when those who are here now have gone.

        Args:
            close: closes it. What it raises is logged.
            in_use: users that are no tasks: it is kept while this is true.
            linger_s: and kept for so long after that, in seconds.
            max_s: users as of `in_use` are waited for so long at most, in seconds.
        """
        task = asyncio.get_running_loop().create_task(
            self._retire(close, set(self._here), in_use, linger_s, max_s), name="retire"
        )
        self._retired[task] = close
        task.add_done_callback(lambda done: self._retired.pop(done, None))

    async def _retire(
        self,
        close: Callable[[], Awaitable[None]],
        users: set[asyncio.Future[Any]],
        in_use: Callable[[], bool],
        linger_s: float,
        max_s: float,
    ) -> None:
        if users:
            await asyncio.wait(users)
        loop = asyncio.get_running_loop()
        until_s = loop.time() + max_s
        while in_use() and loop.time() < until_s:  # noqa: ASYNC110 - nobody tells when the last one has gone
            await asyncio.sleep(_LOOK_EVERY_S)
        await asyncio.sleep(linger_s)
        task = asyncio.current_task()
        assert task is not None
        del self._retired[task]  # closing is not cut off by the end of the process
        await _closed(close)
        self.closed += 1

    async def close(self) -> None:
        """Close everything that still waits; the process ends."""
        waiting, self._retired = self._retired, {}
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        for close in waiting.values():
            await _closed(close)


async def _closed(close: Callable[[], Awaitable[None]]) -> None:
    try:
        await close()
    except Exception:  # noqa: BLE001 - nobody uses it any more; it is logged whole
        _log.exception("closing a former engine failed")
