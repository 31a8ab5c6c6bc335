"""Says once in the log that a proxy stands between which nobody trusts: all who come through it count as one."""

import logging
from collections.abc import Awaitable, Callable, Sequence

from aiohttp import web
from aiohttp.typedefs import Middleware

from xiaozhi.access.addresses import Network, is_in

_log = logging.getLogger(__name__)

FORWARDED_FOR = "X-Forwarded-For"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def untrusted_proxy(request: web.BaseRequest, trusted: Sequence[Network]) -> str:
    """The address of whoever says for whom it asks and is not trusted to; empty where nobody does."""
    peer = request.remote or ""
    return peer if FORWARDED_FOR in request.headers and not is_in(peer, trusted) else ""


def comes_from_here(request: web.BaseRequest) -> bool:
    """Whether a request was made on this machine, by whichever of its addresses; not where a proxy may have made it."""
    ends = [request.transport.get_extra_info(name) for name in ("peername", "sockname")] if request.transport else []
    if len(ends) < 2 or not all(isinstance(end, tuple) for end in ends) or FORWARDED_FOR in request.headers:
        return False
    return bool(ends[0][0] == ends[1][0])


def proxy_watch(trusted: Sequence[Network]) -> Middleware:
    """For the application: warns of the first proxy that is not trusted.

    Args:
        trusted: proxies whose word counts.
    """
    warned = False

    @web.middleware
    async def watch(request: web.Request, handler: Handler) -> web.StreamResponse:
        nonlocal warned
        if not warned and (peer := untrusted_proxy(request, trusted)):
            warned = True
            _log.warning(
                "%s says for whom it asks (%s), but is not trusted to: for the limits and the console all who come "
                'through it are one address, its own. If it is your proxy: server.trusted_proxies = ["%s"]',
                peer,
                FORWARDED_FOR,
                peer,
            )
        return await handler(request)

    return watch
