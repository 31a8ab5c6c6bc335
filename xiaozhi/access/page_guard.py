"""Stands before the device protocol where a browser asks for a page: `Origins` applied to requests and answers."""

import asyncio
import ipaddress
import logging
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from aiohttp import web
from aiohttp.typedefs import Middleware

from xiaozhi.access.addresses import OTA_PATH, VISION_PATH, WEBSOCKET_PATH, Network, address_of, host_of, is_in
from xiaozhi.access.guests import is_guest
from xiaozhi.access.identity import Identity
from xiaozhi.access.loopback import is_loopback_host
from xiaozhi.access.origins import Origins, hosts_of, is_page, names_of
from xiaozhi.access.rate_limits import OncePer, RateLimiter
from xiaozhi.settings import Settings

_log = logging.getLogger(__name__)

# Of the paths that devices use; every path below them as well (activation, firmware).
_PATHS: Final = tuple(path.rstrip("/") for path in (OTA_PATH, WEBSOCKET_PATH, VISION_PATH))
_SOCKET: Final = WEBSOCKET_PATH.rstrip("/")
_PREFLIGHT: Final = {
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Device-Id, Client-Id, Content-Type, Authorization, Activation-Version",
    "Access-Control-Max-Age": "86400",  # what is asked after that is still looked at each time
}
# A page can give itself any number of names below its own: it is one line a minute for each, and few for all.
_SAID_EVERY_S: Final = 60.0
_MAX_LINES_PER_MINUTE: Final = 10
_MAX_SHOWN: Final = 200
_SWITCHING: Final = 101
# Headers that only proxies add: with one of them the other end of the connection is not the browser.
_PROXY_WORDS: Final = frozenset(
    ("forwarded", "via", "x-real-ip", "cf-connecting-ip", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto")
)

_ADMITTED: Final = web.RequestKey("admitted_origin", str)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class PageGuard:
    """Turns away pages that may not use the device protocol, and tells browsers of the others that they may.

    Args:
        settings: all of them.
        trusted: proxies whose word about hosts and addresses counts.
    """

    def __init__(self, settings: Settings, trusted: tuple[Network, ...]) -> None:
        self._trusted = trusted
        self._origins = _origins_of(settings)
        self._said = OncePer(_SAID_EVERY_S)
        self._lines = RateLimiter(_MAX_LINES_PER_MINUTE)
        self.refused = 0
        """Requests of pages that may not ask."""

    def retune(self, settings: Settings) -> None:
        """Other pages may, from the next request on."""
        self._origins = _origins_of(settings)

    def is_own_host(self, host: str) -> bool:
        """`Origins.is_own_host`, as the settings have it now."""
        return self._origins.is_own_host(host)

    @property
    def middleware(self) -> Middleware:
        """For the application."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            origin = ", ".join(request.headers.getall("Origin", ())).strip()
            if not is_page(origin) or not _is_for_devices(request) or _is_talk_page(request):
                return await handler(request)
            if not self._origins.allows(origin, host_of(request, self._trusted), self._browser(request)):
                return self._refuse(request, origin)
            request[_ADMITTED] = origin
            return web.Response(status=204) if request.method == "OPTIONS" else await handler(request)

        return guard

    async def mark(self, request: web.Request, response: web.StreamResponse) -> None:
        """Say in an answer which page may read it; for `on_response_prepare`."""
        if response.status == _SWITCHING or not _is_for_devices(request):
            return
        everybody = self._origins.everybody
        if not everybody:
            response.headers.add("Vary", "Origin")
        origin = request.get(_ADMITTED)
        if origin is None:
            return
        response.headers["Access-Control-Allow-Origin"] = "*" if everybody else origin
        if request.method == "OPTIONS":
            response.headers.update(_PREFLIGHT)

    def _browser(self, request: web.Request) -> str:
        """The browser's address where it is known for certain; empty behind a proxy that is not trusted to say it."""
        remote = request.remote or ""
        if not is_in(remote, self._trusted):
            return "" if _PROXY_WORDS.intersection(name.lower() for name in request.headers) else remote
        hops = request.headers.getall("X-Forwarded-For", [])
        said = hops[-1].rpartition(",")[2].strip() if hops else ""
        # A proxy on another machine that says 127.0.0.1 means itself.
        return address_of(request, self._trusted) if is_loopback_host(remote) and _is_address(said) else ""

    def _refuse(self, request: web.Request, origin: str) -> web.Response:
        self.refused += 1
        shown = ascii(origin[:_MAX_SHOWN])[1:-1]
        now_s = asyncio.get_running_loop().time()
        if self._said.allows(shown, now_s) and not self._lines.wait_s("", now_s):
            address = address_of(request, self._trusted)
            _log.warning("refused a web page of %s, from %s; name it in server.origins if it may", shown, address)
        return web.Response(
            status=403, text=f"pages of {shown} may not use this server; name them in server.origins if they may\n"
        )


def _is_for_devices(request: web.Request) -> bool:
    path = request.path
    if path == "/":  # what people type into desktop clients
        return _is_upgrade(request)
    return any(path == known or path.startswith(f"{known}/") for known in _PATHS)


def _is_upgrade(request: web.Request) -> bool:
    return request.headers.get("Upgrade", "").lower() == "websocket"


def _is_talk_page(request: web.Request) -> bool:
    """The console's own page: it shows a pass, which says more than its address, and is looked at further in."""
    connects = _is_upgrade(request) and request.path.rstrip("/") in ("", _SOCKET)
    return connects and is_guest(Identity.of(request.headers, request.query).device_id)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _origins_of(settings: Settings) -> Origins:
    server, node = settings.server, settings.cluster.address
    return Origins(
        server.origins,
        public=[url for url in (server.public_url, node) if url] if server.public_url else (),
        names=names_of(socket.gethostname()) | hosts_of((server.host, node)),
        ports=[port for port in (server.port, server.tls_port) if port],
    )
