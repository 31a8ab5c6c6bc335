"""A mem0 service by its self-hosted REST interface: it finds the facts itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote

import aiohttp
import orjson

from xiaozhi.memory.extraction import SaidTurn
from xiaozhi.settings import MemorySettings
from xiaozhi.text import bounded_json

_MAX_BYTES: Final = 1024 * 1024
_MAX_EVENTS: Final = 50


class Mem0Error(Exception):
    """The service could not do it; one line without keys."""


@dataclass(frozen=True, slots=True)
class Mem0Event:
    """What the service did: `ADD`, `UPDATE` (then `before` is what it was) or `DELETE` of one fact."""

    kind: str
    text: str
    before: str = ""


class Mem0:
    """One per process; its session opens with the first request.

    Args:
        settings: address, key and time-out.
    """

    def __init__(self, settings: MemorySettings) -> None:
        self._base = settings.base_url.rstrip("/")
        self._key = settings.key()
        self._timeout = aiohttp.ClientTimeout(total=settings.service_timeout_s)
        self._session: aiohttp.ClientSession | None = None

    async def add(self, user: str, turns: Sequence[SaidTurn]) -> list[Mem0Event]:
        """Let it draw facts from a conversation.

        Raises:
            Mem0Error: it could not.
        """
        messages: list[dict[str, str]] = []
        for turn in turns:
            messages.append({"role": "user", "content": turn.user})
            if turn.assistant:
                messages.append({"role": "assistant", "content": turn.assistant})
        return _events(await self._ask("POST", "/memories", {"messages": messages, "user_id": user}))

    async def forget(self, user: str, about: str = "") -> int:
        """Erase what mentions a subject, everything when it is empty; returns how many facts went, where it is known.

        Raises:
            Mem0Error: it could not.
        """
        of_user = f"?user_id={quote(user, safe='')}"
        if not about.strip():
            await self._ask("DELETE", "/memories" + of_user)
            return 0
        subject = about.casefold().strip()
        gone = 0
        for item in _items(await self._ask("GET", "/memories" + of_user)):
            number, text = item.get("id"), item.get("memory")
            if isinstance(number, str) and isinstance(text, str) and subject in text.casefold():
                await self._ask("DELETE", f"/memories/{quote(number, safe='')}")
                gone += 1
        return gone

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def _ask(self, method: str, path: str, body: object = None) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=self._timeout, cookie_jar=aiohttp.DummyCookieJar())
        headers = {"X-API-Key": self._key} if self._key else {}
        if body is not None:
            headers["Content-Type"] = "application/json"
        data = orjson.dumps(body) if body is not None else None
        try:
            async with self._session.request(
                method, self._base + path, data=data, headers=headers, allow_redirects=False
            ) as response:
                content = await response.content.read(_MAX_BYTES)
                if response.status >= 300:
                    raise Mem0Error(f"the memory service answered with HTTP {response.status}")
            return bounded_json.loads(content)
        except TimeoutError:
            raise Mem0Error("the memory service did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Mem0Error(f"the memory service cannot be reached ({type(error).__name__})") from None
        except orjson.JSONDecodeError:
            raise Mem0Error("the memory service answered with something that is no JSON") from None


def _items(value: Any) -> list[dict[str, Any]]:
    """The entries of an answer: a list, or a list under `results`."""
    listed = value.get("results") if isinstance(value, dict) else value
    return [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []


def _events(value: Any) -> list[Mem0Event]:
    found = []
    for item in _items(value)[:_MAX_EVENTS]:
        kind, text, before = item.get("event"), item.get("memory"), item.get("previous_memory")
        if kind in ("ADD", "UPDATE", "DELETE") and isinstance(text, str) and text.strip():
            found.append(Mem0Event(kind, text, before if isinstance(before, str) else ""))
    return found
