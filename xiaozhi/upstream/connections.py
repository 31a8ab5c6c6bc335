"""The connections that an engine keeps to its service, and why one has failed in words."""

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import aiohttp
from yarl import URL

from xiaozhi.text.one_line import one_line

if TYPE_CHECKING:
    from aiohttp.client import _BaseRequestContextManager  # aiohttp has no public name for what `ws_connect` returns

    _Opening: TypeAlias = _BaseRequestContextManager[aiohttp.ClientWebSocketResponse]

MAX_SHOWN_CHARS: Final = 120
"""Of what a service says, in an error of one line."""
_KEEP_ALIVE_S: Final = 60.0
_GOODBYE_S: Final = 0.1


class Connections:
    """One pool for one engine; opened when first needed, on the loop that needs it.

    Args:
        silence_s: the longest silence of a connection; None leaves that to the caller.
        connect_s: the longest time to connect.
        limit: connections at once.
    """

    def __init__(self, silence_s: float | None, *, connect_s: float = 3.0, limit: int = 100) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_s, sock_read=silence_s)
        self._limit = limit
        self._session: aiohttp.ClientSession | None = None

    @property
    def session(self) -> aiohttp.ClientSession:
        """To send requests with. Proxies are those of the environment; no redirection to another host is followed."""
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=self._limit, keepalive_timeout=_KEEP_ALIVE_S)
            tracing = aiohttp.TraceConfig()
            tracing.on_request_redirect.append(_stay)
            self._session = aiohttp.ClientSession(
                connector=connector, timeout=self._timeout, trust_env=True, trace_configs=[tracing]
            )
        return self._session

    def websocket(self, url: str | URL, *, max_bytes: int, **options: Any) -> "_Opening":
        """Open a WebSocket: to be awaited, or a context that closes it. Who leaves waits for nobody's goodbye.

        Args:
            url: of the service.
            max_bytes: of one of its messages.
            options: more for `aiohttp.ClientSession.ws_connect`.

        Raises:
            aiohttp.ClientError, OSError: refused, or not reached.
        """
        return self.session.ws_connect(
            url, max_msg_size=max_bytes, timeout=aiohttp.ClientWSTimeout(ws_close=_GOODBYE_S), **options
        )

    async def close(self) -> None:
        """Close them; the next request opens others."""
        if self._session is not None:
            await self._session.close()
            self._session = None


async def _stay(
    _session: aiohttp.ClientSession, _context: SimpleNamespace, params: aiohttp.TraceRequestRedirectParams
) -> None:
    """Keys in headers, and what was said, are for the address that they were given for."""
    where = params.url.join(URL(params.response.headers.get("Location", "")))
    if where.origin() != params.url.origin():
        raise aiohttp.ClientConnectionError(f"it redirects to {where.host}: give that address")


async def put(socket: aiohttp.ClientWebSocketResponse, message: str | bytes) -> None:
    """Send a message: a text, or bytes.

    Raises:
        aiohttp.ClientError, OSError: the connection broke.
    """
    await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))


def reason(error: Exception) -> str:
    """What went wrong, in one line; never empty."""
    said = one_line(error, MAX_SHOWN_CHARS)
    return said or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)
