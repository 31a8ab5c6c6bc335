"""What one node shares with the others: the link, its store, conversations, and what is to be looked after."""

import asyncio
import logging
from typing import Final

from xiaozhi.cluster.conversations import ConversationMirror
from xiaozhi.cluster.link import Gone, RedisLink, Use
from xiaozhi.cluster.store import Deletions, share_store
from xiaozhi.settings.cluster import ClusterSettings
from xiaozhi.store import Store, StoreError

_log = logging.getLogger(__name__)

# The first connection may take its time: nobody waits yet.
_FIRST_S: Final = 2.0
# Deletions are rare, and erased in Redis at once: how soon other nodes erase their own copies.
_LOOK_EVERY_S: Final = 5.0


class Shared:
    """Made by `join_shared`.

    Args:
        link: to Redis.
        store: of this node, already with its shared tables.
        deletions: told and taken up.
    """

    def __init__(self, link: RedisLink, store: Store, deletions: Deletions) -> None:
        self.link = link
        self.conversations = ConversationMirror(link, store.turns)
        self.deletions = deletions
        self._store = store

    async def look_after(self) -> None:
        """Tell and take up deletions until cancelled."""
        while True:
            await self.look()
            await asyncio.sleep(_LOOK_EVERY_S)

    async def look(self) -> None:
        """Once; what goes wrong is tried again the next time."""
        try:
            await self.deletions.retry()
            gone = await self.deletions.take_up(self._store)
        except (Gone, StoreError) as error:
            _log.debug("deletions wait: %s", error)
            return
        if gone:
            _log.info("deleted here because another node had deleted it: %d", gone)

    async def close(self) -> None:
        """Write what is on its way and close the link."""
        await self.conversations.close()
        await self.link.close()


async def join_shared(settings: ClusterSettings, store: Store) -> Shared | None:
    """Connect to Redis and share the store; None where the settings name none.

    A Redis that does not answer is logged: the node serves by itself until it does.

    Raises:
        ClusterError: the client is not installed, or the address is none.
        StoreError: the file cannot be read.
    """
    if not settings.enabled:
        return None
    link = RedisLink(settings)
    try:
        await link.ask(Use.NODES, lambda redis: redis.ping(), timeout_s=_FIRST_S)
    except Gone:
        _log.debug("joining later")  # the link has said it
    return Shared(link, store, await share_store(store, link))
