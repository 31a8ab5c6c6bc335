"""PCM types and the two sample rates of the house.

Uplink audio is float32 mono at 16 kHz in [-1, 1] (what Silero and every recogniser take); downlink audio is int16 mono
at the rate told to the device in the server's hello (24 kHz by default: 137 of 148 published boards have a 24 kHz DAC).
"""

from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

UPLINK_RATE_HZ: Final = 16_000
DOWNLINK_RATE_HZ: Final = 24_000

PcmFloat: TypeAlias = NDArray[np.float32]
"""Mono samples in [-1, 1], shape [n]."""
PcmInt: TypeAlias = NDArray[np.int16]
"""Mono samples, shape [n]."""


def to_float(pcm: PcmInt) -> PcmFloat:
    """Scale int16[n] to float32[n] in [-1, 1)."""
    return pcm.astype(np.float32) / np.float32(32768.0)


def to_int16(pcm: PcmFloat) -> PcmInt:
    """Scale float32[n] to int16[n]; values outside [-1, 1] are clipped."""
    scaled: PcmFloat = np.clip(np.rint(pcm * np.float32(32768.0)), -32768, 32767)
    return scaled.astype(np.int16)


def duration_ms(samples: int, rate_hz: int) -> float:
    """Length in milliseconds of `samples` samples at `rate_hz`."""
    return samples * 1000.0 / rate_hz
