"""What every request to the console passes: address, session, forgery checks, sizes; and headers of every answer."""

import asyncio
import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import orjson
from aiohttp import web
from aiohttp.typedefs import Middleware

from xiaozhi.access.addresses import Network, address_of, host_of, is_in, networks
from xiaozhi.access.guests import same_host
from xiaozhi.access.proxies import comes_from_here, untrusted_proxy
from xiaozhi.agents import AgentError
from xiaozhi.console.access import ConsoleAccess, TryLater
from xiaozhi.console.password import PasswordError
from xiaozhi.console.sessions import Session, csrf_fits
from xiaozhi.settings import Settings
from xiaozhi.settings.console import SELF
from xiaozhi.settings.errors import SettingsError
from xiaozhi.store import StoreError, TooManyTries
from xiaozhi.text import bounded_json

_log = logging.getLogger(__name__)

COOKIE: Final = "xiaozhi_console"
API: Final = "/console/api/"
SESSION: Final = web.RequestKey("session", Session)

_OPEN: Final = frozenset({"sign-in", "session"})
_SAFE: Final = frozenset({"GET", "HEAD"})
_BODY_S: Final = 10.0
# A host as browsers write it, IPv6 in brackets; it is repeated in a header.
_HOST: Final = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?|\[[0-9A-Fa-f:.]{2,45}\])(?::\d{1,5})?")
_FIXED: Final[Mapping[str, str]] = {
    "Server": "xiaozhi",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=(), payment=(), usb=()",
}
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob: data:;"
    " font-src 'self'; manifest-src 'self'; worker-src 'self' blob:; connect-src 'self'{sockets};"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)

_FORGED: Final = (
    "this request comes from a page of another site; behind a proxy, have it pass Host on, or X-Forwarded-Host together"
    " with server.trusted_proxies"
)
_STRANGE_HOST: Final = (
    "{} is not known as a name of this server; use its address, or set server.public_url (or server.origins) to it"
)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Refused(Exception):
    """A request that cannot be answered as asked.

    Args:
        status: HTTP status.
        error: one line for the page.
        more: further members of the answer.
    """

    def __init__(self, status: int, error: str, **more: Any) -> None:
        super().__init__(error)
        self.status = status
        self.error = error
        self.more = more


class Unseen(Exception):
    """A page that is not shown to this address; the text stands in its place."""


