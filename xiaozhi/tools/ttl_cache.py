"""Answers of services, kept for a while; asked for once by however many want the same."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class TtlCache(Generic[K, V]):
    """At most `most` answers, each used for `ttl_s` seconds; failures are not kept.

    Args:
        ttl_s: how long an answer is used again, in seconds.
        most: the oldest are forgotten above this.
        clock: seconds that only rise; the loop's when left out.
    """

    def __init__(self, ttl_s: float, most: int = 256, clock: Callable[[], float] | None = None) -> None:
        self._ttl_s = ttl_s
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[K, tuple[float, V]] = OrderedDict()
        self._locks: dict[K, asyncio.Lock] = {}
        self.hits = 0
        """Answers given without asking."""
        self.misses = 0
        """Answers asked for."""

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The kept answer, or a new one from `ask()`, whose errors pass through."""
        lock = self._locks.setdefault(key, asyncio.Lock())
        try:
            async with lock:
                now = self._clock() if self._clock else asyncio.get_running_loop().time()
                kept = self._kept.get(key)
                if kept is not None and now - kept[0] < self._ttl_s:
                    self.hits += 1
                    return kept[1]
                self.misses += 1
                value = await ask()
                self._kept[key] = (now, value)
                self._kept.move_to_end(key)
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
                return value
        finally:
            if not lock.locked():
                self._locks.pop(key, None)

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()
