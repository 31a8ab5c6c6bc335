"""How long an endpoint is waited for."""

import asyncio
from collections.abc import Awaitable
from typing import Final, TypeVar

R = TypeVar("R")

LONGEST_THOUGHT_S: Final = 60.0
"""Whoever talks does not wait longer for the first word of a model that thinks, however lively it does."""


class Patience:
    """How long may still be waited; only waiting counts, not the time in which nobody asks for more.

    Args:
        seconds: until the first sign of life.
        complaint: what is said, with the seconds, when patience is at its end.
    """

    def __init__(self, seconds: float, complaint: str) -> None:
        self._loop = asyncio.get_running_loop()
        self._thinks_since: float | None = None
        self.renew(seconds, complaint)

    def renew(self, seconds: float, complaint: str) -> None:
        """There was a sign of life."""
        self._left_s = seconds
        self._complaint = f"{complaint} {seconds:g} s"

    def think(self) -> None:
        """There was a sign of life, but still nothing to be spoken.

        Raises:
            TimeoutError: patience with thoughts is at its end.
        """
        now = self._loop.time()
        self._thinks_since = now if self._thinks_since is None else self._thinks_since
        if now - self._thinks_since > LONGEST_THOUGHT_S:
            raise TimeoutError(f"thought for more than {LONGEST_THOUGHT_S:g} s")

    async def spend(self, work: Awaitable[R]) -> R:
        """Wait for `work`.

        Raises:
            TimeoutError: patience is at its end.
        """
        began = self._loop.time()
        limit = asyncio.timeout(self._left_s)
        try:
            async with limit:
                result = await work
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(self._complaint) from None
            raise
        self._left_s -= self._loop.time() - began
        return result
