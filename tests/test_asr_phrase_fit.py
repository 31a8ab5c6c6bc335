import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.stages.asr.phrase_fit import Segment, fits

# Silence, two words of four phones at eight frames a phone, silence.
GOOD = [Segment(0, 20, -40.0, 0), Segment(20, 32, -200.0, 4), Segment(52, 32, -220.0, 4), Segment(84, 16, -40.0, 0)]


def loud(start_frame: int, frames: int, length: int = 100) -> PcmFloat:
    """An utterance with its sound in one place."""
    pcm = np.full(length * 160, 0.001, np.float32)
    pcm[start_frame * 160 : (start_frame + frames) * 160] = 0.3
    return pcm


def test_a_phrase_that_accounts_for_the_sound_fits() -> None:
    assert fits(GOOD, loud(22, 60))


def test_without_words_nothing_fits() -> None:
    assert not fits([], loud(22, 60))
    assert not fits([Segment(0, 100, -100.0, 0)], loud(22, 60))


@pytest.mark.parametrize(
    ("index", "change"),
    [
        (0, {"score": -20 * 9.0}),  # silence laid over speech
        (1, {"score": -32 * 12.0}),  # one word fits badly
        (1, {"score": -math.inf}),
        (1, {"phones": 1}),  # one short word stretched
        (2, {"score": -32 * 10.0}),  # all words fit poorly
    ],
)
def test_one_bad_stretch_is_enough_to_refuse(index: int, change: dict[str, float]) -> None:
    segments = [*GOOD]
    segments[1] = replace(segments[1], score=-32 * 8.0)
    segments[index] = replace(segments[index], **change)  # type: ignore[arg-type]  # names and types are the fields'
    assert not fits(segments, loud(22, 60))


def test_sound_outside_the_words_refuses() -> None:
    assert not fits(GOOD, loud(0, 20))
    assert not fits(GOOD, loud(60, 100, 300))


def test_digital_silence_refuses() -> None:
    assert not fits(GOOD, np.zeros(16_000, np.float32))


@given(
    st.lists(
        st.builds(
            Segment,
            st.integers(0, 200),
            st.integers(1, 200),
            st.one_of(st.just(-math.inf), st.floats(-2000, 0)),
            st.integers(0, 12),
        )
    )
)
def test_any_segments_are_judged(segments: list[Segment]) -> None:
    assert fits(segments, loud(22, 60)) in (True, False)
