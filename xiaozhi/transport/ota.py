"""The OTA address: a device asks it at boot where to connect. Traps of real clients are named where avoided."""

import logging
import re
import time
from datetime import datetime
from typing import Final

import orjson
from aiohttp import web

from xiaozhi.settings import ServerSettings
from xiaozhi.transport.auth import Gatekeeper
from xiaozhi.transport.identity import Identity

_log = logging.getLogger(__name__)

WEBSOCKET_PATH: Final = "/xiaozhi/v1/"
OTA_PATH: Final = "/xiaozhi/ota/"

# DNS name or IPv4 address with an optional port: the firmware takes the first colon for the port and knows no IPv6.
_HOST: Final = re.compile(r"(?P<name>[A-Za-z0-9](?:[A-Za-z0-9.-]{0,251}[A-Za-z0-9])?)(?::(?P<port>\d{1,5}))?")

_CORS: Final = {
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS",
    "Access-Control-Allow-Headers": "Device-Id, Client-Id, Content-Type, Authorization, Activation-Version",
    "Access-Control-Max-Age": "86400",
}


def websocket_url(
    settings: ServerSettings, host_header: str, *, secure: bool, proxied: bool, own_port: int, fallback_host: str
) -> str:
    """The address a device should connect to: the public one if set, else the host it used to reach us. Pure.

    Args:
        settings: the `[server]` table.
        host_header: as the client sent it; hostile values are ignored.
        secure: the client came over TLS.
        proxied: a proxy stands between; then a host without a port means the scheme's own port, else ours (the
            firmware's own HTTP client leaves the port out).
        own_port: the port this server listens on.
        fallback_host: this machine's address on the network, for a client that sent no usable host.
    """
    if settings.public_url:
        base = settings.public_url.rstrip("/")
        base = "ws" + base[len("http") :] if base.startswith("http") else base
        return base if "/xiaozhi/" in base else base + WEBSOCKET_PATH
    match = _HOST.fullmatch(host_header)
    if match and match["port"] and not 0 < int(match["port"]) < 65_536:
        match = None
    name = match["name"] if match else fallback_host
    if name == "0.0.0.0":
        name = fallback_host
    default_port = 443 if secure else 80
    port = int(match["port"]) if match and match["port"] else (default_port if proxied else own_port)
    scheme = "wss" if secure else "ws"
    return f"{scheme}://{name}:{port}{WEBSOCKET_PATH}" if port != default_port else f"{scheme}://{name}{WEBSOCKET_PATH}"


class OtaDesk:
    """Answers devices that boot and people who look.

    Args:
        settings: the `[server]` table.
        gatekeeper: makes the tokens.
        lan_host: this machine's address on the network.
    """

    def __init__(self, settings: ServerSettings, gatekeeper: Gatekeeper, lan_host: str) -> None:
        self._settings = settings
        self._gatekeeper = gatekeeper
        self._lan_host = lan_host

    def _url(self, request: web.Request) -> str:
        headers = request.headers
        local = request.transport.get_extra_info("sockname") if request.transport is not None else None
        return websocket_url(
            self._settings,
            headers.get("Host", ""),
            # A forged header changes only the address that its own sender is told.
            secure=request.secure or headers.get("X-Forwarded-Proto", "").lower() == "https",
            proxied=any(name in headers for name in ("X-Forwarded-For", "X-Forwarded-Proto", "Forwarded", "Via")),
            own_port=int(local[1]) if local else self._settings.port,
            fallback_host=self._lan_host,
        )

    async def answer(self, request: web.Request) -> web.Response:
        """POST: where to connect. Identity comes from headers; the body may be anything (SSIDs break its JSON).

        Only names the firmware knows are sent: it stores every member under its own name, and one longer than 15
        characters aborts it. No `mqtt` (its presence wins over `websocket`), no `firmware`, no `activation`.
        """
        identity = Identity.of(request.headers, request.query)
        now = datetime.now().astimezone()
        offset = now.utcoffset()
        url = self._url(request)
        answer = {
            "server_time": {
                "timestamp": int(time.time() * 1000),
                "timezone_offset": int(offset.total_seconds() // 60) if offset is not None else 0,
            },
            # `version` is always sent: a device that once met a version 3 server would otherwise stay with it.
            "websocket": {"url": url, "token": self._gatekeeper.token_for(identity), "version": 1},
        }
        _log.info("ota: told to connect to %s", url, extra={"device": identity.device_id})
        return web.Response(body=orjson.dumps(answer), content_type="application/json", headers=_CORS)

    async def show(self, request: web.Request) -> web.Response:
        """GET: for people who open the address in a browser."""
        text = (
            "XiaoZhi server: this is the OTA address.\n"
            "Type this page's address into the device's Wi-Fi setup (field OTA URL).\n"
            f"Devices will then connect to {self._url(request)}\n\n"
            "这里是 OTA 地址：请把本页网址填入设备配网页面的 OTA 地址栏。\n"
        )
        return web.Response(text=text, headers=_CORS)

    async def preflight(self, _request: web.Request) -> web.Response:
        """OPTIONS: browser clients ask before they POST."""
        return web.Response(status=204, headers=_CORS)

    async def activated(self, _request: web.Request) -> web.Response:
        """POST …/activate: nothing has to be activated, so every device is."""
        return web.Response(text="{}", content_type="application/json", headers=_CORS)
