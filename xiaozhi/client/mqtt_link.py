"""MQTT and UDP as the firmware's client speaks them."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, cast

import orjson
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from xiaozhi.client.errors import ConnectFailed, Unreachable
from xiaozhi.transport.mqtt_codec import Connect, ConnectCode, Kind, MqttError, MqttReader, Packet, Publish
from xiaozhi.transport.udp import HEADER

# Firmware: the connection has to stand, and the server's hello to come, within 10 s.
_CONNECT_S: Final = 10.0
_TLS_PORT: Final = 8883
_DEFAULT_KEEPALIVE_S: Final = 240
_AUDIO: Final = 1


@dataclass(frozen=True, slots=True)
class MqttCredentials:
    """The `mqtt` section of an OTA reply, as the firmware takes it from its memory."""

    endpoint: str
    client_id: str
    username: str
    password: str
    publish_topic: str
    keepalive_s: int = _DEFAULT_KEEPALIVE_S

    @classmethod
    def read(cls, section: Mapping[str, Any]) -> "MqttCredentials":
        """Understand it.

        Raises:
            ConnectFailed: the firmware would crash on it, or be mute with it.
        """
        texts = {name: section.get(name, "") for name in ("endpoint", "client_id", "username", "password")}
        topic, keepalive_s = section.get("publish_topic", ""), section.get("keepalive", _DEFAULT_KEEPALIVE_S)
        if not all(isinstance(text, str) for text in (*texts.values(), topic)) or not isinstance(keepalive_s, int):
            raise ConnectFailed("the mqtt section has values of the wrong kind")
        if any(len(name) > 15 for name in section):
            raise ConnectFailed("the mqtt section has a name of more than 15 characters: the firmware would crash")
        host, colon, port = texts["endpoint"].partition(":")
        if not host or (colon and not port.isdecimal()):
            raise ConnectFailed(f"mqtt.endpoint {texts['endpoint']!r}: the firmware would crash")
        if not topic:
            raise ConnectFailed("no mqtt.publish_topic: the device can say nothing")
        return cls(**texts, publish_topic=topic, keepalive_s=keepalive_s)

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        host, _, port = self.endpoint.partition(":")
        return host, int(port or _TLS_PORT)


class MqttClient(asyncio.Protocol):
    """A control connection.

    Args:
        on_message: called with every payload; whatever its topic.
        on_lost: called once, with the reason, when the connection is gone and was not closed from here.
    """

    def __init__(self, on_message: Callable[[bytes], None], on_lost: Callable[[str], None]) -> None:
        self._on_message = on_message
        self._on_lost = on_lost
        self._loop = asyncio.get_running_loop()
        self._reader = MqttReader()
        self._answer: asyncio.Future[ConnectCode] = self._loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._topic = ""
        self._ping: asyncio.TimerHandle | None = None
        self._closed = False

    @classmethod
    async def open(
        cls,
        credentials: MqttCredentials,
        on_message: Callable[[bytes], None],
        on_lost: Callable[[str], None],
        tls: ssl.SSLContext | None = None,
    ) -> "MqttClient":
        """Connect, on port 8883 with TLS.

        Args:
            credentials: where, and as who.
            on_message: see the class.
            on_lost: see the class.
            tls: what is trusted there; the public authorities unless given.

        Raises:
            Unreachable: nobody there.
            ConnectFailed: refused, or no answer in time.
        """
        client = cls(on_message, on_lost)
        host, port = credentials.address
        context = (tls or ssl.create_default_context()) if port == _TLS_PORT else None
        try:
            async with asyncio.timeout(_CONNECT_S):
                await client._loop.create_connection(
                    lambda: client, host, port, ssl=context, server_hostname=host if context is not None else None
                )
                client._say_hello(credentials)
                code = await client._answer
        except TimeoutError as error:
            client.drop()
            raise ConnectFailed(f"no answer from {credentials.endpoint} within {_CONNECT_S:g} s") from error
        except (OSError, ssl.SSLError) as error:
            client.drop()
            raise Unreachable(f"nothing answers at {credentials.endpoint}: {error}") from error
        if code is not ConnectCode.ACCEPTED:
            client.drop()
            raise ConnectFailed(f"{credentials.endpoint} refused the device: {code.name}", code.value)
        return client

    def _say_hello(self, credentials: MqttCredentials) -> None:
        self._topic = credentials.publish_topic
        keepalive_s = credentials.keepalive_s
        connect = Connect(credentials.client_id, credentials.username, credentials.password, keepalive_s)
        self._send(connect.packet())
        self._ping_in(keepalive_s / 2.0)  # as the library of the firmware does

    def _ping_in(self, seconds: float) -> None:
        def ping() -> None:
            self._send(Packet(Kind.PINGREQ))
            self._ping_in(seconds)

        self._ping = self._loop.call_later(seconds, ping)

    def publish(self, message: Mapping[str, Any]) -> None:
        """Say something."""
        self._send(Publish(self._topic, orjson.dumps(message)).packet())

    def drop(self) -> None:
        """Be gone, as a device that loses its network."""
        self._end()
        if self._transport is not None:
            self._transport.abort()

    def _end(self) -> None:
        self._closed = True
        if self._ping is not None:
            self._ping.cancel()

    def _send(self, packet: Packet) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(packet.encode())

    # As asyncio's transports call it --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's do not derive from it

    def data_received(self, data: bytes) -> None:
        """Bytes have come."""
        try:
            for packet in self._reader.feed(data):
                if packet.kind is Kind.CONNACK and not self._answer.done():
                    self._answer.set_result(ConnectCode(packet.body[1]))
                elif packet.kind is Kind.PUBLISH and not self._closed:
                    self._on_message(Publish.read(packet).payload)
        except (MqttError, IndexError, ValueError):
            self.drop()
            self._on_lost("the server speaks no MQTT")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        if not self._answer.done():
            self._answer.set_exception(ConnectionResetError("the connection was closed without an answer"))
        if not self._closed:
            self._end()
            self._on_lost(str(exc) if exc else "the server closed the connection")


Carrier: TypeAlias = Callable[[bytes, Callable[[bytes], None]], None]
"""Brings a datagram to the other end by calling the second argument with it: at once, late, or never."""


def at_once(datagram: bytes, deliver: Callable[[bytes], None]) -> None:
    """A network that never fails."""
    deliver(datagram)


class UdpLink(asyncio.DatagramProtocol):
    """Sound of one session, as strict as firmware 2.4 is.

    Args:
        server: where it goes.
        key, nonce: from the server's hello, 16 bytes each.
        on_audio: called with every packet that is accepted.
        uplink, downlink: what happens on the way.
    """

    def __init__(
        self,
        server: tuple[str, int],
        key: bytes,
        nonce: bytes,
        on_audio: Callable[[bytes], None],
        uplink: Carrier = at_once,
        downlink: Carrier = at_once,
    ) -> None:
        if len(key) != 16 or len(nonce) != 16:
            raise ConnectFailed("key and nonce must have 16 bytes")
        self._server = server
        self._aes = AES(key)
        self._nonce = nonce
        self._on_audio = on_audio
        self._uplink = uplink
        self._downlink = downlink
        self._transport: asyncio.DatagramTransport | None = None
        self._sent = self._last = 0
        self.ssrc = int.from_bytes(nonce[4:8], "big")
        self.received = 0
        """Packets that were accepted."""
        self.refused = 0
        """Datagrams that were not: late, repeated or wrong."""

    async def open(self) -> None:
        """Take a port; nothing is sent yet."""
        await asyncio.get_running_loop().create_datagram_endpoint(lambda: self, remote_addr=self._server)

    async def rebind(self) -> None:
        """Send from another port from now on, as after a pause in which the router has forgotten the old one."""
        self.close()
        await self.open()

    def close(self) -> None:
        """Give the port back."""
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def send(self, opus: bytes, timestamp_ms: int = 0) -> None:
        """Send a packet: the server's nonce with length, timestamp and sequence filled in."""
        self._sent += 1
        header = (
            self._nonce[:2]
            + len(opus).to_bytes(2, "big")
            + self._nonce[4:8]
            + timestamp_ms.to_bytes(4, "big")
            + self._sent.to_bytes(4, "big")
        )
        self._uplink(header + self._crypt(header, opus), self._put)

    def _put(self, datagram: bytes) -> None:
        if self._transport is not None:
            self._transport.sendto(datagram)

    def _crypt(self, header: bytes, data: bytes) -> bytes:
        return Cipher(self._aes, CTR(header)).encryptor().update(data)

    # As asyncio's transports call it --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The port is there."""
        self._transport = cast(asyncio.DatagramTransport, transport)  # uvloop's do not derive from it

    def datagram_received(self, data: bytes, addr: tuple[str | int, ...]) -> None:
        """A datagram has come."""
        self._downlink(data, self._take)

    def _take(self, data: bytes) -> None:
        if self._transport is None:
            return
        proper = len(data) > HEADER.size and data[0] == _AUDIO
        _, _, length, _, _, sequence = HEADER.unpack_from(data) if proper else (0,) * 6
        if not proper or length != len(data) - HEADER.size or sequence <= self._last:
            self.refused += 1
            return
        self._last = sequence
        self.received += 1
        self._on_audio(self._crypt(data[: HEADER.size], data[HEADER.size :]))

    def error_received(self, exc: Exception) -> None:
        """Nobody listens there: the firmware does not mind."""


class MqttLink:
    """The channel of one session, with what a `Link` has: messages go by MQTT, packets of sound by UDP.

    Args:
        client: the control connection, which outlives it.
    """

    close_code: int | None = None

    def __init__(self, client: MqttClient) -> None:
        self._client = client
        self.udp: UdpLink | None = None
        """Its sound; None before the server's hello."""
        self.outbox = self
        self.dropped = 0
        """Packets forgotten: of UDP none is, here."""

    def put(self, message: str | bytes) -> None:
        """Send JSON (text) or audio (bytes)."""
        if isinstance(message, str):
            self._client.publish(orjson.loads(message))
        elif self.udp is not None:
            self.udp.send(message)

    async def close(self) -> None:
        """Close the sound."""
        if self.udp is not None:
            self.udp.close()
