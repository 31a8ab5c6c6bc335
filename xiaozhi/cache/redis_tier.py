"""The tier between memory and disk that several nodes share, and who of them makes a value that is not there."""

import asyncio
import logging
import secrets
from collections.abc import Coroutine
from typing import Any, Final

from xiaozhi.cluster.link import Gone, RedisLink, Use

_log = logging.getLogger(__name__)

# Values on their way to Redis; more come only when it hangs, and are then not kept.
_WAITING_BYTES: Final = 4 * 1024 * 1024
# Somebody who makes a clause and dies holds the others up for so long at most, in milliseconds.
_LOCK_MS: Final = 10_000
_LOOK_EVERY_S: Final = 0.03
# Only whoever took a lock may give it back.
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class RedisTier:
    """Keeps speech in Redis.

    Args:
        link: to it.
        ttl_s: longest life of a value, in seconds.
    """

    name = "redis"

    def __init__(self, link: RedisLink, ttl_s: float) -> None:
        self.hits = 0
        """Values found."""
        self.misses = 0
        """Values not found, or Redis did not answer."""
        self.dropped = 0
        """Values not kept, because Redis did not answer or they were too long."""
        self.waited_for = 0
        """Values another node made meanwhile."""
        self.link = link
        self.ttl_s = ttl_s
        self._waiting_bytes = 0
        self._jobs: set[asyncio.Task[None]] = set()
        self._writes: dict[bytes, asyncio.Task[None]] = {}
        self._owner = secrets.token_hex(8)

    def _key(self, key: bytes) -> str:
        return self.link.key("speech", key.hex())

    async def get(self, key: bytes) -> bytes | None:
        """The value, or None."""
        try:
            value = await self.link.get(Use.SPEECH, self._key(key))
        except Gone:
            value = None
        if value is None:
            self.misses += 1
        else:
            self.hits += 1
        return value

    async def put(self, key: bytes, value: bytes, ttl_s: float) -> None:
        """Keep a value; it is written in the background."""
        if len(value) > self.link.max_bytes or self._waiting_bytes + len(value) > _WAITING_BYTES:
            self.dropped += 1
            return
        self._waiting_bytes += len(value)
        self._writes[key] = self._in_background(self._write(key, value, min(ttl_s, self.ttl_s)))

    async def _write(self, key: bytes, value: bytes, ttl_s: float) -> None:
        try:
            await self.link.put(Use.SPEECH, self._key(key), value, ttl_s, compress=False)  # Opus does not shrink
        except Gone:
            self.dropped += 1
        finally:
            self._waiting_bytes -= len(value)
            self._writes.pop(key, None)

    async def clear(self) -> None:
        """Nothing: it belongs to all nodes, and what they keep expires."""

    async def close(self) -> None:
        """Write what is on its way."""
        while self._jobs:
            await asyncio.gather(*self._jobs)

    # One node makes it --------------------------------------------------------------------------------------------

    async def claim(self, key: bytes, wait_s: float) -> bytes | None:
        """Take the right to make a value, or wait for a node that is making it.

        The right expires by itself; `release` gives it back. When Redis does not answer everybody may make it.

        Args:
            key: of the value.
            wait_s: how long to wait for another node; then it is made twice, which costs less than a silence.

        Returns:
            The value that another node has made meanwhile; None when it is to be made here.
        """
        deadline = asyncio.get_running_loop().time() + wait_s
        lock = self._key(key) + ":making"
        try:
            while True:
                taken = await self.link.ask(
                    Use.SPEECH, lambda redis: redis.set(lock, self._owner, nx=True, px=_LOCK_MS)
                )
                if taken or asyncio.get_running_loop().time() >= deadline:
                    return None
                await asyncio.sleep(_LOOK_EVERY_S)
                value = await self.link.get(Use.SPEECH, self._key(key))
                if value is not None:
                    self.waited_for += 1
                    return value
        except Gone:
            return None

    def release(self, key: bytes) -> None:
        """The value has been made, or will not be; whoever waits may go on when what was kept has arrived."""
        self._in_background(self._release(key))

    async def _release(self, key: bytes) -> None:
        lock = self._key(key) + ":making"
        if (write := self._writes.get(key)) is not None:
            await asyncio.wait([write])

        async def give_back(redis: Any) -> Any:
            return await redis.eval(_RELEASE, 1, lock, self._owner)

        try:
            await self.link.ask(Use.SPEECH, give_back)
        except Gone:
            _log.debug("a lock is left to expire")

    def _in_background(self, job: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(job, name="cache-redis")
        self._jobs.add(task)
        task.add_done_callback(self._jobs.discard)
        return task
