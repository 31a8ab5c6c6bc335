"""A token of this server's own, made on the first start and kept where only this user can read it."""

import contextlib
import hmac
import logging
import os
import secrets
from pathlib import Path
from typing import Final

from aiohttp import web

_log = logging.getLogger(__name__)

PUSH_TOKEN: Final = "push-token"
MCP_TOKEN: Final = "mcp-token"
_BYTES: Final = 24
_SHORTEST: Final = 16


def read_token(data_dir: Path, name: str) -> str:
    """The token as it was made; empty where there is none that can be read."""
    try:
        return (data_dir / name).read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""


def made_token(data_dir: Path, name: str) -> str:
    """The token of this server, made now if there is none. Blocking.

    Raises:
        OSError: the folder cannot be written.
    """
    path = data_dir / name
    token = read_token(data_dir, name)
    if len(token) >= _SHORTEST:
        if path.stat().st_mode & 0o077:
            _log.warning("%s could be read by others; its rights are tightened", path)
            path.chmod(0o600)
        return token
    data_dir.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        token = secrets.token_urlsafe(_BYTES)
        file.write(token + "\n")
    return token


def shows(request: web.BaseRequest, token: str) -> bool:
    """Whether a request shows this token as `Authorization: Bearer …`; an empty one is shown by nobody."""
    scheme, _, shown = request.headers.get("Authorization", "").partition(" ")
    return bool(token) and scheme.lower() == "bearer" and hmac.compare_digest(shown.strip().encode(), token.encode())
