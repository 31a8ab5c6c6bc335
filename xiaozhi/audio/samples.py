"""Bare samples of any usual kind, cut anywhere, to int16 at 24 kHz."""

from functools import cache
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from xiaozhi.audio.errors import DecodeError
from xiaozhi.audio.libav import av
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmFloat, PcmInt
from xiaozhi.audio.resample import StreamResampler

SampleKind: TypeAlias = Literal["u8", "s16le", "s16be", "s24le", "s32le", "f32le", "f64le", "mulaw", "alaw"]

_WIDTH: Final[dict[SampleKind, int]] = {
    "u8": 1, "s16le": 2, "s16be": 2, "s24le": 3, "s32le": 4, "f32le": 4, "f64le": 8, "mulaw": 1, "alaw": 1,
}  # fmt: skip
# What is compressed or encrypted looks like white noise near full scale. Of 5,900 pieces of recorded speech, cut
# anywhere and up to full scale, none is both so loud and so unlike itself a sample later; MP3, AAC and Opus all are.
_NOISE_RMS: Final = 0.4
_NOISE_LIKENESS: Final = 0.15
# Voiced sound that is read as what it is is alike; read as something else it is not, and neither is a hiss.
_ALIKE: Final = 0.8
_UNLIKE: Final = 0.5
_QUIET: Final = 0.01  # -20 dBFS
_JUDGED: Final = 1024
_JUDGED_BYTES: Final = 24_000
_EMPTY: Final[PcmInt] = np.empty(0, np.int16)


class SampleDecoder:
    """Decodes one stream of samples.

    Args:
        kind: of the samples.
        rate_hz: how many there are a second.
        channels: that take turns; they are mixed.
    """

    def __init__(self, kind: SampleKind, rate_hz: int, channels: int = 1) -> None:
        if not 1 <= channels <= 32 or not 1000 <= rate_hz <= 768_000:
            raise DecodeError(f"sound with {channels} channels at {rate_hz} Hz")
        self._kind = kind
        self._channels = channels
        self._block = _WIDTH[kind] * channels
        self._resampler = StreamResampler(rate_hz)
        self._rest = b""  # less than one sample of each channel

    def feed(self, data: bytes) -> PcmInt:
        """Decode the next bytes into int16[n] at 24 kHz."""
        data = self._rest + data
        whole = len(data) - len(data) % self._block
        self._rest = data[whole:]
        if not whole:
            return _EMPTY
        if self._kind == "s16le" and self._channels == 1:
            return self._resampler.feed(np.frombuffer(data[:whole], "<i2").astype(np.int16, copy=False))
        values = as_float(data[:whole], self._kind).reshape(-1, self._channels)
        mixed: PcmFloat = values.mean(axis=1, dtype=np.float32)
        return self._resampler.feed(mixed)

    def finish(self) -> PcmInt:
        """Return what was still inside; part of a sample is no sound."""
        return self._resampler.flush()


