"""How long an endpoint is waited for."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

R = TypeVar("R")


class Patience:
    """How long may still be waited; only waiting counts, not the time in which nobody asks for more.

    Args:
        seconds: until the first sign of life.
        complaint: what is said, with the seconds, when patience is at its end.
        thinking_s: the longest stretch of signs of life without a word to be spoken.
    """

    def __init__(self, seconds: float, complaint: str, thinking_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        self._thinking_s = thinking_s
        self._thinks_since: float | None = None
        self.renew(seconds, complaint)

    def renew(self, seconds: float, complaint: str) -> None:
        """There was a sign of life."""
        self._left_s = seconds
        self._complaint = f"{complaint} {seconds:g} s"

    def think(self) -> None:
        """There was a sign of life, but nothing to be spoken.

        Raises:
            TimeoutError: patience with thoughts is at its end.
        """
        now = self._loop.time()
        self._thinks_since = now if self._thinks_since is None else self._thinks_since
        if now - self._thinks_since > self._thinking_s:
            raise TimeoutError(f"thought for more than {self._thinking_s:g} s")

    def spoke(self) -> None:
        """There was a word: what it thinks next is another thought."""
        self._thinks_since = None

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
