"""ESP application images, made by the layout that ESP-IDF documents."""

import hashlib
import struct


def image(
    version: str, *, chip: int = 9, project: str = "xiaozhi", body: bytes = b"code" * 50, hashed: bool = True
) -> bytes:
    """A small application image with two segments, its checksum and its hash."""
    description = struct.pack("<II8x32s32s", 0xABCD5432, 0, version.encode(), project.encode()).ljust(256, b"\0")
    segments = [description + body, body]
    data = struct.pack(
        "<BBBBIB3sHBHH4sB",
        0xE9,
        len(segments),
        2,
        0x2F,
        0x40080000,
        0xEE,
        b"\0" * 3,
        chip,
        0,
        0,
        0xFFFF,
        b"\0" * 4,
        hashed,
    )
    checksum = 0xEF
    for segment in segments:
        data += struct.pack("<II", 0x3F400020, len(segment)) + segment
        for byte in segment:
            checksum ^= byte
    data += b"\0" * (15 - len(data) % 16) + bytes([checksum])
    return data + hashlib.sha256(data).digest() if hashed else data
