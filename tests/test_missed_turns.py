"""Speech that could not be recognised through a fault of ours is answered for, in every mode; mere noise is not."""

import asyncio
import threading
from pathlib import Path

import aiohttp
import numpy as np
import pytest

from tests.console_browser import browser, set_password
from tests.house import House, house, noise, question
from tests.recognisers import until
from tests.test_floods import raw, texts
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.client.device import Device
from xiaozhi.client.microphone import SpeechMicrophone, SpokenUtterance
from xiaozhi.client.report import TurnReport
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.text.messages import message
from xiaozhi.turn.machine import ListeningMode


def break_recognition(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every decode fails from now on."""

    def fail(*_args: object, **_more: object) -> None:
        raise EngineError("the model has lost its weights")

    monkeypatch.setattr(home.server.services.recognition.engine, "decode", fail)


@pytest.mark.parametrize("mode", list(ListeningMode))
async def test_who_speaks_to_a_broken_recogniser_is_asked_to_say_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: ListeningMode
) -> None:
    async with house(tmp_path) as home, home.device(mode=mode) as device:
        with monkeypatch.context() as broken:
            break_recognition(home, broken)
            report = await device.turn(question())
            assert report.answered and report.text == message("not_understood", "en")
            assert not home.asked
        report = await device.turn(question())
        assert report.answered and report.text == "It is ten past nine."


async def test_when_too_many_wait_for_recognition_the_user_hears_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as home, home.device() as device:
        monkeypatch.setattr(type(home.server.services.recognition), "full", property(lambda _ears: True))
        report = await device.turn(question())
        assert report.answered and report.text == message("busy", "en")


async def test_a_broken_recogniser_is_not_owned_up_to_after_every_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as home, home.device() as device:
        break_recognition(home, monkeypatch)
        assert (await device.turn(question())).answered
        report = await device.turn(question(), answer_timeout_s=1.0)
        assert report.outcome == "no answer"


async def test_noise_in_which_no_words_are_found_is_no_fault_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path) as home, home.device() as device:
        break_recognition(home, monkeypatch)
        report = await device.turn(noise(1.0), answer_timeout_s=0.5)
        assert report.outcome == "no answer"


async def test_a_key_that_breaks_off_what_could_not_be_understood_is_not_talked_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, turn={"neutral_ms": 5000}) as home, home.device() as device:
        break_recognition(home, monkeypatch)
        turn = asyncio.create_task(device.turn(question(), answer_timeout_s=1.0))
        connection = home.session(device.identity.device_id)
        await until(lambda: bool(connection._conversation._heard.missed))
        device.abort()
        report = await turn
        assert not report.text


@pytest.mark.parametrize("why", ["broken", "late", "crowded"])
async def test_who_was_not_heard_is_counted_shown_and_alerted_about(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, why: str
) -> None:
    set_password(tmp_path / "data")
    alerts = {"error_least_turns": 1, "after_s": 0.0, "check_s": 0.5}
    asr = {"timeout_s": 1.0}
    async with (
        house(tmp_path, console={"enabled": True}, alerts=alerts, asr=asr) as home,
        browser(home.server) as page,
        home.device() as device,
    ):
        free = threading.Event()
        if why == "broken":
            break_recognition(home, monkeypatch)
        elif why == "late":
            monkeypatch.setattr(home.server.services.recognition.engine, "decode", lambda _pcm: free.wait(20) and None)
        else:
            monkeypatch.setattr(type(home.server.services.recognition), "full", property(lambda _ears: True))
        try:
            report = await device.turn(question())
            assert report.answered and report.heard == ""
            (turn,) = (await page.get("turns"))["turns"]
            assert (turn["heard"], turn["trace"]["outcome"]) == ("", "unheard") and turn["trace"]["error"]
            assert (await page.get("overview"))["failed_total"] == 1
            async with aiohttp.ClientSession() as http:
                shown = await (await http.get(f"http://127.0.0.1:{home.server.port}/metrics")).text()
            assert 'xiaozhi_turns_total{outcome="unheard"} 1.0' in shown
            async with asyncio.timeout(10):
                while not any(alert["name"] == "errors" for alert in (await page.get("overview"))["alerts"]):
                    pass  # each look is a request
        finally:
            free.set()


# A held key --------------------------------------------------------------------------------------------------------


def silence(seconds: float) -> PcmInt:
    return np.zeros(round(16_000 * seconds), np.int16)


async def press(device: Device, sound: PcmInt, answer_timeout_s: float = 10.0) -> TurnReport:
    """Hold the key while this sounds."""
    device.begin_turn()
    device.listen()
    await device.until(lambda: device.manners.microphone_from_ms is not None)
    microphone = device.microphone
    assert isinstance(microphone, SpeechMicrophone)
    device.say(SpokenUtterance.encode(sound, 60))
    await until(lambda: microphone.silent)
    device.stop()
    return await device.reply(answer_timeout_s=answer_timeout_s)


def deafen(home: House, monkeypatch: pytest.MonkeyPatch) -> None:
    """No words are found in anything from now on."""
    monkeypatch.setattr(home.server.services.recognition.engine, "decode", lambda _pcm: Transcript(""))


@pytest.mark.parametrize("sound", [silence(1.2), noise(1.2, 0.0002), noise(3.0)], ids=["none", "a whisper", "a room"])
async def test_a_held_key_without_words_is_answered_every_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sound: PcmInt
) -> None:
    async with house(tmp_path) as home, home.device(mode=ListeningMode.MANUAL) as device:
        with monkeypatch.context() as quiet:
            deafen(home, quiet)
            for _ in range(2):
                report = await press(device, sound)
                assert report.answered and report.text == message("not_understood", "en")
        assert not home.asked
        report = await device.turn(question())
        assert report.text == "It is ten past nine."


async def test_a_tap_on_the_key_is_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with house(tmp_path) as home, home.device(mode=ListeningMode.MANUAL) as device:
        with monkeypatch.context() as quiet:
            deafen(home, quiet)
            assert (await press(device, silence(0.12), 1.0)).outcome == "no answer"
        device.listen()
        device.stop()
        assert (await device.turn(question())).text == "It is ten past nine."


async def test_a_key_that_is_held_while_no_sound_arrives_is_answered(tmp_path: Path) -> None:
    async with house(tmp_path) as home, raw(home, "02:00:00:00:00:07") as (reader, writer):
        writer.write(texts(type="hello", version=1) + texts(type="listen", state="start", mode="manual"))
        await asyncio.sleep(1.1)  # real time is what is measured where there is no sound
        writer.write(texts(type="listen", state="stop"))
        async with asyncio.timeout(10):
            await reader.readuntil(message("not_understood", "en").partition(". ")[0].encode())


async def test_the_answer_to_a_held_key_is_in_the_language_that_was_spoken_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with house(tmp_path, asr={"language": "auto"}) as home, home.device(mode=ListeningMode.MANUAL) as device:
        deafen(home, monkeypatch)
        for words, language in (("what time is it", "en"), ("现在几点了", "zh")):
            device.begin_turn()
            device.detect(words)
            assert (await device.reply()).answered
            report = await press(device, silence(1.0))
            assert report.text.replace(" ", "") == message("not_understood", language).replace(" ", "")
