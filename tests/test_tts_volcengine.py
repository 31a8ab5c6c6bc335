"""Volcengine's voices, against a stand-in that checks what it is sent and behaves well and badly."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest

from bench.standins.sound import TONE_HZ, tone
from bench.standins.volcengine import VolcengineText, VolcengineVoiceStandIn, parse_event
from tests.house import brief, house
from tests.recognisers import until
from tests.sounds import heard, loudest_hz
from tests.test_tts_sessions import reply, speech
from tests.test_tts_stage import Fake, by_clause, seconds
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings.tts import VolcengineVoiceSettings
from xiaozhi.stages.tts.engine import Mark, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.reply_voices import ReplyPart, ReplyVoices
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.stages.tts.volcengine import VolcengineVoice
from xiaozhi.stages.volcengine import event_frame

TEXT = "今天天气很好，我们去公园。"


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def server() -> AsyncIterator[VolcengineVoiceStandIn]:
    async with VolcengineVoiceStandIn() as standin:
        yield standin


@pytest.fixture
async def codec() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "codec")
    yield pool
    pool.close()


def voice_at(server: VolcengineVoiceStandIn, timeout_s: float = 5.0, **values: object) -> VolcengineVoice:
    table = {"url": server.ws_url, "api_key": server.key, **values}
    return VolcengineVoice(VolcengineVoiceSettings.model_validate(table), timeout_s)


async def say(voice: VolcengineVoice, text: str, request: VoiceRequest = ANY_VOICE) -> PcmInt:
    """The sound of a text that stands alone."""
    return await heard(await ReplyPart(ReplyVoices(request)).begin(voice, text, "zh"))


def texts(server: VolcengineVoiceStandIn) -> list[str]:
    return [asked.text for asked in server.requests]


def test_events_are_those_of_the_documents_to_the_byte() -> None:
    assert event_frame(1, {}) == bytes((17, 20, 16, 0, 0, 0, 0, 1, 0, 0, 0, 2, 123, 125))
    session = "0123456789abcdef-0123456789abcdef-01"
    start = event_frame(100, {"event": 100, "namespace": "BidirectionalTTS"}, session)
    assert start[:12] == bytes((17, 20, 16, 0, 0, 0, 0, 100, 0, 0, 0, 36))
    assert parse_event(start)[:2] == (100, session)


async def test_a_tone_is_heard_as_it_was_sent_and_the_connection_serves_the_next_text(
    server: VolcengineVoiceStandIn,
) -> None:
    voice = voice_at(server)
    await voice.warm()
    for _ in range(2):
        pcm = await say(voice, TEXT)
        assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(0.18 * len(TEXT), abs=0.001)
        assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=1)
    assert (texts(server), server.connections) == ([TEXT, TEXT], 1)
    await voice.close()


async def test_a_reply_is_a_row_of_sessions_each_going_on_with_the_one_before(
    server: VolcengineVoiceStandIn, codec: WorkerPool
) -> None:
    server.sound = brief
    voice = voice_at(server)
    items = await reply(speech(codec, voice), "一", "二", "三", request=VoiceRequest(rate_percent=20))
    assert [text for text, _ in by_clause(items)] == ["一", "二", "三"]
    first, second, third = server.requests
    assert (first.section, second.section, third.section) == ("", first.session, second.session)
    assert {(asked.connection, asked.rate) for asked in server.requests} == {(1, 20)}
    await voice.close()


async def test_voices_of_the_first_generation_know_no_session_before(codec: WorkerPool) -> None:
    async with VolcengineVoiceStandIn(resource="seed-tts-1.0", sound=brief) as server:
        voice = voice_at(server, resource_id="seed-tts-1.0", voice="zh_female_wanwanxiaohe_moon_bigtts")
        await reply(speech(codec, voice), "一", "二", request=VoiceRequest(gender="male"))
        assert [(asked.section, asked.speaker) for asked in server.requests] == [
            ("", "zh_female_wanwanxiaohe_moon_bigtts")
        ] * 2, "nor is one of another generation taken for a wish"
        await voice.close()


async def test_sound_is_handed_on_before_the_text_is_done_and_marks_tell_where_each_ends(
    server: VolcengineVoiceStandIn,
) -> None:
    server.fault = "hang-midway"
    voice = voice_at(server)
    session = voice.open(VoiceRequest(gender="male"))
    await session.send(TEXT, "zh")
    async with aclosing(session.sound()) as spoken:
        assert isinstance(await anext(spoken), np.ndarray)
        server.fault = ""
        server.released.set()
        await session.end()
        items = [item async for item in spoken]
    assert items[-1] == Mark(0) and not any(isinstance(item, Mark) for item in items[:-1])
    assert server.requests[0].speaker == "zh_male_m191_uranus_bigtts"
    await voice.close()


async def test_who_gives_up_cancels_the_session_and_its_late_sound_is_nobodys(server: VolcengineVoiceStandIn) -> None:
    voice = voice_at(server)
    server.fault = "hang-midway"
    session = voice.open()
    await session.send(TEXT, "zh")
    async with aclosing(session.sound()) as spoken:
        await anext(spoken)
    await session.cancel()
    assert server.cancelled == [], "nobody waits for the service"
    await until(lambda: len(server.cancelled) == 1)
    server.fault = ""
    server.sound = lambda text: tone(text)[:4800]
    await until(lambda: len(voice._idle) == 1)
    assert len(await say(voice, "好")) == 4320
    assert server.connections == 1
    await voice.close()


async def test_a_session_that_does_not_end_when_it_is_cancelled_costs_its_connection(
    server: VolcengineVoiceStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xiaozhi.stages.tts.volcengine._MAX_CANCEL_S", 0.05)
    voice = voice_at(server)
    server.fault = "hang-midway"
    async with aclosing(await ReplyPart(ReplyVoices()).begin(voice, TEXT, "zh")) as spoken:
        await anext(spoken)
    server.fault = "never-cancelled"
    async with asyncio.timeout(5):
        await server.idle()
    server.fault = ""
    assert len(await say(voice, "好")) and server.connections == 2
    await voice.close()


async def test_sound_of_another_session_is_dropped(server: VolcengineVoiceStandIn) -> None:
    server.fault = "stray"
    voice = voice_at(server)
    np.testing.assert_array_equal(await say(voice, "好"), tone("好"))
    await voice.close()


async def test_a_kept_connection_that_the_service_has_closed_is_opened_anew(server: VolcengineVoiceStandIn) -> None:
    voice = voice_at(server)
    server.fault = "ends-idle"
    await say(voice, "一")
    server.fault = ""
    assert len(await say(voice, "二"))
    assert [asked.connection for asked in server.requests] == [1, 2]
    await voice.close()


@pytest.mark.parametrize("keep_s", [0, 1])
async def test_a_connection_is_kept_no_longer_than_wanted(server: VolcengineVoiceStandIn, keep_s: int) -> None:
    voice = voice_at(server, keep_s=keep_s)
    await say(voice, "一")
    async with asyncio.timeout(5):
        await server.idle()
    assert server.closed == 1, "and finished in form"
    await voice.close()


@pytest.mark.parametrize("fault", ["error-500", "hang", "hang-start", "failed", "error-midway", "garbage"])
async def test_a_service_that_fails_is_an_error_of_one_line(server: VolcengineVoiceStandIn, fault: str) -> None:
    server.fault = fault
    voice = voice_at(server, 0.3)
    with pytest.raises(VoiceError, match=r"^volcengine: ") as caught:
        await say(voice, TEXT)
    assert "\n" not in str(caught.value) and server.key not in str(caught.value)
    if fault == "failed":
        assert "is zh_female_vv_uranus_bigtts a voice of tts.volcengine.resource_id seed-tts-2.0?" in str(caught.value)
    await voice.close()


@pytest.mark.parametrize("fault", ["reset-midway", "error-midway", "hang-midway"])
async def test_what_a_broken_session_has_not_said_another_voice_says(
    server: VolcengineVoiceStandIn, codec: WorkerPool, fault: str
) -> None:
    server.sound = brief
    voice, other = voice_at(server, 0.5), Fake(seconds(1.2))
    source = speech(codec, voice, other)
    await reply(source, "一")
    server.fault = fault
    items = await reply(source, "二", "三")
    assert [text for text, _ in by_clause(items)] == ["二", "三"]
    assert other.begun[-1] == "三", "the clause behind the broken one is whole"
    await voice.close()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"api_key": "wrong"}, "HTTP 401: see tts.volcengine.api_key.*log id 20261130-log"),
        ({"resource_id": "seed-tts-1.0"}, "HTTP 403: see .*tts.volcengine.resource_id"),
        ({"api_key": "", "api_key_env": ""}, "no key: set tts.volcengine.api_key"),
        ({"api_key": "钥匙", "app_id": "4711"}, "the key holds characters that no key has"),
    ],
)
async def test_a_key_that_is_refused_is_said_at_the_start_with_what_to_do(
    server: VolcengineVoiceStandIn, values: dict[str, str], says: str
) -> None:
    voice = voice_at(server, 5.0, **values)
    with pytest.raises(VoiceError, match=says) as caught:
        await voice.warm()
    assert "\n" not in str(caught.value) and server.key not in str(caught.value)
    await voice.close()


async def test_silence_is_the_texts_fault_and_the_next_voice_speaks(server: VolcengineVoiceStandIn) -> None:
    server.fault = "empty"
    voice, other = voice_at(server), Fake(seconds(0.6))
    chain = VoiceChain([voice, other], 2.0, 2.0, 30.0, time.monotonic)
    assert len(await heard(chain.speak("啊", language="zh")))
    assert (other.begun, chain.first_in_line()) == (["啊"], "volcengine")
    await voice.close()


async def test_a_turn_is_spoken_by_the_old_consoles_application(tmp_path: Path, server: VolcengineVoiceStandIn) -> None:
    server.sound = brief
    table = {"url": server.ws_url, "api_key": server.key, "app_id": server.app_id}
    tts = {"engines": ["volcengine", "espeak"], "volcengine": table}
    async with house(tmp_path, "It is ten past nine. Sleep well.", tts=tts) as home, home.device() as device:
        report = await device.turn_text("what time is it")
        assert report.text.replace(" ", "") == "Itistenpastnine.Sleepwell."
        assert isinstance(server.requests[0], VolcengineText)
        assert "".join(texts(server)).replace(" ", "") == "Itistenpastnine.Sleepwell."
        assert (server.connections, home.speech.requests) == (1, [])
