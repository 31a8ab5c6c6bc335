"""Windows of a quiet room need no model, and nothing that is said in it is heard otherwise for it."""

import asyncio

import numpy as np
import pytest

from bench.vad_quality import Clip, read_clips
from bench.vad_quiet import JUDGE_ALL, ROOMS, Room, cost, in_rooms, lost, noise_of
from tests.speech import SPEECH_DIR, needs_speech, say
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmFloat
from xiaozhi.settings import VadSettings
from xiaozhi.stages.vad.silero import CONTEXT_SAMPLES, WINDOW_SAMPLES, SileroModel, load_silero
from xiaozhi.stages.vad.uplink import CALM_WINDOWS, CATCH_UP_WINDOWS, UplinkStream

QUIET_POWER = 1e-6  # -60 dBFS
SETTINGS = VadSettings(tick_ms=0)


@pytest.fixture(scope="module")
def silero() -> SileroModel:
    return load_silero(SETTINGS)


def window(rms: float) -> PcmFloat:
    """A window of hiss with its context."""
    return np.random.default_rng(3).normal(0.0, rms, CONTEXT_SAMPLES + WINDOW_SAMPLES).astype(np.float32)


def asked(ear: UplinkStream, rms: float, windows: int, probability: float = 0.01) -> int:
    """About how many of so many windows the model is asked."""
    count = 0
    for _ in range(windows):
        ask = ear.must_judge(window(rms), QUIET_POWER)
        count += ask
        ear.judged(probability if ask else 0.0, None)
    return count


def test_after_half_a_second_of_quiet_without_speech_no_window_is_judged() -> None:
    ear = UplinkStream()
    assert asked(ear, 0.0005, CALM_WINDOWS) == CALM_WINDOWS
    assert asked(ear, 0.0005, 100) == 0


def test_what_is_louder_is_judged_at_once() -> None:
    ear = UplinkStream()
    asked(ear, 0.0005, 100)
    assert asked(ear, 0.002, 10) == 10


def test_quiet_that_may_be_speech_is_judged() -> None:
    ear = UplinkStream()
    assert asked(ear, 0.0005, 100, probability=0.2) == 100


def test_the_newest_windows_that_were_left_out_are_caught_up_on_once() -> None:
    ear = UplinkStream()
    asked(ear, 0.0005, CALM_WINDOWS + 3)
    assert ear.must_judge(window(0.1), QUIET_POWER)
    assert len(ear.catch_up()) == 3 and not ear.catch_up()
    asked(ear, 0.0005, 200)
    left_out = ear.catch_up()
    assert len(left_out) == CATCH_UP_WINDOWS and all(len(one) == len(window(0.1)) for one in left_out)


def test_nothing_is_caught_up_on_across_a_digital_silence() -> None:
    ear = UplinkStream()
    asked(ear, 0.0005, CALM_WINDOWS + 3)
    ear.must_judge(window(0.0), QUIET_POWER)
    assert not ear.catch_up()


def test_the_model_is_asked_about_everything_when_that_is_set() -> None:
    ear = UplinkStream()
    assert sum(ear.must_judge(window(0.0005), 10.0 ** (JUDGE_ALL / 10.0)) for _ in range(50)) == 50


def test_it_is_on_by_default() -> None:
    assert VadSettings().quiet_dbfs == -64.0


async def test_what_is_said_in_quiet_rooms_is_heard_as_before(silero: SileroModel) -> None:
    texts = ("what time is it", "turn on the light", "tell me a story about a dog")
    clips = [Clip(text, "en", say(text), speech=True) for text in texts]
    hum = np.sin(np.arange(UPLINK_RATE_HZ) * (2 * np.pi * 100 / UPLINK_RATE_HZ)).astype(np.float32)
    found = await in_rooms(silero, SETTINGS, clips, hum, (Room("hiss", -65.0), Room("office", -65.0, -30.0)))
    assert not lost(found) and not any(one.split or one.gained for one in found)


async def test_a_hundred_devices_in_quiet_rooms_hardly_need_the_model(silero: SileroModel) -> None:
    room = noise_of(Room("hiss", -70.0), np.ones(1, np.float32), 4 * UPLINK_RATE_HZ)
    _, judged = await cost(silero, SETTINGS, room, 20, 4.0)
    assert judged < 0.3
    _, judged = await cost(silero, SETTINGS.model_copy(update={"quiet_dbfs": JUDGE_ALL}), room, 2, 1.0)
    assert judged == 1.0


@needs_speech
def test_recorded_speech_is_heard_as_before_in_every_room(silero: SileroModel) -> None:
    clips = read_clips(SPEECH_DIR)
    speech = [clip for clip in clips if clip.speech and len(clip.pcm) < 4 * UPLINK_RATE_HZ][::5]
    office = next(clip.pcm for clip in clips if not clip.speech)
    found = asyncio.run(in_rooms(silero, SETTINGS, speech, office, (ROOMS[0], ROOMS[1], ROOMS[4])))
    assert not lost(found), found
    assert sum(one.lost for one in found) == 0
    assert sum(one.split for one in found) == 0
