"""WAV arriving in pieces: files one after the other, with lengths that are right, wrong, or not known yet.

Servers that stream do not know the length when they write the header: it is 0, the largest number there is, or that of
the first piece. So a length is believed only where something follows that can stand behind the sound: another chunk,
another file, or nothing.
"""

import re
import struct
from typing import Final

import numpy as np

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.audio.samples import SampleDecoder, SampleKind

FILE_MARKS: Final = (b"RIFF", b"RF64", b"BW64")
"""What a file begins with."""
_KINDS: Final[dict[tuple[int, int], SampleKind]] = {
    (1, 8): "u8", (1, 16): "s16le", (1, 24): "s24le", (1, 32): "s32le",
    (3, 32): "f32le", (3, 64): "f64le", (6, 8): "alaw", (7, 8): "mulaw",
}  # fmt: skip
_EXTENSIBLE: Final = 0xFFFE
_FORMAT_BYTES: Final = 16
_HEADER: Final = re.compile(rb"(?:RIFF|RF64|BW64).{4}WAVE", re.DOTALL)
_HEADER_BYTES: Final = 12
# The beginning of a header that is not there to its end yet.
_BEGUN: Final = re.compile(rb"(?:R(?:I(?:F(?:F.{0,7})?)?|F(?:6(?:4.{0,7})?)?)?|B(?:W(?:6(?:4.{0,7})?)?)?)\Z", re.DOTALL)
_CHUNK: Final = re.compile(rb"[A-Za-z][A-Za-z0-9 _-]{3}")
# No chunk beside the sound is longer; covers and the like are passed over as they come.
_MAX_CHUNK_BYTES: Final = 16 * 1024 * 1024
_MAX_FORMAT_BYTES: Final = 4096
_EMPTY: Final[PcmInt] = np.empty(0, np.int16)


class WavStreamDecoder:
    """Decodes WAV files of 8 to 32-bit integer, 32 or 64-bit float, mu-law or A-law samples, any rate and channels."""

    def __init__(self) -> None:
        self._buffer = b""
        self._kind: tuple[SampleKind, int, int] | None = None  # of the file that is read: kind, rate, channels
        self._samples: SampleDecoder | None = None  # while its sound is read
        self._left = 0  # bytes of the sound, or of a chunk that is passed over
        self._heard = False  # the sound of this file has come: tags may follow, or another file
        self._pieces: list[PcmInt] = []

    def feed(self, data: bytes) -> PcmInt:
        """Decode the next bytes into int16[n] at 24 kHz.

        Raises:
            DecodeError: not a WAV header, or a kind of samples that is not supported.
        """
        self._buffer += data
        while self._sound() if self._samples is not None else self._chunk():
            pass
        return self._taken()

    def finish(self) -> PcmInt:
        """Return what was still inside; a stream that ends early ends quietly."""
        if self._samples is not None:
            self._pieces += [self._samples.feed(self._buffer), self._samples.finish()]
            self._samples = None
        return self._taken()

    def _taken(self) -> PcmInt:
        pieces, self._pieces = self._pieces, []
        return np.concatenate(pieces) if pieces else _EMPTY

    # The sound ----------------------------------------------------------------------------------------------------

    def _sound(self) -> bool:
        """Take the sound that is there; whether anything is left to do."""
        assert self._samples is not None
        ends = len(self._buffer)
        if (found := _HEADER.search(self._buffer)) is not None:  # wherever the length says it ends
            ends = found.start()
        elif (begun := _BEGUN.search(self._buffer, max(0, ends - _HEADER_BYTES + 1))) is not None:
            ends = begun.start()
        take = min(ends, self._left)
        self._pieces.append(self._samples.feed(self._buffer[:take]))
        self._buffer = self._buffer[take:]
        self._left -= take
        if found is not None and take == ends:
            self._end_sound()
            return True
        if self._left:
            return False
        return self._after()

    def _after(self) -> bool:
        """The length of the sound has come; whether it is known what follows."""
        if len(self._buffer) < 8:
            return False
        head = self._buffer[1:] if self._buffer[:1] == b"\0" and _CHUNK.match(self._buffer, 1) else self._buffer
        size = int.from_bytes(head[4:8], "little")
        if head.startswith(FILE_MARKS) or (_CHUNK.match(head) and size <= _MAX_CHUNK_BYTES):
            self._buffer = head
            self._end_sound()
        else:
            self._left = 1 << 62  # the length was wrong: this is sound as well
        return True

    def _end_sound(self) -> None:
        assert self._samples is not None
        self._pieces.append(self._samples.finish())
        self._samples = None
        self._left = 0

    # What is around it --------------------------------------------------------------------------------------------

    def _chunk(self) -> bool:
        """Read the head of a file or of a chunk, or pass over what is in one; whether anything is left to do."""
        passed = min(self._left, len(self._buffer))
        self._buffer, self._left = self._buffer[passed:], self._left - passed
        if self._left or len(self._buffer) < 8:
            return False
        name, size = struct.unpack_from("<4sI", self._buffer)
        if name in FILE_MARKS:
            if len(self._buffer) < _HEADER_BYTES:
                return False
            if self._buffer[8:_HEADER_BYTES] != b"WAVE":
                raise DecodeError("not a WAV header")
            self._buffer, self._kind, self._heard = self._buffer[_HEADER_BYTES:], None, False
        elif name == b"data":
            if self._kind is None:
                raise DecodeError("WAV without a format")
            self._buffer, self._left = self._buffer[8:], size
            self._samples, self._heard = SampleDecoder(*self._kind), True
        elif name == b"fmt ":
            if not _FORMAT_BYTES <= size <= _MAX_FORMAT_BYTES:
                raise DecodeError("WAV format of a wrong length")
            if len(self._buffer) < 8 + size:
                return False
            self._kind = _format(self._buffer[8 : 8 + size])
            self._left = 8 + size + size % 2
        elif size <= _MAX_CHUNK_BYTES:
            self._buffer, self._left = self._buffer[8:], size + size % 2
        elif self._heard:
            self._buffer, self._left = b"", 1 << 62  # whatever follows the sound, it is none
        else:
            raise DecodeError("WAV header too long")
        return True


def _format(chunk: bytes) -> tuple[SampleKind, int, int]:
    kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
    if kind == _EXTENSIBLE and len(chunk) >= 26:
        (kind,) = struct.unpack_from("<H", chunk, 24)
    samples = _KINDS.get((kind, bits or 8 if kind in (6, 7) else bits))
    if samples is None:
        raise DecodeError(f"WAV samples of kind {kind} with {bits} bits are not supported")
    return samples, rate_hz, channels
