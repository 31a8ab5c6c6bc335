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
from typing import Final

MAX_PACKET_BYTES: Final = 16_384
"""The firmware caps messages at 8 KB in both directions (its gateway does); names and topics come on top."""

_MAX_LENGTH_BYTES: Final = 4  # of the remaining length, section 2.2.3
_MAX_FILTERS: Final = 64
_LEVELS: Final = {"MQTT": 4, "MQIsdp": 3}
# Flags of CONNECT, section 3.1.2.
_RESERVED, _CLEAN_SESSION, _WILL, _WILL_DETAILS, _PASSWORD, _USERNAME = 0x01, 0x02, 0x04, 0x38, 0x40, 0x80


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


class PacketKind(IntEnum):
    """The first byte of a packet with the flags that belong to it, section 2.2.1; of PUBLISH without its flags."""

    CONNECT = 0x10
    CONNACK = 0x20
    PUBLISH = 0x30
    PUBACK = 0x40
    SUBSCRIBE = 0x82
    SUBACK = 0x90
    UNSUBSCRIBE = 0xA2
    UNSUBACK = 0xB0
    PINGREQ = 0xC0
    PINGRESP = 0xD0
    DISCONNECT = 0xE0


@dataclass(frozen=True, slots=True)
class Packet:
    """One packet: `flags` are those of PUBLISH, 0 to 15; `body` is what follows the length."""

    kind: PacketKind
    body: bytes = b""
    flags: int = 0

    def encode(self) -> bytes:
        """As it goes over the wire."""
        length, left = bytearray(), len(self.body)
        while True:
            left, byte = left >> 7, left & 0x7F
            length.append(byte | (0x80 if left else 0))
            if not left:
                return bytes((self.kind | self.flags,)) + bytes(length) + self.body


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
        """Yield the packets that these bytes complete; those that nobody takes wait for the next call.

        Raises:
            MqttError: the stream is broken here, and nothing behind can be understood.
        """
        self._buffer += data
        while (packet := self._next()) is not None:
            yield packet

    def _next(self) -> Packet | None:
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
        flags = first & 0x0F if first & 0xF0 == PacketKind.PUBLISH else 0
        try:
            return Packet(PacketKind(first - flags), body, flags)
        except ValueError:
            raise MqttError(f"a packet that begins with {first:#04x}") from None


class _Fields:
    """Reads the fields of one packet, one after the other."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def over(self) -> bool:
        """Nothing is left."""
        return self._at == len(self._data)

    def take(self, count: int) -> bytes:
        """So many bytes."""
        taken = self._data[self._at : self._at + count]
        if len(taken) < count:
            raise MqttError("a packet that ends too soon")
        self._at += count
        return taken

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data) - self._at)

    def number(self) -> int:
        """Two bytes."""
        return int.from_bytes(self.take(2), "big")

    def packet_id(self) -> int:
        """Never 0, section 2.3.1."""
        if not (number := self.number()):
            raise MqttError("packet identifier 0")
        return number

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


@dataclass(frozen=True, slots=True)
class Connect:
    """A client introduces itself, section 3.1. A will is read and forgotten: nobody is told of it here.

    Attributes:
        client_id: may be empty, which asks the server for one.
        username, password: empty where there is none.
        keep_alive_s: the client sends something at least so often; 0 for a client that promises nothing.
    """

    client_id: str
    username: str = ""
    password: str = ""
    keep_alive_s: int = 0

    @classmethod
    def read(cls, body: bytes) -> "Connect":
        """Understand the body of a CONNECT. Raises `MqttError`."""
        fields = _Fields(body)
        name, level = fields.text(), fields.take(1)[0]
        if name not in _LEVELS:
            raise MqttError("another protocol")
        if level != _LEVELS[name]:
            raise UnsupportedLevel(f"level {level} of the protocol")
        flags, keep_alive_s = fields.take(1)[0], fields.number()
        if flags & _RESERVED or (flags & _WILL_DETAILS and not flags & _WILL):
            raise MqttError("flags of CONNECT that do not go together")
        if flags & _PASSWORD and not flags & _USERNAME:
            raise MqttError("a password without a user name")
        client_id = fields.text()
        if flags & _WILL:
            fields.text()
            fields.binary()
        username = fields.text() if flags & _USERNAME else ""
        password = fields.binary().decode("utf-8", "replace") if flags & _PASSWORD else ""
        if not fields.over:
            raise MqttError("a CONNECT that is longer than what it holds")
        return cls(client_id, username, password, keep_alive_s)

    def packet(self) -> Packet:
        """As a client sends it."""
        flags = _CLEAN_SESSION | (_USERNAME if self.username else 0) | (_PASSWORD if self.password else 0)
        words = [self.client_id, *(word for word in (self.username, self.password) if word)]
        head = _text("MQTT") + struct.pack("!BBH", 4, flags, self.keep_alive_s)
        return Packet(PacketKind.CONNECT, head + b"".join(map(_text, words)))


@dataclass(frozen=True, slots=True)
class Publish:
    """A message, section 3.3. `packet_id` is 0 for QoS 0, which is not acknowledged."""

    topic: str
    payload: bytes
    packet_id: int = 0

    @classmethod
    def read(cls, packet: Packet) -> "Publish":
        """Understand a PUBLISH. Raises `MqttError`."""
        fields = _Fields(packet.body)
        if (qos := packet.flags >> 1 & 0x03) > 1:
            raise MqttError(f"a message of QoS {qos}; 0 and 1 are taken")
        topic = fields.text()
        if not topic or "+" in topic or "#" in topic:
            raise MqttError("a message without a proper topic")
        packet_id = fields.packet_id() if qos else 0
        return cls(topic, fields.rest(), packet_id)

    def packet(self) -> Packet:
        """As it is sent, with QoS 0."""
        return Packet(PacketKind.PUBLISH, _text(self.topic) + self.payload)


def acknowledged(packet: Packet) -> Packet:
    """The answer to a SUBSCRIBE or UNSUBSCRIBE: QoS 0 is granted for every filter, sections 3.8 to 3.11.

    Raises:
        MqttError: it is malformed.
    """
    fields = _Fields(packet.body)
    packet_id, filters = fields.packet_id(), 0
    while not fields.over:
        filters += 1
        if not fields.text() or filters > _MAX_FILTERS:
            raise MqttError("an empty topic filter, or too many")
        if packet.kind is PacketKind.SUBSCRIBE and fields.take(1)[0] > 2:
            raise MqttError("a QoS above 2")
    if not filters:
        raise MqttError("no topic filter")
    number = packet_id.to_bytes(2, "big")
    if packet.kind is PacketKind.SUBSCRIBE:
        return Packet(PacketKind.SUBACK, number + bytes(filters))
    return Packet(PacketKind.UNSUBACK, number)


def _text(text: str) -> bytes:
    encoded = text.encode()
    return len(encoded).to_bytes(2, "big") + encoded
