"""Two-pass recognition in whole turns: a real zipformer in front of a SenseVoice-shaped model, over a real socket."""

from pathlib import Path
from typing import Any

import pytest

from bench.sense_voice_model import build_tiny
from tests.bad_models import ZIPFORMERS, copy_zipformer
from tests.house import house, question
from tests.speech import SPEECH_DIR, needs_speech, read_wav
from xiaozhi.audio.pcm import UPLINK_RATE_HZ, PcmInt, to_int16
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.engine import EngineError
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.two_pass import TwoPass
from xiaozhi.turn.machine import ListeningMode


def go_forward() -> PcmInt:
    """The recording up to its last word: a device that is answered before it has said all is another story."""
    return to_int16(read_wav(SPEECH_DIR / "en" / "goforward.wav")[: int(2.4 * UPLINK_RATE_HZ)])


def tables(folder: Path, text: str, **asr: Any) -> dict[str, Any]:
    """Settings of a two-pass recognition whose second pass says `text`."""
    second = build_tiny(folder / "second", text)
    first = {"engine": "two-pass", "streaming_model_dir": ZIPFORMERS / "zipformer-en"}
    return {"asr": {**first, "model_dir": second, "early_decode": False, **asr}}


@needs_speech
@pytest.mark.parametrize("mode", [ListeningMode.AUTO, ListeningMode.MANUAL])
async def test_a_confirmed_text_is_answered_once(tmp_path: Path, mode: ListeningMode) -> None:
    async with (
        house(tmp_path, **tables(tmp_path, "Go forward ten meters.")) as home,
        home.device(mode=mode) as device,
    ):
        report = await device.turn(go_forward())
        assert report.answered
        assert report.heard == "Go forward ten meters."
        # The question went out with the words of the first pass; what was shown and remembered is the second's.
        assert [messages[-1]["content"] for messages in home.asked] == ["go forward ten meters"]
        await device.turn(go_forward())
        assert home.asked[-1][1]["content"] == "Go forward ten meters."
    assert report.trace is not None
    assert report.trace["engine"] == "two-pass"
    assert report.trace["spans"]["text"] <= report.trace["spans"]["commit"]


@needs_speech
async def test_a_corrected_text_is_what_is_answered(tmp_path: Path) -> None:
    async with (
        house(tmp_path, **tables(tmp_path, "go four words ten meters")) as home,
        home.device() as device,
    ):
        report = await device.turn(go_forward())
        assert report.answered
        assert report.heard == "go four words ten meters"
        assert home.asked[-1][-1]["content"] == "go four words ten meters"
        assert device.manners.speaker.playback.heard_ms > 0


@needs_speech
async def test_an_early_decode_leaves_nothing_to_confirm(tmp_path: Path) -> None:
    async with (
        house(tmp_path, **tables(tmp_path, "what time is it", early_decode=True, workers=2)) as home,
        home.device() as device,
    ):
        for _ in range(2):
            report = await device.turn(question())
            assert (report.answered, report.heard) == (True, "what time is it")


@needs_speech
def test_two_passes_need_both_models(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"zipformer: no such folder; run: .*xiaozhi models pull zipformer"):
        build_recognizer(AsrSettings(engine="two-pass"), tmp_path, ())
    copy_zipformer("zipformer-en", tmp_path / "zipformer")
    with pytest.raises(EngineError, match=r"sense-voice: no such folder; run: .*xiaozhi models pull sense-voice"):
        build_recognizer(AsrSettings(engine="two-pass"), tmp_path, ())
    build_tiny(tmp_path / "sense-voice", "hello")
    built = build_recognizer(AsrSettings(engine="two-pass"), tmp_path, ())
    assert isinstance(built.recognizer, TwoPass)
    assert built.recognizer.name == "two-pass"
    assert str(tmp_path / "zipformer") in built.why
    assert str(tmp_path / "sense-voice") in built.why
    assert "\n" not in built.why
    built.recognizer.close()
