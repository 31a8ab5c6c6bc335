"""The one way out to the internet for built-in tools: bounded in time and size, wary of private addresses."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping
from contextlib import aclosing
from typing import Any, Final, Generic, TypeVar
from urllib.parse import urlsplit

import aiohttp
import orjson
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.resolver import DefaultResolver
from cachetools import TTLCache
from yarl import URL

from xiaozhi import __version__
from xiaozhi.cache.flight import Flights
from xiaozhi.settings import ToolsSettings
from xiaozhi.text import bounded_json

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

_MAX_REDIRECTS: Final = 4
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_PIECE_BYTES: Final = 65_536
_CONNECTIONS: Final = 32


class WebError(Exception):
    """A request did not work out; one line that names the host and the reason, never a key.

    Attributes:
        status: the HTTP status, 0 when there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class WebClient:
    """HTTP for all tools of the process. The session opens with the first request; build and use it on one loop.

    Addresses come from the settings, so the first hop may be anywhere the owner wants. An answer may lead on to other
    addresses, but into a private network only within the same host, or when the settings allow it.

    Args:
        settings: time and size limits.
    """

    def __init__(self, settings: ToolsSettings) -> None:
        self._timeout = aiohttp.ClientTimeout(total=settings.http_timeout_s, connect=settings.http_timeout_s)
        self._max_bytes = settings.http_max_kb * 1024
        self._private = settings.private_redirects
        self._own: aiohttp.ClientSession | None = None
        self._public: aiohttp.ClientSession | None = None
        self.requests = 0
        """Requests made."""
        self.failures = 0
        """Requests that did not work out."""

    async def get_json(
        self, url: str, params: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """The JSON at an address.

        Raises:
            WebError: no answer in time, an error status, too large, or no JSON.
        """
        return _json(url, await self.fetch("GET", url, params=params, headers=headers))

    async def post_json(self, url: str, body: object, headers: Mapping[str, str] | None = None) -> Any:
        """The JSON that answers a JSON body.

        Raises:
            WebError: as `get_json`.
        """
        typed = {"Content-Type": "application/json", **(headers or {})}
        return _json(url, await self.fetch("POST", url, body=orjson.dumps(body), headers=typed))

    async def fetch(
        self,
        method: str,
        url: str,
        *,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> bytes:
        """The body of the answer, redirects followed.

        Raises:
            WebError: no answer in time, an error status, too large, or it leads where it must not.
        """
        self.requests += 1
        target = URL(url)
        host = target.host or url[:80]
        try:
            async with asyncio.timeout(self._timeout.total):
                return await self._follow(method, target, params, headers, body)
        except TimeoutError:
            self.failures += 1
            raise WebError(f"{host} did not answer within {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            self.failures += 1
            raise WebError(f"{host} cannot be reached ({type(error).__name__})") from None
        except WebError:
            self.failures += 1
            raise

    async def close(self) -> None:
        """Close the connections."""
        sessions, self._own, self._public = (self._own, self._public), None, None
        for session in sessions:
            if session is not None:
                await session.close()

    async def _follow(
        self,
        method: str,
        url: URL,
        params: Mapping[str, str] | None,
        headers: Mapping[str, str] | None,
        body: bytes | None,
    ) -> bytes:
        first = url.origin()
        session = self._session(public=False)
        for _ in range(_MAX_REDIRECTS + 1):
            async with session.request(
                method, url, params=params, headers=headers, data=body, allow_redirects=False
            ) as response:
                if response.status not in _REDIRECTS or "Location" not in response.headers:
                    return await self._body(response)
                status, onward = response.status, url.join(URL(response.headers["Location"]))
            if onward.scheme not in ("http", "https") or onward.host is None:
                raise WebError(f"{url.host} leads to something that is no web address")
            if onward.origin() != first:
                headers = None  # keys belong to the host they were meant for
                session = self._session(public=not self._private)
                if not self._private and _is_private_literal(onward.host):
                    raise WebError(f"{url.host} leads to {onward.host}, an address of a private network")
            if status == 303 or (method == "POST" and status in (301, 302)):
                method, body = "GET", None
            url, params = onward, None
        raise WebError(f"{first.host} leads on and on")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes:
        host = response.url.host
        if response.status >= 400:
            raise WebError(f"{host} answered with HTTP {response.status}", response.status)
        if (response.content_length or 0) > self._max_bytes:
            raise WebError(f"the answer of {host} is too large")
        pieces = bytearray()
        async for piece in response.content.iter_chunked(_PIECE_BYTES):
            pieces += piece
            if len(pieces) > self._max_bytes:
                raise WebError(f"the answer of {host} is too large")
        return bytes(pieces)

    def _session(self, *, public: bool) -> aiohttp.ClientSession:
        if public:
            if self._public is None:
                self._public = self._open(_PublicResolver())
            return self._public
        if self._own is None:
            self._own = self._open(None)
        return self._own

    def _open(self, resolver: AbstractResolver | None) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(limit=_CONNECTIONS, resolver=resolver)
        return aiohttp.ClientSession(
            connector=connector,
            timeout=self._timeout,
            headers={"User-Agent": f"xiaozhi/{__version__}"},
            cookie_jar=aiohttp.DummyCookieJar(),
            # A proxy of the environment is the owner's; it resolves names itself, so it is not used where those count.
            trust_env=resolver is None,
        )


class ServiceAnswers(Generic[K, V]):
    """Answers of a service, each used again for a while; failures are not kept.

    However many want the same at the same time, it is asked once; where that fails, it has failed for all of them.

    Args:
        ttl_s: how long an answer is used again, in seconds of the loop's clock.
        max_answers: the least recently used are forgotten above this.
    """

    def __init__(self, ttl_s: float, max_answers: int = 256) -> None:
        self._kept: TTLCache[K, V] = TTLCache(max_answers, ttl_s, timer=lambda: asyncio.get_running_loop().time())
        self._flights: Flights[K, V] = Flights()

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        """The kept answer, or a new one from `ask()`, whose errors pass through."""
        try:
            return self._kept[key]
        except KeyError:
            pass

        async def answer() -> AsyncGenerator[V, None]:
            yield await ask()

        def keep(answers: list[V] | None) -> None:
            if answers:
                self._kept[key] = answers[0]

        flight = self._flights.join(key) or self._flights.begin(key, answer(), keep)
        async with aclosing(flight.follow()) as answers:
            (found,) = [each async for each in answers]
        return found

    def clear(self) -> None:
        """Forget everything."""
        self._kept.clear()


class _PublicResolver(AbstractResolver):
    """Resolves names to public addresses only: a name that leads into a private network does not exist here."""

    def __init__(self) -> None:
        self._inner = DefaultResolver()

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Addresses of a host; raises OSError when none of them is public."""
        found = await self._inner.resolve(host, port, family)
        public = [each for each in found if not is_private(each["host"])]
        if not public:
            raise OSError(f"{host} has no public address")
        return public

    async def close(self) -> None:
        """Release the resolver."""
        await self._inner.close()


def is_private(address: str) -> bool:
    """Whether an IP address is not on the public internet (private, loopback, link-local, reserved …)."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    mapped = getattr(parsed, "ipv4_mapped", None)
    return not (mapped or parsed).is_global


def _is_private_literal(host: str) -> bool:
    try:
        return is_private(host)
    except ValueError:
        return False  # a name: the resolver looks at what it stands for


def _json(url: str, body: bytes) -> Any:
    try:
        return bounded_json.loads(body)
    except orjson.JSONDecodeError:
        raise WebError(f"{urlsplit(url).hostname} answered with something that is no JSON") from None
