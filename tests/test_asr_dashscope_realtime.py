"""Qwen's realtime recognition on DashScope, against a service that checks what it is sent."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bench.standins.dashscope_realtime import QwenAsrStandIn
from tests.house import house, question
from tests.recognisers import Offline, noting, sound, until
from xiaozhi.audio.pcm import to_int16
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import remote_recognition
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import DashscopeAsrSettings, RemoteAsrSettings
from xiaozhi.stages.asr.dashscope_realtime import QwenRecognizer
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.recogniser import Question
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.remote_use import RemoteError

MODEL = "qwen3-asr-flash-realtime"
FREE = Question(held=False)


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def service() -> AsyncIterator[QwenAsrStandIn]:
    async with QwenAsrStandIn() as server:
        yield server


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "asr")
    yield pool
    pool.close()


def at(server: QwenAsrStandIn, remote: RemoteAsrSettings | None = None, **values: object) -> QwenRecognizer:
    given = {"url": server.ws_url, "api_key": server.key, "model": MODEL, **values}
    return QwenRecognizer(DashscopeAsrSettings.model_validate(given), remote or RemoteAsrSettings(), "zh")


async def test_sound_goes_up_while_somebody_speaks_and_texts_come_down(
    service: QwenAsrStandIn, pool: WorkerPool
) -> None:
    service.words = ["今天天气，", "怎么样？"]
    cloud = at(service, context="小智")
    shown: list[str] = []
    utterance = Recognition(cloud, pool, AsrSettings(partials=True)).begin(noting(shown))
    spoken = np.random.default_rng(7).normal(0.0, 0.1, 19_000).astype(np.float32)
    for start in range(0, len(spoken), 960):
        utterance.feed(spoken[start : start + 960])
    await until(lambda: shown == ["今天…"])
    assert (await utterance.transcribe(FREE)).text == "今天天气，怎么样？"
    (session,) = service.requests
    assert bytes(session.sound) == to_int16(spoken).tobytes(), "every sample, once, in its order"
    assert session.model == MODEL
    assert session.session["input_audio_transcription"] == {"language": "zh", "corpus": {"text": "小智"}}
    utterance.feed(sound(0.5))  # the user goes on
    assert (await utterance.transcribe(FREE)).text == "今天天气，怎么样？", "torn words are sent again"
    assert len(service.requests) == 2
    utterance.close()
    await cloud.disconnect()


@pytest.mark.parametrize(
    "fault", ["fail-midway", "error-midway", "reset-midway", "garbage", "binary", "hang", "hang-start", "refuse"]
)
async def test_a_service_that_fails_in_mid_utterance_loses_not_a_word(
    service: QwenAsrStandIn, pool: WorkerPool, fault: str
) -> None:
    service.fault = fault
    cloud, local = at(service, RemoteAsrSettings(timeout_s=0.5)), Offline()
    both = Fallback(cloud, cloud.remote, local)
    utterance = Recognition(both, pool, AsrSettings(early_decode=False)).begin()
    for _ in range(10):
        utterance.feed(sound(0.1))
        await asyncio.sleep(0)
    assert (await utterance.transcribe(FREE)).text == "10"
    np.testing.assert_array_equal(local.decoded[0], sound(1.0))
    assert (cloud.remote.failures, cloud.remote.fallbacks) == (1, 1)
    utterance.close()
    await both.disconnect()


@pytest.mark.parametrize("fault", ["fail-midway", "error-midway", "garbage", "refuse"])
async def test_a_failure_is_one_line_without_the_key(service: QwenAsrStandIn, pool: WorkerPool, fault: str) -> None:
    service.fault = fault
    cloud = at(service)
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(1.0))
    with pytest.raises(RemoteError, match=r"^dashscope: ") as caught:
        await utterance.transcribe(FREE)
    assert "\n" not in str(caught.value) and service.key not in str(caught.value)
    await cloud.disconnect()


async def test_a_service_that_sends_without_an_end_is_left(service: QwenAsrStandIn, pool: WorkerPool) -> None:
    service.words = ["endless " * 100]
    cloud = at(service, RemoteAsrSettings(max_text_chars=100))
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(1.0))
    with pytest.raises(RemoteError, match="without an end"):
        await utterance.transcribe(FREE)
    async with asyncio.timeout(3):
        await service.idle()
    await cloud.disconnect()


async def test_an_utterance_that_is_given_up_closes_its_session(service: QwenAsrStandIn, pool: WorkerPool) -> None:
    cloud = at(service)
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(0.3))
    await service.asked()
    utterance.close()
    async with asyncio.timeout(3):
        await service.idle()
    await cloud.disconnect()


async def test_the_check_says_whether_the_service_takes_the_key(service: QwenAsrStandIn) -> None:
    values = {"url": service.ws_url, "api_key": service.key, "model": MODEL}
    good = await remote_recognition(AsrSettings.model_validate({"engine": "dashscope", "dashscope": values}))
    bad = await remote_recognition(
        AsrSettings.model_validate({"engine": "dashscope", "dashscope": values | {"api_key": "sk-none"}})
    )
    assert good is not None and good.level is Level.OK
    assert bad is not None and "asr.dashscope.api_key" in str(bad) and "sk-none" not in str(bad)


async def test_a_whole_turn_is_answered(tmp_path: Path, service: QwenAsrStandIn) -> None:
    service.words = ["what time is it in China"]
    dashscope = {"url": service.ws_url, "api_key": service.key, "model": MODEL}
    async with (
        house(tmp_path, asr={"engine": "dashscope", "fallback": "sense-voice", "dashscope": dashscope}) as home,
        home.device() as device,
    ):
        report = await device.turn(question())
        assert (report.answered, report.heard) == (True, "what time is it in China")
