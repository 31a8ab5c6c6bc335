"""The nearest tier: a bounded memory of bytes that forgets what was not used for longest."""

import time
from collections import OrderedDict
from collections.abc import Callable

# What an entry costs beside its key and value: the tuple, two bytes objects, its place in the table. Measured with
# tracemalloc over 10000 entries on CPython 3.11: 290 bytes.
ENTRY_BYTES = 290


class MemoryTier:
    """Keeps values in this process.

    Args:
        max_bytes: of keys, values and their upkeep; a value that alone is larger is not kept.
        ttl_s: longest life of a value, in seconds.
        clock: monotonic time in seconds.
        name: for counters.
    """

    def __init__(
        self, max_bytes: int, ttl_s: float, clock: Callable[[], float] = time.monotonic, name: str = "memory"
    ) -> None:
        self.name = name
        self.hits = 0
        """Values found."""
        self.misses = 0
        """Values not found, or no longer."""
        self.evicted = 0
        """Values forgotten to make room."""
        self.bytes = 0
        """What is held now, in bytes, upkeep included."""
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._entries: OrderedDict[bytes, tuple[float, bytes]] = OrderedDict()  # key: expiry, value

    def resize(self, max_bytes: int, ttl_s: float) -> None:
        """Other limits from now on; what is held keeps the life it was given."""
        self._max_bytes, self._ttl_s = max_bytes, ttl_s
        while self.bytes > max_bytes:
            self._remove(next(iter(self._entries)))
            self.evicted += 1

    def __len__(self) -> int:
        """How many values are held."""
        return len(self._entries)

    def find(self, key: bytes) -> bytes | None:
        """`get` without a loop; counts in the same way."""
        entry = self._entries.get(key)
        if entry is not None and entry[0] > self._clock():
            self._entries.move_to_end(key)
            self.hits += 1
            return entry[1]
        if entry is not None:
            self._remove(key)
        self.misses += 1
        return None

    def keep(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """`put` without a loop."""
        if key in self._entries:
            self._remove(key)
        size = _size(key, value)
        if size > self._max_bytes:
            return
        while self.bytes + size > self._max_bytes:
            self._remove(next(iter(self._entries)))
            self.evicted += 1
        self._entries[key] = (self._clock() + min(ttl_s, self._ttl_s), value)
        self.bytes += size

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        return self.find(key)

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep a value."""
        self.keep(key, value, ttl_s)

    async def clear(self) -> None:
        """Forget everything."""
        self._entries.clear()
        self.bytes = 0

    async def close(self) -> None:
        """Forget everything."""
        await self.clear()

    def _remove(self, key: bytes) -> None:
        _, value = self._entries.pop(key)
        self.bytes -= _size(key, value)


def _size(key: bytes, value: bytes) -> int:
    return len(key) + len(value) + ENTRY_BYTES
