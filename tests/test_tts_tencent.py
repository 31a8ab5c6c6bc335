"""Tencent's voice, against a stand-in that checks what it is sent: a connection for each clause, opened ahead."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.sound import tone
from bench.standins.tencent_speech import TencentSpeechStandIn
from tests.house import brief, house, question
from tests.recognisers import until
from tests.sounds import heard
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import voice as checked
from xiaozhi.settings import TtsSettings
from xiaozhi.settings.tts import TencentVoiceSettings
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.tencent import TencentVoice, said_in
from xiaozhi.stages.tts.voice_request import VoiceRequest

TEXT = "今天天气很好，我们去公园。"


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def service() -> AsyncIterator[TencentSpeechStandIn]:
    async with TencentSpeechStandIn() as server:
        yield server


def values_of(server: TencentSpeechStandIn) -> dict[str, str]:
    keys = {"app_id": server.app_id, "secret_id": server.secret_id, "secret_key": server.key}
    return {"url": server.ws_url, **keys}


def settings_at(server: TencentSpeechStandIn, **values: object) -> TencentVoiceSettings:
    return TencentVoiceSettings.model_validate({**values_of(server), **values})


@pytest.fixture
async def voice(service: TencentSpeechStandIn) -> AsyncIterator[TencentVoice]:
    voice = TencentVoice(settings_at(service), 5)
    yield voice
    await voice.close()


async def test_a_text_is_heard_as_it_was_sent_and_the_next_has_a_connection_already(
    service: TencentSpeechStandIn, voice: TencentVoice
) -> None:
    await voice.warm()
    assert (service.connections, service.requests) == (1, [])
    for text in (TEXT, "好的。"):
        np.testing.assert_array_equal(await heard(voice.speak(text, language="zh")), tone(text))
        await until(lambda: service.connections == len(service.requests) + 1)
    assert [(asked.text, asked.connection) for asked in service.requests] == [(TEXT, 1), ("好的。", 2)]


async def test_a_connection_that_the_service_has_closed_while_it_waited_costs_no_word(
    service: TencentSpeechStandIn, voice: TencentVoice
) -> None:
    service.fault = "impatient"
    await voice.warm()
    service.fault = ""
    np.testing.assert_array_equal(await heard(voice.speak(TEXT, language="zh")), tone(TEXT))


async def test_voice_and_speed_are_what_is_wished(service: TencentSpeechStandIn) -> None:
    voice = TencentVoice(settings_at(service, voice_en="101051", rate_percent=10), 5)
    await heard(voice.speak(TEXT, language="zh", request=VoiceRequest(gender="male", rate_percent=10)))
    await heard(voice.speak("Good morning.", language="en", request=VoiceRequest(rate_percent=-50)))
    await heard(voice.speak(TEXT, language="zh", request=VoiceRequest("tencent:101016", rate_percent=100)))
    asked = [(one.query["VoiceType"], one.query["Speed"]) for one in service.requests]
    assert asked == [("101004", "1.00"), ("101051", "-2.00"), ("101016", "4.40")]
    await voice.close()


@pytest.mark.parametrize("fault", ["hang", "hang-midway"])
async def test_closing_leaves_the_service_at_once(
    service: TencentSpeechStandIn, voice: TencentVoice, fault: str
) -> None:
    service.fault = fault
    listening = asyncio.create_task(heard(voice.speak(TEXT, language="zh")))
    await service.asked()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await voice.close()
    async with asyncio.timeout(3):
        await service.idle()


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("refuse", "HTTP 403"),
        ("error-500", "HTTP 500"),
        ("reset", "tencent: "),
        ("reset-midway", "tencent: "),
        ("garbage", "not an answer: <html>"),
        ("code-10004", "error 10004: no: see tts.tencent"),
    ],
)
async def test_a_service_that_fails_is_an_error_of_one_line(
    service: TencentSpeechStandIn, voice: TencentVoice, fault: str, line: str
) -> None:
    service.fault = fault
    with pytest.raises(VoiceError, match=line) as caught:
        await heard(voice.speak(TEXT, language="zh"))
    assert "\n" not in str(caught.value) and service.key not in str(caught.value)


@pytest.mark.parametrize("name", ["app_id", "secret_id", "secret_key"])
async def test_a_wrong_key_is_found_before_anybody_speaks(service: TencentSpeechStandIn, name: str) -> None:
    voice = TencentVoice(settings_at(service, **{name: "123456"}), 5)
    with pytest.raises(VoiceError, match=r"error 10003: .*tts\.tencent"):
        await voice.warm()
    await voice.close()


async def test_missing_keys_are_said_with_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TENCENT_APP_ID", "TENCENT_SECRET_ID", "TENCENT_SECRET_KEY"):
        monkeypatch.delenv(name, raising=False)
    voice = TencentVoice(TencentVoiceSettings(), 5)
    with pytest.raises(VoiceError, match=r"tts\.tencent\.secret_key or TENCENT_SECRET_KEY"):
        await voice.warm()
    await voice.close()


@pytest.mark.parametrize("fault", ["hang", "unready", "hang-midway", "reset", "refuse", "garbage", "silence", "empty"])
async def test_the_embedded_voice_speaks_the_sentence_when_tencent_does_not(
    service: TencentSpeechStandIn, fault: str
) -> None:
    settings = TtsSettings(
        engines=("tencent", "espeak"),
        first_audio_timeout_s=0.3 if fault in ("hang", "unready") else 5.0,
        idle_timeout_s=0.3 if fault == "hang-midway" else 5.0,
        tencent=settings_at(service),
    )
    voices = build_voices(settings, Path()).chain
    service.fault = fault
    told: list[str] = []
    assert len(await heard(voices.speak(TEXT, language="zh", on_voice=told.append))) > 5000
    assert told == (["tencent"] if fault == "hang-midway" else ["espeak"])
    await voices.close()


async def test_the_check_has_two_syllables_spoken(service: TencentSpeechStandIn) -> None:
    good = await checked("tencent", TtsSettings(tencent=settings_at(service)), Path())
    assert (good.level, [asked.text for asked in service.requests]) == (Level.OK, ["你好。"])


async def test_a_turn_is_spoken_clause_by_clause(tmp_path: Path) -> None:
    async with TencentSpeechStandIn(sound=brief) as service:
        tts = {"engines": ["tencent", "espeak"], "tencent": values_of(service)}
        async with house(tmp_path, "It is ten past nine. The sun is up.", tts=tts) as home, home.device() as device:
            report = await device.turn(question())
    assert report.answered
    assert [asked.text for asked in service.requests] == ["It is ten past nine.", "The sun is up."]


_FIELDS = st.sampled_from("code message ready final result heartbeat".split())
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_SAID = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner, max_size=6))


@given(_SAID)
def test_whatever_the_service_says_is_an_answer_or_an_error_of_one_line(said: object) -> None:
    try:
        assert said_in(json.dumps(said))["code"] is not None
    except VoiceError as error:
        assert "\n" not in str(error)
