"""Qwen's realtime voices on DashScope, against a service that checks what it is sent and behaves well and badly."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bench.standins.dashscope_realtime import QwenTtsStandIn
from tests.house import brief, house, question
from tests.recognisers import until
from tests.test_tts_dashscope import ONE, THREE, TWO, by_text, codec, reply, spoken, without_proxies
from tests.test_tts_stage import Fake, by_clause, seconds
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import Settings
from xiaozhi.settings.tts import DashscopeVoiceSettings
from xiaozhi.stages.tts.dashscope_realtime import QwenVoice
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.voice_request import VoiceRequest

__all__ = ["codec", "without_proxies"]  # fixtures
MODEL = "qwen3-tts-flash-realtime"


@pytest.fixture
async def service() -> AsyncIterator[QwenTtsStandIn]:
    async with QwenTtsStandIn(sound=spoken) as server:
        yield server


@pytest.fixture
async def voice(service: QwenTtsStandIn) -> AsyncIterator[QwenVoice]:
    given = {"url": f"{service.url.replace('http', 'ws', 1)}/api-ws/v1/inference", "api_key": service.key}
    voice = QwenVoice(DashscopeVoiceSettings.model_validate({**given, "model": MODEL}), 3)
    yield voice
    await voice.close()


async def test_a_reply_is_one_session_and_each_text_gets_its_own_sound(
    service: QwenTtsStandIn, voice: QwenVoice
) -> None:
    session = voice.open(VoiceRequest(rate_percent=20, gender="male", pitch_semitones=-12))
    for text in (ONE, TWO, THREE):
        await session.send(text, "zh")
    await session.end()
    for text, heard in zip((ONE, TWO, THREE), await by_text(session), strict=True):
        np.testing.assert_array_equal(heard, spoken(text))
    (asked,) = service.requests
    assert (asked.model, asked.texts) == (MODEL, [ONE, TWO, THREE])
    assert asked.session == {
        "voice": "Cherry",
        "mode": "commit",
        "response_format": "pcm",
        "sample_rate": 24_000,
        "speech_rate": 1.2,
        "pitch_rate": 0.5,
    }


async def test_a_session_that_the_service_closes_in_a_pause_is_followed_by_another(
    service: QwenTtsStandIn, voice: QwenVoice
) -> None:
    session = voice.open()
    hearing = asyncio.create_task(by_text(session))
    await session.send(ONE, "zh")
    await until(lambda: bool(service.requests) and service.requests[0].texts == [ONE])
    speaking = service.requests[0].speaking
    assert speaking is not None
    await speaking
    await service.sockets[0].close()
    await session.send(TWO, "zh")
    await session.end()
    first, second = await hearing
    np.testing.assert_array_equal(first, spoken(ONE))
    np.testing.assert_array_equal(second, spoken(TWO))
    assert len(service.requests) == 2


@pytest.mark.parametrize("fault", ["refuse", "reset-midway", "error-midway", "garbage", "no-base64", "failed"])
async def test_a_failure_is_one_line_without_the_key(service: QwenTtsStandIn, voice: QwenVoice, fault: str) -> None:
    service.fault = fault
    session = voice.open()
    await session.send(TWO, "zh")
    await session.end()
    with pytest.raises(VoiceError, match=r"^dashscope: ") as caught:
        await by_text(session)
    assert "\n" not in str(caught.value) and service.key not in str(caught.value)
    assert ("tts.dashscope.api_key" in str(caught.value)) == (fault == "refuse")


@pytest.mark.parametrize("fault", ["refuse", "hang", "hang-start", "garbage", "no-base64", "silence"])
async def test_the_next_voice_speaks_what_this_one_cannot(
    service: QwenTtsStandIn, voice: QwenVoice, codec: WorkerPool, fault: str
) -> None:
    service.fault = fault
    other = Fake(seconds(0.6))
    assert by_clause(await reply(codec, voice, other)) == [(ONE, 11), (TWO, 11), (THREE, 11)]
    assert sorted(other.begun) == sorted([ONE, TWO, THREE])


async def test_who_cancels_closes_the_session_at_once(service: QwenTtsStandIn, voice: QwenVoice) -> None:
    session = voice.open()
    sound = session.sound()
    await session.send("很长的话" * 50, "zh")
    await anext(sound)
    await session.cancel()
    await sound.aclose()
    async with asyncio.timeout(3):
        await service.idle()


async def test_warming_takes_the_key_and_speaks_nothing(service: QwenTtsStandIn, voice: QwenVoice) -> None:
    await voice.warm()
    assert service.requests == []
    service.fault = "refuse"
    with pytest.raises(VoiceError, match=r"tts\.dashscope\.api_key"):
        await voice.warm()


def test_the_model_says_which_protocol_it_speaks(tmp_path: Path) -> None:
    for model, line in ((MODEL, f"dashscope {MODEL} Cherry"), ("cosyvoice-v3-flash", "cosyvoice-v3-flash longanyang")):
        settings = Settings.model_validate({"tts": {"engines": ["dashscope"], "dashscope": {"model": model}}})
        assert line in build_voices(settings.tts, tmp_path).why[0]


async def test_a_whole_turn_is_spoken(tmp_path: Path) -> None:
    async with QwenTtsStandIn(sound=brief) as service:
        url = f"{service.url.replace('http', 'ws', 1)}/api-ws/v1/inference"
        own = {"url": url, "api_key": service.key, "model": MODEL}
        async with (
            house(tmp_path, tts={"engines": ["dashscope", "espeak"], "dashscope": own}) as home,
            home.device() as device,
        ):
            report = await device.turn(question())
            assert (report.answered, report.text) == (True, "It is ten past nine.")
            assert any("nine" in text for each in service.requests for text in each.texts)
