"""Listens for MQTT: who connects is admitted before it is answered, and hears what is published to it, unasked.

There are no topics to be subscribed to, because devices subscribe to nothing: one connection is one device, and every
message on it is to or from that device. What strangers may cost is bounded before they have shown who they are.
"""

import asyncio
import logging
import socket
import ssl
from collections import Counter
from collections.abc import Sequence
from typing import Final, Protocol, cast

from xiaozhi.access.loopback import is_loopback_address
from xiaozhi.access.rate_limits import TokenBucket
from xiaozhi.access.visitors import group_of
from xiaozhi.transport.mqtt_codec import (
    Connect,
    ConnectCode,
    MqttError,
    MqttReader,
    Packet,
    PacketKind,
    Publish,
    UnsupportedLevel,
    acknowledged,
)

_log = logging.getLogger(__name__)

# A device sends its CONNECT at once; a 4G modem may have to send it three times.
_CONNECT_S: Final = 10.0
_HANDSHAKE_S: Final = 10.0
_MAX_CONNECT_BYTES: Final = 2048
# Connections that have not shown who they are. After a restart all devices of a house come within 10 s.
_MAX_STRANGERS: Final = 1000
_MAX_STRANGERS_EACH: Final = 100
# Section 3.1.2.10: a client is gone after one and a half times its own promise. Who promises nothing has this one.
_PATIENCE: Final = 1.5
_NO_PROMISE_S: Final = 600.0
# A device says some 20 messages in a turn; the list of its tools comes in a few of 8 KB.
_MESSAGES_PER_S: Final = 20.0
_MAX_MESSAGES: Final = 200.0
_BYTES_PER_S: Final = 65_536.0
_MAX_BYTES: Final = 262_144.0
# Little is published to a device; who leaves so much waiting does not read.
_MAX_WAITING_BYTES: Final = 262_144
# What is on its way to a client that is hung up has this time to get there.
_LINGER_S: Final = 1.0
# What was published and not acknowledged for so long breaks the connection: radio modules sleep for some seconds.
_UNACKNOWLEDGED_S: Final = 30.0


class MqttReceiver(Protocol):
    """Whose connection it is: gets what the device publishes."""

    def connected(self, connection: "MqttConnection") -> None:
        """It has been admitted and told so."""
        ...

    def received(self, payload: bytes) -> None:
        """It has published this."""
        ...

    def disconnected(self, connection: "MqttConnection", why: str) -> None:
        """That connection is gone; `why` is for the log."""
        ...


class MqttAccess(Protocol):
    """Decides who may connect."""

    async def admit(self, connect: Connect, address: str) -> MqttReceiver | ConnectCode:
        """Whose connection this is, or why it is refused."""
        ...


class MqttConnection(asyncio.Protocol):
    """One client's connection, from TCP to the last byte."""

    def __init__(self, listener: "MqttListener") -> None:
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        now_s = self._loop.time()
        self._reader = MqttReader(_MAX_CONNECT_BYTES)
        self._messages = TokenBucket(_MESSAGES_PER_S, _MAX_MESSAGES, now_s)
        self._bytes = TokenBucket(_BYTES_PER_S, _MAX_BYTES, now_s)
        self._transport: asyncio.Transport | None = None
        self._admitting: asyncio.Task[None] | None = None
        self._device: MqttReceiver | None = None
        self._abort: asyncio.TimerHandle | None = None
        self._why = ""
        self.address = ""
        """Where it comes from."""
        self.since_s = self.heard_s = now_s
        """When it was opened, and when something last came, on the loop's clock."""
        self.silent_s = _CONNECT_S
        """How long it may be silent."""

    @property
    def is_over(self) -> bool:
        """It has been closed from this side."""
        return bool(self._why)

    @property
    def is_stranger(self) -> bool:
        """It has not shown who it is yet."""
        return self._device is None

    # As asyncio's transports call it --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it
        peer = transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else ""
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if (option := getattr(socket, "TCP_USER_TIMEOUT", None)) is not None:  # Linux
                sock.setsockopt(socket.IPPROTO_TCP, option, round(_UNACKNOWLEDGED_S * 1000.0))
        self._listener.opened(self)

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        if self.is_over:
            return
        self.heard_s = self._loop.time()
        if not self._bytes.spend(len(data), self.heard_s):
            self._flooded()
            return
        self._read(data)

    def _read(self, data: bytes) -> None:
        try:
            for packet in self._reader.feed(data):
                self._receive(packet)
                if self.is_stranger:  # what it sends before the answer to its CONNECT has to wait
                    return
        except UnsupportedLevel as error:
            self._refuse(ConnectCode.WRONG_LEVEL, str(error))
        except MqttError as error:
            self.close(f"no MQTT: {error}")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        for pending in (self._admitting, self._abort):
            if pending is not None:
                pending.cancel()
        self._listener.lost(self)
        if self._device is not None:
            self._device.disconnected(self, self._why or (str(exc) if exc else "the device went away"))

    # What a client says ---------------------------------------------------------------------------------------------

    def _receive(self, packet: Packet) -> None:
        if self._device is None:
            if packet.kind is not PacketKind.CONNECT or self._admitting is not None:
                raise MqttError("something else instead of CONNECT")
            assert self._transport is not None
            connect = Connect.read(packet.body)
            self._transport.pause_reading()
            self._admitting = self._loop.create_task(self._admit(connect), name="mqtt-admit")
            return
        if self.is_over:
            return
        if not self._messages.spend(1.0, self.heard_s):
            self._flooded()
            return
        match packet.kind:
            case PacketKind.PUBLISH:
                message = Publish.read(packet)
                if message.packet_id:
                    self._send(Packet(PacketKind.PUBACK, message.packet_id.to_bytes(2, "big")))
                if message.topic == self._listener.topic:
                    self._device.received(message.payload)
            case PacketKind.PINGREQ:
                self._send(Packet(PacketKind.PINGRESP))
            case PacketKind.SUBSCRIBE | PacketKind.UNSUBSCRIBE:
                self._send(acknowledged(packet))
            case PacketKind.PUBACK:
                pass
            case PacketKind.DISCONNECT:
                self.close("it said DISCONNECT")
            case _:
                raise MqttError(f"a client sends no {packet.kind.name}")

    async def _admit(self, connect: Connect) -> None:
        if not connect.client_id:
            self._refuse(ConnectCode.WRONG_CLIENT_ID, "no client identifier")
            return
        try:
            device = await self._listener.access.admit(connect, self.address)
        except Exception:  # noqa: BLE001 - logged whole; the client is told to come again
            _log.exception("a device cannot be admitted")
            device = ConnectCode.UNAVAILABLE
        if self._transport is None or self._transport.is_closing():
            return
        if isinstance(device, ConnectCode):
            self._refuse(device, device.name.lower().replace("_", " "))
            return
        self._device = device
        self._listener.admitted(self)
        self._reader.max_bytes = self._listener.max_packet_bytes
        self.silent_s = (connect.keep_alive_s or _NO_PROMISE_S) * _PATIENCE
        self._send(Packet(PacketKind.CONNACK, bytes((0, ConnectCode.ACCEPTED))))
        device.connected(self)
        self._transport.resume_reading()
        self._read(b"")

    # What it is told ------------------------------------------------------------------------------------------------

    def publish(self, topic: str, payload: bytes) -> None:
        """Send a message; it is lost where the connection is."""
        self._send(Publish(topic, payload).packet())

    def close(self, why: str) -> None:
        """Close it once what was sent has left; `why` is for the log."""
        if self._why or self._transport is None:
            return
        self._why = why
        self._transport.close()
        self._abort = self._loop.call_later(_LINGER_S, self._transport.abort)

    def _refuse(self, code: ConnectCode, why: str) -> None:
        self._listener.refused += 1
        self._send(Packet(PacketKind.CONNACK, bytes((0, code))))
        self.close(why)

    def _flooded(self) -> None:
        self._listener.flooded += 1
        self.close("it sends more than any device does")

    def _send(self, packet: Packet) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        self._transport.write(packet.encode())
        if self._transport.get_write_buffer_size() > _MAX_WAITING_BYTES:
            self._why = self._why or "the device does not read"
            self._transport.abort()


