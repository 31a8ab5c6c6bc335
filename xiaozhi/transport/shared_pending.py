"""Challenges of devices that wait to be bound, known to every node: a device may ask each time another one."""

import logging
from typing import Any, Final

import orjson

from xiaozhi.cluster.link import Gone, RedisLink, Use

_log = logging.getLogger(__name__)

# A device asks the OTA address again long before.
_LIFE_S: Final = 3600.0


class SharedPending:
    """Which challenge was given to which client, and since when it waits.

    Args:
        link: to Redis.
    """

    def __init__(self, link: RedisLink) -> None:
        self._link = link

    def _key(self, device_id: str, client_id: str) -> str:
        return self._link.key("pending", device_id, client_id)

    async def put(self, device_id: str, client_id: str, challenge: str, since_s: float) -> None:
        """Tell the other nodes; without Redis only this one knows."""
        value = orjson.dumps([challenge, since_s])
        try:
            await self._link.put(Use.DEVICES, self._key(device_id, client_id), value, _LIFE_S)
        except Gone:
            _log.debug("a challenge is known to this node only")

    async def forget(self, device_id: str, client_id: str) -> None:
        """The client was bound: nobody needs its challenge any more."""
        key = self._key(device_id, client_id)
        try:
            await self._link.ask(Use.DEVICES, lambda redis: redis.delete(key))
        except Gone:
            _log.debug("a challenge that was used is left to expire")

    async def get(self, device_id: str, client_id: str) -> tuple[str, float] | None:
        """What another node has given to this client; None for nothing."""
        try:
            value = await self._link.get(Use.DEVICES, self._key(device_id, client_id))
            told: Any = orjson.loads(value or b"null")
            return (str(told[0]), float(told[1])) if told else None
        except (Gone, orjson.JSONDecodeError, TypeError, ValueError, IndexError, KeyError):
            return None
