"""Devices by MQTT and UDP: who is let in, who is reachable though asleep, and their conversations.

A device keeps its MQTT connection while it sleeps. When somebody talks to it, it publishes a hello, gets a key and an
address for sound, and a session begins, which is the same conversation as over a WebSocket; goodbye ends the session
and leaves the connection. Where the connection breaks in a session, sound goes on by UDP and the session waits for it.
"""

import asyncio
import contextlib
import logging
import random
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

import orjson

from xiaozhi.access.access_control import AccessControl
from xiaozhi.access.guests import is_guest
from xiaozhi.access.identity import Identity
from xiaozhi.access.mqtt import MqttOffer, shown, topic_of
from xiaozhi.access.rate_limits import TokenBucket
from xiaozhi.concurrency.channel import ChannelClosed
from xiaozhi.conversation.services import Services
from xiaozhi.events import MicPacket
from xiaozhi.tools.device import DeviceTools
from xiaozhi.transport.connected_devices import ConnectedDevices, NotAdmitted
from xiaozhi.transport.mqtt_codec import Connect, ConnectCode
from xiaozhi.transport.mqtt_listener import MqttConnection, MqttReceiver
from xiaozhi.transport.protocol import (
    Detect,
    DeviceProtocol,
    Event,
    Goodbye,
    Hello,
    Ignored,
    ListenStart,
    Mcp,
    read_message,
)
from xiaozhi.transport.session import DeviceSession
from xiaozhi.transport.udp import UdpEndpoint, UdpSession

_log = logging.getLogger(__name__)

# A session outlives its control connection by this: the library of Wi-Fi boards connects again after 10 s.
GRACE_S: Final = 30.0
# After a restart all devices come back within 10 s: they are asked for their tools one after the other.
MAX_JITTER_S: Final = 30.0
# A device's first packet comes 180 ms after `listen/start`; one whose microphone is off sends none.
_UNHEARD_S: Final = 0.6
# Messages that wait for the control connection to come back.
_MAX_WAITING: Final = 64
_MAX_EVENTS: Final = 256

# A device begins a session when somebody talks to it.
_HELLOS_PER_S: Final = 0.5
_MAX_HELLOS: Final = 5.0
_MAX_IGNORED_LINES: Final = 20  # a client that floods does not flood the log

Vision = Callable[[str, Identity], tuple[str, str]]
"""Where a device that reached the OTA address by this base sends its pictures, and the token it shows there."""


class MqttDownlink:
    """One session's way down: messages by MQTT, sound by UDP. Implements `Downlink`.

    The two ways do not keep their order, so what must come after waits a little longer, see `start_margin_ms`.

    Args:
        device: publishes.
        udp: sends.
        sound: of this session.
    """

    start_margin_ms = 40.0
    """So much later than over one ordered connection sound follows `tts/start`, which modems bring late."""
    stop_margin_ms = 150.0
    """So much later `tts/stop` follows the last sound, which a rough Wi-Fi brings late."""
    empty = True
    """Nothing waits here."""

    def __init__(self, device: "MqttDevice", udp: UdpEndpoint, sound: UdpSession) -> None:
        self._device = device
        self._udp = udp
        self._sound = sound
        self._loop = asyncio.get_running_loop()
        self.written_at = self._loop.time()
        self.dropped = 0
        self.closed = False
        """Nothing is said to the device any more."""
        self._silenced = -1
        self._generation = -1
        self._untaken = 0  # packets at the end of that generation that did not leave

    def send(self, message: Mapping[str, object]) -> None:
        """Publish one message."""
        if not self.closed:
            self.written_at = self._loop.time()
            self._device.publish(message)

    def send_audio(self, opus: bytes, generation: int, timestamp_ms: int) -> None:
        """Send one Opus packet, unless its generation or a later one is silenced."""
        if generation <= self._silenced:
            return
        if generation != self._generation:
            self._generation, self._untaken = generation, 0
        self.written_at = self._loop.time()
        if not self.closed and self._udp.send(self._sound, opus, timestamp_ms):
            self._untaken = 0
        else:
            self._untaken += 1
            self.dropped += 1

    def silence(self, generation: int) -> None:
        """Send no packet of this generation or an older one any more."""
        self._silenced = max(self._silenced, generation)

    def untaken(self, generation: int) -> int:
        """Packets at the end of this generation that the device cannot have; 0 where it is not the newest."""
        return self._untaken if generation == self._generation else 0


