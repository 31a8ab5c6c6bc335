"""Volcengine's streaming recognition, against a stand-in that checks what it is sent and behaves well and badly."""

import asyncio
import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.speech import SpeechStandIn
from bench.standins.volcengine import VolcengineAsrStandIn
from tests.house import house, question
from tests.recognisers import RATE, Offline, noting, sound, until
from tests.test_turns_partials import shown
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import remote_recognition
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import RemoteAsrSettings, VolcengineAsrSettings
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.live import LiveUtterance
from xiaozhi.stages.asr.recogniser import Question, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.remote_use import RemoteError
from xiaozhi.stages.asr.volcengine import Volcengine
from xiaozhi.stages.volcengine import Kind, ServiceError, packed, read


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    workers = WorkerPool(1, "test-asr")
    yield workers
    workers.close()


@pytest.fixture
async def server() -> AsyncIterator[VolcengineAsrStandIn]:
    async with VolcengineAsrStandIn() as standin:
        yield standin


def engine_at(server: VolcengineAsrStandIn, limits: dict[str, float] | None = None, **values: str) -> Volcengine:
    settings = VolcengineAsrSettings.model_validate({"url": server.ws_url, "api_key": server.key, **values})
    return Volcengine(settings, RemoteAsrSettings.model_validate(limits or {}), "zh", itn=True)


async def talk(utterance: Utterance, seconds: float, *, silence_s: float = 0.0, value: float = 0.1) -> None:
    """Speak in pieces of 0.1 s, then be silent."""
    for _ in range(round(seconds * 10)):
        utterance.feed(sound(0.1, value))
        await asyncio.sleep(0)
    for number in range(round(silence_s * 10)):
        utterance.feed(sound(0.1, 0.0), (number + 1) * 100.0)
        await asyncio.sleep(0)


def sent(server: VolcengineAsrStandIn, number: int = -1) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    return np.frombuffer(bytes(server.streams[number].sound), "<i2")


# Frames -------------------------------------------------------------------------------------------------------------


def test_frames_are_those_of_the_documents_to_the_byte() -> None:
    request = packed(Kind.REQUEST, b'{"a":1}')
    assert request[:4] == bytes((0x11, 0x10, 0x11, 0x00))
    assert int.from_bytes(request[4:8], "big") == len(request) - 8 and gzip.decompress(request[8:]) == b'{"a":1}'
    last = packed(Kind.SOUND_UP, b"", flags=2)
    assert last[:4] == bytes((0x11, 0x22, 0x01, 0x00)) and gzip.decompress(last[8:]) == b""
    error = read(bytes((0x11, 0xF0, 0x10, 0x00)) + (45000001).to_bytes(4, "big") + b"\0\0\0\x0d" + b'{"error":"x"}')
    assert (error.kind, error.code, error.says(), error.last) == (Kind.ERROR, 45000001, "x", False)
    answer = read(bytes((0x11, 0x93, 0x10, 0x00)) + b"\0\0\0\3" + b"\0\0\0\2{}")  # +3 in the documents' own example
    assert (answer.kind, answer.last, answer.json()) == (Kind.ANSWER, True, {})
    audio = read(bytes((17, 180, 0, 0, 0, 0, 1, 96, 0, 0, 0, 2)) + b"id" + b"\0\0\0\3abc")
    assert (audio.kind, audio.event, audio.id, audio.payload) == (Kind.SOUND_DOWN, 352, "id", b"abc")


@given(st.binary(max_size=60) | st.binary(max_size=60).map(lambda tail: bytes((0x11, 0x91, 0x11, 0)) + tail))
def test_whatever_bytes_come_are_a_frame_or_one_error(data: bytes) -> None:
    try:
        frame = read(data)
        frame.says()
        frame.json()
    except ServiceError as error:
        assert "\n" not in str(error)


