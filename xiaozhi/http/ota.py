"""The OTA address: a device asks it at boot where to connect. Traps of real clients are named where avoided."""

import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, tzinfo
from typing import Any, Final
from zoneinfo import ZoneInfo

import orjson
from aiohttp import web

from xiaozhi.access.access_control import AccessControl
from xiaozhi.access.activation import Crowded, Poll, Standing
from xiaozhi.access.addresses import (
    OTA_PATH,
    WEBSOCKET_PATH,
    Network,
    address_of,
    base_of,
    networks,
    typed_address,
    websocket_url,
)
from xiaozhi.access.firmware import Running
from xiaozhi.access.identity import Identity, from_body
from xiaozhi.access.mqtt import MqttOffer
from xiaozhi.access.rate_limits import too_many
from xiaozhi.http.openapi import takes
from xiaozhi.http.ota_page import page
from xiaozhi.settings import ServerSettings
from xiaozhi.store import StoreError
from xiaozhi.text import bounded_json

__all__ = ["OTA_PATH", "WEBSOCKET_PATH", "OtaRoutes"]

_log = logging.getLogger(__name__)

# Longer answers make the firmware's HTTP client hang for ever.
MAX_ANSWER_BYTES: Final = 8191

# Of the page for people: it has a style of its own and nothing else.
_POLICY: Final = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


