"""Which models an endpoint offers, asked of it with the key that was entered, and of nobody else."""

import asyncio
import os
from collections.abc import Iterator
from typing import Any, Final

import aiohttp
import orjson

from xiaozhi.models.resolver import DaemonResolver
from xiaozhi.settings import LlmEndpoint
from xiaozhi.settings.pasted import key_fault
from xiaozhi.stages.llm.engine import ChatError
from xiaozhi.text import bounded_json
from xiaozhi.upstream.failure import FailureKind

ANSWER_S: Final = 8.0
"""Longest wait for a list; OpenRouter's has 400 KB."""
MAX_LIST_BYTES: Final = 4 * 1024 * 1024
MAX_MODELS: Final = 1000
_MAX_NAME_CHARS: Final = 200


async def models_of(endpoint: LlmEndpoint) -> list[str]:
    """The names, sorted; empty where the endpoint answers and lists none. A redirection is not followed.

    Raises:
        ChatError: it cannot be reached, refuses the key, or answers something else.
    """
    key = endpoint.key()
    if fault := key_fault(key):
        raise ChatError(f"the key {fault}", kind=FailureKind.REFUSED)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    try:
        async with (
            asyncio.timeout(ANSWER_S),
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(resolver=DaemonResolver()), trust_env=True) as session,
            session.get(
                f"{endpoint.base_url.rstrip('/')}/models",
                headers=headers | endpoint.headers(),
                allow_redirects=False,
            ) as reply,
        ):
            if reply.status in (404, 405, 501):
                return []
            if reply.status != 200:
                kind = FailureKind.SERVER if reply.status >= 500 else FailureKind.REFUSED
                kind = FailureKind.BUSY if reply.status == 429 else kind
                raise ChatError(f"HTTP {reply.status}", kind=kind, status=reply.status)
            body = bytearray()
            async for piece in reply.content.iter_any():
                body += piece
                if len(body) > MAX_LIST_BYTES:
                    raise ChatError("its list of models has no end", kind=FailureKind.NONSENSE)
    except TimeoutError:
        raise ChatError(f"no answer within {ANSWER_S:.0f} s", kind=FailureKind.FIRST_BYTE) from None
    except (aiohttp.ClientError, ValueError, OSError) as error:
        raise ChatError(_reason(error), kind=FailureKind.CONNECTION) from None
    try:
        return sorted(set(_names(bounded_json.loads(bytes(body)))))[:MAX_MODELS]
    except (orjson.JSONDecodeError, TypeError):
        raise ChatError("sent no list of models", kind=FailureKind.NONSENSE) from None


def _names(answer: Any) -> Iterator[str]:
    """Of OpenAI's shape, of Ollama's own, or of a bare list."""
    rows = answer.get("data", answer.get("models", ())) if isinstance(answer, dict) else answer
    for row in rows or ():
        name = row.get("id") or row.get("name") if isinstance(row, dict) else row
        if isinstance(name, str) and 0 < len(name) <= _MAX_NAME_CHARS and name.isprintable():
            yield name


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "name not found"
    if isinstance(error, aiohttp.ClientConnectorError) and error.errno and error.errno > 0:
        return os.strerror(error.errno).lower()
    return " ".join(str(error).split()) or type(error).__name__
