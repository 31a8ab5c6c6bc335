"""A device in software that is connected by MQTT and UDP as the firmware is, sleeps, and plays notifications."""

import asyncio
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

import aiohttp
import orjson
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import CTR

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.ogg import _PageReader
from xiaozhi.audio.packet_time import packet_ms
from xiaozhi.client.device import Device
from xiaozhi.client.errors import ConnectFailed, Unreachable
from xiaozhi.client.handset import HELLO_TIMEOUT_S
from xiaozhi.client.link import Link
from xiaozhi.transport import framing
from xiaozhi.transport.mqtt_codec import Connect, ConnectCode, MqttError, MqttReader, Packet, PacketKind, Publish
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
            self._send(Packet(PacketKind.PINGREQ))
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
                if packet.kind is PacketKind.CONNACK and not self._answer.done():
                    self._answer.set_result(ConnectCode(packet.body[1]))
                elif packet.kind is PacketKind.PUBLISH and not self._closed:
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
        on_audio: called with every packet that is accepted, in framing 2.
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
        _, _, length, _, timestamp_ms, sequence = HEADER.unpack_from(data) if proper else (0,) * 6
        if not proper or length != len(data) - HEADER.size or sequence <= self._last:
            self.refused += 1
            return
        self._last = sequence
        self.received += 1
        self._on_audio(framing.pack(2, self._crypt(data[: HEADER.size], data[HEADER.size :]), timestamp_ms))

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
        """Send JSON (text) or audio (bytes, in framing 2)."""
        if isinstance(message, str):
            self._client.publish(orjson.loads(message))
        elif self.udp is not None:
            packet = framing.unpack(2, message)
            self.udp.send(packet.opus, packet.timestamp_ms)

    async def close(self) -> None:
        """Close the sound."""
        if self.udp is not None:
            self.udp.close()


# Ogg: the length of a page's header without its lacing, and the flag of the last page.
_PAGE_HEADER_BYTES: Final = 27
_END: Final = 0x04
# Firmware: connecting and every read may take so long; no redirects.
_TIMEOUT: Final = aiohttp.ClientTimeout(total=None, sock_connect=5.0, sock_read=5.0)
_HEADERS: Final = {"Accept": "audio/ogg, application/ogg", "Accept-Encoding": "identity"}


@dataclass(slots=True)
class Notification:
    """One that is played, or was.

    Attributes:
        url: of its sound.
        subtitles: each with the millisecond at which it is shown.
        packets: its sound, Opus, as far as it has been fetched.
        error: why it was not played to its end.
        played: it was.
    """

    url: str
    subtitles: list[tuple[float, str]] = field(default_factory=list)
    packets: list[bytes] = field(default_factory=list)
    error: str = ""
    played: bool = False

    @classmethod
    def read(cls, message: dict[str, Any]) -> "Notification":
        """Understand the message; subtitles without a time or a text are left out."""
        given = message.get("subtitles", [])
        pairs = [(one.get("start_ms"), one.get("text")) for one in given if isinstance(one, dict)]
        subtitles = [
            (float(at_ms), text) for at_ms, text in pairs if isinstance(at_ms, int | float) and isinstance(text, str)
        ]
        return cls(message["audio_url"], subtitles)

    @property
    def text(self) -> str:
        """What is shown, one subtitle after the other."""
        return " ".join(text for _, text in self.subtitles)

    async def play(self, session: aiohttp.ClientSession) -> None:
        """Fetch it and let it sound for as long as it takes. Never raises for what a server does."""
        try:
            async with session.get(self.url, headers=_HEADERS, allow_redirects=False, timeout=_TIMEOUT) as response:
                if not 200 <= response.status < 300:
                    self.error = f"status {response.status}"
                    return
                self.packets = opus_packets(await response.read())
        except (aiohttp.ClientError, TimeoutError, DecodeError) as error:
            self.error = str(error) or type(error).__name__
            return
        await asyncio.sleep(sum(map(packet_ms, self.packets)) / 1000.0)
        self.played = True


def opus_packets(data: bytes) -> list[bytes]:
    """The packets of a whole mono file, without its two headers.

    Raises:
        DecodeError: it holds no mono Opus, or does not end properly.
    """
    head, *rest = list(_PageReader().feed(data)) or [b""]
    if not head.startswith(b"OpusHead") or len(head) < 19 or head[9] != 1:
        raise DecodeError("no mono Opus in Ogg")
    last = data.rfind(b"OggS")
    if not data[last + 5] & _END or len(data) != last + _PAGE_HEADER_BYTES + data[last + 26] + sum(
        data[last + _PAGE_HEADER_BYTES : last + _PAGE_HEADER_BYTES + data[last + 26]]
    ):
        raise DecodeError("an Ogg stream without its end")
    return rest[1:]


