"""What a tier of a cache is, and several of them as one."""

from collections.abc import Sequence
from typing import Protocol


class Tier(Protocol):
    """Keeps bytes under bytes for a while. A tier never raises for what it could not read or keep: that is a miss.

    Attributes:
        name: for counters and the log, `memory`, `disk` …
        hits, misses: questions answered, and not.
    """

    name: str
    hits: int
    misses: int

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None when it is not there, has expired or cannot be read."""
        ...

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep a value for at most `ttl_s` seconds, less where the tier's own limit is lower. Returns at once."""
        ...

    async def clear(self) -> None:
        """Forget everything."""
        ...

    async def close(self) -> None:
        """Write what is on its way and free what is held."""
        ...


class Tiers:
    """Tiers in order of nearness: a value found in a far one is kept in the nearer ones as well.

    Args:
        tiers: nearest first.
        ttl_s: longest life of a value in any tier, in seconds.
    """

    def __init__(self, tiers: Sequence[Tier], ttl_s: float) -> None:
        self.tiers = tuple(tiers)
        self._ttl_s = ttl_s

    async def get(self, key: bytes) -> bytes | None:
        """The value from the nearest tier that has it."""
        for index, tier in enumerate(self.tiers):
            value = await tier.get(key)
            if value is not None:
                for nearer in self.tiers[:index]:
                    await nearer.put(key, value, self._ttl_s)
                return value
        return None

    async def put(self, key: bytes, value: bytes) -> None:
        """Keep a value in every tier."""
        for tier in self.tiers:
            await tier.put(key, value, self._ttl_s)

    async def clear(self) -> None:
        """Forget everything in every tier."""
        for tier in self.tiers:
            await tier.clear()

    async def close(self) -> None:
        """Close every tier."""
        for tier in self.tiers:
            await tier.close()
