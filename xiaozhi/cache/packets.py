"""A spoken clause as bytes: its Opus packets, each with its length in front."""

import struct
from collections.abc import Sequence
from typing import Final

# Two bytes hold every packet that may be sent: 1500 bytes at most.
_LENGTH: Final = struct.Struct("<H")
_MAGIC: Final = b"XZO1"


def pack(packets: Sequence[bytes]) -> bytes:
    """Packets as one value of a cache.

    Raises:
        ValueError: a packet is empty or above 65535 bytes.
    """
    parts = [_MAGIC]
    for packet in packets:
        if not 0 < len(packet) <= 0xFFFF:
            raise ValueError(f"{len(packet)} bytes are no packet")
        parts += (_LENGTH.pack(len(packet)), packet)
    return b"".join(parts)


def unpack(value: bytes) -> list[bytes] | None:
    """The packets of a value; None when it was not made by `pack`, or holds none."""
    if not value.startswith(_MAGIC):
        return None
    packets: list[bytes] = []
    at = len(_MAGIC)
    while at < len(value):
        if at + _LENGTH.size > len(value):
            return None
        (size,) = _LENGTH.unpack_from(value, at)
        at += _LENGTH.size
        if not size or at + size > len(value):
            return None
        packets.append(value[at : at + size])
        at += size
    return packets or None