# One utterance ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("zipped", "listed"), [(True, False), (False, True)])
async def test_sound_goes_up_while_somebody_speaks_and_the_soft_end_asks_for_the_last_text(
    server: VolcengineAsrStandIn, pool: WorkerPool, *, zipped: bool, listed: bool
) -> None:
    server.zipped, server.listed, server.last = zipped, listed, "What time is it?"
    engine = engine_at(server)
    texts: list[str] = []
    utterance = Recognition(engine, pool, AsrSettings(partials=True)).begin(noting(texts))
    await talk(utterance, 2.05)
    await until(lambda: texts == ["what", "what time", "what time is", "what time is it"])
    await talk(utterance, 0, silence_s=0.2)
    assert (utterance.ready, await utterance.transcribe(Question())) == (False, Transcript("What time is it?"))
    assert utterance.ready
    assert await utterance.transcribe(Question()) == Transcript("What time is it?")
    (stream,) = server.streams
    assert stream.seconds == pytest.approx(2.2) and len(sent(server)) == 2.2 * RATE
    assert stream.request["request"]["result_type"] == "full"
    assert (engine.remote.requests, engine.remote.failures, engine.streams) == (1, 0, 0)
    utterance.close()
    await engine.disconnect()


async def test_who_goes_on_within_a_sentence_is_heard_whole_and_behind_a_pause_only_what_is_new(
    server: VolcengineAsrStandIn, pool: WorkerPool
) -> None:
    engine = engine_at(server)
    utterance = Recognition(engine, pool).begin()
    await talk(utterance, 1.0, silence_s=0.1)
    await utterance.transcribe(Question())
    await talk(utterance, 0.5, silence_s=0.1)
    server.last = "we go."
    assert (await utterance.transcribe(Question())).text == "we go."
    assert [stream.seconds for stream in server.streams] == pytest.approx([1.1, 1.7]), "torn words are sent again"
    utterance.feed(sound(0.5, 0.0), 600.0)
    server.last = "and sing."
    await talk(utterance, 1.0, silence_s=0.1)
    assert (await utterance.transcribe(Question())).text == "we go and sing."
    assert server.streams[-1].seconds == pytest.approx(1.6), "the pause and what is behind it"
    utterance.close()
    await engine.disconnect()


async def test_a_text_that_has_all_words_comes_first_and_the_last_one_counts(
    server: VolcengineAsrStandIn, pool: WorkerPool
) -> None:
    server.last = "what time is it now"
    engine = engine_at(server)
    texts: list[str] = []
    utterance = Recognition(engine, pool, AsrSettings(partials=True)).begin(noting(texts))
    await talk(utterance, 1.8)
    await until(lambda: len(texts) == 3)
    first: list[Transcript] = []
    await talk(utterance, 0, silence_s=0.3)
    await until(lambda: len(texts) == 4)
    assert (await utterance.transcribe(Question(provisional=first.append))).text == "what time is it now"
    assert first == [Transcript("what time is it")]
    utterance.close()
    await engine.disconnect()


async def test_a_probe_is_answered_by_what_is_known_and_the_stream_goes_on(
    server: VolcengineAsrStandIn, pool: WorkerPool
) -> None:
    engine = engine_at(server)
    utterance = Recognition(engine, pool).begin()
    await talk(utterance, 0.6)
    assert (await utterance.transcribe(Question(Priority.PROBE))).text == "what"
    await talk(utterance, 1.4)
    assert (await utterance.transcribe(Question())).text == "what time is it"
    assert [stream.seconds for stream in server.streams] == pytest.approx([2.0])
    utterance.close()
    await engine.disconnect()


async def test_a_stream_that_the_service_ends_by_itself_is_followed_by_another(
    server: VolcengineAsrStandIn, pool: WorkerPool
) -> None:
    engine = engine_at(server)
    server.fault = "ends"
    utterance = Recognition(engine, pool).begin()
    await talk(utterance, 0.6)
    assert isinstance(utterance, LiveUtterance)
    await until(lambda: utterance._stream is not None and utterance._stream.text is not None)
    server.fault = ""
    await talk(utterance, 1.0)
    assert (await utterance.transcribe(Question())).text == "what time is it"
    assert server.streams[-1].seconds == pytest.approx(1.6)
    utterance.close()
    await engine.disconnect()


