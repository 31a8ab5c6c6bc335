"""Whether a microphone hears the device's own loudspeaker: the rhythm of the sound, band by band, tells.

An echo is what was played, coloured by loudspeaker and room, quieter and later; how each band of it rises and falls
stays. Somebody who speaks over it rises and falls otherwise. Blocking, a few milliseconds: for worker threads.

Measured with a song (a band and the voices of several people), 60 s at each level. Looked at every 120 ms, an echo that
is 20 dB below what is played has a likeness of at least 0.47 (median 0.63), one at 30 dB 0.22 (0.47). Somebody who
begins to speak as loud as people do has 0.33 to 0.47 at the first look, at most 0.42 at the second and 0.36 from then
on, without an echo as well as over one at 20 dB. Without taking off most of what all bands have in common, each
beginning is like each beat of a drum (0.63 in the median).
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat

OWN: Final = 0.42
"""From here on it is an echo."""
_WINDOW: Final = 512
_HOP: Final = UPLINK_RATE_HZ // 100
_BANDS: Final = 20
_LOWEST_HZ: Final = 200.0
_HIGHEST_HZ: Final = 4000.0
# Power of a window below which nothing is heard: noise of -75 dB, spread over the bands.
_FLOOR: Final = 2.6e-3
# How much is taken off of what all bands do at once.
_COMMON: Final = 0.7
# Of sound that may begin with an echo, so much is looked at for one.
_FIRST_FRAMES: Final = 45
# A room falls by 60 dB in 0.3 s, in powers of ten for each frame.
_DECAY: Final = 0.2
# Whoever speaks is louder than the echo by this (3 dB, in the mean of all bands) for so many frames.
_LOUDER: Final = 0.3
_LASTING_FRAMES: Final = 5
_MIN_FRAMES: Final = 20  # shorter sound fits anywhere
MIN_SAMPLES: Final = _WINDOW + _MIN_FRAMES * _HOP
"""Of shorter sound nothing can be told."""


@dataclass(slots=True)
class Echoes:
    """How often devices heard themselves."""

    held_back: int = 0
    """Times that what a microphone heard was the device's own sound."""
    let_through: int = 0
    """Of these, times that somebody spoke over it and was heard."""


def _mel(hz: NDArray[Any]) -> NDArray[np.float64]:
    mel: NDArray[np.float64] = 2595.0 * np.log10(1.0 + hz / 700.0)
    return mel


_HANN: Final = np.hanning(_WINDOW).astype(np.float32)
_EDGES: Final = np.linspace(_mel(np.array(_LOWEST_HZ)), _mel(np.array(_HIGHEST_HZ)), _BANDS + 1)
_BAND_OF: Final = np.digitize(_mel(np.fft.rfftfreq(_WINDOW, 1.0 / UPLINK_RATE_HZ)), _EDGES) - 1


def likeness(heard: PcmFloat, played: PcmFloat) -> float:
    """How much `heard` rises and falls as some part of `played` does: 1 for the same, about 0.3 for something else.

    Args:
        heard: float32[n] at 16 kHz from the microphone, at least `MIN_SAMPLES` or the answer is 0.
        played: float32[m] at 16 kHz from the loudspeaker, m at least n: it reaches back further than `heard`, by the
            longest delay to be looked for.
    """
    if len(played) < len(heard) or len(heard) < MIN_SAMPLES:
        return 0.0
    here, there = _levels(heard), _levels(played)
    return max(0.0, *(_like(here, there[late : late + len(here)]) for late in range(len(there) - len(here) + 1)))


def own_until(heard: PcmFloat, played: PcmFloat) -> int:
    """How many samples at the beginning of `heard` are an echo and nothing else; 0 where it begins with none.

    Where its beginning is like a part of `played`, that tells how late the echo is and how much of each band comes
    back. Somebody speaks from where it is louder than that, the room's decay and its noise allowed for.

    Args:
        heard: float32[n] at 16 kHz from the microphone.
        played: as in `likeness`.
    """
    if len(played) < len(heard) or len(heard) < MIN_SAMPLES:
        return 0
    here, there = _levels(heard), _levels(played)
    first = here[:_FIRST_FRAMES]
    best, late = max((_like(first, there[at : at + len(first)]), at) for at in range(len(there) - len(here) + 1))
    if best < OWN:
        return 0
    echo = there[late : late + len(here)]
    echo = echo + np.median(first - echo[: len(first)], axis=0)
    echo = np.maximum(echo, np.percentile(first, 20, axis=0))
    for at in range(1, len(echo)):
        echo[at] = np.maximum(echo[at], echo[at - 1] - _DECAY)
    louder = np.maximum(0.0, here - echo).mean(axis=1)
    lasting = np.convolve(louder, np.full(_LASTING_FRAMES, 1.0 / _LASTING_FRAMES), "valid")
    begins = np.flatnonzero(lasting > _LOUDER)
    return (int(begins[0]) if len(begins) else len(here)) * _HOP


def _like(here: NDArray[np.float64], there: NDArray[np.float64]) -> float:
    here, there = _changes(here), _changes(there)
    return float(np.sum(here * there) / (np.sqrt(np.sum(here**2) * np.sum(there**2)) + 1e-9))


def _changes(levels: NDArray[np.float64]) -> NDArray[np.float64]:
    """What is left when each band's own level, and most of what all bands have in common, are taken off."""
    moved: NDArray[np.float64] = levels - levels.mean(axis=0)
    left: NDArray[np.float64] = moved - _COMMON * moved.mean(axis=1, keepdims=True)
    return left


def _levels(pcm: PcmFloat) -> NDArray[np.float64]:
    """Logarithmic power of every band, float[frames of 10 ms, bands]."""
    frames = np.lib.stride_tricks.sliding_window_view(pcm, _WINDOW)[::_HOP] * _HANN
    power = np.abs(np.fft.rfft(frames, axis=1)) ** 2
    bands = np.stack([power[:, band == _BAND_OF].sum(axis=1) for band in range(_BANDS)], axis=1)
    levels: NDArray[np.float64] = np.log10(bands + _FLOOR)
    return levels
