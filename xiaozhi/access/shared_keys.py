"""The keys that sign device tokens, alike on every node: a token of one node opens the doors of all."""

import asyncio
import hashlib
import logging
from pathlib import Path
from typing import Any, Final

from xiaozhi.access.token_keys import KeyRing, dump_ring, keys_file, load_keys, parse_ring, write_ring
from xiaozhi.cluster.link import Gone, RedisLink, Use, bytes_of

_log = logging.getLogger(__name__)

# Beside the keys: what all nodes last agreed on, by its digest.
_AGREED_FILE: Final = "token-keys.agreed"
_NEVER: Final = ""
# Replaces what is there only where nobody else has done so meanwhile.
_REPLACE: Final = """
local there = redis.call('GET', KEYS[1])
if (there or '') == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2]) return ARGV[2] end
return there or ''
"""
_TIMEOUT_S: Final = 1.0


class SharedKeys:
    """Agreement on the token keys.

    The first node of a cluster gives its keys to all. Later the side that changed since the last agreement counts: a
    rotation on one node reaches the others within their next look, and one made while Redis was away when it is back.
    Where both have changed, Redis counts.

    Args:
        link: to Redis; whoever can read it can make tokens.
        data_dir: where this node's keys lie.
    """

    def __init__(self, link: RedisLink, data_dir: Path) -> None:
        self.taken = 0
        """Times this node took over the keys of the others."""
        self._link = link
        self._data_dir = data_dir

    async def agree(self, now_s: float) -> KeyRing | None:
        """Agree with the other nodes; the keys that hold now, written to this node's file. None without Redis.

        Args:
            now_s: wall time in seconds.

        Raises:
            OSError: the files cannot be read or written.
        """
        own = await asyncio.to_thread(load_keys, self._data_dir, now_s)
        agreed = await asyncio.to_thread(self._agreed)
        told = dump_ring(own)
        key = self._link.key("token-keys")

        async def read(redis: Any) -> tuple[bytes | None, KeyRing | None]:
            document = bytes_of(await redis.get(key))
            return document, parse_ring(document) if document is not None else None

        async def replace(redis: Any) -> tuple[bytes | None, KeyRing | None]:
            document = bytes_of(await redis.eval(_REPLACE, 1, key, shared or b"", told))
            return document, parse_ring(document or b"")

        try:
            shared, ring = await self._link.ask(Use.KEYS, read, timeout_s=_TIMEOUT_S)
            if ring != own and (ring is None or agreed == _digest(shared or b"")):
                shared, ring = await self._link.ask(Use.KEYS, replace, timeout_s=_TIMEOUT_S)
        except Gone:
            return None
        if ring is None:
            _log.error("the token keys in redis are damaged; this node keeps its own")
            return own
        if ring != own:
            await asyncio.to_thread(write_ring, keys_file(self._data_dir), ring)
            self.taken += 1
            _log.info("device tokens are signed with the keys of the other nodes")
        if agreed != _digest(shared or b""):
            await asyncio.to_thread(self._write_agreed, _digest(shared or b""))
        return ring

    def _agreed(self) -> str:
        try:
            return (self._data_dir / _AGREED_FILE).read_text().strip()
        except (FileNotFoundError, UnicodeDecodeError):
            return _NEVER

    def _write_agreed(self, digest: str) -> None:
        (self._data_dir / _AGREED_FILE).write_text(digest)


def _digest(document: bytes) -> str:
    return hashlib.blake2b(document, digest_size=16).hexdigest()