async def test_sound_without_speech_is_no_failure(pool: WorkerPool) -> None:
    async with VolcengineAsrStandIn(last="") as server:
        engine = engine_at(server)
        utterance = Recognition(engine, pool).begin()
        await talk(utterance, 0.3)
        assert (await utterance.transcribe(Question())).text == ""
        assert (await Recognition(engine, pool).begin().transcribe(Question())).text == ""
        assert (engine.remote.failures, len(server.streams)) == (0, 1)
        utterance.close()
        await engine.disconnect()


async def test_an_utterance_that_is_given_up_closes_its_connection(
    server: VolcengineAsrStandIn, pool: WorkerPool
) -> None:
    engine = engine_at(server)
    utterance = Recognition(engine, pool).begin()
    await talk(utterance, 0.6)
    await until(lambda: len(server.streams) == 1)
    utterance.close()
    async with asyncio.timeout(5):
        await server.idle()
    assert engine.streams == 0 and not server.streams[0].ended
    await engine.disconnect()


# What goes wrong ----------------------------------------------------------------------------------------------------

FAULTS = ["hang", "error-500", "stall", "error-midway", "reset-midway", "garbage", "bomb", "text", "no-text"]


@pytest.mark.parametrize("fault", [*FAULTS, "silent-last"])
async def test_a_service_that_fails_in_mid_utterance_loses_not_a_word(
    server: VolcengineAsrStandIn, pool: WorkerPool, fault: str
) -> None:
    engine, local = engine_at(server, {"timeout_s": 0.5, "connect_timeout_s": 0.4}), Offline()
    both = Fallback(engine, engine.remote, local)
    utterance = Recognition(both, pool, AsrSettings(early_decode=False)).begin()
    server.fault = fault
    await talk(utterance, 0.7)
    await until(lambda: server.handshakes > 0)
    await talk(utterance, 0.3)
    assert (await utterance.transcribe(Question())).text == "10"
    np.testing.assert_array_equal(local.decoded[0], sound(1.0))
    await talk(utterance, 0.5)
    assert (await utterance.transcribe(Question())).text == "15"
    assert (engine.remote.failures, engine.remote.fallbacks, server.handshakes) == (1, 1, 1)
    utterance.close()
    async with asyncio.timeout(5):
        server.released.set()
        await server.idle()
    await both.disconnect()


async def test_a_service_that_keeps_failing_is_not_even_connected_to_until_it_is_tried_again(
    server: VolcengineAsrStandIn, pool: WorkerPool
) -> None:
    engine, local = engine_at(server, {"failures": 1, "retry_after_s": 60}), Offline()
    recognition = Recognition(Fallback(engine, engine.remote, local), pool, AsrSettings(early_decode=False))
    server.fault = "error-500"
    for _ in range(2):
        utterance = recognition.begin()
        await talk(utterance, 0.5)
        assert (await utterance.transcribe(Question())).text == "5"
        utterance.close()
    assert (server.handshakes, engine.remote.fallbacks) == (1, 2)
    await engine.disconnect()


