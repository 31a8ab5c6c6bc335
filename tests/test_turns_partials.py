"""Whole turns in which the device is shown what has been heard so far."""

from pathlib import Path

from tests.bad_models import ZIPFORMERS
from tests.house import house, question
from tests.speech import SPEECH_DIR, needs_speech, read_wav
from xiaozhi.audio.pcm import to_int16
from xiaozhi.client.device import Device
from xiaozhi.turn.machine import ListeningMode


def shown(device: Device) -> list[str]:
    """The texts of all `stt` messages, in order."""
    return [str(message["text"]) for _, message in device.received if message["type"] == "stt"]


async def test_the_device_is_shown_only_the_whole_text_unless_asked_otherwise(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device() as device:
        assert (await device.turn(question())).answered
        assert shown(device) == ["what time is it"]


async def test_partial_texts_come_before_the_whole_one_and_the_turn_goes_its_way(tmp_path: Path) -> None:
    async with house(tmp_path, asr={"partials": True}) as home, home.device() as device:
        report = await device.turn(question())
        assert (report.answered, report.heard, report.text) == (True, "what time is it", "It is ten past nine.")
        assert len(shown(device)) >= 2
        assert shown(device)[-1] == "what time is it"
        partials = home.server.devices._services.recognition.partials
        assert partials.shown == len(shown(device)) - 1
        kinds = [message["type"] for _, message in device.received]
        assert "stt" not in kinds[kinds.index("tts") :], "nothing is shown of a turn that is committed"
        assert len(home.asked) == 1


async def test_load_turns_them_off_and_on(tmp_path: Path) -> None:
    async with house(tmp_path, asr={"partials": True}) as home, home.device() as device:
        home.server.devices._services.recognition.partials.allowed = False
        await device.turn(question())
        assert shown(device) == ["what time is it"]
        home.server.devices._services.recognition.partials.allowed = True
        await device.turn(question())
        assert len(shown(device)) > 2


@needs_speech
async def test_a_streaming_recogniser_shows_the_words_as_they_come(tmp_path: Path) -> None:
    asr = {"engine": "zipformer", "model_dir": ZIPFORMERS / "zipformer-en", "partials": True}
    async with house(tmp_path, asr=asr) as home, home.device(mode=ListeningMode.MANUAL) as device:
        pcm = to_int16(read_wav(SPEECH_DIR / "en" / "goforward.wav"))
        report = await device.turn(pcm)
        assert report.heard == "go forward ten meters"
        texts = shown(device)
        assert len(texts) >= 3
        assert texts[0].startswith("go")
        assert texts[-1] == "go forward ten meters"


@needs_speech
async def test_a_reply_to_words_that_stream_is_begun_before_the_soft_end(tmp_path: Path) -> None:
    asr = {"engine": "zipformer", "model_dir": ZIPFORMERS / "zipformer-en"}
    async with house(tmp_path, asr=asr, turn={"profile": "conservative"}) as home, home.device() as device:
        report = await device.turn(to_int16(read_wav(SPEECH_DIR / "en" / "goforward.wav")))
        assert (report.heard, report.trace and report.trace["early"]) == ("go forward ten meters", True)
        assert shown(device) == ["go forward ten meters"], "what is known early is not shown early"
        assert len(home.asked) == 1