class _Session:
    """One session of a device: from its hello until either side says goodbye.

    Nothing can be sent to a device that was not heard, so what it says first waits for its first packet of sound: a
    greeting would be lost. It also waits until it has been read what was said before.

    Args:
        device: whose.
        endpoint: gives it a key and a place.
        notice: what it hears instead of a conversation.
    """

    def __init__(self, device: "MqttDevice", endpoint: "MqttEndpoint", notice: str) -> None:
        self._device = device
        self._udp = endpoint.udp
        self.sound = endpoint.udp.open(self, device.host)
        host, port = endpoint.offer.udp(device.base)
        udp = {
            "server": host,
            "port": port,
            "encryption": "aes-128-ctr",
            "key": self.sound.key.hex(),
            "nonce": self.sound.nonce.hex(),
        }
        self.protocol = DeviceProtocol(3, uuid.uuid4().hex[:12], "udp", udp)
        self._downlink = MqttDownlink(device, endpoint.udp, self.sound)
        self.talk = DeviceSession(
            endpoint.services, device.device_id, self.protocol, self._downlink, device.tools, notice=notice
        )
        self._events: asyncio.Queue[Event] = asyncio.Queue(_MAX_EVENTS)
        self._heard = asyncio.Event()

    def receive(self, event: Event) -> None:
        """What the device has just said."""
        with contextlib.suppress(asyncio.QueueFull):  # nobody says so much within half a second
            self._events.put_nowait(event)

    def heard(self, opus: bytes, timestamp_ms: int, lost: int) -> None:
        """A packet has come by UDP."""
        self._heard.set()
        self.receive(MicPacket(opus, timestamp_ms, self.protocol.bare, lost))

    async def _read(self) -> None:
        await self.talk.recalled.wait()
        while True:
            event = await self._events.get()
            if isinstance(event, ListenStart | Detect):
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_UNHEARD_S):
                        await self._heard.wait()
            self.talk.receive(event)

    def end(self, why: str) -> None:
        """The device has ended it: nothing of it reaches the device any more, which would take it for the next one's.

        The firmware looks at no ssrc and, in most messages, at no session id.
        """
        self._udp.end(self.sound)
        self._downlink.closed = True
        self.talk.end(why)

    async def run(self, devices: ConnectedDevices) -> None:
        """Converse until either side ends it, and free everything."""
        why = ""
        with devices.connected(self.talk, self._device.identity.client_id):
            try:
                why = await self.talk.run(self._read())
            finally:
                self._udp.end(self.sound)
                self._downlink.send({"type": "goodbye", "session_id": self.protocol.session_id})
                self._downlink.closed = True
                self._device.session_over(self)
                self.talk.gone(why)


