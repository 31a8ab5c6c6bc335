"""The connections that an engine keeps to its service, and why one has failed in words."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import SimpleNamespace
from typing import Any, Final, Generic, TypeVar

import aiohttp
import orjson
from yarl import URL

from xiaozhi.text.one_line import one_line

T = TypeVar("T")

MAX_SHOWN_CHARS: Final = 120
"""Of what a service says, in an error of one line."""
LOG_ID: Final = "X-Tt-Logid"
"""The header by which Volcengine finds a connection in its logs."""
_KEEP_ALIVE_S: Final = 60.0
WARM_S: Final = 50.0
"""How long a connection that was used is surely kept: services close idle ones after 60 s as a rule."""
_GOODBYE_S: Final = 0.1


class NotOpened(Exception):
    """A WebSocket was refused or not reached; one line, without the name of the engine in front."""


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

    async def websocket(
        self, url: str | URL, *, max_bytes: int, advice: Mapping[int, str] | None = None, **options: Any
    ) -> aiohttp.ClientWebSocketResponse:
        """Open a WebSocket, which is a context that closes it as well. Who leaves waits for nobody's goodbye.

        Args:
            url: of the service; its query may hold a signature and is not shown.
            max_bytes: of one of its messages.
            advice: what to do about a refused handshake, by its status.
            options: more for `aiohttp.ClientSession.ws_connect`.

        Raises:
            NotOpened: refused, or not reached in time.
        """
        where = str(url).partition("?")[0]
        try:
            async with asyncio.timeout(self._timeout.sock_connect):
                socket: aiohttp.ClientWebSocketResponse = await self.session.ws_connect(
                    url, max_msg_size=max_bytes, timeout=aiohttp.ClientWSTimeout(ws_close=_GOODBYE_S), **options
                )
                return socket
        except aiohttp.WSServerHandshakeError as error:
            raise NotOpened(refusal(error, advice)) from error
        except TimeoutError as error:
            raise NotOpened(f"{where} cannot be reached: no answer within {self._timeout.sock_connect:g} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NotOpened(f"{where} cannot be reached: {reason(error)}") from error

    async def close(self) -> None:
        """Close them; the next request opens others."""
        if self._session is not None:
            await self._session.close()
            self._session = None


class Spares(Generic[T]):
    """Connections opened ahead that serve one use each: whoever needs one takes it, and nobody's is closed.

    Args:
        spare_s: how long one waits, in seconds.
        most: how many wait at the most.
        leave: closes one.
    """

    def __init__(self, spare_s: float, most: int, leave: Callable[[T], Awaitable[object]]) -> None:
        self._spare_s, self._most, self._leave = spare_s, most, leave
        self._spare: list[tuple[T, asyncio.TimerHandle]] = []
        self._leaving: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many wait."""
        return len(self._spare)

    def put(self, connection: T) -> None:
        """It waits for somebody; the one that has waited longest goes where there are too many."""
        if len(self._spare) >= self._most:
            self._expire(self._spare[0][0])
        timer = asyncio.get_running_loop().call_later(self._spare_s, self._expire, connection)
        self._spare.append((connection, timer))

    def take(self) -> T | None:
        """The one that was opened last; None where none waits. The service may have closed it meanwhile."""
        if not self._spare:
            return None
        connection, timer = self._spare.pop()
        timer.cancel()
        return connection

    async def close(self) -> None:
        """Close all that wait."""
        for connection, _ in self._spare[:]:
            self._expire(connection)
        await asyncio.gather(*self._leaving, return_exceptions=True)

    def _expire(self, connection: T) -> None:
        for waits in [waits for waits in self._spare if waits[0] is connection]:
            self._spare.remove(waits)
            waits[1].cancel()
            leaving = asyncio.get_running_loop().create_task(self._left(connection), name="spare-leave")
            self._leaving.add(leaving)
            leaving.add_done_callback(self._leaving.discard)

    async def _left(self, connection: T) -> None:
        await self._leave(connection)


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


def as_json(**fields: object) -> str:
    """A message of these fields."""
    return orjson.dumps(fields).decode()


def reason(error: Exception) -> str:
    """What went wrong, in one line; never empty."""
    said = one_line(error, MAX_SHOWN_CHARS)
    return said or ("no answer in time" if isinstance(error, TimeoutError) else type(error).__name__)


def refusal(error: aiohttp.WSServerHandshakeError, advice: Mapping[int, str] | None = None) -> str:
    """A refused handshake in one line: what to do about it where that is known, and what the service says of it."""
    known = (advice or {}).get(error.status, "")
    headers: Mapping[str, str] = error.headers or {}
    said = one_line(headers.get("dg-error") or ("" if known else error.message), MAX_SHOWN_CHARS)
    log_id = one_line(headers.get(LOG_ID, ""), MAX_SHOWN_CHARS)
    line = ": ".join(filter(None, (f"HTTP {error.status}", known, said)))
    return f"{line} (log id {log_id})" if log_id else line
