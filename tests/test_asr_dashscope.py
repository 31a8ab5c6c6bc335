"""DashScope's recognisers, against a service that checks what it is sent and behaves well and badly."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bench.standins.dashscope import DashscopeStandIn
from tests.house import house, question
from tests.recognisers import Offline, noting, sound, until
from xiaozhi.audio.pcm import to_int16
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import remote_recognition
from xiaozhi.concurrency.workers import JobDropped, WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import DashscopeAsrSettings, RemoteAsrSettings
from xiaozhi.stages.asr.dashscope import DashscopeRecognizer
from xiaozhi.stages.asr.engine import run_on
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.recogniser import Question
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.remote_use import RemoteError

HELD = Question(held=True)
FREE = Question(held=False)


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def service() -> AsyncIterator[DashscopeStandIn]:
    async with DashscopeStandIn() as server:
        yield server


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "asr")
    yield pool
    pool.close()


def at(
    server: DashscopeStandIn, remote: RemoteAsrSettings | None = None, language: str = "auto", **values: object
) -> DashscopeRecognizer:
    settings = DashscopeAsrSettings.model_validate({"url": server.ws_url, "api_key": server.key, **values})
    return DashscopeRecognizer(settings, remote or RemoteAsrSettings(), language, itn=True)  # type: ignore[arg-type]


@pytest.fixture
async def cloud(service: DashscopeStandIn) -> AsyncIterator[DashscopeRecognizer]:
    recogniser = at(service)
    yield recogniser
    await recogniser.disconnect()


async def test_sound_goes_up_while_somebody_speaks_and_texts_come_down(
    service: DashscopeStandIn, cloud: DashscopeRecognizer, pool: WorkerPool
) -> None:
    service.words = ["what time is it"]
    shown: list[str] = []
    utterance = Recognition(cloud, pool, AsrSettings(partials=True)).begin(noting(shown))
    spoken = np.random.default_rng(7).normal(0.0, 0.1, 19_000).astype(np.float32)
    for start in range(0, len(spoken), 960):
        utterance.feed(spoken[start : start + 960])
    await until(lambda: shown == ["what", "what time"])
    assert (await utterance.transcribe(HELD)).text == "what time is it"
    assert utterance.ready
    (task,) = service.requests
    assert bytes(task.sound) == to_int16(spoken).tobytes(), "every sample, once, in its order"
    assert (cloud.remote.requests, cloud.remote.failures) == (1, 0)
    utterance.close()


async def test_the_service_is_told_what_the_settings_say(service: DashscopeStandIn, pool: WorkerPool) -> None:
    recogniser = at(
        service,
        language="yue",
        model="fun-asr-realtime",
        vocabulary_id="vocab-1",
        max_sentence_silence_ms=1300,
        remove_fillers=True,
    )
    utterance = Recognition(recogniser, pool).begin()
    utterance.feed(sound(0.3))
    await utterance.transcribe(FREE)
    assert service.requests[0].payload == {
        "task_group": "audio",
        "task": "asr",
        "function": "recognition",
        "model": "fun-asr-realtime",
        "parameters": {
            "format": "pcm",
            "sample_rate": 16_000,
            "punctuation_prediction_enabled": True,
            "inverse_text_normalization_enabled": True,
            "max_sentence_silence": 1300,
            "disfluency_removal_enabled": True,
            "language_hints": ["yue"],
            "vocabulary_id": "vocab-1",
        },
        "input": {},
    }
    await recogniser.disconnect()


@pytest.mark.parametrize("ends_by", ["both", "sentence_end", "end_time"])
async def test_the_final_text_replaces_the_last_partial_however_the_service_marks_it(
    service: DashscopeStandIn, cloud: DashscopeRecognizer, pool: WorkerPool, ends_by: str
) -> None:
    service.ends_by = ends_by
    service.words = ["its knot ten past nine"]
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(1.2))
    await service.asked()
    await until(lambda: service.requests[0].seconds > 1.0)
    service.words = ["It's ten past nine."]
    assert (await utterance.transcribe(FREE)).text == "It's ten past nine."


async def test_who_goes_on_after_a_question_is_heard_on_the_same_connection_and_silence_costs_nothing(
    service: DashscopeStandIn, cloud: DashscopeRecognizer, pool: WorkerPool
) -> None:
    service.words = ["今天天气，", "怎么样？"]
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(1.0))
    assert (await utterance.transcribe(FREE)).text == "今天天气，"
    utterance.feed(sound(0.5, 0.0), 500.0)
    assert (await utterance.transcribe(FREE)).text == "今天天气，"
    assert len(service.requests) == 1
    utterance.feed(sound(0.5), 0.0)  # the user goes on
    assert (await utterance.transcribe(FREE)).text == "今天天气怎么样？", "the comma was the cut's"
    first, second = service.requests
    assert (first.seconds, second.seconds) == (1.0, 1.0), "with the silence before it"
    assert first.connection == second.connection == 1


async def test_a_whisper_under_a_held_key_is_heard(
    service: DashscopeStandIn, cloud: DashscopeRecognizer, pool: WorkerPool
) -> None:
    service.words = ["好", "的"]
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(1.0))
    await utterance.transcribe(HELD)
    utterance.feed(sound(1.0, 0.0), 1000.0)
    assert (await utterance.transcribe(FREE)).text == "好"
    assert (await utterance.transcribe(HELD)).text == "好的"


@pytest.mark.parametrize("fault", ["fail-midway", "reset-midway", "garbage", "hang", "reset-start", "fail-start"])
async def test_a_service_that_fails_in_mid_utterance_loses_not_a_word(
    service: DashscopeStandIn, pool: WorkerPool, fault: str
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


@pytest.mark.parametrize("fault", ["fail-midway", "garbage", "fail-start", "refuse"])
async def test_a_failure_is_one_line_without_the_key(service: DashscopeStandIn, pool: WorkerPool, fault: str) -> None:
    service.fault = fault
    cloud = at(service)
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(1.0))
    with pytest.raises(RemoteError, match=r"^dashscope: ") as caught:
        await utterance.transcribe(FREE)
    assert "\n" not in str(caught.value) and service.key not in str(caught.value)
    await cloud.disconnect()


async def test_a_service_that_rests_is_sent_nothing(service: DashscopeStandIn, pool: WorkerPool) -> None:
    service.fault = "fail-start"
    cloud, local = at(service, RemoteAsrSettings(failures=1)), Offline()
    ears = Recognition(Fallback(cloud, cloud.remote, local), pool, AsrSettings(early_decode=False))
    for _ in range(2):
        utterance = ears.begin()
        utterance.feed(sound(1.0))
        assert (await utterance.transcribe(FREE)).text == "10"
        utterance.close()
    assert service.connections == 1
    await cloud.disconnect()


async def test_an_utterance_that_is_given_up_frees_its_connection_for_the_next(
    service: DashscopeStandIn, cloud: DashscopeRecognizer, pool: WorkerPool
) -> None:
    ears = Recognition(cloud, pool)
    utterance = ears.begin()
    utterance.feed(sound(1.0))
    await service.asked()
    await until(lambda: service.requests[0].seconds == 1.0)
    utterance.close()
    await until(lambda: service.requests[0].finished == [{}])
    service.words = ["no", "yes"]
    following = ears.begin()
    following.feed(sound(0.3))
    assert (await following.transcribe(FREE)).text == "yes"
    assert [task.connection for task in service.requests] == [1, 1]


async def test_an_utterance_that_is_closed_under_a_question_drops_it(
    service: DashscopeStandIn, cloud: DashscopeRecognizer, pool: WorkerPool
) -> None:
    service.fault = "hang"
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(1.0))
    asking = asyncio.create_task(utterance.transcribe(FREE))
    await service.asked()
    utterance.close()
    with pytest.raises(JobDropped):
        await asking
    assert cloud.remote.failures == 0


async def test_a_connection_that_the_service_has_closed_is_not_used_again(
    service: DashscopeStandIn, cloud: DashscopeRecognizer, pool: WorkerPool
) -> None:
    await cloud.connect()
    assert (service.connections, service.requests) == (1, [])
    await service.sockets[0].close()
    utterance = Recognition(cloud, pool).begin()
    utterance.feed(sound(0.3))
    assert (await utterance.transcribe(FREE)).text == "what time is it"
    assert service.connections == 2


async def test_what_is_too_long_is_not_sent_further(service: DashscopeStandIn, pool: WorkerPool) -> None:
    cloud = at(service, RemoteAsrSettings(max_audio_s=2))
    utterance = Recognition(cloud, pool).begin()
    for _ in range(30):
        utterance.feed(sound(0.1))
    with pytest.raises(RemoteError):
        await utterance.transcribe(FREE)
    await until(lambda: cloud.streams == 0)
    await cloud.disconnect()


def test_sentences_are_joined_as_their_script_wants() -> None:
    assert run_on("Hello.", "How are you?") == "Hello. How are you?"
    assert run_on("你好。", "今天") == "你好。今天"
    assert run_on("你好！", "3 点了") == "你好！3 点了"
    assert run_on("", "a") == run_on("a", "") == "a"


async def test_the_check_says_whether_the_service_takes_the_key(service: DashscopeStandIn) -> None:
    values = {"url": service.ws_url, "api_key": service.key}
    good = await remote_recognition(AsrSettings.model_validate({"engine": "dashscope", "dashscope": values}))
    bad = await remote_recognition(
        AsrSettings.model_validate({"engine": "dashscope", "dashscope": values | {"api_key": "sk-none"}})
    )
    assert good is not None and good.level is Level.OK
    assert (
        bad is not None
        and bad.level is not Level.OK
        and "asr.dashscope.api_key" in str(bad)
        and "sk-none" not in str(bad)
    )


def test_without_a_key_it_is_said_where_to_put_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DASHSCOPE_API_KEY", raising=False)
    built = build_recognizer(AsrSettings(engine="dashscope", fallback="pocketsphinx"), tmp_path, ["what time is it"])
    assert "DASHSCOPE_API_KEY" in built.hint and "when it fails: pocketsphinx" in built.why
    built.recognizer.close()


@pytest.mark.parametrize("fault", ["", "reset-midway"])
async def test_a_whole_turn_is_answered(tmp_path: Path, service: DashscopeStandIn, fault: str) -> None:
    service.fault = fault
    service.words = ["what time is it in China"]
    asr = {
        "engine": "dashscope",
        "fallback": "sense-voice",
        "partials": True,
        "dashscope": {"url": service.ws_url, "api_key": service.key},
    }
    async with house(tmp_path, asr=asr) as home, home.device() as device:
        report = await device.turn(question())
        assert (report.answered, report.text) == (True, "It is ten past nine.")
        assert report.heard == ("what time is it" if fault else "what time is it in China")
        shown = [str(message["text"]) for _, message in device.received if message["type"] == "stt"]
        assert fault or len(shown) > 1
    assert service.requests
