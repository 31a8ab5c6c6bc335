"""Devices by WebSocket: who is let in, the socket of one device, and how it ends."""

import asyncio
import logging
import uuid
from collections.abc import Callable
from typing import Final

from aiohttp import WSCloseCode, WSMsgType, web

from xiaozhi.access.access_control import AccessControl
from xiaozhi.access.addresses import address_of, is_in, networks
from xiaozhi.access.guests import is_guest
from xiaozhi.access.identity import Identity
from xiaozhi.access.rate_limits import too_many
from xiaozhi.conversation.services import Services
from xiaozhi.logs import about_device
from xiaozhi.tools.device import DeviceTools
from xiaozhi.transport import framing
from xiaozhi.transport.connected_devices import ConnectedDevices, NotAdmitted
from xiaozhi.transport.flood_guard import AUDIO_COST, TEXT_COST, TURN_COST, FloodGuard
from xiaozhi.transport.protocol import Detect, DeviceProtocol, Hello
from xiaozhi.transport.session import DeviceSession
from xiaozhi.transport.websocket_writer import WebSocketWriter

_log = logging.getLogger(__name__)

_CLOSE_S: Final = 1.0  # the firmware never answers a Close frame

Vision = Callable[[web.Request, Identity], tuple[str, str]]
"""Where a device's camera sends its pictures, and the token it shows there; an empty address for nowhere."""


class WebSocketEndpoint:
    """The address where devices connect.

    Args:
        services: the shared engines.
        access: who may connect.
        devices: the register they are in while they are connected.
        vision: where their cameras send pictures; None for nowhere.
    """

    def __init__(
        self, services: Services, access: AccessControl, devices: ConnectedDevices, vision: Vision | None = None
    ) -> None:
        self._services = services
        self._access = access
        self._devices = devices
        self._vision = vision
        self._gateways = networks(services.settings.mqtt.gateways)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request on the WebSocket path. Refusals are HTTP answers, before the upgrade.

        A device that is refused after the upgrade would sit in "connecting" for 10 s.
        """
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=426, text="This is the WebSocket of a XiaoZhi server; devices connect here.\n")
        if not request.headers.get("Sec-WebSocket-Key", "").isascii():  # the library would fail over it
            return web.Response(status=400, text="Sec-WebSocket-Key is not valid\n")
        access = self._access
        gateway = request.query.get("from") == "mqtt_gateway" and is_in(request.remote or "", self._gateways)
        address = address_of(request, self._gateways if gateway else access.trusted)
        if wait_s := await access.upgrades.take(address, asyncio.get_running_loop().time()):
            return too_many(wait_s)
        identity = Identity.of(request.headers, request.query)
        if gateway and not is_guest(identity.device_id):
            refused = ""  # the gateway has looked at what the device showed, and shows nothing of it here
        elif is_guest(identity.device_id):  # the console's talk page
            refused = "" if access.admits_guest(identity, request.headers) else "no pass of the console's talk page"
        else:
            refused = access.token_auth.refusal(identity)
        if refused:
            access.token_auth.note_refusal(identity, refused, address)
            return web.Response(status=401, text="token missing or not valid; ask the OTA address for one\n")
        try:
            notice = await self._devices.admit(identity, address)
        except NotAdmitted as error:
            again = {"Retry-After": str(int(error.wait_s))} if error.wait_s else None
            return web.Response(status=error.status, text=f"{error}\n", headers=again)
        version = framing.version_of(request.headers.get("Protocol-Version", 1))
        protocol = DeviceProtocol(framing.MQTT_GATEWAY if gateway else version, uuid.uuid4().hex[:12])
        connection = WebSocketConnection(self._services, identity, protocol, notice)
        vision = self._vision(request, identity) if self._vision is not None else ("", "")
        with self._devices.connected(connection.session, identity.client_id):
            try:
                return await connection.serve(request, vision)
            finally:
                self._devices.flooded += connection.flood_guard.flooded


class WebSocketConnection:
    """One device's socket: reads what it sends, and ends when either side wants it.

    Args:
        services: the shared engines.
        identity: whose it is.
        protocol: with the framing that it speaks.
        notice: what it hears instead of a conversation.
    """

    def __init__(self, services: Services, identity: Identity, protocol: DeviceProtocol, notice: str) -> None:
        server = services.settings.server
        # The firmware never answers pings in time on old versions and Wi-Fi: no heartbeat. No compression is offered.
        self._socket = web.WebSocketResponse(
            heartbeat=None,
            compress=False,
            autoping=False,  # pings are counted with everything else that comes
            timeout=_CLOSE_S,
            max_msg_size=server.max_message_bytes,
        )
        self._protocol = protocol
        self._writer = WebSocketWriter(self._socket, self._protocol, server.send_timeout_s)
        self._tools = DeviceTools(
            # The firmware looks for the session in what is meant for its tools.
            lambda message: self._writer.send({**message, "session_id": self._protocol.session_id}),
            services.settings.tools.device,
        )
        self.flood_guard = FloodGuard()
        self.session = DeviceSession(
            services, identity.device_id, self._protocol, self._writer, self._tools, notice=notice
        )

    async def serve(self, request: web.Request, vision: tuple[str, str]) -> web.WebSocketResponse:
        """Upgrade, converse until either side ends it, and free everything.

        Args:
            request: the upgrade.
            vision: where the device's camera sends pictures, and the token it shows there.
        """
        session = self.session
        about_device(session.device_id)
        try:
            await self._socket.prepare(request)
        except ConnectionError:
            _log.debug("gone before it was let in", extra=session.about)
            return self._socket
        if request.transport is not None:
            self._writer.bind(request.transport)
            self.flood_guard.bind(request.transport)
        why = ""
        try:
            why = await session.run(self._read(vision), self._writer.over)
            if self.flood_guard.flooded:
                why = "it sends more than any device does"
        finally:
            await self._tools.close()
            await self._close(WSCloseCode.OK if session.ended else WSCloseCode.GOING_AWAY)
            if self._writer.drop():
                _log.debug("dropped what the device has not taken", extra=session.about)
            session.gone(why)
        return self._socket

    async def _close(self, code: WSCloseCode) -> None:
        try:
            async with asyncio.timeout(_CLOSE_S):
                if self.flood_guard.flooded:
                    await self.flood_guard.closed.wait()
                else:
                    await self._socket.close(code=code, drain=False)
        except (TimeoutError, ConnectionError):
            _log.debug("close not answered", extra=self.session.about)

    async def _read(self, vision: tuple[str, str]) -> None:
        session = self.session
        async for message in self._socket:
            cost = TEXT_COST
            if message.type is WSMsgType.BINARY:
                cost = AUDIO_COST
                if not session.recalled.is_set():
                    await session.recalled.wait()
                session.receive(self._protocol.receive_binary(message.data))
            elif message.type is WSMsgType.TEXT:
                event = self._protocol.receive_text(message.data)
                if not isinstance(event, Hello):
                    await session.recalled.wait()
                session.receive(event)
                if isinstance(event, Detect):
                    cost = TURN_COST
                elif isinstance(event, Hello) and "mcp" in event.features and session.admitted:
                    self._tools.start_mcp(*vision)
            elif message.type is WSMsgType.PING:
                await self._socket.pong(message.data)
            if not await self.flood_guard.spend(cost):
                return
