"""Judging sound in tests."""

from collections.abc import AsyncGenerator

import numpy as np
from numpy.typing import NDArray

from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt


def sine(hz: float, seconds: float, rate_hz: int = DOWNLINK_RATE_HZ) -> PcmInt:
    """A tone at a third of full scale."""
    wave: PcmInt = (10_000 * np.sin(2 * np.pi * hz / rate_hz * np.arange(int(seconds * rate_hz)))).astype(np.int16)
    return wave


def loudest_hz(pcm: NDArray[np.int16] | NDArray[np.float32], rate_hz: int) -> float:
    """The strongest frequency."""
    spectrum = np.abs(np.fft.rfft(pcm.astype(np.float64)))
    return float(np.argmax(spectrum) * rate_hz / len(pcm))


def is_speech(pcm: PcmInt, rate_hz: int = DOWNLINK_RATE_HZ) -> bool:
    """Loud enough, and with its energy where a voice has it: most of it below 5 kHz, in many frequencies."""
    sound = pcm.astype(np.float64)
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    below_5_khz = spectrum[: 5000 * len(pcm) // rate_hz].sum() / spectrum.sum()
    return bool(np.sqrt(np.mean(sound**2)) > 300 and below_5_khz > 0.8 and spectrum.max() / spectrum.sum() < 0.2)


async def heard(pieces: AsyncGenerator[PcmInt, None]) -> PcmInt:
    """All of it."""
    collected = [piece async for piece in pieces]
    return np.concatenate(collected) if collected else np.empty(0, np.int16)
