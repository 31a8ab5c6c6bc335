"""MQTT 3.1.1, sans I/O: bytes in, packets out, and back. The part that devices use, for both ends.

Written from the OASIS standard MQTT 3.1.1 (sections are named where a rule comes from one); the older 3.1 differs in
its name only. What no device needs is not there: retained messages, wills that are sent, sessions that are kept, QoS 2.
No library serves: `paho-mqtt`, `gmqtt` and `aiomqtt` are clients, `mqttproto` speaks 5.0 only, and the packets of
`amqtt` read from a stream of its own and bring five other packages along.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, TypeAlias

MAX_PACKET_BYTES: Final = 16_384
"""The firmware caps messages at 8 KB in both directions (its gateway does); names and topics come on top."""

_MAX_LENGTH_BYTES: Final = 4  # of the remaining length, section 2.2.3
_MAX_FILTERS: Final = 64


class MqttError(Exception):
    """What comes is no MQTT, or none that is understood here; the connection has to be closed (section 4.8)."""


class UnsupportedLevel(MqttError):
    """Another version of the protocol; to be answered with `ConnectCode.WRONG_LEVEL`."""


class ConnectCode(IntEnum):
    """The answer to a CONNECT, section 3.2.2.3."""

    ACCEPTED = 0
    WRONG_LEVEL = 1
    WRONG_CLIENT_ID = 2
    UNAVAILABLE = 3
    WRONG_PASSWORD = 4
    NOT_AUTHORIZED = 5


@dataclass(frozen=True, slots=True)
class Connect:
    """A client introduces itself.

    Attributes:
        client_id: may be empty, which asks the server for one.
        username, password: empty where there is none.
        keep_alive_s: the client sends something at least so often; 0 for a client that promises nothing.
    """

    client_id: str
    username: str = ""
    password: str = ""
    keep_alive_s: int = 0


@dataclass(frozen=True, slots=True)
class Connack:
    """Whether it is let in."""

    code: ConnectCode


@dataclass(frozen=True, slots=True)
class Publish:
    """A message. `packet_id` is 0 for QoS 0, which is not acknowledged."""

    topic: str
    payload: bytes
    qos: int = 0
    packet_id: int = 0


@dataclass(frozen=True, slots=True)
class Puback:
    """A message of QoS 1 has come."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class Subscribe:
    """A client wants messages of these topics; `qos` is the highest it wants for all of them."""

    packet_id: int
    filters: tuple[str, ...]
    qos: int = 0


@dataclass(frozen=True, slots=True)
class Suback:
    """The QoS granted for each filter."""

    packet_id: int
    granted: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Unsubscribe:
    """A client wants no more messages of these topics."""

    packet_id: int
    filters: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unsuback:
    """It gets none any more."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class PingRequest:
    """The client is there."""


@dataclass(frozen=True, slots=True)
class PingResponse:
    """So is the server."""


@dataclass(frozen=True, slots=True)
class Disconnect:
    """The client leaves."""


Packet: TypeAlias = (
    Connect
    | Connack
    | Publish
    | Puback
    | Subscribe
    | Suback
    | Unsubscribe
    | Unsuback
    | PingRequest
    | PingResponse
    | Disconnect
)

# Packet types, section 2.2.1, with the flags that belong to each.
_CONNECT, _CONNACK, _PUBLISH, _PUBACK = 0x10, 0x20, 0x30, 0x40
_SUBSCRIBE, _SUBACK, _UNSUBSCRIBE, _UNSUBACK = 0x82, 0x90, 0xA2, 0xB0
_PINGREQ, _PINGRESP, _DISCONNECT = 0xC0, 0xD0, 0xE0
_EMPTY: Final[dict[int, Packet]] = {_PINGREQ: PingRequest(), _PINGRESP: PingResponse(), _DISCONNECT: Disconnect()}
_LEVELS: Final = {"MQTT": 4, "MQIsdp": 3}
_WILL, _PASSWORD, _USERNAME = 0x04, 0x40, 0x80


class MqttReader:
    """Cuts a stream into packets.

    Args:
        max_bytes: a packet that says it is longer is refused before it has come.
    """

    __slots__ = ("_buffer", "max_bytes")

    def __init__(self, max_bytes: int = MAX_PACKET_BYTES) -> None:
        self._buffer = bytearray()
        self.max_bytes = max_bytes
        """May be changed at any time."""

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield the packets that these bytes complete. The iterator has to be run to its end, or not used again.

        Raises:
            MqttError: the stream is broken here, and nothing behind can be understood.
        """
        self._buffer += data
        while (whole := self._next()) is not None:
            yield parse(*whole)

    def _next(self) -> tuple[int, bytes] | None:
        length, shift = 0, 0
        for at in range(1, 1 + _MAX_LENGTH_BYTES):
            if at >= len(self._buffer):
                return None
            byte = self._buffer[at]
            length |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                break
        else:
            raise MqttError("a length of more than four bytes")
        if length > self.max_bytes:
            raise MqttError(f"a packet of {length} bytes, at most {self.max_bytes} are taken")
        begin, end = at + 1, at + 1 + length
        if len(self._buffer) < end:
            return None
        first, body = self._buffer[0], bytes(self._buffer[begin:end])
        del self._buffer[:end]
        return first, body


