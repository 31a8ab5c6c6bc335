"""The register of connected devices, whatever carries them: who is let in, one connection each, an orderly end."""

import asyncio
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Final, Protocol

from xiaozhi.access.access_control import AccessControl
from xiaozhi.access.activation import Crowded, Standing
from xiaozhi.access.guests import is_guest
from xiaozhi.access.identity import Identity
from xiaozhi.access.rate_limits import OncePer
from xiaozhi.conversation.saying import Told
from xiaozhi.conversation.services import Services
from xiaozhi.store import StoreError
from xiaozhi.tools.device import DeviceTools
from xiaozhi.transport.draining import Drain, Drained
from xiaozhi.transport.draining import Report as DrainReport

_log = logging.getLogger(__name__)

# Of the devices that there is room for: so many more may be told at the same time that they are not let in.
_PENDING_SHARE: Final = 4
# After this time it has been read what is known of a device.
_READ_S: Final = 1.0
_CONNECTED_EVERY_S: Final = 3600.0
_CHECK_EVERY_S: Final = 1.0
# When to come again: to another node while this one stops, and to a server whose store does not answer.
_STOPPING_S: Final = 10.0
_OUT_OF_ORDER_S: Final = 30.0


class ConnectedDevice(Drained, Protocol):
    """A device that is connected."""

    tools: DeviceTools
    """What the device itself can do."""

    @property
    def admitted(self) -> bool:
        """It may converse: it does not only hear a notice."""
        ...

    @property
    def age_s(self) -> float:
        """How long it has been connected, in seconds."""
        ...

    @property
    def language(self) -> str:
        """What its user spoke last."""
        ...

    @property
    def is_stranger(self) -> bool:
        """Nothing was ever said to it, and nobody has let it in by hand."""
        ...

    @property
    def packets_dropped(self) -> int:
        """Packets not sent because it does not read fast enough."""
        ...

    def say(
        self, text: str, patience_s: float, *, language: str = "", interruptible: bool = True
    ) -> asyncio.Future[Told]:
        """Say a sentence of the server's own, as `Conversation.say` does."""
        ...

    def check(self) -> None:
        """Called about once a second: send keepalives, end what lasts too long."""
        ...


class SleepingDevice(Protocol):
    """A device that can be reached though nobody talks to it: it fetches sound, shows a text, and has its tools."""

    base: str
    """`http://host[:port]` by which it reaches this server; empty where that is not known."""
    tools: DeviceTools
    """What the device itself can do."""

    @property
    def device_id(self) -> str:
        """Whose it is."""
        ...

    @property
    def admitted(self) -> bool:
        """It may converse: it does not only hear a notice."""
        ...

    @property
    def in_session(self) -> bool:
        """It is in a conversation, or about to be."""
        ...

    def end(self, why: str) -> None:
        """Hang up."""
        ...

    def publish(self, message: Mapping[str, object]) -> None:
        """Send it a message that needs no session: `notify`, `alert`, `system`."""
        ...


class NotAdmitted(Exception):
    """A device may not connect now; the message says why.

    Attributes:
        status: as HTTP has it: 403 not welcome, 429 too many new ones, 503 no room.
        wait_s: when to come again, in seconds; 0 for never.
    """

    def __init__(self, status: int, why: str, wait_s: float = 0.0) -> None:
        super().__init__(why)
        self.status = status
        self.wait_s = wait_s


