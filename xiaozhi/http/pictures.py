"""Pictures from devices: what they are, whether they can be decoded, and making them small. Blocking; for workers.

Only JPEG and PNG are taken: what cameras of devices and screenshots of desktop clients are. A file of either kind can
cost a decoder minutes or gigabytes (a hundred thousand scans over one picture, texts and pixels that unpack without
end), so the decoder never gets the file. It gets a copy with what makes up the picture and nothing else, of which
everything that costs time or memory has been counted before.
"""

import base64
import re
import struct
import zlib
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

from av.video.frame import VideoFrame

from xiaozhi.audio.libav import av

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_MAX_PARTS: Final = 4096
"""Segments of a JPEG, chunks of a PNG. Writers make chunks of 8 kB and more; the size of an upload is bounded, too."""

# Markers of ITU-T T.81, table B.1.
_MARKER: Final = re.compile(rb"\xff[\x01\xc0-\xfe]")
_AFTER_SCAN: Final = re.compile(rb"\xff[\x01-\xcf\xd8-\xfe]")  # neither a stuffed byte nor a restart
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # without a length
_END, _SCAN, _TABLES, _ADOBE = 0xD9, 0xDA, frozenset({0xC4, 0xDB, 0xDD}), 0xEE
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2})  # baseline, extended, progressive: what cameras and programs write
_BOUNDED: Final = frozenset({*range(0xC0, 0xD0), _SCAN, *_TABLES})  # frames and tables of every kind, scans
_MAX_SCANS: Final = 64
"""Encoders write 1 to 20. Each is a walk over the whole picture: 64 of 16 million pixels take 1.5 s."""
_ADOBE_BYTES: Final = 64  # it has 14
_MAX_TABLES: Final = 256  # a set for each scan, as progressive encoders write them

# Bits of a pixel by the colour type of a PNG, for a depth of one bit (PNG 1.2, section 4.1.1).
_SAMPLES: Final = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_KEPT_CHUNKS: Final = frozenset({b"IHDR", b"PLTE", b"tRNS"})
_UNPACK_BYTES: Final = 1 << 20

# Of the encoder, 2 best to 31 worst: about what cameras call quality 85.
_QUALITY: Final = "4"
_SMALLEST: Final = 8


