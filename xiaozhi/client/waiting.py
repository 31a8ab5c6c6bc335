"""Waiting until something has become true, without polling and without sleeping."""

import asyncio
from collections.abc import Callable


class Waiting:
    """Conditions that somebody waits for. `look` is called whenever something may have made one true."""

    def __init__(self) -> None:
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    def __bool__(self) -> bool:
        return bool(self._waiters)

    def add(self, condition: Callable[[], bool]) -> "asyncio.Future[None]":
        """A future that is done when the condition has been found true."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((condition, future))
        return future

    def look(self) -> None:
        """Wake those whose condition is true; forget those who have gone."""
        for condition, future in self._waiters:
            if not future.done() and condition():
                future.set_result(None)
        self._waiters = [waiter for waiter in self._waiters if not waiter[1].done()]

    def fail(self, error: Exception) -> None:
        """Nothing will become true any more."""
        waiters, self._waiters = self._waiters, []
        for _condition, future in waiters:
            if not future.done():
                future.set_exception(error)
