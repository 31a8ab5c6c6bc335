import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.turn.segmenter import Segmenter

NO, YES = 0.01, 0.97
probabilities = st.lists(st.floats(0.0, 1.0), max_size=200)


def make(min_speech_ms: float = 128) -> Segmenter:
    return Segmenter(0.5, 0.35, min_speech_ms)


def feed(segmenter: Segmenter, *windows: float) -> list[float]:
    """Ends of the windows with which an onset was found."""
    return [segmenter.now_ms for probability in windows if segmenter.feed(probability)]


def test_an_utterance_is_certain_once_it_has_had_two_windows_of_a_voice_in_full() -> None:
    segmenter = make()
    feed(segmenter, 0.97, *[NO] * 3, *[0.9] * 6)
    assert segmenter.in_speech and not segmenter.certain
    feed(segmenter, 0.97, 0.8)
    assert not segmenter.certain
    feed(segmenter, 0.97, NO)
    assert segmenter.certain
    segmenter.close()
    assert not segmenter.certain
    segmenter.open()
    assert segmenter.certain  # who presses a key speaks


@pytest.mark.parametrize(
    ("windows", "found_at_ms", "start_ms"),
    [
        ([YES] * 4, 128, 0),
        ([NO] * 10 + [YES] * 4, 448, 320),
        ([0.76] * 8, 256, 0),  # half as sure takes twice as long
        ([NO] * 3 + [YES, YES, 0.5, YES, YES], 256, 96),  # a doubtful window inside
        ([YES, NO, YES, YES, YES, YES], 192, 64),  # a click before
    ],
)
def test_an_onset_needs_min_speech_of_clear_speech_or_more_of_doubtful(
    windows: list[float], found_at_ms: float, start_ms: float
) -> None:
    segmenter = make()
    assert feed(segmenter, *windows) == [found_at_ms]
    assert segmenter.in_speech and segmenter.voiced
    assert segmenter.start_ms == start_ms
    assert segmenter.last_voiced_ms == found_at_ms


@pytest.mark.parametrize(
    "windows",
    [
        [YES],
        [NO, YES, NO] * 50,
        [NO, YES, YES, NO, NO] * 50,
        [0.5] * 500,
        [0.6, 0.4] * 100,
        [0.62] * 14 + [0.3] * 10,  # what v6 says about a fan that comes on
    ],
)
def test_clicks_and_doubt_are_no_onset(windows: list[float]) -> None:
    segmenter = make()
    assert feed(segmenter, *windows) == []
    assert not segmenter.in_speech
    assert segmenter.silence_ms == 0


def test_an_utterance_is_one_onset_until_it_is_closed() -> None:
    segmenter = make()
    assert len(feed(segmenter, *[YES] * 10, *[NO] * 40, *[YES] * 10)) == 1
    segmenter.close()
    assert not segmenter.in_speech and not segmenter.voiced
    assert len(feed(segmenter, *[YES] * 10)) == 1
    assert segmenter.start_ms == 60 * 32


def test_a_voice_holds_down_to_the_release_threshold() -> None:
    segmenter = make()
    feed(segmenter, *[YES] * 4, 0.4, 0.36)
    assert (segmenter.silence_ms, segmenter.last_voiced_ms) == (0, 6 * 32)
    feed(segmenter, 0.34)
    assert (segmenter.silence_ms, segmenter.last_voiced_ms) == (32, 6 * 32)
    feed(segmenter, 0.4)
    assert segmenter.silence_ms == 64


@pytest.mark.parametrize(
    ("after_silence", "silence_ms"),
    [
        ([0.7, NO, NO], 10 * 32 + 96),  # a cough of one window
        ([0.7, NO, NO, NO, 0.7, NO], 10 * 32 + 192),
        ([0.76, 0.77], 0),  # a short syllable
        ([YES], 0),  # or a clear one
        ([0.7, 0.7, 0.7], 0),
    ],
)
def test_silence_ends_only_with_confirmed_voice(after_silence: list[float], silence_ms: float) -> None:
    segmenter = make()
    feed(segmenter, *[YES] * 4, *[NO] * 10, *after_silence)
    assert segmenter.silence_ms == silence_ms


