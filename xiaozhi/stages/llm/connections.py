"""The connections to chat endpoints, shared by all of them and by all conversations."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

import httpx2
import openai

from xiaozhi.settings import LlmSettings

# The HTTP library forgets idle connections after 5 s, less than the pause between two turns of a conversation, and a
# new one costs two round trips and more. Servers that close earlier are noticed; routers that silently forget a
# connection do so after more than two minutes.
_KEEP_ALIVE_S: Final = 120.0


class HostConnections:
    """One pool of kept-alive connections for each host, and a limit over all of them.

    Args:
        settings: the limits and the time to connect.
    """

    def __init__(self, settings: LlmSettings) -> None:
        self._per_host = settings.max_connections_per_host
        self._clients: dict[str, httpx2.AsyncClient] = {}
        self.slots = asyncio.Semaphore(settings.max_connections)
        """To be held while an answer streams."""
        # Waiting for tokens is timed by those who wait; the HTTP library times what only it can see.
        self.timeout = httpx2.Timeout(None, connect=settings.connect_timeout_s)

    def client(self, url: str) -> httpx2.AsyncClient:
        """The client for the host of `url`; the same for every endpoint there."""
        parts = urlsplit(url)
        host = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        if host not in self._clients:
            limits = httpx2.Limits(
                max_connections=self._per_host + 1,  # one more for health checks
                max_keepalive_connections=self._per_host,
                keepalive_expiry=_KEEP_ALIVE_S,
            )
            self._clients[host] = openai.DefaultAsyncHttpxClient(
                limits=limits, timeout=self.timeout, event_hooks={"request": [_only_to(host)]}
            )
        return self._clients[host]

    async def close(self) -> None:
        """Close all connections."""
        for client in self._clients.values():
            await client.aclose()


def _only_to(host: str) -> Callable[[httpx2.Request], Awaitable[None]]:
    """Follow no redirection away from a host: keys, headers and what was said are for the address they were given for.

    From http to https of the same name is no other address.
    """
    home = httpx2.URL(host)

    async def look(request: httpx2.Request) -> None:
        url = request.url
        upgraded = url.scheme == "https" and url.host == home.host and url.port is None
        if url.origin != home.origin and not upgraded:
            where = url.netloc.decode("ascii", "replace")
            raise httpx2.TooManyRedirects(f"it redirects to {where}: give that address", request=request)

    return look