def answer(data: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    """JSON for the pages."""
    body = orjson.dumps(data, default=str, option=orjson.OPT_NON_STR_KEYS)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


async def body_of(request: web.Request) -> dict[str, Any]:
    """The JSON object of a request; an empty one where there is no body.

    Raises:
        Refused: not JSON, not an object, or too slow.
        HTTPRequestEntityTooLarge: too large.
    """
    data = await any_body_of(request)
    if not isinstance(data, dict):
        raise Refused(400, "the body must be a JSON object")
    return data


async def any_body_of(request: web.Request) -> Any:
    """The JSON of a request, as `body_of`."""
    try:
        async with asyncio.timeout(_BODY_S):
            body = await request.read()
    except TimeoutError:
        raise Refused(408, "the body did not arrive in time") from None
    if not body:
        return {}
    if request.content_type != "application/json":
        raise Refused(415, "the body must be application/json")
    try:
        return bounded_json.loads(body)
    except orjson.JSONDecodeError:
        raise Refused(400, "the body is not valid JSON") from None


def text_of(data: Mapping[str, Any], name: str, most: int, *, default: str | None = None) -> str:
    """A text of a body. Raises `Refused` where it is missing, no text, or too long."""
    value = data.get(name, default)
    if not isinstance(value, str):
        raise Refused(422, f"{name} must be a text")
    if len(value) > most:
        raise Refused(422, f"{name} must have at most {most} characters")
    return value


def number_of(request: web.Request, name: str, default: int, most: int) -> int:
    """A whole number of the query, from 0 to `most`. Raises `Refused`."""
    text = request.query.get(name, "")
    if not text:
        return default
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise Refused(400, f"{name} must be a whole number")
    return min(int(text), most)


class Guard:
    """Stands before every page and every call.

    Args:
        settings: all of them.
        access: who is signed in.
        trusted: proxies whose word counts.
        is_own_host: whether a request asks for this server by a name that no stranger can have.
    """

    def __init__(
        self,
        settings: Settings,
        access: ConsoleAccess,
        trusted: tuple[Network, ...],
        is_own_host: Callable[[str], bool],
    ) -> None:
        self.access = access
        self._is_own_host = is_own_host
        self._networks = networks([text for text in settings.console.allow if text != SELF])
        self._takes_self = SELF in settings.console.allow
        self._trusted = trusted
        self.forged = 0
        """Requests of other sites' pages, or without the session's word."""

    def address(self, request: web.Request) -> str:
        """Who is responsible for a request."""
        return address_of(request, self._trusted)

    def secure(self, request: web.Request) -> bool:
        """The browser came over TLS, here or at a proxy that is trusted."""
        if request.secure:
            return True
        return request.headers.get("X-Forwarded-Proto", "").lower() == "https" and self._from_proxy(request)

    def host(self, request: web.Request) -> str:
        """The host the browser asked for; empty where it is none."""
        host = host_of(request, self._trusted)
        return host if _HOST.fullmatch(host) else ""

    def _from_proxy(self, request: web.Request) -> bool:
        return is_in(request.remote or "", self._trusted)

    @property
    def middleware(self) -> Middleware:
        """For the application of the console."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                await self._check(request)
                return await handler(request)
            except Unseen as error:
                return web.Response(status=403, text=str(error))
            except web.HTTPException as error:
                if error.status < 400:
                    raise
                headers = {"Allow": error.headers["Allow"]} if "Allow" in error.headers else None
                return answer({"error": error.reason}, error.status, headers)
            except (Refused, TryLater, SettingsError, PasswordError, AgentError, StoreError) as error:
                return _explained(error)

        return guard

    async def _check(self, request: web.Request) -> None:
        self._refuse_strangers(request)
        # A stranger's page whose name was made to lead here would be at home here, with the browser's cookie.
        if not self._is_own_host(host := host_of(request, self._trusted)):
            self.forged += 1
            raise Refused(403, _STRANGE_HOST.format(ascii(host[:100])[1:-1]))
        if not request.path.startswith(API):
            if request.method not in _SAFE:
                raise Refused(405, "Method Not Allowed")
            return
        await self.access.refresh()
        session = self.access.sessions.find(request.cookies.get(COOKIE, ""), time.monotonic())
        if session is not None:
            request[SESSION] = session
        name = request.path.removeprefix(API).strip("/")
        if request.method not in _SAFE:
            self._refuse_forgery(request, session, signing_in=name == "sign-in")
        if session is None and name not in _OPEN:
            raise Refused(401, "sign in first")

    def _refuse_strangers(self, request: web.Request) -> None:
        """Who may not even see the sign-in hears as whom the server sees them, and what the owner can do about it."""
        address = self.address(request)
        if is_in(address, self._networks) or (self._takes_self and comes_from_here(request)):
            return
        shown = ascii(address[:45])[1:-1]
        proxy = untrusted_proxy(request, self._trusted)
        hint = f"; if {proxy} is your proxy, name it in server.trusted_proxies" if proxy else ""
        hint_zh = f"；如果 {proxy} 是你的反向代理，请把它写进 server.trusted_proxies" if proxy else ""
        english = f"the address {shown} may not open the console: add it to [console] allow in settings.toml{hint}"
        if request.path.startswith(API):
            raise Refused(403, english)
        chinese = f"地址 {shown} 不能打开控制台：请把它加进 settings.toml 的 [console] allow{hint_zh}"
        raise Unseen(f"403\n\n{chinese}。\n\n{english[0].upper()}{english[1:]}.\n")

    def _refuse_forgery(self, request: web.Request, session: Session | None, *, signing_in: bool) -> None:
        origin = request.headers.get("Origin", "")
        strange = request.headers.get("Sec-Fetch-Site", "same-origin") not in ("same-origin", "none")
        if strange or (origin and not same_host(origin, self.host(request))):
            self.forged += 1
            raise Refused(403, _FORGED)
        if signing_in or session is None:
            return
        if not csrf_fits(session, request.headers.get("X-CSRF", "")):
            self.forged += 1
            raise Refused(403, "the header X-CSRF is missing or wrong; load the page again")

    async def harden(self, request: web.Request, response: web.StreamResponse) -> None:
        """Put the headers that every answer of the console has."""
        for name, value in _FIXED.items():
            response.headers[name] = value
        host = self.host(request)
        response.headers["Content-Security-Policy"] = _POLICY.format(
            sockets=f" ws://{host} wss://{host}" if host else ""
        )
        response.headers.setdefault("Cache-Control", "no-store")


def _explained(error: Exception) -> web.Response:
    match error:
        case Refused():
            return answer({"error": error.error, **error.more}, error.status)
        case TryLater():
            wait_s = max(1, round(error.wait_s + 0.5))
            return answer({"error": str(error), "retry_after_s": wait_s}, 429, {"Retry-After": str(wait_s)})
        case SettingsError():
            return answer({"errors": list(error.errors)}, 422)
        case AgentError():
            return answer({"errors": str(error).splitlines()}, 422)
        case TooManyTries():
            return answer({"error": str(error)}, 429, {"Retry-After": "60"})
        case PasswordError():
            return answer({"error": str(error)}, 422)
        case _:
            _log.warning("the console cannot answer: %s", error)
            return answer({"error": str(error)}, 503, {"Retry-After": "5"})
