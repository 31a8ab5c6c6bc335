"""Whether a phrase that a grammar was made to hear is what was said. Pure.

A grammar hears one of its phrases in anything. What tells them apart: a real phrase holds the sound of the utterance,
fits its sounds frame by frame and is spoken at a human pace; a false one stretches words, lets the silence model
swallow speech or fits badly somewhere.

Measured on 183 phrases rightly heard (18 phrases, four synthetic voices, 130 to 190 words a minute): 174 are accepted.
Of 97 recordings of other speech and noise in which the grammar heard a phrase, those accepted are single words of a
second ("four" is taken for "hello"); no sentence is.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat

_FRAME: Final = UPLINK_RATE_HZ // 100
# Scores are natural logarithms per frame relative to the best senone of that frame. In brackets the value that 98 of
# 100 rightly heard phrases keep.
_MIN_ALL: Final = -5.8  # (-5.1)
_MIN_WORDS: Final = -8.6  # (-8.3)
_MIN_WORD: Final = -11.0  # the worst word (-11.1)
_MIN_SILENCE: Final = -8.0  # the worst silence (-7.2)
_MIN_SOUND: Final = 0.7  # share of the energy (0.79)
_MAX_FRAMES_A_PHONE_OF_WORD: Final = 19.5  # the slowest word (18.3)
_MAX_FRAMES_A_PHONE: Final = 13.5  # (12.4)
# Shorter silences are too few frames for a mean.
_SHORTEST_SILENCE: Final = 8


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of the utterance that the grammar took for one word or for silence.

    Attributes:
        start: first frame of 10 ms.
        frames: how many.
        score: natural logarithm of the acoustic score of the whole stretch, relative to the best senones; minus
            infinity where it is too small to say.
        phones: sounds in the word, 0 for silence.
    """

    start: int
    frames: int
    score: float
    phones: int


def fits(segments: Sequence[Segment], pcm: PcmFloat) -> bool:
    """Whether the phrase that `segments` spell was said in float32[n] at 16 kHz."""
    words = [one for one in segments if one.phones]
    silences = [one for one in segments if not one.phones and one.frames >= _SHORTEST_SILENCE]
    if not words:
        return False
    return (
        _mean(segments) >= _MIN_ALL
        and _mean(words) >= _MIN_WORDS
        and all(_mean([one]) >= _MIN_WORD for one in words)
        and all(_mean([one]) >= _MIN_SILENCE for one in silences)
        and all(one.frames <= _MAX_FRAMES_A_PHONE_OF_WORD * one.phones for one in words)
        and sum(one.frames for one in words) <= _MAX_FRAMES_A_PHONE * sum(one.phones for one in words)
        and _sound_within(words, pcm) >= _MIN_SOUND
    )


def _mean(segments: Sequence[Segment]) -> float:
    return sum(one.score for one in segments) / max(1, sum(one.frames for one in segments))


def _sound_within(words: Sequence[Segment], pcm: PcmFloat) -> float:
    """The share of the signal's energy that lies in `words`."""
    energy = np.square(pcm, dtype=np.float64)
    total = float(energy.sum())
    inside = sum(float(energy[one.start * _FRAME : (one.start + one.frames) * _FRAME].sum()) for one in words)
    return inside / total if total else 0.0
