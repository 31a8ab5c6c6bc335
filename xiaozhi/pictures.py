"""Pictures from devices: what they are, whether they can be decoded, and making them small. Blocking; for workers."""

import base64
import struct
from dataclasses import dataclass
from fractions import Fraction
from typing import Final

import av
from av.video.frame import VideoFrame

_PNG: Final = b"\x89PNG\r\n\x1a\n"
_JPEG: Final = b"\xff\xd8\xff"
_JPEG_END: Final = b"\xff\xd9"
_TAIL_BYTES: Final = 4096  # cameras pad the end
# Start of frame of the JPEGs that decoders know: baseline, extended, progressive, and their kin.
_FRAMES: Final = frozenset({0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF})
_BARE: Final = frozenset({0x01, *range(0xD0, 0xD9)})  # markers without a length
# Of the encoder, 2 best to 31 worst: about what cameras call quality 85.
_QUALITY: Final = "4"
_SMALLEST: Final = 8


class PictureError(Exception):
    """It is no picture, or none that can be used; `key` names which, for `xiaozhi.transport.vision`.

    Args:
        key: `kind`, `pixels` or `damaged`.
    """

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


@dataclass(frozen=True, slots=True)
class Kind:
    """What the first bytes say: `codec` is `mjpeg` or `png`; width and height in pixels."""

    codec: str
    width: int
    height: int


def kind_of(data: bytes) -> Kind:
    """What a file is by its first bytes, without decoding it.

    Raises:
        PictureError: neither JPEG nor PNG, or it breaks off before it has said its size.
    """
    if data.startswith(_PNG):
        if len(data) < 24 or data[12:16] != b"IHDR":
            raise PictureError("damaged")
        return Kind("png", *struct.unpack(">II", data[16:24]))
    if data.startswith(_JPEG):
        return _jpeg(data)
    raise PictureError("kind")


def _jpeg(data: bytes) -> Kind:
    at = 2
    while at + 9 <= len(data):
        if data[at] != 0xFF:
            break
        marker = data[at + 1]
        if marker == 0xFF:  # padding
            at += 1
        elif marker in _BARE:
            at += 2
        elif marker in _FRAMES:
            height, width = struct.unpack(">HH", data[at + 5 : at + 9])
            return Kind("mjpeg", width, height)
        else:
            at += 2 + max(2, struct.unpack(">H", data[at + 2 : at + 4])[0])
    raise PictureError("damaged")


def prepared(data: bytes, side: int, max_pixels: int) -> str:
    """A picture as a `data:` URL with a JPEG of bounded size, without what cameras write beside it (place, owner).

    Args:
        data: a JPEG or PNG file.
        side: the longer side is at most so many pixels afterwards.
        max_pixels: more are refused before anything is decoded.

    Raises:
        PictureError: it cannot be used.
    """
    kind = kind_of(data)
    if kind.width * kind.height > max_pixels or min(kind.width, kind.height) < _SMALLEST:
        raise PictureError("pixels")
    if kind.codec == "mjpeg" and _JPEG_END not in data[-_TAIL_BYTES:]:
        raise PictureError("damaged")  # the upload broke off: decoders would show the rest as grey
    try:
        frame = _decoded(data, kind)
        encoded = _encoded(frame, side)
    except (av.FFmpegError, ValueError) as error:
        raise PictureError("damaged") from error
    return "data:image/jpeg;base64," + base64.b64encode(encoded).decode()


def _decoded(data: bytes, kind: Kind) -> VideoFrame:
    decoder = av.CodecContext.create(kind.codec, "r")
    assert isinstance(decoder, av.VideoCodecContext)
    for frame in [*decoder.decode(av.Packet(data)), *decoder.decode(None)]:
        if isinstance(frame, VideoFrame):
            if (frame.width, frame.height) != (kind.width, kind.height):
                raise PictureError("damaged")  # a second size behind the first one
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
