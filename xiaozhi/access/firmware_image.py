"""What an ESP application image says about itself, and whether it is whole. Pure.

Layout (ESP-IDF `esp_image_format.h`, `esp_app_desc.h`), little-endian: a header of 24 bytes (0xE9, number of segments,
…, chip id at 12, "hash appended" at 23), then the segments (address, length, data); the first begins with the
application's description (0xABCD5432, …, version at 16, project at 48); after the last a checksum that ends a block of
16 bytes, then, if appended, the SHA-256 of everything before it.
"""

import hashlib
import re
import struct
from dataclasses import dataclass
from typing import Final

_MAGIC: Final = 0xE9
_HEADER_BYTES: Final = 24
_SEGMENT: Final = struct.Struct("<II")
_DESCRIPTION_MAGIC: Final = 0xABCD5432
_DESCRIPTION_AT: Final = _HEADER_BYTES + _SEGMENT.size
_MAX_SEGMENTS: Final = 16
_CHECKSUM_SEED: Final = 0xEF
_HASH_BYTES: Final = 32

# The firmware reads each part with `std::stoi`, which ends the program on letters and on numbers above 2^31.
_VERSION: Final = re.compile(r"\d{1,9}(?:\.\d{1,9}){0,4}", re.ASCII)
_RUNNING: Final = re.compile(r"\s*\d{1,9}(?!\d)", re.ASCII)


class ImageError(ValueError):
    """A file that must not be given to a device; one line says why."""


@dataclass(frozen=True, slots=True)
class Image:
    """An application image that is whole.

    Attributes:
        version: as the running firmware will report it.
        project: the application's name, `xiaozhi` in the usual firmware.
        chip: ESP-IDF's chip id: 0 ESP32, 5 C3, 9 S3, 18 P4 ….
        size_bytes: of the whole file.
    """

    version: str
    project: str
    chip: int
    size_bytes: int


def parse_version(text: str) -> tuple[int, ...] | None:
    """A version that every firmware can read, as numbers; None for any other text (`v1.2`, `1..2`, `1.2-rc1`)."""
    return tuple(map(int, text.split("."))) if _VERSION.fullmatch(text) else None


def running_version(text: str) -> tuple[int, ...] | None:
    """The version a device says it runs, as its own parser reads it: leading digits of each part (`2.4.2-dirty`).

    None where that parser would throw. It runs as soon as an update is offered, so such a device must get no offer.
    """
    parts = [_RUNNING.match(part) for part in text.split(".")]
    return tuple(int(part[0]) for part in parts if part is not None) if all(parts) and text else None


def read_image(data: bytes) -> Image:
    """Check an image from its first byte to its last.

    Raises:
        ImageError: no application image, not whole, or damaged.
    """
    if len(data) < _DESCRIPTION_AT + 256 or data[0] != _MAGIC:
        raise ImageError("is no ESP application image (xiaozhi.bin, not merged-binary.bin)")
    segments, chip, hashed = data[1], int.from_bytes(data[12:14], "little"), data[23] == 1
    magic = int.from_bytes(data[_DESCRIPTION_AT : _DESCRIPTION_AT + 4], "little")
    if magic != _DESCRIPTION_MAGIC or not 1 <= segments <= _MAX_SEGMENTS:
        raise ImageError("is a boot loader or a merged image; devices install application images (xiaozhi.bin)")
    end = _HEADER_BYTES
    checksum = _CHECKSUM_SEED
    for _ in range(segments):
        if end + _SEGMENT.size > len(data):
            raise ImageError("is not whole")
        _, length = _SEGMENT.unpack_from(data, end)
        end += _SEGMENT.size
        if length > len(data) - end:
            raise ImageError("is not whole")
        checksum ^= _xor(data[end : end + length])
        end += length
    end = (end // 16 + 1) * 16
    if end + (_HASH_BYTES if hashed else 0) > len(data):
        raise ImageError("is not whole")
    if data[end - 1] != checksum:
        raise ImageError("is damaged: its checksum is wrong")
    if hashed and hashlib.sha256(data[:end]).digest() != data[end : end + _HASH_BYTES]:
        raise ImageError("is damaged: its SHA-256 is wrong")
    description = data[_DESCRIPTION_AT : _DESCRIPTION_AT + 80]
    return Image(_text(description[16:48]), _text(description[48:80]), chip, len(data))


def _xor(data: bytes) -> int:
    """All bytes combined by exclusive or; in big steps, because Python is slow byte by byte."""
    value = int.from_bytes(data, "little")
    bits = max(8, 1 << (len(data) * 8 - 1).bit_length()) if data else 8
    while bits > 8:
        bits //= 2
        value = (value >> bits) ^ (value & ((1 << bits) - 1))
    return value


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("ascii", "replace")
