"""Real recordings through the whole server: found, cut into one utterance each, recognised, answered and spoken."""

import re
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.word_errors import edits, words
from tests.house import House, house
from tests.speech import SPEECH_DIR, Recording, needs_speech, read_wav, recordings
from xiaozhi.audio.pcm import PcmInt, to_int16
from xiaozhi.client.manners import DeviceState
from xiaozhi.client.report import TurnReport

pytestmark = needs_speech

# What is compared is what reaches the model, so a reply only has to be short.
ANSWER = "🙂 Yes."
# Readers pause for breath; a pause is not the end of a turn here because whole recordings are compared.
PATIENT: dict[str, Any] = {"complete_ms": 1200, "neutral_ms": 1200, "trailing_ms": 1500}

ENGLISH = [
    "en/speechbrain_spk1_snt1.wav",
    "en/speechbrain_spk1_snt3.wav",
    "en/speechbrain_spk1_snt4.wav",
    "en/goforward.wav",
    "en/azure_weather.wav",
    "en/cards_003.wav",
    "en/LDC93S1.wav",
    "en/cheetah_en.wav",
]
MANDARIN = [
    "zh/aishell3_SSB00120415.wav",
    "zh/aishell3_SSB00570140.wav",
    "zh/aishell3_SSB02670376.wav",
    "zh/aishell1_foamliu_audio_1.wav",
    "zh/aishell1_foamliu_audio_5.wav",
    "zh/aishell1_BAC009S0724W0121.wav",
]
INTENTS = ["en/barista_02.wav", "en/barista_11.wav"]


def chosen(names: list[str]) -> list[Recording]:
    """The recordings of these names."""
    found = {str(one.path.relative_to(SPEECH_DIR)): one for one in recordings()}
    return [found[name] for name in names]


def pcm_of(recording: Recording) -> PcmInt:
    return to_int16(read_wav(recording.path))


def zipformer(name: str) -> dict[str, Any]:
    return {"engine": "zipformer", "model_dir": SPEECH_DIR / "models" / name, "language": "auto"}


async def asked_about(home: House, clips: list[Recording]) -> list[TurnReport]:
    """Say each clip on one connection; every one must be one turn, and what was heard is what the model was asked."""
    reports: list[TurnReport] = []
    async with home.device() as device:
        for clip in clips:
            before = len(home.asked)
            report = await device.turn(pcm_of(clip))
            assert report.answered, (clip.path.name, report.outcome, report.heard)
            assert report.dropped == {}
            assert report.cut_off_ms == 0.0, f"{clip.path.name}: answered before it was over"
            committed = [messages for messages in home.asked[before:] if messages[-1]["content"] == report.heard]
            assert committed, f"{clip.path.name}: the model was asked something else than was shown"
            # Questions prepared in a pause and dropped are not in the history: one utterance, one turn.
            turns = [message for message in committed[-1] if message["role"] == "user"]
            assert len(turns) == len(reports) + 1, clip.path.name
            reports.append(report)
    return reports


async def test_read_and_spoken_english_is_understood(tmp_path: Path) -> None:
    clips = chosen(ENGLISH)
    async with house(tmp_path, ANSWER, asr=zipformer("zipformer-en"), turn=PATIENT) as home:
        reports = await asked_about(home, clips)
    wrong = total = 0
    for clip, report in zip(clips, reports, strict=True):
        said = words(clip.transcript)
        wrong += edits(said, words(report.heard))
        total += len(said)
    assert total > 40
    assert wrong / total < 0.20, [report.heard for report in reports]


async def test_read_mandarin_is_understood_as_toned_pinyin(tmp_path: Path) -> None:
    clips = chosen(MANDARIN)
    async with house(tmp_path, ANSWER, asr=zipformer("zipformer-zh-pinyin"), turn=PATIENT) as home:
        reports = await asked_about(home, clips)
    for clip, report in zip(clips, reports, strict=True):
        bare = unicodedata.normalize("NFD", report.heard)
        assert re.fullmatch("[a-zü\u0300-\u036f ]+", bare), report.heard
        tones = len(re.findall("[\u0300\u0301\u0304\u030c]", bare))
        characters = len(re.findall("[\u4e00-\u9fff]", clip.transcript))
        assert 0.6 * characters <= tones <= 1.2 * characters, (clip.transcript, report.heard)


async def test_the_embedded_recogniser_hears_a_drink_being_ordered(tmp_path: Path) -> None:
    embedded = {"engine": "pocketsphinx", "model_dir": None, "language": "en"}
    async with house(tmp_path, ANSWER, asr=embedded, turn=PATIENT) as home:
        reports = await asked_about(home, chosen(INTENTS))
    assert all(len(words(report.heard)) >= 4 for report in reports)
    assert any("coffee" in report.heard.lower() for report in reports), [report.heard for report in reports]


@pytest.mark.parametrize(
    "name",
    ["office_ambience", "pico_empty", "speechbrain_noise1", "speechbrain_noise2", "speechbrain_noise5"],
)
async def test_noise_raises_nothing(tmp_path: Path, name: str) -> None:
    sound = to_int16(read_wav(SPEECH_DIR / "noise" / f"{name}.wav"))
    async with house(tmp_path, asr=zipformer("zipformer-en")) as home, home.device(speed=20.0) as device:
        report = await device.turn(np.concatenate([sound, sound]), answer_timeout_s=2.0)
        assert not report.answered
        assert home.asked == []
        assert {message["type"] for _, message in device.received} <= {"hello", "mcp"}
        assert device.manners.state is DeviceState.LISTENING