def parse(first: int, body: bytes) -> Packet:
    """One packet from its first byte and what follows its length.

    Raises:
        MqttError: it is malformed, or of a kind that is not understood here.
    """
    if first & 0xF0 == _PUBLISH:
        return _publish(first & 0x0F, _Body(body))
    if first in _EMPTY:
        if body:
            raise MqttError("a body where none belongs")
        return _EMPTY[first]
    rest = _Body(body)
    packet: Packet
    match first:
        case 0x10:
            packet = _connect(rest)
        case 0x20:
            packet = _connack(rest)
        case 0x40:
            packet = Puback(rest.packet_id())
        case 0x82:
            packet = _subscribe(rest)
        case 0x90:
            packet = Suback(rest.packet_id(), tuple(rest.rest()))
        case 0xA2:
            packet = Unsubscribe(rest.packet_id(), rest.filters(qos=False)[0])
        case 0xB0:
            packet = Unsuback(rest.packet_id())
        case _:
            raise MqttError(f"a packet that begins with {first:#04x}")
    rest.must_be_over()
    return packet


class _Body:
    """Reads the fields of one packet."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """Two bytes."""
        return int.from_bytes(self.take(2), "big")

    def byte(self) -> int:
        """One byte."""
        return self.take(1)[0]

    def take(self, count: int) -> bytes:
        """So many bytes."""
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise MqttError("a packet that ends too soon")
        self._at += count
        return taken

    def binary(self) -> bytes:
        """Bytes behind their length."""
        return self.take(self.number())

    def text(self) -> str:
        """Text behind its length, section 1.5.3."""
        try:
            text = self.binary().decode()
        except UnicodeDecodeError:
            raise MqttError("text that is not UTF-8") from None
        if "\0" in text:
            raise MqttError("text with a null character")
        return text

    def packet_id(self) -> int:
        """Never 0, section 2.3.1."""
        if not (number := self.number()):
            raise MqttError("packet identifier 0")
        return number

    def filters(self, *, qos: bool) -> tuple[tuple[str, ...], int]:
        """Topic filters, and the highest QoS that stands behind them."""
        filters: list[str] = []
        highest = 0
        while self._at < len(self._data):
            if len(filters) == _MAX_FILTERS:
                raise MqttError(f"more than {_MAX_FILTERS} topic filters")
            if not (text := self.text()):
                raise MqttError("an empty topic filter")
            filters.append(text)
            if qos and (wanted := self.byte()) > 2:
                raise MqttError("a QoS above 2")
            highest = max(highest, wanted if qos else 0)
        if not filters:
            raise MqttError("no topic filter")
        return tuple(filters), highest

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def must_be_over(self) -> None:
        """Nothing is left."""
        if self._at != len(self._data):
            raise MqttError("a packet that is longer than what it holds")


def _connect(body: _Body) -> Connect:
    """Section 3.1. A will is read and forgotten: nobody is told of it here."""
    name, level = body.text(), body.byte()
    if _LEVELS.get(name) is None:
        raise MqttError("another protocol")
    if level != _LEVELS[name]:
        raise UnsupportedLevel(f"level {level} of the protocol")
    flags, keep_alive_s = body.byte(), body.number()
    if flags & 0x01:
        raise MqttError("the reserved flag of CONNECT is set")
    client_id = body.text()
    if flags & _WILL:
        body.text()
        body.binary()
    elif flags & 0x38:
        raise MqttError("flags of a will without one")
    username = body.text() if flags & _USERNAME else ""
    password = ""
    if flags & _PASSWORD:
        if not flags & _USERNAME:
            raise MqttError("a password without a user name")
        password = body.binary().decode("utf-8", "replace")
    return Connect(client_id, username, password, keep_alive_s)


def _connack(body: _Body) -> Connack:
    body.byte()
    try:
        return Connack(ConnectCode(body.byte()))
    except ValueError:
        raise MqttError("an unknown answer to CONNECT") from None


def _publish(flags: int, body: _Body) -> Publish:
    """Section 3.3."""
    qos = flags >> 1 & 0x03
    if qos > 1:
        raise MqttError(f"a message of QoS {qos}; 0 and 1 are taken")
    topic = body.text()
    if not topic or "+" in topic or "#" in topic:
        raise MqttError("a message without a proper topic")
    packet_id = body.packet_id() if qos else 0
    return Publish(topic, body.rest(), qos, packet_id)


def _subscribe(body: _Body) -> Subscribe:
    packet_id = body.packet_id()
    return Subscribe(packet_id, *body.filters(qos=True))


def encode(packet: Packet) -> bytes:
    """A packet as it goes over the wire. The inverse of what `MqttReader` does with the packets of this module."""
    match packet:
        case Connect():
            return _whole(_CONNECT, _encoded_connect(packet))
        case Connack(code):
            return _whole(_CONNACK, bytes((0, code)))
        case Publish(topic, payload, qos, packet_id):
            number = packet_id.to_bytes(2, "big") if qos else b""
            return _whole(_PUBLISH | qos << 1, _text(topic) + number + payload)
        case Puback(packet_id):
            return _whole(_PUBACK, packet_id.to_bytes(2, "big"))
        case Subscribe(packet_id, filters, qos):
            wanted = b"".join(_text(one) + bytes((qos,)) for one in filters)
            return _whole(_SUBSCRIBE, packet_id.to_bytes(2, "big") + wanted)
        case Suback(packet_id, granted):
            return _whole(_SUBACK, packet_id.to_bytes(2, "big") + bytes(granted))
        case Unsubscribe(packet_id, filters):
            return _whole(_UNSUBSCRIBE, packet_id.to_bytes(2, "big") + b"".join(map(_text, filters)))
        case Unsuback(packet_id):
            return _whole(_UNSUBACK, packet_id.to_bytes(2, "big"))
        case PingRequest():
            return _whole(_PINGREQ, b"")
        case PingResponse():
            return _whole(_PINGRESP, b"")
        case Disconnect():
            return _whole(_DISCONNECT, b"")


def _encoded_connect(packet: Connect) -> bytes:
    clean_session = 0x02
    flags = clean_session | (_USERNAME if packet.username else 0) | (_PASSWORD if packet.password else 0)
    words = [packet.client_id, *(word for word in (packet.username, packet.password) if word)]
    return _text("MQTT") + struct.pack("!BBH", 4, flags, packet.keep_alive_s) + b"".join(map(_text, words))


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded


def _whole(first: int, body: bytes) -> bytes:
    length, left = bytearray(), len(body)
    while True:
        left, byte = left >> 7, left & 0x7F
        length.append(byte | (0x80 if left else 0))
        if not left:
            return bytes((first,)) + bytes(length) + body
