"""The register of connected devices: who may connect, one connection each, and how all of them are let go."""

import asyncio
import logging
from collections.abc import Callable
from typing import Final

from aiohttp import web

from xiaozhi.access.access_control import AccessControl
from xiaozhi.access.activation import Crowded, Standing
from xiaozhi.access.addresses import address_of
from xiaozhi.access.guests import is_guest
from xiaozhi.access.identity import Identity
from xiaozhi.access.rate_limits import OncePer
from xiaozhi.conversation.services import Services
from xiaozhi.http.ota import too_many
from xiaozhi.store import StoreError
from xiaozhi.transport import framing
from xiaozhi.transport.draining import Drain
from xiaozhi.transport.draining import Report as DrainReport
from xiaozhi.transport.websocket import Connection, Vision, no_vision

_log = logging.getLogger(__name__)

# Of the devices that there is room for: so many more may be told at the same time that they are not let in.
_PENDING_SHARE: Final = 4
# After this time it has been read what is known of a device.
_READ_S: Final = 1.0
_CONNECTED_EVERY_S: Final = 3600.0


class Devices:
    """The connected devices: one connection each, the newest wins.

    Args:
        services: the shared engines.
        access: who may connect.
    """

    def __init__(self, services: Services, access: AccessControl) -> None:
        self._services = services
        self._access = access
        self._connections: dict[str, Connection] = {}
        self._pending: dict[str, Connection] = {}  # by device and client: they only hear a code
        self.refused = 0
        """Devices turned away for want of room, since the start."""
        self.flooded = 0
        """Connections hung up because they sent more than any device does, since the start."""
        self.vision: Vision = no_vision
        """Where devices send what they see; set before the first one connects."""
        self.on_connect: list[Callable[[str], None]] = []
        """Told the id of each device that connects."""
        self.draining = False
        """The server stops: no new devices and no new turns. A load balancer sends devices elsewhere."""
        self.drained: DrainReport | None = None
        """What became of the devices when the server stopped."""
        self._open: set[Connection] = set()  # also those that a newer one has replaced and that are not over yet
        self._dropped = 0  # packets of those that are over
        self._said = OncePer(_CONNECTED_EVERY_S)
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._connections)

    @property
    def no_room(self) -> str:
        """Why another device cannot be taken now; empty when it can."""
        if len(self) >= self._services.settings.server.max_devices:
            return "too many devices"
        return "" if self._services.takes_devices else "overloaded"

    @property
    def packets_dropped(self) -> int:
        """Packets not sent to devices that do not read fast enough, since the start."""
        return self._dropped + sum(connection.packets_dropped for connection in self._open)

    def online(self) -> frozenset[str]:
        """Ids of the devices that are connected; of those that wait to be let in there are none."""
        return frozenset(self._connections)

    def find(self, device_id: str) -> Connection | None:
        """The connection of a device; None where it has none."""
        return self._connections.get(device_id)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer a request on the WebSocket path. Refusals are HTTP answers, before the upgrade.

        A device that is refused after the upgrade would sit in "connecting" for 10 s.
        """
        if request.headers.get("Upgrade", "").lower() != "websocket":
            return web.Response(status=426, text="This is the WebSocket of a XiaoZhi server; devices connect here.\n")
        if not request.headers.get("Sec-WebSocket-Key", "").isascii():  # the library would fail over it
            return web.Response(status=400, text="Sec-WebSocket-Key is not valid\n")
        access = self._access
        address = address_of(request, access.trusted)
        if wait_s := await access.upgrades.take(address, asyncio.get_running_loop().time()):
            return too_many(wait_s)
        identity = Identity.of(request.headers, request.query)
        guest = is_guest(identity.device_id)  # the console's talk page
        if guest:
            refused = "" if access.admits_guest(identity, request.headers) else "no pass of the console's talk page"
        else:
            refused = access.token_auth.refusal(identity)
        if refused:
            access.token_auth.note_refusal(identity, refused, address)
            return web.Response(status=401, text="token missing or not valid; ask the OTA address for one\n")
        if self.draining:
            return web.Response(status=503, headers={"Retry-After": "10"}, text="shutting down\n")
        notice = ""
        try:
            if why := await self._no_room_for(identity):
                return self._refuse_for_want_of_room(why)
            standing = Standing.ADMITTED
            if not guest:
                configured = access.token_auth.is_configured(identity)
                standing = await access.activation.enter(identity, address, configured=configured)
            if standing is Standing.UNBOUND and not identity.is_anonymous:
                if len(self._pending) >= max(1, self._services.settings.server.max_devices // _PENDING_SHARE):
                    return self._refuse_for_want_of_room("too many devices wait to be let in")
                chinese = self._services.settings.asr.language != "en"
                notice = await access.activation.notice(identity, address, chinese=chinese)
        except Crowded as error:
            self.refused += 1
            return too_many(error.wait_s)
        except StoreError as error:
            _log.error("refused: %s", error, extra={"device": identity.device_id})
            return web.Response(status=503, headers={"Retry-After": "30"}, text="out of order\n")
        if standing is not Standing.ADMITTED and not notice:
            access.token_auth.note_refusal(identity, "blocked, or not allowed", address)
            return web.Response(status=403, text="this device is not welcome here\n")
        connection = Connection(
            self._services,
            identity,
            framing.version_of(request.headers.get("Protocol-Version", 1)),
            notice,
            self.vision,
        )
        # Who is only told a code replaces nobody but himself: the device that he says to be goes on talking.
        places = self._pending if notice else self._connections
        name = f"{identity.device_id}|{identity.client_id}" if notice else identity.device_id
        if (older := places.get(name)) is not None:
            older.end("the same device connected again")
        places[name] = connection
        self._empty.clear()
        if not notice:
            for tell in self.on_connect:
                tell(identity.device_id)
        self._open.add(connection)
        # Whether a board reaches the server at all is asked when it is set up, not at each of its conversations.
        news = self._said.allows(identity.device_id, asyncio.get_running_loop().time())
        about = {"device": identity.device_id, "session": connection.session_id}
        _log.log(logging.INFO if news else logging.DEBUG, "connected", extra=about)
        try:
            return await connection.serve(request)
        finally:
            self._open.remove(connection)
            self._dropped += connection.packets_dropped
            self.flooded += connection.flooded
            if places.get(name) is connection:
                del places[name]
            if not self._connections and not self._pending:
                self._empty.set()

    async def _no_room_for(self, identity: Identity) -> str:
        """Why this device cannot be taken now; empty when it can.

        Where all places are taken, a device that is known gets that of one that nobody knows and that says nothing:
        else a crowd of made-up names would keep it out.
        """
        if identity.device_id in self._connections or not (why := self.no_room):
            return ""
        if len(self) < self._services.settings.server.max_devices or not await self._access.activation.knows(identity):
            return why
        for one in self._connections.values():
            if one.is_stranger and one.age_s > _READ_S and not is_guest(one.device_id):
                one.end("makes room for a device that is known")
                del self._connections[one.device_id]
                return ""
        return why

    def _refuse_for_want_of_room(self, why: str) -> web.Response:
        self.refused += 1
        retry_after = str(self._services.settings.load.retry_after_s)
        return web.Response(status=503, headers={"Retry-After": retry_after}, text=f"{why}\n")

    def _all(self) -> list[Connection]:
        return [*self._connections.values(), *self._pending.values()]

    async def empty(self) -> None:
        """Wait until no device is connected and everything of the last one is freed."""
        await self._empty.wait()

    async def watch(self) -> None:
        """Once a second: keepalives, stalled microphones, idle connections. Runs until cancelled."""
        while True:
            await asyncio.sleep(1.0)
            for connection in self._all():
                if why := connection.overdue():
                    connection.end(why)

    async def drain(self, within_s: float) -> None:
        """Take no new devices, let turns under way be answered for at most `within_s`, and hang all devices up.

        A device that does nothing is hung up soon: when it is spoken to it connects again, to whoever serves then.
        """
        self.draining = True
        self.drained = await Drain(self._all, within_s).run()
        await self.empty()
