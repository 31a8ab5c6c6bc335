"""libopus itself, the one inside PyAV's wheel, called without libav in between.

libav decodes Opus to 48 kHz only and needs a resampler behind it. libopus decodes straight to the rate that is wanted,
which costs less than half. Measured for packets of 60 ms at 16 kHz mono: 24 us and 18 KB a stream against 64 us and
220 KB, and nothing lags behind in a resampler. libav encodes to the same packets, byte for byte, but asks for the
interpreter several times a frame, each time for up to a switch interval; libopus itself asks once.
"""

import ctypes
import ctypes.util
import logging
from typing import Final

import numpy as np

from xiaozhi.audio.libav import loaded_library
from xiaozhi.audio.pcm import PcmFloat, PcmInt

_log = logging.getLogger(__name__)
_LONGEST_S: Final = 0.12  # what a packet may hold (RFC 6716)
_MAX_ENCODED_BYTES: Final = 6 * 1275  # 120 ms as six frames of 20 ms, each at its most (RFC 6716)
# Of opus_defines.h.
_APPLICATIONS: Final = {"voip": 2048, "audio": 2049}
_SET_BITRATE, _SET_VBR, _SET_COMPLEXITY, _SET_VBR_CONSTRAINT = 4002, 4006, 4010, 4020
RATES_HZ: Final = frozenset({8_000, 12_000, 16_000, 24_000, 48_000})
"""What libopus decodes to."""


def _load() -> ctypes.CDLL | None:
    """PyAV's libopus, else the system's; None where there is neither."""
    path = loaded_library("libopus") or ctypes.util.find_library("opus")
    if path is None:
        _log.debug("libopus was not found: libav decodes")
        return None
    try:
        library = ctypes.CDLL(path)
        library.opus_decoder_get_size.argtypes = [ctypes.c_int]
        library.opus_decoder_init.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int]
        library.opus_decode_float.argtypes = [
            ctypes.c_void_p,  # the state
            ctypes.c_char_p,
            ctypes.c_int32,  # bytes in the packet
            ctypes.c_void_p,  # float32[n]
            ctypes.c_int,  # n
            ctypes.c_int,  # 0: no repair of a packet that was lost
        ]
        library.opus_encoder_get_size.argtypes = [ctypes.c_int]
        library.opus_encoder_init.argtypes = [ctypes.c_void_p, ctypes.c_int32, ctypes.c_int, ctypes.c_int]
        library.opus_encoder_ctl.argtypes = [
            ctypes.c_void_p,
            ctypes.c_int,
        ]  # variadic: and a value
        library.opus_encode.argtypes = [
            ctypes.c_void_p,  # the state
            ctypes.c_void_p,  # int16[n]
            ctypes.c_int,  # n
            ctypes.c_void_p,  # uint8[most]
            ctypes.c_int32,  # most
        ]
        library.opus_strerror.argtypes, library.opus_strerror.restype = [ctypes.c_int], ctypes.c_char_p
    except (OSError, AttributeError) as error:
        _log.debug("libopus cannot be called, libav decodes: %s", error)
        return None
    return library


_library: Final = _load()


def available() -> bool:
    """Whether libopus can be called here."""
    return _library is not None


class LibopusError(Exception):
    """What libopus says of a packet; one line."""


class LibopusDecoder:
    """One stream, to float32[n] mono at `rate_hz`, which must be one of `RATES_HZ`.

    Raises:
        RuntimeError: libopus is not here (`available`) or refuses the rate.
    """

    __slots__ = ("_longest_samples", "_state")

    def __init__(self, rate_hz: int) -> None:
        if _library is None:
            raise RuntimeError("libopus was not found")
        self._longest_samples = round(rate_hz * _LONGEST_S)
        # libopus keeps everything of a stream in memory that it is handed, so there is nothing to destroy.
        self._state = np.zeros(_library.opus_decoder_get_size(1), np.uint8)
        failed = _library.opus_decoder_init(self._state.ctypes.data, rate_hz, 1)
        if failed:
            raise RuntimeError(f"libopus refuses {rate_hz} Hz: {_words(failed)}")

    def decode(self, packet: bytes) -> PcmFloat:
        """Decode one packet, which must not be empty. Releases the GIL; one call at a time.

        Raises:
            LibopusError: it is not Opus.
        """
        if _library is None:
            raise RuntimeError("libopus was not found")
        pcm = np.empty(self._longest_samples, np.float32)
        count = _library.opus_decode_float(
            self._state.ctypes.data, packet, len(packet), pcm.ctypes.data, self._longest_samples, 0
        )
        if count < 0:
            raise LibopusError(_words(count))
        return pcm[:count].copy()

    def conceal(self, samples: int) -> PcmFloat:
        """What may have been in a packet that was lost: float32[samples], a multiple of 2.5 ms. As `decode`."""
        if _library is None:
            raise RuntimeError("libopus was not found")
        pcm = np.zeros(samples, np.float32)
        count = _library.opus_decode_float(self._state.ctypes.data, None, 0, pcm.ctypes.data, samples, 0)
        if count < 0:
            raise LibopusError(_words(count))
        return pcm


class LibopusEncoder:
    """One stream of int16[n] mono, to packets of one length; variable bit rate, as libav sets it.

    Args:
        rate_hz: one of `RATES_HZ`.
        frame_samples: in one packet.
        bitrate_bps: aimed at.
        complexity: 0 to 10.
        application: `audio` or `voip`.

    Raises:
        RuntimeError: libopus is not here (`available`) or refuses one of these.
    """

    __slots__ = ("_frame_samples", "_state")

    def __init__(self, rate_hz: int, frame_samples: int, bitrate_bps: int, complexity: int, application: str) -> None:
        if _library is None:
            raise RuntimeError("libopus was not found")
        self._frame_samples = frame_samples
        self._state = np.zeros(_library.opus_encoder_get_size(1), np.uint8)
        state = self._state.ctypes.data
        failed = _library.opus_encoder_init(state, rate_hz, 1, _APPLICATIONS[application])
        wanted = {_SET_BITRATE: bitrate_bps, _SET_COMPLEXITY: complexity, _SET_VBR: 1, _SET_VBR_CONSTRAINT: 0}
        for request, value in wanted.items():
            failed = failed or _library.opus_encoder_ctl(state, request, ctypes.c_int32(value))
        if failed:
            raise RuntimeError(f"libopus cannot encode at {rate_hz} Hz: {_words(failed)}")

    def encode(self, pcm: PcmInt) -> list[bytes]:
        """Encode whole frames, one packet each. Releases the GIL once a frame; one call at a time."""
        if _library is None:
            raise RuntimeError("libopus was not found")
        pcm = np.ascontiguousarray(pcm, np.int16)
        out = np.empty(_MAX_ENCODED_BYTES, np.uint8)
        encode, state, into, size = _library.opus_encode, self._state.ctypes.data, out.ctypes.data, self._frame_samples
        start, packets = pcm.ctypes.data, []
        for at in range(start, start + pcm.nbytes, size * pcm.itemsize):
            count = encode(state, at, size, into, _MAX_ENCODED_BYTES)
            if count < 0:
                raise RuntimeError(f"libopus cannot encode {size} samples: {_words(count)}")
            packets.append(out[:count].tobytes())
        return packets


def _words(error: int) -> str:
    return "unknown" if _library is None else str(_library.opus_strerror(error).decode("ascii", "replace"))