class MqttDevice(Device):
    """A device with somebody who talks to it, by MQTT and UDP; see `Device` for its arguments."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.credentials: MqttCredentials | None = None
        """Of the OTA reply."""
        self.client: MqttClient | None = None
        """The control connection; None while there is none."""
        self.mqtt_lost_because = ""
        """Why the control connection is gone; empty while it was never lost."""
        self.uplink_network: Carrier = at_once
        self.downlink_network: Carrier = at_once
        """What happens to datagrams of channels that are opened from now on."""
        self.notifications: list[Notification] = []
        """What came while it was idle, and what became of it."""
        self._udp: Mapping[str, Any] = {}  # where sound goes, of the last hello
        self._playing: set[asyncio.Task[None]] = set()

    async def start(self, ota_url: str) -> None:
        """Start: ask the OTA address, and be connected by MQTT and asleep.

        Raises:
            ConnectFailed: see `boot` and `connect_mqtt`; or MQTT is not offered.
        """
        section = (await self.boot(ota_url)).body.get("mqtt")
        if not isinstance(section, dict):
            raise ConnectFailed(f"{ota_url} offers no MQTT")
        await self.connect_mqtt(MqttCredentials.read(section))

    async def connect_mqtt(self, credentials: MqttCredentials, tls: ssl.SSLContext | None = None) -> None:
        """Connect by MQTT: the device is reachable and asleep, no channel is open.

        Args:
            credentials: of the OTA reply.
            tls: what is trusted on port 8883; the public authorities unless given.

        Raises:
            ConnectFailed: refused or unreachable.
        """
        self.credentials = credentials
        self.lose_mqtt()
        self.client = await MqttClient.open(credentials, self._told, self._mqtt_lost, tls)

    @property
    def online(self) -> bool:
        """It is connected by MQTT."""
        return self.client is not None

    @property
    def sound(self) -> "UdpLink":
        """The sound of its channel."""
        link = cast(MqttLink, self._link)
        assert link.udp is not None
        return link.udp

    def lose_mqtt(self) -> None:
        """The control connection breaks; an open channel goes on, as in the firmware."""
        if self.client is not None:
            self.client.drop()
            self.client = None

    def _mqtt_lost(self, why: str) -> None:
        self.client = None
        self.mqtt_lost_because = why
        self._waiting.look()

    async def open_channel(self) -> None:
        """Publish a hello and open the channel that the answer names; what was open before is forgotten.

        Raises:
            ConnectFailed: not connected, no hello within 10 s, or a server to which nothing can be sent.
        """
        if self.client is None:
            raise ConnectFailed("the device is not connected")
        self._act(self.manners.connecting)
        try:
            if self._link is not None:
                await self._link.close()
            self.session_id, self.version = "", 2  # a datagram has a timestamp, too
            self._greeting = asyncio.get_running_loop().create_future()
            link = MqttLink(self.client)
            self._link = cast(Link, link)  # it has all that a device needs of one
            self._lost = ""
            self._put({**self._hello(3), "transport": "udp"})
            try:
                async with asyncio.timeout(HELLO_TIMEOUT_S):
                    await self._greeting
            except TimeoutError as error:
                raise ConnectFailed(f"no hello within {HELLO_TIMEOUT_S:g} s") from error
            try:
                server = str(self._udp["server"]), int(self._udp["port"])
                key, nonce = bytes.fromhex(self._udp["key"]), bytes.fromhex(self._udp["nonce"])
            except (KeyError, TypeError, ValueError) as error:
                raise ConnectFailed(f"the server's hello names no place for sound: {error!r}") from error
            link.udp = UdpLink(server, key, nonce, self._audio, self.uplink_network, self.downlink_network)
            await link.udp.open()
        except BaseException:
            self._lost = "the device is not connected"
            self._act(self.manners.go_idle)
            raise
        self._act(self.manners.go_idle)

    async def close_channel(self) -> None:
        """Say goodbye, as a toggle while listening does; the control connection stays."""
        self._put({"type": "goodbye"})
        self._channel_lost("the device said goodbye")
        link, self._link = self._link, None
        if link is not None:
            await link.close()

    async def close(self) -> None:
        """See `Handset.close`."""
        self.lose_mqtt()
        for task in self._playing:
            task.cancel()
        await asyncio.gather(*self._playing, return_exceptions=True)
        await super().close()

    def _told(self, payload: bytes) -> None:
        self._text(payload.decode("utf-8", "replace"))
        try:
            message = orjson.loads(payload)
        except orjson.JSONDecodeError:
            return
        match message:
            case {"type": "goodbye", "session_id": self.session_id}:
                self._channel_lost("the server said goodbye")
            case {"type": "notify", "audio_url": str()}:
                self.notified(message)

    def notified(self, message: dict[str, Any]) -> None:
        """Play a notification, in idle only; older firmware ignores it."""
        if self.manners.notify(self.now_ms()):
            notification = Notification.read(message)
            self.notifications.append(notification)
            task = asyncio.create_task(self._play(notification))
            self._playing.add(task)
            task.add_done_callback(self._playing.discard)

    async def _play(self, notification: Notification) -> None:
        try:
            await notification.play(self._http())
        finally:
            self._act(self.manners.go_idle)

    def _greeted(self, message: dict[str, Any]) -> None:
        if message.get("transport") == "udp" and isinstance(message.get("udp"), dict):
            self._udp = message["udp"]
            super()._greeted({**message, "transport": "websocket"})

    def _put(self, message: dict[str, Any]) -> None:
        if message["type"] != "hello":
            message = {"session_id": self.session_id, **message}
        if self.client is not None:
            self.client.publish(message)
            self.sent.append((self.now_ms(), message))