class OtaRoutes:
    """Answers devices that boot and people who look.

    Args:
        settings: the `[server]` table.
        access: tokens, activation, firmware and limits.
        lan_host: this machine's address on the network.
        place: the base address of the node that a device belongs to, empty for the one it has asked; None without
            other nodes.
        console: there are pages on which an owner can enter the code of a device.
        mqtt: what devices are told of MQTT; None where there is no listener.
    """

    def __init__(
        self,
        settings: ServerSettings,
        access: AccessControl,
        lan_host: str,
        place: Callable[[str], Awaitable[str]] | None = None,
        *,
        console: bool = True,
        mqtt: MqttOffer | None = None,
    ) -> None:
        self._settings = settings
        self._access = access
        self._lan_host = lan_host
        self._place = place
        self._console = console
        self._mqtt = mqtt
        self._trusted: tuple[Network, ...] = networks(settings.trusted_proxies)
        self._zone: tzinfo | None = ZoneInfo(settings.timezone) if settings.timezone else None
        self.answered = 0
        """Devices told where to connect."""

    def _base(self, request: web.Request) -> str:
        return base_of(request, self._settings, self._lan_host)

    async def _limited(self, request: web.Request) -> web.Response | None:
        wait_s = await self._access.requests.take(address_of(request, self._trusted), time.monotonic())
        return too_many(wait_s) if wait_s else None

    @takes(application=(dict[str, Any], {}), board=(dict[str, Any], {}))
    async def answer(self, request: web.Request) -> web.Response:
        """POST: where to connect. Identity comes from headers; the body may be anything (SSIDs break its JSON).

        Only names the firmware knows are sent: it stores every member under its own name, and one longer than 15
        characters aborts it. The presence of `mqtt` wins over `websocket`, until the next start.
        """
        if (limited := await self._limited(request)) is not None:
            return limited
        body = await _body(request)
        identity = from_body(Identity.of(request.headers, request.query), body)
        base = self._base(request)
        placed = await self._place(identity.device_id) if self._place is not None else ""
        url = websocket_url(placed or base)
        token = self._access.token_auth.token_for(identity)
        # `version` is always sent: a device that once met a version 3 server would otherwise stay with it.
        websocket = {"url": url, "token": token, "version": 1}
        answer: dict[str, object] = {"server_time": self._server_time(), "websocket": websocket}
        if self._mqtt is not None and self._mqtt.is_for(identity.device_id) and not identity.is_anonymous:
            answer["mqtt"] = self._mqtt.section(identity, token, placed or base)
        try:
            standing = await self._access.activation.standing(identity)
            if standing is Standing.BLOCKED:
                return _refused()
            if standing is Standing.UNBOUND and not identity.is_anonymous:
                # Nothing else says where: clients of other make send people to the service that they were made for.
                where = typed_address(base) if self._console else "xiaozhi devices bind"
                chinese = not request.headers.get("Accept-Language", "zh").lower().startswith("en")
                address = address_of(request, self._trusted)
                answer["activation"] = await self._access.activation.section(identity, address, where, chinese=chinese)
            elif await self._access.activation.sends_echo(identity):
                websocket["version"] = 2  # with the timestamps by which its echo is found
        except Crowded as error:
            return too_many(error.wait_s)
        except StoreError as error:
            return _out_of_order(error)
        if standing is Standing.ADMITTED:
            running = Running.of(request.headers.get("User-Agent", ""), body)
            release = self._access.firmware.offer(identity.device_id, running)
            if release is not None:
                where = f"{base.split('/xiaozhi/')[0]}{OTA_PATH}firmware/{release.board}/{release.path.name}"
                answer["firmware"] = {"version": release.version, "url": where}
                _log.info("ota: %s is offered %s", running.version, release.version, extra=_about(identity))
        self.answered += 1
        _log.info("ota: told to connect to %s", url, extra=_about(identity))
        return _json(answer)

    def _server_time(self) -> dict[str, object]:
        """The firmware sets its clock to `timestamp` (ms) plus `timezone_offset` (minutes)."""
        now = datetime.now(self._zone).astimezone(self._zone)
        offset = now.utcoffset()
        return {
            "timestamp": int(now.timestamp() * 1000),
            "timezone_offset": int(offset.total_seconds() // 60) if offset is not None else 0,
        }

    async def activated(self, request: web.Request) -> web.Response:
        """POST …/activate: 200 bound, 202 not yet (the device asks again in 3 s), 403 not with this key."""
        if (limited := await self._limited(request)) is not None:
            return limited
        body = await _body(request)
        identity = from_body(Identity.of(request.headers, request.query), body)
        try:
            poll = await self._access.activation.poll(identity, body)
        except StoreError as error:
            return _out_of_order(error)
        if poll is Poll.REFUSED:
            _log.warning("activation refused: blocked, or the challenge was not answered", extra=_about(identity))
        return _json({}, status=poll.value)

    async def download(self, request: web.Request) -> web.StreamResponse:
        """GET …/firmware/<board>/<version>.bin: streamed with a length, which the firmware needs; Range and ETag."""
        if (limited := await self._limited(request)) is not None:
            return limited
        release = self._access.firmware.find(request.match_info["board"], request.match_info["file"])
        if release is None:
            return web.Response(status=404, text="no such firmware\n")
        return web.FileResponse(
            release.path, headers={"Content-Type": "application/octet-stream", "Cache-Control": "no-cache"}
        )

    async def show(self, request: web.Request) -> web.Response:
        """GET: for people who open the address in a browser."""
        base = self._base(request)
        root = base.split("/xiaozhi/")[0]
        text = page(root + OTA_PATH, websocket_url(base), needs_code=self._access.activation.required)
        return web.Response(text=text, content_type="text/html", headers={"Content-Security-Policy": _POLICY})

    async def preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS of programs that are no browser; those of pages are answered by `PageGuard`."""
        return web.Response(status=204, headers={"Allow": "GET, POST, OPTIONS"})


async def _body(request: web.Request) -> Mapping[str, Any]:
    """The JSON object of a request; empty for everything else, since a device's own words may break it."""
    try:
        value = bounded_json.loads(await request.read())
    except (orjson.JSONDecodeError, web.HTTPRequestEntityTooLarge, web.RequestPayloadError):
        return {}
    return value if isinstance(value, dict) else {}


def _json(answer: dict[str, object], status: int = 200) -> web.Response:
    body = orjson.dumps(answer)
    if len(body) > MAX_ANSWER_BYTES:  # cannot be with identities of 64 characters and the addresses people have
        raise web.HTTPInternalServerError(text="the answer is too long for devices; shorten server.public_url\n")
    return web.Response(status=status, body=body, content_type="application/json")


def _about(identity: Identity) -> dict[str, object]:
    return {"device": identity.device_id}


def _refused() -> web.Response:
    return web.Response(status=403, text="this device is not welcome here\n")


def _out_of_order(error: StoreError) -> web.Response:
    _log.error("ota: %s", error)
    return web.Response(status=503, text="out of order\n", headers={"Retry-After": "30"})