class MqttDevice:
    """A device that is connected by MQTT, asleep or in a conversation. Implements `MqttReceiver` and `SleepingDevice`.

    Args:
        endpoint: whose it is.
        identity: who it is.
        base: `http://host[:port]` by which it reaches this server.
        notice: what it hears instead of a conversation.
    """

    def __init__(self, endpoint: "MqttEndpoint", identity: Identity, base: str, notice: str) -> None:
        self.identity = identity
        self.base = base
        self.notice = notice
        self._endpoint = endpoint
        self._loop = asyncio.get_running_loop()
        self._connection: MqttConnection | None = None
        self._topic = topic_of(identity.device_id)
        self._asleep = DeviceProtocol(transport="udp")  # understands what comes outside of sessions
        self._session: _Session | None = None
        self._opening: asyncio.Task[None] | None = None
        self._hellos = TokenBucket(_HELLOS_PER_S, _MAX_HELLOS, self._loop.time())
        self._tasks: set[asyncio.Task[None]] = set()
        self._waiting: deque[bytes] = deque(maxlen=_MAX_WAITING)  # for the connection to come back
        self._timer: asyncio.TimerHandle | None = None  # asks for its tools, or gives it up
        self._ignored = 0
        self._tools_of: MqttConnection | None = None
        self.tools = DeviceTools(self._tell, endpoint.services.settings.tools.device)
        """What the device itself can do."""

    @property
    def device_id(self) -> str:
        """Whose it is."""
        return self.identity.device_id

    @property
    def host(self) -> str:
        """Where its control connection comes from."""
        return self._connection.address if self._connection is not None else ""

    @property
    def admitted(self) -> bool:
        """It may converse: it does not only hear a notice."""
        return not self.notice

    @property
    def in_session(self) -> bool:
        """It is in a conversation, or about to be."""
        return self._session is not None or self._opening is not None

    # MqttReceiver ---------------------------------------------------------------------------------------------------

    def connected(self, connection: MqttConnection) -> None:
        """It is there, or there again; the newest connection counts."""
        older, self._connection = self._connection, connection
        if older is not None:
            older.close("the same device connected again")
        if self._session is not None:
            self._session.sound.control_host = connection.address
        else:
            self._renew_tools()
        while self._waiting:
            connection.publish(self._topic, self._waiting.popleft())
        self._endpoint.came(self)
        if self.admitted:
            self._set_timer(random.uniform(0.0, MAX_JITTER_S), self._discover)

    def received(self, payload: bytes) -> None:
        """A message has come."""
        message = read_message(payload)
        if isinstance(message, Ignored):
            self._note_ignored(message.why)
            return
        if message.get("type") == "hello":
            self._begin(message)
            return
        session = self._session
        event = (session.protocol if session is not None else self._asleep).receive_message(message)
        match event:
            case Mcp(reply):
                self.tools.receive_mcp(reply)
            case Goodbye(session_id):
                if session is not None and session_id in (session.protocol.session_id, ""):
                    session.end("the device said goodbye")
            case Ignored(why):
                self._note_ignored(why)
            case _ if session is not None:
                session.receive(event)
            case _ if self._opening is None:
                self._tell_over(message.get("session_id"))

    def disconnected(self, connection: MqttConnection, why: str) -> None:
        """A connection is gone; where it was the last one, a session waits a while for the next."""
        if connection is not self._connection:
            return
        self._connection = None
        _log.debug("mqtt: %s", why, extra={"device": self.device_id})
        if self.in_session:
            self._set_timer(GRACE_S, self._give_up)
        else:
            self._endpoint.gone(self)

    # What it is told ------------------------------------------------------------------------------------------------

    def publish(self, message: Mapping[str, object]) -> None:
        """Send it a message; in a session that waits for its connection it waits as well."""
        payload = orjson.dumps(message)
        if self._connection is not None:
            self._connection.publish(self._topic, payload)
        elif self.in_session:
            self._waiting.append(payload)

    def _tell(self, message: Mapping[str, object]) -> None:
        """Something for the device's own tools; the firmware looks for the session in it."""
        if self._connection is None:
            raise ChannelClosed
        session_id = self._session.protocol.session_id if self._session is not None else ""
        self.publish({**message, "session_id": session_id})

    def _tell_over(self, session_id: object) -> None:
        """It goes on with a session that is over, perhaps since a restart: without an answer it would not find out."""
        if isinstance(session_id, str) and session_id:
            self.publish({"type": "goodbye", "session_id": session_id[:64]})

    def _note_ignored(self, why: str) -> None:
        self._ignored += 1
        if self._ignored <= _MAX_IGNORED_LINES:
            _log.debug("ignored: %s", why, extra={"device": self.device_id})

    # Sessions -------------------------------------------------------------------------------------------------------

    def _begin(self, hello: dict[str, Any]) -> None:
        """A hello ends what went on before: a device sends it after an error, a silence or a restart."""
        if not self._hellos.spend(1.0, self._loop.time()):
            self.end("it begins more sessions than any device does")
            return
        if self._opening is not None:
            self._opening.cancel()
        if self._session is not None:
            self._session.end("the device began another session")
            self._session = None
        self._opening = self._spawn(self._open(hello), "mqtt-session")

    async def _open(self, hello: dict[str, Any]) -> None:
        endpoint = self._endpoint
        try:
            notice = await endpoint.devices.admit(self.identity, self.host)
        except NotAdmitted as error:
            _log.info("no session: %s", error, extra={"device": self.device_id})
            self.publish({"type": "goodbye", "session_id": "refused"})  # the device waits out its 10 s
            self._opening = None
            return
        if self._tools_of is not self._connection:
            self._renew_tools()
        session = self._session = _Session(self, endpoint, notice)
        self._opening = None
        event = session.protocol.receive_message(hello)
        session.talk.receive(event)
        if not notice and isinstance(event, Hello) and "mcp" in event.features:
            self._discover()
        await session.run(endpoint.devices)

    def session_over(self, session: _Session) -> None:
        """A session has ended."""
        if self._session is session:
            self._session = None
            if self._connection is None:
                self._endpoint.gone(self)

    def _give_up(self) -> None:
        """Its connection has not come back."""
        if self._session is not None:
            self._session.end("the device went away")
        elif self._opening is not None:
            self._opening.cancel()
        self._endpoint.gone(self)

    # Tools ----------------------------------------------------------------------------------------------------------

    def _renew_tools(self) -> None:
        """It may have been started anew, with other firmware."""
        self._tools_of = self._connection
        if self.tools.mcp is not None:
            self._spawn(self.tools.close(), "mqtt-tools")
            self.tools = DeviceTools(self._tell, self._endpoint.services.settings.tools.device)

    def _discover(self) -> None:
        """Ask for its tools, once."""
        if self.tools.mcp is None:
            vision = self._endpoint.vision
            self.tools.start_mcp(*(vision(self.base, self.identity) if vision is not None else ("", "")))

    # Life -----------------------------------------------------------------------------------------------------------

    def end(self, why: str) -> None:
        """Close its connection; a session ends with a goodbye first."""
        if self._session is not None:
            self.publish({"type": "goodbye", "session_id": self._session.protocol.session_id})
            self._session.end(why)
        if self._connection is not None:
            self._connection.close(why)

    def _set_timer(self, after_s: float, action: Callable[[], None]) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(after_s, action)

    def _spawn(self, coroutine: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        task = self._loop.create_task(coroutine, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        """Free everything."""
        if self._timer is not None:
            self._timer.cancel()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.tools.close()


class MqttEndpoint:
    """Where devices connect by MQTT. Implements `MqttAccess`.

    Args:
        services: the shared engines.
        access: who may connect.
        devices: the register they are in.
        udp: for the sound of their sessions.
        offer: what they were told.
        vision: where their cameras send pictures; None for nowhere.
        own_base: `http://host[:port]` of this node among others; empty for a server that is alone.
    """

    def __init__(
        self,
        services: Services,
        access: AccessControl,
        devices: ConnectedDevices,
        udp: UdpEndpoint,
        offer: MqttOffer,
        vision: Vision | None = None,
        own_base: Callable[[], str] = str,
    ) -> None:
        self.services = services
        self.devices = devices
        self.udp = udp
        self.offer = offer
        self.vision = vision
        self._own_base = own_base
        self._access = access
        self._devices: dict[str, MqttDevice] = {}  # who only hears a code is there by device and client
        self._closing: set[asyncio.Task[None]] = set()

    def __len__(self) -> int:
        """How many devices are there."""
        return len(self._devices)

    async def admit(self, connect: Connect, address: str) -> MqttReceiver | ConnectCode:
        """Whose connection this is, or why it is refused."""
        access = self._access
        if await access.upgrades.take(address, asyncio.get_running_loop().time()):
            return ConnectCode.UNAVAILABLE
        who = shown(connect.username, connect.password)
        if who is None or is_guest(who.identity.device_id):
            return ConnectCode.NOT_AUTHORIZED
        identity = who.identity
        if refused := access.token_auth.refusal(identity):
            access.token_auth.note_refusal(identity, refused, address)
            return ConnectCode.NOT_AUTHORIZED
        known = identity.device_id in self._devices
        if not known and len(self) >= self.services.settings.server.max_devices:
            self.devices.refused += 1
            return ConnectCode.UNAVAILABLE
        try:
            notice = await self.devices.admit(identity, address)
        except NotAdmitted as error:
            return ConnectCode.NOT_AUTHORIZED if error.status == 403 else ConnectCode.UNAVAILABLE
        # Which node it belongs to it was told by; it may have come to this one by an address that all of them share.
        base = self._own_base() or who.base
        device = self._devices.get(_place(identity, notice))
        if device is None or device.identity.client_id != identity.client_id:
            return MqttDevice(self, identity, base, notice)
        device.identity, device.base = identity, base
        return device

    def came(self, device: MqttDevice) -> None:
        """A device is there; it takes the place of another one that calls itself so."""
        place = _place(device.identity, device.notice)
        older = self._devices.get(place)
        if older is not None and older is not device:
            older.end("the same device connected again")
        self._devices[place] = device
        self.devices.came(device)

    def gone(self, device: MqttDevice) -> None:
        """A device is not there any more."""
        place = _place(device.identity, device.notice)
        if self._devices.get(place) is device:
            del self._devices[place]
        self.devices.gone(device)
        closing = asyncio.get_running_loop().create_task(device.close(), name="mqtt-close")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Free everything of devices that are still there."""
        for device in list(self._devices.values()):
            self.gone(device)
        await asyncio.gather(*self._closing)


def _place(identity: Identity, notice: str) -> str:
    """Who is only told a code takes nobody's place but his own."""
    return f"{identity.device_id}|{identity.client_id}" if notice else identity.device_id
