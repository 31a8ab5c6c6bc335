"""How a voice sounds just before it falls silent: seven numbers from the audio, no model. Pure.

People mark the end of what they say: the pitch falls and lies low, the voice grows weaker and the last syllable longer.
Before a hesitation the pitch stays level and the voice breaks off. Everything is relative to the same voice a moment
earlier, so that neither the microphone nor the speaker matters.
"""

from dataclasses import astuple, dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

RATE_HZ: Final = 16_000
# How much before the silence is looked at: the end, and what it is compared with.
SPAN_MS: Final = 3000
_END_MS: Final = 500
# Less speech than this says nothing about its end.
MIN_SPEECH_MS: Final = 300
_HOP: Final = RATE_HZ // 100  # 10 ms
_PITCH_RATE_HZ: Final = 8000
_PITCH_WINDOW: Final = 320  # 40 ms at 8 kHz: two periods of 50 Hz
_PITCH_HOP: Final = 160  # 20 ms
_MIN_PITCH_HZ: Final = 70
_MAX_PITCH_HZ: Final = 420
_VOICED: Final = 0.45  # of the autocorrelation at 0


@dataclass(frozen=True)
class Prosody:
    """The end of a stretch of speech, against the stretch.

    Attributes:
        level_db: of the last 200 ms, against the loud parts.
        slope_db: change of the level over the last 300 ms, dB in 100 ms.
        pitch: of the last voiced 120 ms against the median, semitones; 0 where no pitch is found.
        pitch_slope: of the last 300 ms, semitones in 100 ms; 0 where no pitch is found.
        voiced: share of the last 300 ms that has a pitch.
        lengthening: length of the last syllable against the others, natural logarithm.
        speech_s: how long speech had lasted, seconds.
    """

    level_db: float
    slope_db: float
    pitch: float
    pitch_slope: float
    voiced: float
    lengthening: float
    speech_s: float

    def vector(self) -> npt.NDArray[np.float64]:
        """float64[7], in the order of the attributes."""
        return np.array(astuple(self))


def prosody(pcm: npt.NDArray[np.float32], speech_s: float) -> Prosody | None:
    """Describe the end of `pcm`.

    Args:
        pcm: float32[n] at 16 kHz, up to 3 s that end with the last voiced sample.
        speech_s: how long the speech had lasted, of which this is the end.

    Returns:
        None where there is too little speech.
    """
    pcm = pcm[-SPAN_MS * RATE_HZ // 1000 :]
    if len(pcm) < MIN_SPEECH_MS * RATE_HZ // 1000:
        return None
    power = np.mean(pcm[len(pcm) % _HOP :].reshape(-1, _HOP) ** 2, axis=1)
    level = 10 * np.log10(power + 1e-10)
    loud = float(np.percentile(level, 90))
    # The VAD lets go of a voice up to two windows after it; the end is where it was last within 30 dB of the loud parts.
    heard = np.flatnonzero(level > loud - 30)
    end = int(heard[-1]) + 1
    level, pcm = level[:end], pcm[: len(pcm) % _HOP + end * _HOP]
    if end < 20:
        return None
    pitch = _pitch(pcm)
    tail = pitch[-15:]  # 300 ms
    known, tail_known = pitch[np.isfinite(pitch)], np.flatnonzero(np.isfinite(tail))
    last = known[-6:]
    return Prosody(
        level_db=float(np.mean(level[-20:])) - loud,
        slope_db=_slope(np.arange(min(30, end)) / 10, np.maximum(level[-30:], loud - 35)),
        pitch=float(np.median(last) - np.median(known)) if len(known) >= 10 and len(tail_known) else 0.0,
        pitch_slope=float(np.clip(_slope(tail_known / 5, tail[tail_known]), -6, 6)) if len(tail_known) >= 4 else 0.0,
        voiced=len(tail_known) / len(tail),
        lengthening=_lengthening(level),
        speech_s=speech_s,
    )


def _slope(at: npt.NDArray[np.float64], values: npt.NDArray[np.floating]) -> float:
    centred = at - np.mean(at)
    return float(np.sum(centred * values) / np.sum(centred**2))


def _pitch(pcm: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Semitones of frames of 40 ms, 20 ms apart, the last at the end; NaN where there is no pitch."""
    slow = pcm[len(pcm) % 2 :].reshape(-1, 2).mean(axis=1)
    count = (len(slow) - _PITCH_WINDOW) // _PITCH_HOP + 1
    if count < 1:
        return np.full(1, np.nan)
    slow = slow[len(slow) - _PITCH_WINDOW - (count - 1) * _PITCH_HOP :]
    frames = np.lib.stride_tricks.sliding_window_view(slow, _PITCH_WINDOW)[::_PITCH_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    size = 2 * _PITCH_WINDOW
    found = np.fft.irfft(np.abs(np.fft.rfft(frames, size)) ** 2)
    low, high = _PITCH_RATE_HZ // _MAX_PITCH_HZ, _PITCH_RATE_HZ // _MIN_PITCH_HZ
    # An autocorrelation of a short frame falls with the lag; this undoes it.
    fair = found[:, low:high] / (1 - np.arange(low, high) / _PITCH_WINDOW)
    best = np.argmax(fair, axis=1)
    strength = fair[np.arange(count), best] / (found[:, 0] + 1e-9)
    loud = found[:, 0] > 1e-3 * found[:, 0].max()
    semitones = 12 * np.log2(_PITCH_RATE_HZ / (low + best) / 100.0)
    return np.where((strength > _VOICED) & loud, semitones, np.nan)


def _lengthening(level: npt.NDArray[np.floating]) -> float:
    """Syllables are hills of the smoothed level; the last against the mean of those before, as a logarithm."""
    smooth = np.convolve(level, np.hanning(9) / np.hanning(9).sum(), mode="same")
    top = float(np.percentile(smooth, 90))
    hills = [
        at
        for at in range(2, len(smooth) - 2)
        if smooth[at] == smooth[at - 2 : at + 3].max() and smooth[at] > top - 18 and smooth[at] > smooth[max(0, at - 6)] + 0.5
    ]
    if len(hills) < 3:
        return 0.0
    gaps = np.minimum(np.diff(hills), 40)
    return float(np.log((len(smooth) - hills[-1] + 0.5 * float(gaps[-1])) / (float(np.mean(gaps)) * 1.5)))
