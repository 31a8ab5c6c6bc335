"""Opus packets as an Ogg Opus file, as strict as the strictest device wants it (RFC 3533, RFC 7845). Pure.

One mono stream: OpusHead alone on the first page, OpusTags alone on the second, then pages of a second at most with the
end of their last packet as the granule, and the end-of-stream flag on the last one.
"""

import struct
import zlib
from collections.abc import Sequence
from typing import Final

from xiaozhi.audio.packet_time import packet_ms, padded
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ

MAX_PACKET_BYTES: Final = 2048
"""Longer packets are refused by the firmware's demuxer."""

_GRANULES_PER_MS: Final = 48
_PAGE_MS: Final = 1000.0
_MAX_SEGMENTS: Final = 255
_FIRST, _LAST = 0x02, 0x04
# libopus at 24 kHz looks so far ahead (6.5 ms): what a player leaves out at the beginning. RFC 7845 section 5.1.
_PRE_SKIP: Final = 312
_PAGE: Final = struct.Struct("<4sBBqIIIB")
_CHECKSUM_AT: Final = 22
_REVERSED: Final = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def ogg_opus(packets: Sequence[bytes], *, serial: int = 1) -> bytes:
    """A whole file.

    Args:
        packets: mono Opus, in order; at least one.
        serial: of the stream.

    Raises:
        ValueError: there are none, one is no mono Opus, or one is longer than `MAX_PACKET_BYTES`.
    """
    if not packets:
        raise ValueError("an Ogg Opus file needs a packet")
    packets = [*packets[:-1], *_proper_end(packets[-1])]
    head = struct.pack("<8sBBHIhB", b"OpusHead", 1, 1, _PRE_SKIP, DOWNLINK_RATE_HZ, 0, 0)
    vendor = b"xiaozhi"
    tags = struct.pack("<8sI", b"OpusTags", len(vendor)) + vendor + struct.pack("<I", 0)
    pages = [_page([head], 0, serial, 0, _FIRST), _page([tags], 0, serial, 1)]
    waiting: list[bytes] = []
    granule, waiting_ms, segments = 0, 0.0, 0
    for packet in packets:
        if len(packet) > MAX_PACKET_BYTES:
            raise ValueError(f"a packet of {len(packet)} bytes; devices take {MAX_PACKET_BYTES}")
        if packet and packet[0] & 0x04:
            raise ValueError("a stereo packet")
        duration_ms, needed = packet_ms(packet), len(packet) // 255 + 1
        if waiting and (waiting_ms + duration_ms > _PAGE_MS or segments + needed > _MAX_SEGMENTS):
            pages.append(_page(waiting, granule, serial, len(pages)))
            waiting, waiting_ms, segments = [], 0.0, 0
        waiting.append(packet)
        waiting_ms += duration_ms
        segments += needed
        granule += round(duration_ms * _GRANULES_PER_MS)
    pages.append(_page(waiting, granule, serial, len(pages), _LAST))
    return b"".join(pages)


def _proper_end(last: bytes) -> list[bytes]:
    """The last packet, in a length that is no multiple of 255: firmware before September 2026 never finds its end.

    Packets of any number of frames may be padded (RFC 6716 section 3.2.5): one is a byte or two longer then, and sounds
    the same.
    """
    if not last or len(last) % 255:
        return [last]
    config, code = last[0] & 0xFC, last[0] & 0x03
    if (longer := padded(last, len(last) + 1)) != last:
        return [longer]
    if code == 3 and last[2] < 254:  # 255 and what follows are counted otherwise
        return [bytes((last[0], last[1], last[2] + 1)) + last[3:] + b"\0"]
    return [last, bytes((config,))]  # a frame without anything in it is silence


def _page(packets: Sequence[bytes], granule: int, serial: int, number: int, flags: int = 0) -> bytes:
    lacing = b"".join(b"\xff" * (len(packet) // 255) + bytes((len(packet) % 255,)) for packet in packets)
    header = _PAGE.pack(b"OggS", 0, flags, granule, serial, number, 0, len(lacing))
    page = bytearray(header + lacing + b"".join(packets))
    page[_CHECKSUM_AT : _CHECKSUM_AT + 4] = _checksum(page).to_bytes(4, "little")
    return bytes(page)


def _checksum(page: bytes | bytearray) -> int:
    """Ogg's CRC-32: zlib's polynomial the other way round, from 0 and without its last inversion."""
    reflected = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{reflected:032b}"[::-1], 2)
