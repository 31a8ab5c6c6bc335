"""Recognition that streams to Tencent and iFlytek, against stand-ins that check what they are sent and how fast."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.iflytek_recognition import IflytekRecognitionStandIn
from bench.standins.tencent_recognition import TencentRecognitionStandIn
from tests.house import house, question
from tests.recognisers import RATE, Offline, noting, sound, until
from xiaozhi.audio.pcm import PcmFloat, to_int16
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import remote_recognition
from xiaozhi.concurrency.workers import JobDropped, WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import IflytekAsrSettings, RemoteAsrSettings, TencentAsrSettings
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.iflytek import Iflytek, IflytekDialect
from xiaozhi.stages.asr.live_socket import SocketRecognizer
from xiaozhi.stages.asr.recogniser import Question, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.stages.asr.tencent import Tencent, TencentDialect
from xiaozhi.upstream.signing import iflytek_url, tencent_url

Server: TypeAlias = TencentRecognitionStandIn | IflytekRecognitionStandIn
SERVERS: dict[str, type[TencentRecognitionStandIn] | type[IflytekRecognitionStandIn]] = {
    "tencent": TencentRecognitionStandIn,
    "iflytek": IflytekRecognitionStandIn,
}


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def values_of(server: Server) -> dict[str, str]:
    """The table of settings that reaches a stand-in."""
    if isinstance(server, TencentRecognitionStandIn):
        keys = {"app_id": server.app_id, "secret_id": server.secret_id, "secret_key": server.key}
    else:
        keys = {"app_id": server.app_id, "api_key": server.key, "api_secret": server.secret}
    return {"url": server.ws_url, **keys}


def engine_at(server: Server, limits: RemoteAsrSettings | None = None, **values: object) -> SocketRecognizer:
    limits = limits or RemoteAsrSettings()
    table = values_of(server) | values
    if isinstance(server, TencentRecognitionStandIn):
        return Tencent(TencentAsrSettings.model_validate(table), limits, itn=True)
    return Iflytek(IflytekAsrSettings.model_validate(table), limits)


@dataclass
class Place:
    """A stand-in, an engine in front of a local one, and utterances of both."""

    server: Server
    engine: SocketRecognizer
    pool: WorkerPool
    local: Offline = field(default_factory=Offline)
    shown: list[str] = field(default_factory=list)

    def begin(self) -> Utterance:
        both = Fallback(self.engine, self.engine.remote, self.local)
        return Recognition(both, self.pool, AsrSettings(partials=True, early_decode=False)).begin(noting(self.shown))


@pytest.fixture(params=sorted(SERVERS))
async def place(request: pytest.FixtureRequest) -> AsyncIterator[Place]:
    pool = WorkerPool(1, "asr")
    async with SERVERS[request.param]() as server:
        engine = engine_at(server)
        yield Place(server, engine, pool)
        await engine.disconnect()
    pool.close()


def feed(utterance: Utterance, pcm: PcmFloat) -> None:
    """In pieces of a device: 60 ms."""
    for start in range(0, len(pcm), 960):
        utterance.feed(pcm[start : start + 960])


def ramp(seconds: float) -> PcmFloat:
    """Sound of which no piece is like another."""
    return np.linspace(-0.9, 0.9, round(seconds * RATE), dtype=np.float32)


# The streaming -------------------------------------------------------------------------------------------------------


async def test_sound_goes_up_while_one_speaks_and_the_question_gets_a_final_text_unlike_the_partial_ones(
    place: Place,
) -> None:
    utterance = place.begin()
    pcm = ramp(0.6)
    feed(utterance, pcm)
    await place.server.asked()
    await until(lambda: len(place.shown) == 3)
    asked = place.server.requests[0]
    assert (place.shown, asked.ended, utterance.ready) == (["wh", "what", "what w"], False, False)
    assert (await utterance.transcribe(Question())).text == "what time is it"
    assert bytes(asked.pcm) == to_int16(pcm).astype("<i2").tobytes()
    assert (asked.ended, utterance.ready) == (True, True)
    utterance.close()
    assert (place.engine.remote.requests, place.engine.remote.failures, place.local.decoded) == (1, 0, [])


async def test_a_second_question_about_the_same_words_costs_nothing_and_silence_is_not_sent(place: Place) -> None:
    utterance = place.begin()
    feed(utterance, sound(0.3))
    first = await utterance.transcribe(Question(held=False))
    for ms in range(60, 1200, 60):
        utterance.feed(sound(0.06, 0.0), float(ms))
    assert await utterance.transcribe(Question(held=False)) == first
    assert len(place.server.requests) == 1
    assert len(place.server.requests[0].pcm) == 2 * round(0.3 * RATE)
    utterance.close()


async def test_whoever_goes_on_behind_a_question_is_heard_with_the_silence_before(place: Place) -> None:
    utterance = place.begin()
    feed(utterance, sound(0.3))
    assert (await utterance.transcribe(Question())).text == "what time is it"
    for ms in range(60, 1200, 60):
        utterance.feed(sound(0.06, 0.0), float(ms))
    feed(utterance, sound(0.3, 0.2))
    place.server.sentences = ("in London now",)
    assert (await utterance.transcribe(Question())).text == "what time is it in London now"
    first, second = place.server.requests
    assert len(first.pcm) == 2 * round(0.3 * RATE)
    assert len(second.pcm) == 2 * (19 * 960 + round(0.3 * RATE))
    utterance.close()


async def test_a_whisper_that_no_vad_found_is_sent_where_a_key_is_held(place: Place) -> None:
    utterance = place.begin()
    feed(utterance, sound(0.3))
    await utterance.transcribe(Question())
    for ms in range(60, 1200, 60):
        utterance.feed(sound(0.06, 0.001), float(ms))
    await utterance.transcribe(Question(held=True))
    assert len(place.server.requests[1].pcm) == 2 * 19 * 960
    utterance.close()


@pytest.mark.parametrize("engine", sorted(SERVERS))
async def test_sentences_that_the_service_divides_are_one_text(engine: str) -> None:
    async with SERVERS[engine]("今天天气", "怎么样？") as server:
        recogniser = engine_at(server)
        pool = WorkerPool(1, "asr")
        utterance = Recognition(recogniser, pool).begin()
        feed(utterance, sound(0.5))
        assert (await utterance.transcribe(Question())).text == "今天天气怎么样？"
        utterance.close()
        await recogniser.disconnect()
        pool.close()


async def test_a_service_that_understands_nothing_is_no_failure(place: Place) -> None:
    place.server.fault = "empty"
    utterance = place.begin()
    feed(utterance, sound(0.1))
    assert (await utterance.transcribe(Question())).text == ""
    assert place.engine.remote.failures == 0
    utterance.close()


async def test_sound_that_has_waited_is_not_sent_faster_than_the_service_takes_it(place: Place) -> None:
    utterance = place.begin()
    feed(utterance, ramp(3.5))  # all at once, as behind a network that stood still; Tencent would take 3 s
    assert (await utterance.transcribe(Question())).text == "what time is it"
    assert len(place.server.requests[0].pcm) == 2 * round(3.5 * RATE)
    utterance.close()


async def test_tencent_gets_no_sound_before_it_is_ready() -> None:
    async with TencentRecognitionStandIn() as server:
        server.fault = "slow"
        recogniser, pool = engine_at(server), WorkerPool(1, "asr")
        utterance = Recognition(recogniser, pool).begin()
        feed(utterance, sound(0.2))
        assert (await utterance.transcribe(Question())).text == "what time is it"
        utterance.close()
        await recogniser.disconnect()
        pool.close()


# What goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["refuse", "error-500", "reset-midway", "close", "garbage", "unasked"])
async def test_a_service_that_fails_loses_not_a_word(place: Place, fault: str) -> None:
    place.server.fault = fault
    utterance = place.begin()
    pcm = ramp(1.0)
    feed(utterance, pcm)
    assert (await utterance.transcribe(Question())).text == "10"
    np.testing.assert_array_equal(place.local.decoded[0], pcm)
    feed(utterance, sound(0.5))  # the rest of it as well
    assert (await utterance.transcribe(Question())).text == "15"
    assert (place.engine.remote.failures, place.engine.remote.fallbacks) == (1, 1)
    utterance.close()
    await until(lambda: place.engine.streams == 0)


@pytest.mark.parametrize("fault", ["stall", "hang"])
async def test_a_service_that_is_silent_is_waited_for_no_longer_than_it_may_take(place: Place, fault: str) -> None:
    place.server.fault = fault
    place.engine.remote.settings = RemoteAsrSettings(timeout_s=0.4)
    utterance = place.begin()
    feed(utterance, sound(0.5))
    assert (await utterance.transcribe(Question())).text == "5"
    async with asyncio.timeout(3):
        await place.server.idle()
    utterance.close()


async def test_a_failure_behind_a_question_leaves_no_hole_in_the_text(place: Place) -> None:
    utterance = place.begin()
    feed(utterance, sound(0.5))
    assert (await utterance.transcribe(Question())).text == "what time is it"
    place.server.fault = "reset-midway"
    feed(utterance, sound(0.5))
    assert (await utterance.transcribe(Question())).text == "10", "both halves"
    utterance.close()


async def test_two_failures_in_a_row_and_no_connection_is_tried_until_it_has_rested(place: Place) -> None:
    place.server.fault = "reset-midway"
    for _ in range(2):
        utterance = place.begin()
        feed(utterance, sound(0.5))
        await utterance.transcribe(Question())
        utterance.close()
    place.server.fault = ""
    seen = len(place.server.requests)
    utterance = place.begin()
    feed(utterance, sound(0.5))
    assert (await utterance.transcribe(Question())).text == "5"
    assert (len(place.server.requests), place.engine.remote.failures) == (seen, 2)
    utterance.close()


async def test_no_more_connections_are_opened_unasked_than_the_settings_say(place: Place) -> None:
    place.engine.remote.settings = RemoteAsrSettings(max_concurrent=1)
    first = place.begin()
    feed(first, sound(0.5))
    await place.server.asked()
    second = place.begin()
    feed(second, sound(0.7))
    assert (await first.transcribe(Question())).text == "what time is it"
    assert len(place.server.requests) == 1
    assert (await second.transcribe(Question())).text == "what time is it", "sent when it was asked for"
    for utterance in (first, second):
        utterance.close()


async def test_what_is_too_long_is_recognised_here_and_no_longer_sent(place: Place) -> None:
    place.engine.remote.settings = RemoteAsrSettings(max_audio_s=1.0)
    utterance = place.begin()
    feed(utterance, sound(1.5))
    assert (await utterance.transcribe(Question())).text == "15"
    assert place.engine.streams == 0
    utterance.close()


async def test_closing_leaves_the_service_at_once_and_drops_the_question(place: Place) -> None:
    place.server.fault = "hang"
    utterance = place.begin()
    feed(utterance, sound(0.5))
    asking = asyncio.create_task(utterance.transcribe(Question()))
    await place.server.asked()
    await until(lambda: place.server.requests[0].ended)
    utterance.close()
    with pytest.raises(JobDropped):
        await asking
    async with asyncio.timeout(3):
        await place.server.idle()
    assert place.engine.remote.failures == 0


# Keys, refusals, settings --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "wrong", "advice"),
    [
        ("tencent", "secret_key", "error 4002.*asr.tencent.secret_key"),
        ("tencent", "secret_id", "error 4002.*asr.tencent.secret_id"),
        ("tencent", "app_id", "error 4003.*asr.tencent.app_id"),
        ("iflytek", "api_key", "HTTP 401.*asr.iflytek.api_key"),
        ("iflytek", "api_secret", "HTTP 401.*asr.iflytek.api_secret"),
    ],
)
async def test_a_wrong_key_is_found_by_the_check(engine: str, wrong: str, advice: str) -> None:
    async with SERVERS[engine]() as server:
        values = values_of(server)
        good = await remote_recognition(AsrSettings.model_validate({"engine": engine, engine: values}))
        assert good is not None and good.level is Level.OK
        values = values | {wrong: "1234567"}
        bad = await remote_recognition(AsrSettings.model_validate({"engine": engine, engine: values}))
        assert bad is not None and bad.level is not Level.OK
        with pytest.raises(RemoteError, match=advice) as caught:
            recogniser = engine_at(server, None, **{wrong: "1234567"})
            try:
                await recogniser.connect()
            finally:
                await recogniser.disconnect()
        assert "1234567" not in str(caught.value) and "k-" not in str(caught.value) and "\n" not in str(caught.value)


async def test_another_iflytek_application_is_refused_with_what_to_do() -> None:
    async with IflytekRecognitionStandIn() as server:
        recogniser, pool = engine_at(server, app_id="another"), WorkerPool(1, "asr")
        utterance = Recognition(recogniser, pool).begin()
        feed(utterance, sound(0.3))
        with pytest.raises(RemoteError, match=r"iflytek: error 10313: .*asr\.iflytek\.app_id.*sid iat1"):
            await utterance.transcribe(Question())
        utterance.close()
        await recogniser.disconnect()
        pool.close()


@pytest.mark.parametrize(("engine", "variable"), [("tencent", "TENCENT_SECRET_KEY"), ("iflytek", "IFLYTEK_API_SECRET")])
async def test_missing_keys_are_said_with_where_to_put_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str, variable: str
) -> None:
    for name in ("TENCENT_APP_ID", "TENCENT_SECRET_ID", variable):
        monkeypatch.delenv(name, raising=False)
    settings = AsrSettings.model_validate({"engine": engine, "fallback": "pocketsphinx"})
    built = build_recognizer(settings, tmp_path, ["what time is it"])
    assert variable in built.hint and "when it fails: pocketsphinx" in built.why
    assert isinstance(built.recognizer, Fallback)
    with pytest.raises(RemoteError, match=variable):
        await built.recognizer.first.connect()
    built.recognizer.close()


async def test_tencent_is_told_what_the_settings_say() -> None:
    async with TencentRecognitionStandIn() as server:
        recogniser = engine_at(server, model="16k_zh_en", hotwords={"小智": 11, "C++ & 爱 丽丝": 5})
        await recogniser.connect()
        query = server.requests[0].query
        await recogniser.disconnect()
    assert query["engine_model_type"] == "16k_zh_en" and query["convert_num_mode"] == "1"
    assert (query["hotword_list"], query["needvad"]) == ("小智|11,C++ & 爱 丽丝|5", "0")


@pytest.mark.parametrize("engine", sorted(SERVERS))
@pytest.mark.parametrize("fault", ["", "reset-midway"])
async def test_a_turn_is_answered_by_the_service_or_without_it(tmp_path: Path, engine: str, fault: str) -> None:
    async with SERVERS[engine]("how late is it over there") as server:
        server.fault = fault
        asr = {"engine": engine, "fallback": "sense-voice", engine: values_of(server)}
        async with house(tmp_path, asr=asr) as home, home.device() as device:
            report = await device.turn(question())
    assert report.answered
    assert report.heard == ("what time is it" if fault else "how late is it over there")


# Bytes ---------------------------------------------------------------------------------------------------------------


def test_addresses_are_signed_as_another_program_signs_them() -> None:
    # Made with: printf '%s' 'asr.cloud.tencent.com/asr/v2/1259?nonce=7&secretid=id&voice_id=a b' |
    #            openssl dgst -sha1 -hmac key -binary | base64
    values: dict[str, str | int] = {"voice_id": "a b", "secretid": "id", "nonce": 7}
    url = tencent_url("wss://asr.cloud.tencent.com/asr/v2/1259", values, "key", field="signature")
    assert (
        url
        == "wss://asr.cloud.tencent.com/asr/v2/1259?nonce=7&secretid=id&voice_id=a%20b&signature=aKz%2FFtcuTxXfPQ9%2FVt4j7buDYFU%3D"
    )
    # Made with: printf 'host: iat.xf-yun.com\ndate: Mon, 02 Jan 2023 03:04:05 GMT\nGET /v1 HTTP/1.1' |
    #            openssl dgst -sha256 -hmac secret -binary | base64
    url = iflytek_url("wss://iat.xf-yun.com/v1", "k", "secret", datetime(2023, 1, 2, 3, 4, 5, tzinfo=UTC))
    how = base64.b64decode(url.split("authorization=")[1].split("&")[0].replace("%3D", "=")).decode()
    assert how.endswith('signature="EWjQdqh+G2zayk2kVnNjILU7O69e/b+j5patmoCTVv8="')


slots = st.lists(st.tuples(st.integers(1, 30), st.text(max_size=4), st.booleans(), st.integers(0, 5)), max_size=20)


@given(slots)
def test_slots_are_appended_and_replaced_as_iflytek_says(told: list[tuple[int, str, bool, int]]) -> None:
    dialect, table = IflytekDialect(IflytekAsrSettings()), [""] * 31
    for number, text, replaces, reach in told:
        slot: dict[str, Any] = {"sn": number, "ws": [{"cw": [{"w": text}, {"w": "no"}]}], "pgs": "apd"}
        if replaces:
            slot |= {"pgs": "rpl", "rg": [max(1, number - reach), number]}
            table[max(1, number - reach) : number + 1] = [""] * (number + 1 - max(1, number - reach))
        table[number] = text
        body = base64.b64encode(json.dumps(slot).encode()).decode()
        dialect.take(json.dumps({"header": {"code": 0, "status": 1}, "payload": {"result": {"text": body}}}))
        assert (dialect.text, dialect.over) == ("".join(table), False)


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["code", "result", "header", "payload", "index", "voice_text_str", "text", "status", "final"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(junk)
def test_whatever_a_service_sends_is_a_text_or_an_error_of_one_line(said: object) -> None:
    for dialect in (TencentDialect(), IflytekDialect(IflytekAsrSettings())):
        try:
            dialect.take(json.dumps(said))
        except RemoteError as error:
            assert "\n" not in str(error)
