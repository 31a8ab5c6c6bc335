"""A token of this server's own, made on the first start and kept where only this user can read it."""

import asyncio
import hmac
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from aiohttp import web

from xiaozhi.access.addresses import Network, address_of
from xiaozhi.access.rate_limits import RateLimiter
from xiaozhi.store import private_file

PUSH_TOKEN: Final = "push-token"
MCP_TOKEN: Final = "mcp-token"
_BYTES: Final = 24
_SHORTEST: Final = 16
_WRONG_PER_MINUTE: Final = 20


def read_token(data_dir: Path, name: str) -> str:
    """The token as it was made; empty where there is none that can be read."""
    try:
        return (private_file.read(data_dir / name) or b"").decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def made_token(data_dir: Path, name: str) -> str:
    """The token of this server, made now if there is none, or none that is long enough. Blocking.

    Raises:
        OSError: the folder cannot be written.
    """
    path = data_dir / name
    token = read_token(data_dir, name)
    if len(token) >= _SHORTEST:
        private_file.tighten(path)
        return token
    token = secrets.token_urlsafe(_BYTES)
    private_file.write(path, f"{token}\n".encode())
    return token


def shows(request: web.BaseRequest, token: str) -> bool:
    """Whether a request shows this token as `Authorization: Bearer …`; an empty one is shown by nobody."""
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode())


class WrongTokens:
    """How often one address may show a wrong token: so many tries a minute.

    Args:
        proxies: whose word about a caller's address counts.
    """

    def __init__(self, proxies: Sequence[Network]) -> None:
        self._proxies = proxies
        self._limiter = RateLimiter(_WRONG_PER_MINUTE)

    def wait_s(self, request: web.BaseRequest) -> float:
        """Count a wrong token; above 0 it was one too many, and the caller should come again in so many seconds."""
        return self._limiter.wait_s(address_of(request, self._proxies), asyncio.get_running_loop().time())
