"""Pictures for tests, made by the codecs themselves."""

import struct
import zlib
from fractions import Fraction

import av
import numpy as np


def picture(
    width: int = 640,
    height: int = 480,
    codec: str = "mjpeg",
    *,
    noise: bool = False,
    pixels_as: str = "",
    flags: str = "",
) -> bytes:
    """A JPEG (`mjpeg`) or `png` file with a grey wedge, or with noise that does not compress."""
    if noise:
        pixels = np.random.default_rng(3).integers(0, 255, (height, width, 3), dtype=np.uint8)
    else:
        wedge = np.linspace(0, 255, width, dtype=np.uint8)
        pixels = np.repeat(np.repeat(wedge[None, :, None], height, axis=0), 3, axis=2)
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
    encoder = av.CodecContext.create(codec, "w")
    assert isinstance(encoder, av.VideoCodecContext)
    encoder.width, encoder.height = width, height
    encoder.pix_fmt = pixels_as or ("yuvj420p" if codec == "mjpeg" else "rgb24")
    encoder.options = {"flags": flags} if flags else {}
    encoder.time_base = Fraction(1, 25)
    ready = frame.reformat(format=encoder.pix_fmt)
    ready.pts = 0
    return b"".join(bytes(packet) for packet in [*encoder.encode(ready), *encoder.encode(None)])


def segment(marker: int, content: bytes) -> bytes:
    """A part of a JPEG that has a length."""
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


TABLES = segment(0xC4, b"\x00\x01" + bytes(16)) + segment(0xC4, b"\x10\x01" + bytes(15) + b"\xe0")
"""Huffman tables of one code each: a difference of nothing; "the next 2**14 blocks end here"."""


def progressive(width: int, height: int, scans: int, *, tables: int = 1) -> bytes:
    """A grey progressive JPEG whose scans say of some bytes each that nothing changes anywhere."""
    blocks = -(-width // 8) * -(-height // 8)
    bits = ("0" + "1" * 14) * -(-blocks // 32_767)
    bits += "1" * (-len(bits) % 8)
    data = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\x00")
    frame = segment(0xC2, struct.pack(">BHHB", 8, height, width, 1) + b"\x01\x11\x00")
    head = b"\xff\xd8" + segment(0xDB, b"\0" + b"\x10" * 64) + frame + TABLES * tables
    return head + (segment(0xDA, b"\x01\x01\x00\x01\x3f\x00") + data) * scans + b"\xff\xd9"


def unpacking(kind: bytes, megabytes: int) -> bytes:
    """A PNG of a few pixels with a chunk that unpacks to so much: `IDAT` or `zTXt`."""
    packer = zlib.compressobj(9)
    packed = b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(megabytes)), packer.flush()])
    head = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 64, 64, 8, 2, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(bytes(64 * (1 + 3 * 64))))
    bomb = chunk(kind, packed if kind == b"IDAT" else b"words\0\0" + packed)
    return head + (bomb if kind == b"IDAT" else bomb + pixels) + chunk(b"IEND", b"")
