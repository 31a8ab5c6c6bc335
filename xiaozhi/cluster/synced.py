"""Small documents that several nodes hold, each in its own file: whichever changed since they last agreed counts."""

import hashlib
import logging
from collections.abc import Callable
from typing import Final

from cachetools import LRUCache

from xiaozhi.cluster.link import Gone, RedisLink, Use
from xiaozhi.store import StoreError
from xiaozhi.store.named import Meta

_log = logging.getLogger(__name__)

# Agreements held in memory; the others are in the file.
_MAX_HELD: Final = 5000

Merge = Callable[[bytes, bytes], bytes]
"""From the shared document and one's own, both of which changed, the one that is to hold."""


class Synced:
    """Three-way agreement on one kind of document, by device.

    What both sides last agreed on is kept beside the node's own file. So a change that was made while Redis was away,
    or by the command line in the file itself, is told apart from one that another node made.

    Args:
        kind: `device`, `memories`: part of the keys.
        link: to Redis.
        meta: of this node's file.
        merge: settles it when both have changed, or have never agreed.
    """

    def __init__(self, kind: str, link: RedisLink, meta: Meta, merge: Merge) -> None:
        self.taken = 0
        """Documents taken over from another node."""
        self.given = 0
        """Documents written for the others."""
        self._kind = kind
        self._link = link
        self._meta = meta
        self._merge = merge
        self._agreed: LRUCache[str, str] = LRUCache(_MAX_HELD)

    def key(self, device_id: str) -> str:
        """Where a device's document lies."""
        return self._link.key(self._kind, device_id)

    async def settle(self, device_id: str, own: bytes | None) -> bytes | None:
        """Agree with the other nodes.

        Args:
            device_id: whose document.
            own: what this node holds; None for nothing.

        Returns:
            What this node is to take over; None where its own stands, or Redis does not answer.

        Raises:
            StoreError: the file cannot be read or written.
        """
        try:
            shared = await self._link.get(Use.DEVICES, self.key(device_id))
            if own is None:
                if shared is not None:
                    await self._agree(device_id, shared)
                    self.taken += 1
                return shared
            if shared is None:
                await self._give(device_id, own)
                return None
            if shared == own:
                await self._agree(device_id, own)
                return None
            agreed = await self._last(device_id)
            if agreed == _digest(own):
                result = shared
            elif agreed == _digest(shared):
                result = own
            else:
                result = self._merge(shared, own)
            if result != shared:
                await self._give(device_id, result)
            else:
                await self._agree(device_id, result)
        except Gone:
            return None
        if result == own:
            return None
        self.taken += 1
        return result

    async def _give(self, device_id: str, document: bytes) -> None:
        life_s = self._link.settings.conversation_days * 86_400.0
        if await self._link.put(Use.DEVICES, self.key(device_id), document, life_s):
            self.given += 1
            await self._agree(device_id, document)
        else:
            _log.warning("too long to be shared: %s", self._kind, extra={"device": device_id})

    async def _last(self, device_id: str) -> str:
        if device_id in self._agreed:
            return self._agreed[device_id]
        return await self._meta.get(f"cluster.{self._kind}.{device_id}") or ""

    async def _agree(self, device_id: str, document: bytes) -> None:
        digest = _digest(document)
        if self._agreed.get(device_id) == digest:
            return
        self._agreed[device_id] = digest
        try:
            await self._meta.put(f"cluster.{self._kind}.{device_id}", digest)
        except StoreError as error:
            _log.debug("%s", error)  # the store has said it; a restart then settles by merging

    async def forget(self, device_id: str) -> None:
        """The device is removed on this node. Raises `StoreError`."""
        self._agreed.pop(device_id, None)
        await self._meta.remove(f"cluster.{self._kind}.{device_id}")


def _digest(document: bytes) -> str:
    return hashlib.blake2b(document, digest_size=12).hexdigest()
