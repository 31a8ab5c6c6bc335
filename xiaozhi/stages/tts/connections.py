"""The connections that a voice keeps to its service."""

from typing import Final

import aiohttp

_CONNECT_S: Final = 3.0
_MAX: Final = 100
_KEEP_ALIVE_S: Final = 60.0


class Connections:
    """One pool for one voice; opened when first needed, on the loop that needs it.

    Args:
        silence_s: the longest silence of a connection; the chain of voices has its own, shorter limits for the sound.
    """

    def __init__(self, silence_s: float) -> None:
        self._silence_s = silence_s
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """To send requests with. Proxies are those of the environment."""
        if self._session is None or self._session.closed:
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=self._silence_s)
            connector = aiohttp.TCPConnector(limit=_MAX, keepalive_timeout=_KEEP_ALIVE_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout, trust_env=True)
        return self._session

    async def close(self) -> None:
        """Close them; the next request opens others."""
        if self._session is not None:
            await self._session.close()
            self._session = None
