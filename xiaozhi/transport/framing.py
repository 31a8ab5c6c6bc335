"""Binary framing 1, 2 and 3 of the device protocol. Pure: bytes in, bytes out. All integers are big-endian.

* 1: the message is one raw Opus packet.
* 2: `u16 version=2 | u16 type | u32 reserved=0 | u32 timestamp_ms | u32 payload_size | payload`
* 3: `u8 type | u8 reserved=0 | u16 payload_size | payload`

`MQTT_GATEWAY` is what xiaozhi-mqtt-gateway makes of 2: it sets and reads the last two fields, and leaves the others 0.

The firmware trusts `payload_size` without a bounds check, so what we write must be exact; what we read must be checked.
"""

import struct
from typing import Final

from xiaozhi.events import MicPacket

_V2: Final = struct.Struct("!HHIII")
_V3: Final = struct.Struct("!BBH")
_OPUS: Final = 0

MQTT_GATEWAY: Final = 16
"""A framing that no header asks for."""

# RFC 6716 allows 1275 bytes a frame; 120 ms packets hold several. Real microphones send 80 to 130 bytes for 60 ms.
MAX_OPUS_BYTES: Final = 4000


class FramingError(Exception):
    """A binary message that is not what its framing says; the message names what is wrong."""


def version_of(value: object) -> int:
    """The framing version a client asks for by header or hello; anything but 1, 2 or 3 means 1."""
    text = str(value).strip()
    return int(text) if text in ("1", "2", "3") else 1


def pack(version: int, opus: bytes, timestamp_ms: int = 0) -> bytes:
    """One binary message around an Opus packet; `timestamp_ms` wraps at 32 bits and only framing 2 carries it."""
    if version in (2, MQTT_GATEWAY):
        return _V2.pack(2, _OPUS, 0, timestamp_ms & 0xFFFFFFFF, len(opus)) + opus
    if version == 3:
        return _V3.pack(_OPUS, 0, len(opus)) + opus
    return opus


def unpack(version: int, message: bytes, *, bare: bool = False) -> MicPacket:
    """Take an Opus packet out of one binary message.

    Args:
        version: of the framing.
        message: as it came.
        bare: its payload is no Opus but samples.

    Raises:
        FramingError: too short, a length that does not match, another type than audio, or too much for one packet.
    """
    timestamp_ms = 0
    opus = message
    if version in (2, MQTT_GATEWAY):
        if len(message) < _V2.size:
            raise FramingError(f"framing 2: {len(message)} bytes are less than a header")
        marked, kind, _reserved, timestamp_ms, size = _V2.unpack_from(message)
        opus = message[_V2.size :]
        _check(2, size, len(opus), kind if version == 2 else _OPUS)
        if version == 2 and marked != 2:
            raise FramingError(f"framing 2: header says version {marked}")
    elif version == 3:
        if len(message) < _V3.size:
            raise FramingError(f"framing 3: {len(message)} bytes are less than a header")
        kind, _reserved, size = _V3.unpack_from(message)
        opus = message[_V3.size :]
        _check(3, size, len(opus), kind)
    if len(opus) > MAX_OPUS_BYTES:
        raise FramingError(f"{len(opus)} bytes are more than one Opus packet can be")
    return MicPacket(opus, timestamp_ms, bare)


def _check(version: int, size: int, present: int, kind: int) -> None:
    if size != present:
        raise FramingError(f"framing {version}: header says {size} bytes, {present} are there")
    if kind != _OPUS:
        raise FramingError(f"framing {version}: type {kind} is not audio")