class PictureError(Exception):
    """It is no picture, or none that can be used; `key` names which, for `xiaozhi.http.vision`.

    Args:
        key: `kind`, `pixels` or `damaged`.
    """

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture that may be decoded, by `codec` (`mjpeg` or `png`) from `data`; width and height in pixels."""

    codec: str
    width: int
    height: int
    data: bytes


def picture_in(data: bytes, max_pixels: int) -> Picture:
    """What a file is by its own words, and what of it a decoder needs; nothing is decoded.

    Args:
        data: the file.
        max_pixels: width by height, at most.

    Raises:
        PictureError: neither JPEG nor PNG, of no usable size, not whole, or made of more parts than pictures have.
    """
    try:
        if data.startswith(_PNG):
            return _png(data, max_pixels)
        if data.startswith(_JPEG):
            return _jpeg(data, max_pixels)
    except (IndexError, struct.error, zlib.error):
        raise PictureError("damaged") from None
    raise PictureError("kind")


def _jpeg(data: bytes, max_pixels: int) -> Picture:
    kept = [data[:2]]
    at = 2
    size: tuple[int, int] | None = None
    scans = tables = 0
    for _ in range(_MAX_PARTS):
        marker = _MARKER.search(data, at)
        if marker is None:
            break  # not whole: decoders would show the rest as grey
        start, kind = marker.start(), data[marker.start() + 1]
        at = start + 2
        if kind == _END:
            if size is None or not scans:
                break
            return Picture("mjpeg", *size, b"".join([*kept, data[start : start + 2]]))
        if kind in _BARE:
            continue
        (length,) = struct.unpack_from(">H", data, at)
        at += max(2, length)
        if kind in _FRAMES and size is None:
            height, width = struct.unpack_from(">HH", data, start + 5)
            size = width, height
            _check_size(width, height, max_pixels)
        elif kind == _SCAN and size is not None and scans < _MAX_SCANS:
            scans += 1
            after = _AFTER_SCAN.search(data, at)
            at = after.start() if after is not None else len(data)
        elif kind in _TABLES and tables < _MAX_TABLES:
            tables += 1
        elif kind in _BOUNDED:
            break
        elif kind != _ADOBE or length > _ADOBE_BYTES:  # that one says what the colours mean
            continue
        kept.append(data[start:at])
    raise PictureError("damaged")


def _png(data: bytes, max_pixels: int) -> Picture:
    kept = [_PNG]
    pixels: list[bytes] = []
    at = len(_PNG)
    width, height, depth, colours = struct.unpack_from(">IIBB", data, at + 8)
    _check_size(width, height, max_pixels)
    # A row begins with a byte; an interlaced picture has two rows for each, and each may end within a byte.
    most = height * (-(-width * depth * _SAMPLES.get(colours, 0) // 8) + 4)
    for number in range(_MAX_PARTS):
        length, kind = struct.unpack_from(">I4s", data, at)
        end = at + 12 + length
        if end > len(data) or (kind == b"IHDR") != (number == 0):
            break
        if kind == b"IEND":
            packed = b"".join(pixels)
            _unpack(packed, most)
            return Picture("png", width, height, b"".join([*kept, _chunk(b"IDAT", packed), data[at:end]]))
        if kind == b"IDAT":
            pixels.append(data[at + 8 : at + 8 + length])
        elif kind in _KEPT_CHUNKS:
            kept.append(data[at:end])
        at = end
    raise PictureError("damaged")


def _check_size(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels or min(width, height) < _SMALLEST:
        raise PictureError("pixels")


def _unpack(packed: bytes, most: int) -> None:
    """See that no more than `most` bytes are in it; they are thrown away, piece by piece."""
    unpacker = zlib.decompressobj()
    size = 0
    while packed and not unpacker.eof:
        size += len(unpacker.decompress(packed, _UNPACK_BYTES))
        packed = unpacker.unconsumed_tail
        if size > most:
            raise PictureError("damaged")


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def prepared(data: bytes, side: int, max_pixels: int) -> str:
    """A picture as a `data:` URL with a JPEG of bounded size, without what cameras write beside it (place, owner).

    Args:
        data: a JPEG or PNG file.
        side: the longer side is at most so many pixels afterwards.
        max_pixels: more are refused before anything is decoded.

    Raises:
        PictureError: it cannot be used.
    """
    picture = picture_in(data, max_pixels)
    try:
        frame = _decoded(picture)
        encoded = _encoded(frame, side)
    except (av.FFmpegError, ValueError) as error:
        raise PictureError("damaged") from error
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode()


def _decoded(picture: Picture) -> VideoFrame:
    decoder = av.CodecContext.create(picture.codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    for frame in [*decoder.decode(av.Packet(picture.data)), *decoder.decode(None)]:
        if isinstance(frame, VideoFrame):
            if (frame.width, frame.height) != (picture.width, picture.height):
                raise PictureError("damaged")
            return frame
    raise PictureError("damaged")


def _encoded(frame: VideoFrame, side: int) -> bytes:
    scale = min(1.0, side / max(frame.width, frame.height))
    width, height = (max(_SMALLEST, int(length * scale) // 2 * 2) for length in (frame.width, frame.height))
    small = frame.reformat(width=width, height=height, format="yuvj420p")
    small.pts = 0
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.width, encoder.height, encoder.pix_fmt = width, height, "yuvj420p"
    encoder.time_base = Fraction(1, 25)
    encoder.options = {"qmin": _QUALITY, "qmax": _QUALITY}
    packets = [*encoder.encode(small), *encoder.encode(None)]
    return b"".join(bytes(packet) for packet in packets)