class ConnectedDevices:
    """The connected devices: one connection each, the newest wins.

    Args:
        services: the settings, and whether there is load.
        access: who may connect.
    """

    def __init__(self, services: Services, access: AccessControl) -> None:
        self._services = services
        self._access = access
        self._connected: dict[str, ConnectedDevice] = {}
        self._reachable: dict[str, SleepingDevice] = {}  # asleep or in a conversation
        self._pending: dict[str, ConnectedDevice] = {}  # by device and client: they only hear a code
        self.refused = 0
        """Devices turned away for want of room, since the start."""
        self.flooded = 0
        """Connections hung up because they sent more than any device does, since the start."""
        self.on_connect: list[Callable[[str], None]] = []
        """Told the id of each device that connects."""
        self.draining = False
        """The server stops: no new devices and no new turns. A load balancer sends devices elsewhere."""
        self.drained: DrainReport | None = None
        """What became of the devices when the server stopped."""
        self._open: set[ConnectedDevice] = set()  # also those that a newer one has replaced and that are not over yet
        self._dropped = 0  # packets of those that are over
        self._said = OncePer(_CONNECTED_EVERY_S)
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self._connected)

    @property
    def no_room(self) -> str:
        """Why another device cannot be taken now; empty when it can."""
        if len(self) >= self._services.settings.server.max_devices:
            return "too many devices"
        return "" if self._services.takes_devices else "overloaded"

    @property
    def packets_dropped(self) -> int:
        """Packets not sent to devices that do not read fast enough, since the start."""
        return self._dropped + sum(device.packets_dropped for device in self._open)

    def online(self) -> frozenset[str]:
        """Ids of the devices that are connected, asleep or not; of those that wait to be let in there are none."""
        return frozenset((*self._connected, *self._reachable))

    def find(self, device_id: str) -> ConnectedDevice | None:
        """A device in a conversation; None where it is in none."""
        return self._connected.get(device_id)

    def asleep(self, device_id: str) -> SleepingDevice | None:
        """A device that is in no conversation and can be reached; None where it is not."""
        device = self._reachable.get(device_id)
        return None if device is None or device.in_session or device_id in self._connected else device

    def hang_up(self, device_id: str, why: str) -> None:
        """End a device's conversation and every connection of it; `why` goes to the log."""
        for one in (self._connected.get(device_id), self._reachable.get(device_id)):
            if one is not None:
                one.end(why)

    def came(self, device: SleepingDevice) -> None:
        """A device can be reached from now on."""
        if not device.admitted:
            return
        self._reachable[device.device_id] = device
        for tell in self.on_connect:
            tell(device.device_id)

    def gone(self, device: SleepingDevice) -> None:
        """A device cannot be reached any more."""
        if self._reachable.get(device.device_id) is device:
            del self._reachable[device.device_id]

    async def admit(self, identity: Identity, address: str) -> str:
        """Whether a client that has shown who it is may connect: a guest of the console, or a device with its token.

        Args:
            identity: who it is.
            address: where from.

        Returns:
            What the client is to hear instead of a conversation; empty where it may converse.

        Raises:
            NotAdmitted: it may not connect now.
        """
        if self.draining:
            raise NotAdmitted(503, "shutting down", _STOPPING_S)
        guest = is_guest(identity.device_id)
        notice = ""
        standing = Standing.ADMITTED
        try:
            if why := await self._no_room_for(identity):
                raise self._full(why)
            if not guest:
                configured = self._access.token_auth.is_configured(identity)
                standing = await self._access.activation.enter(identity, address, configured=configured)
            if standing is Standing.UNBOUND and not identity.is_anonymous:
                if len(self._pending) >= max(1, self._services.settings.server.max_devices // _PENDING_SHARE):
                    raise self._full("too many devices wait to be let in")
                chinese = self._services.settings.asr.language != "en"
                notice = await self._access.activation.notice(identity, address, chinese=chinese)
        except Crowded as error:
            self.refused += 1
            raise NotAdmitted(429, "too many requests from this address", error.wait_s) from None
        except StoreError as error:
            _log.error("refused: %s", error, extra={"device": identity.device_id})
            raise NotAdmitted(503, "out of order", _OUT_OF_ORDER_S) from None
        if standing is not Standing.ADMITTED and not notice:
            self._access.token_auth.note_refusal(identity, "blocked, or not allowed", address)
            raise NotAdmitted(403, "this device is not welcome here")
        return notice

    @contextmanager
    def connected(self, device: ConnectedDevice, client_id: str) -> Iterator[None]:
        """A device is connected while this context is open; it takes the place of an older connection of the same one.

        Args:
            device: that was admitted.
            client_id: of its identity.
        """
        # Who is only told a code replaces nobody but himself: the device that he says to be goes on talking.
        places = self._connected if device.admitted else self._pending
        name = device.device_id if device.admitted else f"{device.device_id}|{client_id}"
        if (older := places.get(name)) is not None:
            older.end("the same device connected again")
        places[name] = device
        self._open.add(device)
        self._empty.clear()
        if device.admitted:
            for tell in self.on_connect:
                tell(device.device_id)
        # Whether a board reaches the server at all is asked when it is set up, not at each of its conversations.
        news = self._said.allows(device.device_id, asyncio.get_running_loop().time())
        _log.log(logging.INFO if news else logging.DEBUG, "connected", extra={"device": device.device_id})
        try:
            yield
        finally:
            self._open.remove(device)
            self._dropped += device.packets_dropped
            if places.get(name) is device:
                del places[name]
            if not self._connected and not self._pending:
                self._empty.set()

    async def _no_room_for(self, identity: Identity) -> str:
        """Why this device cannot be taken now; empty when it can.

        Where all places are taken, a device that is known gets that of one that nobody knows and that says nothing:
        else a crowd of made-up names would keep it out.
        """
        if identity.device_id in self._connected or not (why := self.no_room):
            return ""
        if len(self) < self._services.settings.server.max_devices or not await self._access.activation.knows(identity):
            return why
        for one in self._connected.values():
            if one.is_stranger and one.age_s > _READ_S and not is_guest(one.device_id):
                one.end("makes room for a device that is known")
                del self._connected[one.device_id]
                return ""
        return why

    def _full(self, why: str) -> NotAdmitted:
        self.refused += 1
        return NotAdmitted(503, why, self._services.settings.load.retry_after_s)

    def _all(self) -> list[ConnectedDevice]:
        return [*self._connected.values(), *self._pending.values()]

    async def empty(self) -> None:
        """Wait until no device is connected and everything of the last one is freed."""
        await self._empty.wait()

    async def watch(self) -> None:
        """Once a second: keepalives, stalled microphones, idle connections. Runs until cancelled."""
        while True:
            await asyncio.sleep(_CHECK_EVERY_S)
            for device in self._all():
                device.check()

    async def drain(self, within_s: float) -> None:
        """Take no new devices, let turns under way be answered for at most `within_s`, and hang all devices up.

        A device that does nothing is hung up soon: when it is spoken to it connects again, to whoever serves then.
        """
        self.draining = True
        self.drained = await Drain(self._all, within_s).run()
        await self.empty()
