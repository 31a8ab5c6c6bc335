"""The endpointing bench: what it counts as a cut-off, a miss and a delay, on utterances made by hand."""

import math

import numpy as np
import pytest

from bench.endpointing import measure, policies, report
from bench.endpointing_material import Clip, Cut, Utterance, make_utterances, quiet_cuts, with_gaps
from bench.endpointing_run import Hangover, Profile, Upstreams
from bench.stats import interval
from tests.speech import say
from xiaozhi.settings import TurnSettings, VadSettings
from xiaozhi.stages.vad.silero import SileroModel, built_in_model

SLOW = Upstreams("slow", 110.0, 525.0)
INSTANT = Upstreams("instant", 110.0, 0.0)
RULES = TurnSettings(soft_end_ms=128, complete_ms=400, neutral_ms=550, trailing_ms=1200)


def utterance(*stretches_ms: int, gap_ms: int = 0) -> Utterance:
    """Voice and silence in turn, in milliseconds, after half a second and before six seconds of silence."""
    probabilities = [0.0] * 16
    for index, length_ms in enumerate(stretches_ms):
        probabilities += [0.99 if index % 2 == 0 else 0.0] * (length_ms // 32)
    last_voiced_ms = len(probabilities) * 32.0
    probabilities += [0.0] * 190
    nothing = np.zeros(0, np.float32)
    return Utterance(Clip("made", "zh", nothing), gap_ms, (), nothing, probabilities, last_voiced_ms, onset_found=True)


class Says:
    """A recogniser that always has the same text."""

    def __init__(self, text: str) -> None:
        self.text = text

    def at(self, utterance: Utterance, voiced_ms: float) -> str:
        """The text, at whatever pause."""
        return self.text


NEUTRAL = Says("привет")  # no language of the model of completeness


def test_a_hangover_cuts_off_at_a_pause_that_is_longer_and_is_late_by_less_than_a_packet() -> None:
    spoken = utterance(960, 640, 960)
    assert Hangover(400).run(spoken, NEUTRAL, SLOW).cut_off
    heard = Hangover(1000).run(spoken, NEUTRAL, SLOW)
    assert not heard.cut_off
    assert heard.commit_ms is not None
    assert 1000 <= heard.commit_ms < 1060
    assert heard.first_audio_ms == heard.commit_ms + 110 + 525


def test_a_turn_is_open_to_speech_until_its_reply_is_ready() -> None:
    spoken = utterance(960, 608, 960)
    patient = Profile("balanced", RULES).run(spoken, NEUTRAL, SLOW)
    assert not patient.cut_off
    assert patient.replies == 2
    assert Profile("balanced", RULES).run(spoken, NEUTRAL, INSTANT).cut_off


def test_the_delay_of_a_turn_is_its_soft_end_recognition_and_reply() -> None:
    patient = Profile("balanced", RULES).run(utterance(960), NEUTRAL, SLOW)
    assert patient.replies == 1
    assert patient.commit_ms is not None
    assert 128 + 110 + 445 <= patient.commit_ms <= 188 + 110 + 445
    assert patient.first_audio_ms == pytest.approx(patient.commit_ms + 80)


def test_a_user_who_was_heard_to_pause_is_waited_for() -> None:
    known = Profile("known", RULES, remembers=True)
    assert not known.run(utterance(960, 480, 960), NEUTRAL, INSTANT).cut_off
    assert not known.run(utterance(960, 576, 960), NEUTRAL, INSTANT).cut_off
    assert Profile("new", RULES).run(utterance(960, 576, 960), NEUTRAL, INSTANT).cut_off


def test_nothing_recognised_is_a_missed_end_and_no_delay() -> None:
    missed = Profile("balanced", RULES).run(utterance(960), Says(""), SLOW)
    assert missed.missed
    assert missed.commit_ms is None


def test_a_beginning_that_was_dropped_is_a_cut_off() -> None:
    assert Profile("balanced", RULES).run(utterance(960, 1600, 960), Says(""), SLOW).cut_off


def test_a_pause_takes_the_place_of_the_quiet_that_was_there() -> None:
    rng = np.random.default_rng(5)
    pcm = (rng.standard_normal(3 * 16_000) * 0.1).astype(np.float32)
    pcm[22_400:24_000] *= 0.001  # 100 ms of quiet at 1.4 s
    clip = Clip("noise", "en", pcm)
    cuts = quiet_cuts(clip, 0.0, 3000.0)
    assert cuts == [Cut(22_400, 24_000)]
    paused = with_gaps(clip, 600, cuts)
    assert len(paused.pcm) - len(with_gaps(clip, 0, ()).pcm) == 500 * 16
    assert paused.clip_sample(1000 + 500) == 8_000
    assert paused.clip_sample(1000 + 1400 + 300) == 22_400  # inside the pause: what was said before it
    assert paused.clip_sample(1000 + 1400 + 600 + 100) == 24_000 + 1_600
    assert paused.clip_sample(60_000) == len(pcm)
    assert quiet_cuts(clip, 0.0, 900.0) == []


def test_real_speech_is_found_and_its_end_moves_with_the_pause() -> None:
    clip = Clip("spoken", "en", say("please tell me something about the weather in the mountains"))
    model = SileroModel(built_in_model(), VadSettings(warm_up=False))
    plain, paused = make_utterances(model, [clip, Clip("silent", "en", np.zeros(16_000, np.float32))], [900])
    assert (plain.gap_ms, paused.gap_ms) == (0, 900)
    removed_ms = sum(cut.last - cut.first for cut in paused.cuts) / 16
    moved_ms = paused.last_voiced_ms - plain.last_voiced_ms
    assert moved_ms == pytest.approx(len(paused.cuts) * 900 - removed_ms, abs=100)


def test_the_report_has_a_line_for_every_policy() -> None:
    results = measure([utterance(960), utterance(960, 608, 960, gap_ms=600)], NEUTRAL, [SLOW])
    assert [result.policy for result in results[: len(results) // 2]] == [policy.name for policy in policies()]
    text = report(results)
    assert all(text.count(f"| {policy.name} |") == 2 for policy in policies())
    row = next(result for result in results if result.policy == "fixed 400 ms" and result.gap_ms == 600).row()
    assert row["cut_off"] == 1.0
    assert row["commit_p50_ms"] is None
    assert not any(isinstance(value, float) and math.isnan(value) for value in row.values())


def test_a_share_comes_with_the_interval_in_which_it_may_lie() -> None:
    low, high = interval(5, 50)
    assert (round(low, 3), round(high, 3)) == (0.043, 0.214)
    assert interval(0, 10)[0] == 0.0 and interval(10, 10)[1] == 1.0 and interval(0, 0) == (0.0, 1.0)
