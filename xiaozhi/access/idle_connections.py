"""How long a connection may be open without asking anything, and how many such connections there may be.

The HTTP library keeps a connection for an hour, and waits for ever for the rest of a request: whoever opens some
thousand of them and sends a byte now and then (slow loris) would have all file descriptors. Devices that converse, and
requests whose body has arrived, are not touched.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from aiohttp import web
from aiohttp.typedefs import Middleware

from xiaozhi.access.addresses import Network, is_in, networks
from xiaozhi.access.visitors import group_of

# A device that has connected sends its request at once; a 4G modem may have to send it three times.
_FIRST_S: Final = 15.0
# Proxies keep connections to this server for 60 s (nginx); closing later than they do spares them a failed request.
_IDLE_S: Final = 75.0
# The largest body is a picture of some MB; vision itself gives it 25 s.
_BODY_S: Final = 30.0
# Browsers open six to one host, scrapers one; a whole house is one address.
_MAX_EACH: Final = 100
_MAX: Final = 1000
_LOOK_EVERY_S: Final = 1.0
_THIS_MACHINE: Final = networks(("127.0.0.0/8", "::1/128"))

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Line(Protocol):
    """A connection of the HTTP library."""

    @property
    def transport(self) -> asyncio.BaseTransport | None:
        """What it goes over; None when it is closed."""
        ...

    def force_close(self) -> None:
        """Close it."""
        ...


@dataclass(slots=True)
class _State:
    """What a connection does: nothing `since` then, or the request that came then."""

    since: float
    first: bool = True
    request: web.BaseRequest | None = None


class Patience:
    """Watches the connections of one server.

    Args:
        trusted: proxies; they and this machine may have more connections than other addresses.
    """

    def __init__(self, trusted: Sequence[Network] = ()) -> None:
        self._unlimited = (*trusted, *_THIS_MACHINE)
        self._states: dict[Line, _State] = {}
        self.silent = 0
        """Connections closed because no request came."""
        self.slow = 0
        """Connections closed because the body of a request did not come to its end."""
        self.crowded = 0
        """Connections closed because there were too many without a whole request, the oldest first."""

    @property
    def middleware(self) -> Middleware:
        """For the application: it says which connections are being served."""

        @web.middleware
        async def serve(request: web.Request, handler: Handler) -> web.StreamResponse:
            loop = asyncio.get_running_loop()
            state = self._states.setdefault(request.protocol, _State(loop.time()))
            state.since, state.request = loop.time(), request
            try:
                return await handler(request)
            finally:
                state.since, state.first, state.request = loop.time(), False, None

        return serve

    def look(self, lines: Iterable[Line], now_s: float) -> list[Line]:
        """Which connections are to be closed.

        Args:
            lines: every open connection.
            now_s: the time of the loop, in seconds.
        """
        states = self._states
        self._states = {line: states.get(line) or _State(now_s) for line in lines}
        closing: list[Line] = []
        waiting: list[tuple[float, Line]] = []
        for line, state in self._states.items():
            age_s = now_s - state.since
            if state.request is not None and state.request.content.is_eof():
                continue
            if state.request is not None and age_s > _BODY_S:
                self.slow += 1
                closing.append(line)
            elif state.request is None and age_s > (_FIRST_S if state.first else _IDLE_S):
                self.silent += 1
                closing.append(line)
            else:
                waiting.append((state.since, line))
        crowd = self._crowd(waiting)
        self.crowded += len(crowd)
        return closing + crowd

    def _crowd(self, waiting: list[tuple[float, Line]]) -> list[Line]:
        """Those of the waiting that are too many, for their address or in all."""
        if len(waiting) <= _MAX_EACH:
            return []
        waiting.sort(key=lambda one: one[0], reverse=True)
        counts: Counter[str] = Counter()
        over = []
        for number, (_, line) in enumerate(waiting):
            address = _address(line)
            group = group_of(address)
            counts[group] += 1
            if number >= _MAX or (counts[group] > _MAX_EACH and not is_in(address, self._unlimited)):
                over.append(line)
        return over

    async def watch(self, server: web.Server) -> None:
        """Look once a second. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            for line in self.look(server.connections, loop.time()):
                line.force_close()


def _address(line: Line) -> str:
    peer = line.transport.get_extra_info("peername") if line.transport is not None else None
    return str(peer[0]) if peer else ""
