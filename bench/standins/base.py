"""What every stand-in upstream has: an own port, a record of requests, and a fault that can be switched at any time."""

import asyncio
from types import TracebackType
from typing import Any, Self

from aiohttp import web


class StandIn:
    """A real HTTP server on a free local port that behaves like an upstream, or like a broken one.

    Attributes:
        url: `http://127.0.0.1:PORT`, valid once started.
        requests: what was asked, oldest first; each stand-in says what it records.
        fault: how the next requests go wrong; empty for well. Each stand-in lists the words it knows in `FAULTS`.
        open_requests: requests being answered now.
        ports: of the client, for every request: the same where it came over the same connection.
        aborted: requests whose client went away before the answer was complete.
        released: set it to let requests that hang go on.
    """

    FAULTS: frozenset[str] = frozenset()
    WS_PATH = ""
    """Where its WebSocket is, for those that have one."""

    def __init__(self, port: int = 0) -> None:
        self.url = ""
        self.requests: list[Any] = []
        self.ports: list[int] = []
        self.open_requests = 0
        self.aborted = 0
        self.released = asyncio.Event()
        self._port = port
        self._fault = ""
        self._runner: web.AppRunner | None = None
        self._idle = asyncio.Event()
        self._idle.set()
        self._asked = asyncio.Condition()

    @property
    def fault(self) -> str:
        """How the next requests go wrong; empty for well."""
        return self._fault

    @fault.setter
    def fault(self, word: str) -> None:
        if word and word not in self.FAULTS:
            raise ValueError(
                f"{type(self).__name__} knows no fault {word!r}; it knows {', '.join(sorted(self.FAULTS))}"
            )
        self._fault = word

    @property
    def ws_url(self) -> str:
        """Its WebSocket, as it goes into the `url` of the settings."""
        return self.url.replace("http", "ws", 1) + self.WS_PATH

    def routes(self) -> list[web.RouteDef]:
        """The upstream's paths."""
        raise NotImplementedError

    async def start(self) -> Self:
        """Listen."""
        app = web.Application(middlewares=[self._count], client_max_size=16 * 1024 * 1024)
        app.add_routes(self.routes())
        # A client that goes away cancels its handler: that is how an upstream notices.
        self._runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.0, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self._port)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.url = f"http://{host}:{port}"
        return self

    async def close(self) -> None:
        """Stop listening and drop every connection."""
        self.released.set()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def record(self, request: object) -> None:
        """Remember a request and wake whoever waits for it."""
        self.requests.append(request)
        async with self._asked:
            self._asked.notify_all()

    async def asked(self, count: int = 1) -> None:
        """Wait until `count` requests have come in all."""
        async with self._asked:
            await self._asked.wait_for(lambda: len(self.requests) >= count)

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        await self._idle.wait()

    async def hang(self) -> None:
        """Do nothing until released, or until the client goes away."""
        await self.released.wait()

    @web.middleware
    async def _count(self, request: web.Request, handler: Any) -> web.StreamResponse:
        self.open_requests += 1
        self.ports.append(request.transport.get_extra_info("peername")[1] if request.transport is not None else 0)
        self._idle.clear()
        try:
            response: web.StreamResponse = await handler(request)
            return response
        except (asyncio.CancelledError, ConnectionError):
            self.aborted += 1
            raise
        finally:
            self.open_requests -= 1
            if not self.open_requests:
                self._idle.set()


def reset(request: web.Request) -> None:
    """Break the connection under a request without a word, as a crashed server or a dropped network does."""
    if request.transport is not None:
        request.transport.abort()
