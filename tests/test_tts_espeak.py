"""The embedded voice, through the real library."""

import asyncio

import numpy as np
import pytest

from tests.sounds import heard, is_speech
from tests.speech import say as say_16k
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, UPLINK_RATE_HZ
from xiaozhi.settings import EspeakVoiceSettings
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.espeak import EspeakVoice, say, voice_runs
from xiaozhi.stages.tts.voice_request import VoiceRequest

SETTINGS = EspeakVoiceSettings()


def seconds(text: str, language: str = "zh", settings: EspeakVoiceSettings = SETTINGS) -> float:
    return len(say(text, language, settings)) / DOWNLINK_RATE_HZ


@pytest.mark.parametrize(
    ("text", "language", "runs"),
    [
        ("今天天气很好。", "zh", [("zh", "今天天气很好。")]),
        ("Good morning!", "en", [("en", "Good morning!")]),
        ("Good morning!", "zh", [("en", "Good morning!")]),
        ("我喜欢Python和C。", "zh", [("zh", "我喜欢"), ("en", "Python"), ("zh", "和"), ("en", "C。")]),
        ("GitHub，2025年见。", "zh", [("en", "GitHub"), ("zh", "，2025年见。")]),
        ("I have 3 apples, 好的", "en", [("en", "I have 3 apples, "), ("zh", "好的")]),
        ("PM2.5是25", "zh", [("en", "PM2.5"), ("zh", "是25")]),
        ("25 + 3", "zh", [("zh", "25 + 3")]),
        ("25 + 3", "en", [("en", "25 + 3")]),
        ("你\x00好\n吗", "zh", [("zh", "你 好 吗")]),
        ("", "zh", []),
    ],
)
def test_mixed_text_is_cut_into_runs_of_one_language(text: str, language: str, runs: list[tuple[str, str]]) -> None:
    assert voice_runs(text, language) == runs


@pytest.mark.parametrize(
    ("text", "language", "shortest_s", "longest_s"),
    [
        ("你好，今天天气很好。", "zh", 1.8, 4.0),
        ("Hello world, this is a test.", "en", 1.3, 3.0),
        ("我在用 Python 写程序。", "zh", 1.5, 4.0),
    ],
)
async def test_it_speaks(text: str, language: str, shortest_s: float, longest_s: float) -> None:
    pcm = await heard(EspeakVoice(SETTINGS).speak(text, language=language))
    assert shortest_s < len(pcm) / DOWNLINK_RATE_HZ < longest_s
    assert pcm.dtype == np.int16
    assert is_speech(pcm)


async def test_a_higher_pitch_is_another_sound_of_about_the_same_length() -> None:
    plain, high = [
        await heard(EspeakVoice(SETTINGS).speak("你好。", language="zh", request=VoiceRequest(pitch_semitones=n)))
        for n in (0, 12)
    ]
    assert abs(len(high) - len(plain)) < 0.2 * len(plain) and not np.array_equal(high, plain)


async def test_a_clause_ends_with_a_breath() -> None:
    pcm = await heard(EspeakVoice(SETTINGS).speak("好的，", language="zh"))
    assert not pcm[-DOWNLINK_RATE_HZ // 10 :].any()


@pytest.mark.parametrize("text", ["", "\x00\x01", "   "])
async def test_nothing_to_say_is_no_error(text: str) -> None:
    assert not (await heard(EspeakVoice(SETTINGS).speak(text, language="zh"))).any()


def test_markup_is_read_and_not_obeyed() -> None:
    assert seconds("a <break time='20s'/> b", "en") < 8
    assert seconds("x < y & z", "en") > 1.0
    assert seconds("<speak>one</speak>", "en") > seconds("one", "en") + 0.5
    assert seconds("[[h@l@U]]", "en") > 0.5


def test_text_goes_on_after_a_zero_byte() -> None:
    assert seconds("hello\x00there", "en") == pytest.approx(seconds("hello there", "en"), abs=0.05)


def test_the_rate_and_the_voices_are_settings() -> None:
    slow, fast = (seconds("one two three four", "en", EspeakVoiceSettings(rate_wpm=rate)) for rate in (100, 300))
    assert slow > 1.8 * fast
    other = EspeakVoiceSettings(voice_en="en-us+m3")
    assert not np.array_equal(say("Hello", "en", SETTINGS), say("Hello", "en", other))


def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(VoiceError, match="no voice 'nosuch'"):
        EspeakVoice(EspeakVoiceSettings(voice="nosuch"))


async def test_many_users_share_the_library_without_mixing() -> None:
    voice = EspeakVoice(SETTINGS)
    texts = ["one", "你好", "three and four", "五六七"] * 4
    together = await asyncio.gather(*(heard(voice.speak(text, language="zh")) for text in texts))
    alone = [await heard(voice.speak(text, language="zh")) for text in texts]
    for one, other in zip(together, alone, strict=True):
        assert len(one) == pytest.approx(len(other), rel=0.02)  # espeak varies a little by itself


def test_tests_can_have_a_user() -> None:
    pcm = say_16k("what time is it")
    assert pcm.dtype == np.float32
    assert 0.7 < len(pcm) / UPLINK_RATE_HZ < 2.5
    assert is_speech((pcm * 32767).astype(np.int16), UPLINK_RATE_HZ)
    assert len(say_16k("你好", "cmn")) > 0.3 * UPLINK_RATE_HZ
