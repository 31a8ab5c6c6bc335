"""Endpoints that one node has found dead: the others try them with one careful request before they rely on them."""

import asyncio
import hashlib
from collections.abc import Callable
from typing import Any, Final

import orjson

from xiaozhi.cluster.link import Gone, RedisLink, Use

# A hint is about now: whoever reads it later finds out alone.
_LIFE_MS: Final = 30_000
_MAX: Final = 200


class BreakerHints:
    """Tells and hears which endpoints are dead.

    Args:
        link: to Redis.
        node: this node's name.
        suspect: called with the id of an endpoint that another node has found dead; unknown ones do nothing.
    """

    def __init__(self, link: RedisLink, node: str, suspect: Callable[[str], bool]) -> None:
        self.told = 0
        """Endpoints the others were told of."""
        self.heeded = 0
        """Endpoints that are tried carefully because of another node."""
        self._link = link
        self._node = node
        self._suspect = suspect
        self._heard: set[str] = set()
        self._jobs: set[asyncio.Task[None]] = set()

    def tell(self, endpoint: str) -> None:
        """An endpoint's circuit has opened on this node; in the background."""
        if len(self._jobs) < _MAX:
            task = asyncio.get_running_loop().create_task(self._tell(endpoint), name="breaker-hint")
            self._jobs.add(task)
            task.add_done_callback(self._jobs.discard)

    async def _tell(self, endpoint: str) -> None:
        async def tell(redis: Any) -> None:
            key = self._link.key("dead")
            clock = await redis.time()
            now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
            commands = redis.pipeline(transaction=False)
            commands.zadd(key, {orjson.dumps([endpoint, self._node]): now_ms})
            commands.zremrangebyscore(key, "-inf", now_ms - _LIFE_MS)
            commands.pexpire(key, _LIFE_MS)
            await commands.execute()

        try:
            await self._link.ask(Use.NODES, tell)
        except Gone:
            return
        self.told += 1

    async def look(self) -> None:
        """Read what the others have found and act on what is new."""

        async def read(redis: Any) -> dict[str, tuple[str, str]]:
            clock = await redis.time()
            now_ms = int(clock[0]) * 1000 + int(clock[1]) // 1000
            found = await redis.zrangebyscore(
                self._link.key("dead"), now_ms - _LIFE_MS, "+inf", start=0, num=_MAX, withscores=True
            )
            return {f"{at_ms:.0f}{member.decode(errors='replace')}": _hint(member) for member, at_ms in found}

        try:
            found = await self._link.ask(Use.NODES, read)
        except Gone:
            return
        for name in found.keys() - self._heard:
            endpoint, node = found[name]
            if endpoint and node != self._node:
                self.heeded += self._suspect(endpoint)
        self._heard = set(found)

    async def close(self) -> None:
        """Finish telling."""
        while self._jobs:
            await asyncio.gather(*self._jobs)


def endpoint_id(name: str, base_url: str, model: str) -> str:
    """The same on every node for the same endpoint; shows nothing of its address. Pure."""
    return hashlib.blake2b("\0".join((name, base_url, model)).encode(), digest_size=8).hexdigest()


def _hint(member: bytes) -> tuple[str, str]:
    try:
        told: Any = orjson.loads(member)
        endpoint, node = told
    except (orjson.JSONDecodeError, TypeError, ValueError):
        return "", ""
    return str(endpoint), str(node)