class MqttListener:
    """One per process, on any number of sockets.

    Args:
        access: who may connect.
        topic: the only one that devices publish to.
        max_packet_bytes: of a client that was admitted.
    """

    def __init__(self, access: MqttAccess, topic: str, max_packet_bytes: int) -> None:
        self.access = access
        self.topic = topic
        self.max_packet_bytes = max_packet_bytes
        self._connections: dict[MqttConnection, None] = {}
        self._strangers: dict[MqttConnection, str] = {}  # in the order in which they came, and from where
        self._groups: Counter[str] = Counter()  # of strangers
        self._servers: list[asyncio.Server] = []
        self.refused = 0
        """Clients that were not let in, since the start."""
        self.flooded = 0
        """Connections closed because they sent more than any device does, since the start."""
        self.expired = 0
        """Connections closed because nothing came for too long, since the start."""

    def __len__(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    async def listen(self, sockets: Sequence[socket.socket], tls: ssl.SSLContext | None = None) -> None:
        """Take connections on bound sockets. Raises `OSError`."""
        for one in sockets:
            handshake_s = _HANDSHAKE_S if tls is not None else None
            self._servers.append(
                await asyncio.get_running_loop().create_server(
                    lambda: MqttConnection(self), sock=one, backlog=1024, ssl=tls, ssl_handshake_timeout=handshake_s
                )
            )

    def opened(self, connection: MqttConnection) -> None:
        """A connection is there; where too many strangers are, the ones that waited longest have to go."""
        self._connections[connection] = None
        group = self._strangers[connection] = group_of(connection.address)
        self._groups[group] += 1
        if self._groups[group] > _MAX_STRANGERS_EACH and not is_loopback_address(connection.address):
            self._turn_away(next(one for one, where in self._strangers.items() if where == group))
        elif len(self._strangers) > _MAX_STRANGERS:
            self._turn_away(next(iter(self._strangers)))

    def _turn_away(self, connection: MqttConnection) -> None:
        self.refused += 1
        self.admitted(connection)
        connection.close("too many at once")

    def admitted(self, connection: MqttConnection) -> None:
        """It is no stranger any more."""
        group = self._strangers.pop(connection, None)
        if group is not None:
            self._groups[group] -= 1
            if not self._groups[group]:
                del self._groups[group]

    def lost(self, connection: MqttConnection) -> None:
        """A connection is gone."""
        self.admitted(connection)
        self._connections.pop(connection, None)

    async def watch(self) -> None:
        """Once a second: close what has been silent for too long. Runs until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(1.0)
            now_s = loop.time()
            for one in list(self._connections):
                since_s = one.since_s if one.is_stranger else one.heard_s
                if now_s - since_s > one.silent_s:
                    self.expired += 1
                    one.close("no CONNECT" if one.is_stranger else "nothing came within its keepalive time")

    async def close(self) -> None:
        """Take no more connections and close those that are open."""
        for server in self._servers:
            server.close()
        for one in list(self._connections):
            one.close("the server stops")
        for server in self._servers:
            await server.wait_closed()