@pytest.mark.parametrize(
    ("silence", "doubtful"),
    [
        ([0.3], True),  # above a tenth, whatever came before
        ([0.02] * 6, False),
        ([0.02, 0.01, 0.005, 0.001], False),  # a voice that dies away
        ([0.001] * 3 + [0.003], False),
        ([0.001] * 3 + [0.006], True),  # as silent as before by any threshold, but it climbs
        ([0.0002] * 3 + [0.001], True),
        ([0.0] * 3 + [0.00001], True),
        ([0.001] * 3 + [0.006] + [0.006] * 2, True),
        ([0.001] * 3 + [0.006] + [0.006] * 3, False),  # it has climbed and stays: noise
        ([0.001] * 2 + [0.006], False),  # too soon after the voice to know how silent it is
        ([0.001] * 3 + [0.006, YES], False),  # it is a voice
    ],
)
def test_silence_is_doubtful_where_speech_may_begin_again(silence: list[float], doubtful: bool) -> None:
    segmenter = make()
    feed(segmenter, *[YES] * 10, *silence)
    assert segmenter.in_speech
    assert segmenter.doubtful is doubtful


def test_nothing_is_doubtful_outside_an_utterance() -> None:
    segmenter = make()
    feed(segmenter, *[0.001] * 5, 0.2)
    assert not segmenter.doubtful
    feed(segmenter, *[YES] * 10, *[0.001] * 5)
    segmenter.close()
    feed(segmenter, 0.2)
    assert not segmenter.doubtful


def test_an_opened_utterance_is_silent_until_a_voice_is_found() -> None:
    segmenter = make()
    segmenter.reset(1000.0)
    segmenter.open()
    assert segmenter.in_speech
    assert feed(segmenter, NO, NO) == []
    assert (segmenter.silence_ms, segmenter.start_ms, segmenter.last_voiced_ms) == (64, 1000, 1000)
    assert feed(segmenter, YES) == []
    assert (segmenter.silence_ms, segmenter.last_voiced_ms) == (0, 1096)


def test_a_reset_forgets_half_an_onset_and_sets_the_clock() -> None:
    segmenter = make()
    feed(segmenter, *[YES] * 3)
    segmenter.reset(5000.0)
    assert segmenter.now_ms == 5000
    assert feed(segmenter, *[YES] * 4) == [5128]
    assert segmenter.start_ms == 5000


@pytest.mark.parametrize(("threshold", "release"), [(0.5, 0.6), (1.0, 0.5), (0.5, 0.0)])
def test_impossible_thresholds_are_refused(threshold: float, release: float) -> None:
    with pytest.raises(ValueError, match="thresholds"):
        Segmenter(threshold, release, 96)


@given(probabilities)
def test_times_are_always_in_order(windows: list[float]) -> None:
    segmenter = make()
    for count, probability in enumerate(windows, 1):
        was_in_speech = segmenter.in_speech
        onset = segmenter.feed(probability)
        assert onset == (segmenter.in_speech and not was_in_speech)
        assert segmenter.now_ms == count * 32
        assert 0 <= segmenter.start_ms <= segmenter.last_voiced_ms <= segmenter.now_ms
        if segmenter.in_speech:
            assert segmenter.silence_ms == (0 if segmenter.voiced else segmenter.now_ms - segmenter.last_voiced_ms)
        else:
            assert not segmenter.voiced and segmenter.silence_ms == 0


@given(st.lists(st.floats(0.0, 0.5), max_size=200))
def test_nothing_up_to_the_threshold_is_ever_an_onset(windows: list[float]) -> None:
    assert feed(make(), *windows) == []


@given(probabilities, st.integers(1, 8))
def test_no_onset_comes_before_min_speech(windows: list[float], needed: int) -> None:
    segmenter = make(needed * 32)
    for found_ms in feed(segmenter, *windows):
        assert found_ms - segmenter.start_ms >= needed * 32


@given(probabilities)
def test_clear_speech_is_found_after_anything(before: list[float]) -> None:
    segmenter = make()
    feed(segmenter, *before)
    feed(segmenter, *[YES] * 4)
    assert segmenter.in_speech and segmenter.voiced and segmenter.silence_ms == 0