async def test_no_more_streams_than_allowed_and_none_for_what_is_too_long(
    server: VolcengineAsrStandIn, pool: WorkerPool
) -> None:
    engine, local = engine_at(server, {"max_concurrent": 1, "max_audio_s": 1}), Offline()
    recognition = Recognition(Fallback(engine, engine.remote, local), pool, AsrSettings(early_decode=False))
    first, second = recognition.begin(), recognition.begin()
    await talk(first, 0.5)
    await talk(second, 0.5)
    assert (await second.transcribe(Question())).text == "5"
    await until(lambda: server.handshakes == 1)
    await talk(first, 1.0)
    async with asyncio.timeout(5):
        await server.idle()
    assert (await first.transcribe(Question())).text == "15"
    assert engine.remote.failures == 0, "it was not the service"
    first.close()
    second.close()
    await engine.disconnect()


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"api_key": "wrong"}, "HTTP 401: see asr.volcengine.api_key.*log id 20261130-log"),
        ({"resource_id": "volc.bigasr.sauc.duration"}, "HTTP 403: see .*asr.volcengine.resource_id"),
        ({"api_key": "", "api_key_env": ""}, "no key: set asr.volcengine.api_key"),
        ({"api_key": "钥匙", "app_id": "4711"}, "the key holds characters that no key has"),
    ],
)
async def test_a_key_that_is_refused_is_said_at_the_start_with_what_to_do(
    server: VolcengineAsrStandIn, values: dict[str, str], says: str
) -> None:
    engine = engine_at(server, None, **values)
    with pytest.raises(RemoteError, match=says) as caught:
        await engine.connect()
    assert "\n" not in str(caught.value) and server.key not in str(caught.value)
    await engine.disconnect()


async def test_number_and_token_of_the_old_console_are_taken_and_the_check_says_so(
    server: VolcengineAsrStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VOLCENGINE_APP_ID", server.app_id)
    monkeypatch.setenv("VOLCENGINE_API_KEY", server.key)
    values = {"engine": "volcengine", "volcengine": {"url": server.ws_url}}
    finding = await remote_recognition(AsrSettings.model_validate(values))
    assert finding is not None and finding.level is Level.OK
    assert server.streams == [], "and it costs nothing"


async def test_a_redirection_takes_the_key_nowhere(server: VolcengineAsrStandIn) -> None:
    async with SpeechStandIn() as other:
        server.fault, server.redirect = "redirect", f"{other.url}/v1/models"
        engine = engine_at(server)
        with pytest.raises(RemoteError, match=r"it redirects to 127\.0\.0\.1: give that address"):
            await engine.connect()
        assert other.requests == []
        await engine.disconnect()


async def test_words_and_tables_go_with_the_request_and_a_language_only_where_it_is_taken() -> None:
    values = {"hotwords": ["小智", "豆包"], "boosting_table": "names"}
    engine = Volcengine(VolcengineAsrSettings.model_validate(values), RemoteAsrSettings(), "ja", itn=False)
    asked = engine.request()
    assert asked["request"]["corpus"] == {
        "boosting_table_name": "names",
        "context": '{"hotwords":[{"word":"小智"},{"word":"豆包"}]}',
    }
    assert "language" not in asked["audio"] and asked["request"]["enable_itn"] is False
    values["url"] = "wss://openspeech.bytedance.com/api/v3/sauc/bigmodel_nostream"
    whole = Volcengine(VolcengineAsrSettings.model_validate(values), RemoteAsrSettings(), "ja", itn=False)
    assert whole.request()["audio"]["language"] == "ja-JP"


# Whole turns --------------------------------------------------------------------------------------------------------


async def test_a_turn_is_heard_by_the_service_while_it_is_spoken(tmp_path: Path, server: VolcengineAsrStandIn) -> None:
    table = {"url": server.ws_url, "api_key": server.key}
    asr = {"engine": "volcengine", "fallback": "sense-voice", "volcengine": table, "partials": True}
    async with house(tmp_path, asr=asr) as home, home.device() as device:
        report = await device.turn(question())
        assert (report.answered, report.heard, report.text) == (True, "what time is it", "It is ten past nine.")
        assert len(shown(device)) >= 2 and shown(device)[-1] == "what time is it"
        assert server.streams[-1].ended


async def test_a_turn_whose_line_is_cut_is_answered_all_the_same(tmp_path: Path, server: VolcengineAsrStandIn) -> None:
    server.fault = "reset-midway"
    table = {"url": server.ws_url, "api_key": server.key}
    asr = {"engine": "volcengine", "fallback": "sense-voice", "volcengine": table}
    async with house(tmp_path, asr=asr) as home, home.device() as device:
        report = await device.turn(question())
        assert (report.answered, report.heard) == (True, "what time is it")