class UnknownSamples:
    """Samples of which little is known: of the kind that is most likely, or of the one that they turn out to be.

    Args:
        rate_hz: how many there are a second.
        channels: that take turns.
        telephone: they are said to be a telephone's, at this rate. Azure says so of s16le, too (`audio/basic`).
    """

    def __init__(
        self,
        rate_hz: int = DOWNLINK_RATE_HZ,
        channels: int = 1,
        telephone: tuple[Literal["mulaw", "alaw"], int] | None = None,
    ) -> None:
        self._rate_hz = rate_hz
        self._channels = channels
        self._kind: SampleKind = "s16le" if telephone is None else telephone[0]
        self._decoder = SampleDecoder(self._kind, rate_hz if telephone is None else telephone[1], channels)
        self._held = b""  # too little yet to be judged
        self._judged_bytes = 0

    def feed(self, data: bytes) -> PcmInt:
        """Decode the next bytes into int16[n] at 24 kHz; the first half second is judged before it is passed on.

        Raises:
            DecodeError: they are noise in every kind.
        """
        data, self._held = self._held + data, b""
        if self._judged_bytes < _JUDGED_BYTES:
            block = 8 * self._channels  # holds whole samples of every kind
            whole = len(data) - len(data) % block
            if whole < 2 * _JUDGED * self._channels:
                self._held = data
                return _EMPTY
            data, self._held = data[:whole], data[whole:]
            self._judge(data)
        return self._decoder.feed(data)

    def finish(self) -> PcmInt:
        """Return what was still inside."""
        return np.concatenate([self._decoder.feed(self._held), self._decoder.finish()])

    def _judge(self, data: bytes) -> None:
        self._judged_bytes += len(data)
        power, likeness = _power(here := self._mono(data, self._kind)), _likeness(here)
        if power < _QUIET or likeness > _UNLIKE:
            return
        for kind in _POSSIBLE:
            if kind != self._kind and _likeness(self._mono(data, kind)) > _ALIKE:
                self._kind, self._decoder = kind, SampleDecoder(kind, self._rate_hz, self._channels)
                return
        if power > _NOISE_RMS**2 and abs(likeness) < _NOISE_LIKENESS:
            raise DecodeError("noise instead of samples")

    def _mono(self, data: bytes, kind: SampleKind) -> NDArray[np.float32]:
        return as_float(data, kind)[:: self._channels]


_POSSIBLE: Final[tuple[SampleKind, ...]] = ("s16le", "s16be", "f32le")


def _power(values: NDArray[np.float32]) -> float:
    with np.errstate(all="ignore"):
        return float(np.mean(np.square(values, dtype=np.float64)))


def _likeness(values: NDArray[np.float32]) -> float:
    """How much each sample is like the one before it: near 1 for what was recorded, near 0 for noise.

    Minus 1 for what are no samples: beyond full scale, or hardly heard.
    """
    power = _power(values)
    if not 1e-6 <= power < 2.0:
        return -1.0
    return float(np.mean(np.multiply(values[1:], values[:-1], dtype=np.float64))) / power


def as_float(data: bytes, kind: SampleKind) -> NDArray[np.float32]:
    """Samples of any kind as float32 between -1 and 1; what is no number is 0."""
    match kind:
        case "mulaw" | "alaw":
            return _table(kind)[np.frombuffer(data, np.uint8)]
        case "f32le" | "f64le":
            with np.errstate(all="ignore"):
                values = np.frombuffer(data, f"<f{_WIDTH[kind]}").astype(np.float32)
            return np.nan_to_num(values, copy=False, posinf=0.0, neginf=0.0)
        case "u8":  # the only unsigned one
            return (np.frombuffer(data, np.uint8).astype(np.float32) - 128.0) / np.float32(128.0)
        case "s24le":
            wide = np.zeros((len(data) // 3, 4), np.uint8)
            wide[:, 1:] = np.frombuffer(data, np.uint8).reshape(-1, 3)
            return np.frombuffer(wide.tobytes(), "<i4").astype(np.float32) * np.float32(2.0**-31)
        case _:
            order, width = ">" if kind == "s16be" else "<", _WIDTH[kind]
            scale = np.float32(2.0 ** (1 - 8 * width))
            return np.frombuffer(data, f"{order}i{width}").astype(np.float32) * scale


@cache
def _table(kind: Literal["mulaw", "alaw"]) -> NDArray[np.float32]:
    """The 256 values of a telephone's sample (ITU-T G.711)."""
    codec = av.CodecContext.create(f"pcm_{kind}", "r")
    assert isinstance(codec, av.AudioCodecContext)
    codec.sample_rate, codec.layout = 8000, "mono"
    (frame,) = codec.decode(av.Packet(bytes(range(256))))
    table: NDArray[np.float32] = frame.to_ndarray()[0].astype(np.float32) / np.float32(32768.0)
    return table
