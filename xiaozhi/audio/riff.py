"""WAV arriving in pieces: the header as it comes, then samples of any usual kind to int16 at 24 kHz."""

import struct
from typing import Final

import numpy as np
from numpy.typing import NDArray

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.pcm import PcmFloat, PcmInt
from xiaozhi.audio.resample import StreamResampler

_PCM: Final = 1
_FLOAT: Final = 3
_EXTENSIBLE: Final = 0xFFFE
_MAX_HEADER_BYTES: Final = 65_536
# A server that streams does not know the length: it writes 0, or the largest number it can.
_UNKNOWN_LENGTH: Final = 0x7FFFFF00
_EMPTY: Final[PcmInt] = np.empty(0, np.int16)


class WavStreamDecoder:
    """Decodes one RIFF/WAVE stream of 8 to 32-bit integer or 32 or 64-bit float samples, any rate and channel count."""

    def __init__(self) -> None:
        self._buffer = b""
        self._format: tuple[int, int, int] | None = None  # kind, channels, bytes a sample
        self._resampler: StreamResampler | None = None
        self._left: int | None = None  # bytes of sound still to come; None while the header is read

    def feed(self, data: bytes) -> PcmInt:
        """Decode the next bytes into int16[n] at 24 kHz.

        Raises:
            DecodeError: not a WAV header, or a kind of samples that is not supported.
        """
        self._buffer += data
        if self._left is None and not self._header():
            return _EMPTY
        return self._samples()

    def finish(self) -> PcmInt:
        """Return what was still inside; a stream that ends early ends quietly."""
        return self._resampler.flush() if self._resampler is not None else _EMPTY

    def _header(self) -> bool:
        """Read up to the samples; False while more bytes are needed."""
        if len(self._buffer) >= 12 and (self._buffer[:4] != b"RIFF" or self._buffer[8:12] != b"WAVE"):
            raise DecodeError("not a WAV header")
        at = 12
        while len(self._buffer) >= at + 8:
            name, size = struct.unpack_from("<4sI", self._buffer, at)
            at += 8
            if name == b"data":
                if self._format is None:
                    raise DecodeError("WAV without a format")
                self._left = size if 0 < size < _UNKNOWN_LENGTH else 1 << 62
                self._buffer = self._buffer[at:]
                return True
            if size > _MAX_HEADER_BYTES:
                raise DecodeError("WAV header too long")
            if len(self._buffer) < at + size:
                return False
            if name == b"fmt ":
                self._read_format(self._buffer[at : at + size])
            at += size + size % 2
        if len(self._buffer) > _MAX_HEADER_BYTES:
            raise DecodeError("WAV header too long")
        return False

    def _read_format(self, chunk: bytes) -> None:
        if len(chunk) < 16:
            raise DecodeError("WAV format too short")
        kind, channels, rate_hz, _, _, bits = struct.unpack_from("<HHIIHH", chunk)
        if kind == _EXTENSIBLE and len(chunk) >= 26:
            (kind,) = struct.unpack_from("<H", chunk, 24)
        if (kind, bits) not in {(_PCM, 8), (_PCM, 16), (_PCM, 24), (_PCM, 32), (_FLOAT, 32), (_FLOAT, 64)}:
            raise DecodeError(f"WAV samples of kind {kind} with {bits} bits are not supported")
        if not 1 <= channels <= 32 or not 1000 <= rate_hz <= 768_000:
            raise DecodeError(f"WAV with {channels} channels at {rate_hz} Hz")
        self._format = (kind, channels, bits // 8)
        self._resampler = StreamResampler(rate_hz)

    def _samples(self) -> PcmInt:
        assert self._format is not None and self._resampler is not None and self._left is not None
        kind, channels, width = self._format
        size = min(len(self._buffer), self._left)
        size -= size % (width * channels)
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        self._left -= size
        if self._left < width * channels:
            self._buffer = b""  # what follows the sound (tags) is of no interest
        if not data:
            return _EMPTY
        if kind == _PCM and width == 2 and channels == 1:
            return self._resampler.feed(np.frombuffer(data, "<i2").astype(np.int16, copy=False))
        mixed: PcmFloat = _as_float(data, kind, width).reshape(-1, channels).mean(axis=1, dtype=np.float32)
        return self._resampler.feed(mixed)


def _as_float(data: bytes, kind: int, width: int) -> NDArray[np.float32]:
    if kind == _FLOAT:
        values = np.frombuffer(data, f"<f{width}").astype(np.float32)
        return np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
    if width == 1:  # the only unsigned one
        return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / np.float32(128.0)
    if width == 3:
        wide = np.zeros((len(data) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
        data, width = wide.tobytes(), 4
    scale = np.float32(1.0 / (1 << (8 * width - 1)))
    return np.frombuffer(data, f"<i{width}").astype(np.float32) * scale
