"""`POST /api/announce`: other programs have something said on devices."""

import logging
from collections.abc import Sequence
from typing import Annotated, Any, Final

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from xiaozhi.access.addresses import Network
from xiaozhi.access.own_token import WrongTokens, shows
from xiaozhi.http.openapi import takes
from xiaozhi.settings import PushSettings
from xiaozhi.store import StoreError
from xiaozhi.transport.announcer import Announcement, Announcer

_log = logging.getLogger(__name__)

ANNOUNCE_PATH: Final = "/api/announce"
_MAX_DEVICES: Final = 1000


class _Wanted(BaseModel):
    """What a request may say; see `Announcement`."""

    model_config = ConfigDict(extra="forbid")

    text: str
    devices: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field((), max_length=_MAX_DEVICES)
    all: bool = False
    volume: int | None = Field(None, ge=0, le=100)
    language: str = Field("", max_length=10, pattern=r"^[a-z-]*$")
    urgent: bool = False
    patience_s: float | None = Field(None, ge=0, le=3600)


class AnnounceRoutes:
    """Answers announcements.

    Args:
        settings: the table `push`.
        announcer: carries them out.
        token: what callers must show.
        proxies: whose word about a caller's address counts.
    """

    def __init__(self, settings: PushSettings, announcer: Announcer, token: str, proxies: Sequence[Network]) -> None:
        self._settings = settings
        self._announcer = announcer
        self._token = token
        self._wrong = WrongTokens(proxies)

    @takes(_Wanted)
    async def announce(self, request: web.Request) -> web.Response:
        """Say it, and answer when it has been said or given up: `{"results": {device: outcome}}`."""
        if not shows(request, self._token):
            if wait_s := self._wrong.wait_s(request):
                return _error(429, "too many wrong tokens", {"Retry-After": str(int(wait_s) + 1)})
            return _error(401, "show the token as `Authorization: Bearer …`", {"WWW-Authenticate": "Bearer"})
        try:
            wanted = _Wanted.model_validate_json(await request.read())
        except ValidationError as error:
            return _error(400, _sentence(error))
        except web.HTTPRequestEntityTooLarge:
            return _error(413, "the request is too large")
        text = " ".join(wanted.text.split())
        if not text or len(text) > self._settings.max_chars:
            return _error(400, f"text must have 1 to {self._settings.max_chars} characters")
        if wanted.all == bool(wanted.devices):
            return _error(400, 'give either "devices" or "all": true')
        try:
            outcomes = await self._announcer.announce(
                Announcement(
                    text, wanted.devices, wanted.volume, wanted.language, wanted.urgent, patience_s=wanted.patience_s
                )
            )
        except StoreError as error:
            _log.error("announcement: %s", error)
            return _error(503, "out of order", {"Retry-After": "30"})
        return _json(200, {"results": {name: outcome.value for name, outcome in outcomes.items()}})


def _sentence(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = ".".join(str(part) for part in first["loc"])
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def _error(status: int, text: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json(status, {"error": text}, headers)


def _json(status: int, value: Any, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=orjson.dumps(value), content_type="application/json", headers=headers or {})
