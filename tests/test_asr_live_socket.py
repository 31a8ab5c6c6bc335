"""Recognition by services that stream, against stand-ins that check what they are sent, and what happens on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from openai.types.realtime import RealtimeClientEvent
from pydantic import TypeAdapter

from bench.standins.deepgram import DeepgramStandIn
from bench.standins.openai_realtime import OpenAIRealtimeStandIn
from tests.house import house, question
from tests.recognisers import RATE, Offline, noting, sound, until
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import remote_recognition
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.deepgram import Deepgram, DeepgramDialect
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.live_socket import SocketRecognizer
from xiaozhi.stages.asr.openai_realtime import OpenAIRealtime, OpenAIRealtimeDialect
from xiaozhi.stages.asr.recogniser import Question, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.remote_use import RemoteError

Server: TypeAlias = DeepgramStandIn | OpenAIRealtimeStandIn
ENGINES = ("deepgram", "openai_realtime")


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "asr")
    yield pool
    pool.close()


@pytest.fixture(params=ENGINES)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with DeepgramStandIn() if request.param == "deepgram" else OpenAIRealtimeStandIn() as server:
        yield server


def settings_of(server: Server, **values: Any) -> AsrSettings:
    """`[asr]` with the engine of a stand-in."""
    name = "deepgram" if isinstance(server, DeepgramStandIn) else "openai_realtime"
    table = {"url": server.ws_url, "api_key": server.key, **values.pop("table", {})}
    return AsrSettings.model_validate({"engine": name, name: table, "partials": True, **values})


def engine_of(settings: AsrSettings) -> SocketRecognizer:
    """The engine alone."""
    kind = Deepgram if settings.engine == "deepgram" else OpenAIRealtime
    return kind(getattr(settings, settings.engine), settings.remote, settings.language)


Open: TypeAlias = Callable[..., tuple[Utterance, list[str], SocketRecognizer]]


@pytest.fixture
async def begin(server: Server, pool: WorkerPool) -> AsyncIterator[Open]:
    """Opens utterances of an engine with a local recogniser behind it, which says tenths of seconds."""
    made: list[tuple[Fallback, Utterance]] = []

    def begin(engine: SocketRecognizer | None = None, **values: Any) -> tuple[Utterance, list[str], SocketRecognizer]:
        settings = settings_of(server, **values)
        engine = engine or engine_of(settings)
        both = Fallback(engine, engine.remote, Offline())
        shown: list[str] = []
        utterance = Recognition(both, pool, settings.model_copy(update={"early_decode": False})).begin(noting(shown))
        made.append((both, utterance))
        return utterance, shown, engine

    yield begin
    for both, utterance in made:
        utterance.close()
        await both.disconnect()


async def text_of(utterance: Utterance, **asked: Any) -> str:
    return (await utterance.transcribe(Question(**asked))).text


async def test_words_are_shown_while_somebody_speaks_and_the_question_waits_for_the_final_ones(
    server: Server, begin: Open
) -> None:
    utterance, shown, engine = begin()
    for _ in range(10):
        utterance.feed(sound(0.1))
    await until(lambda: bool(shown) and shown[-1].startswith("WHAT TIME IS"))
    assert len(set(shown)) == len(shown) and engine.remote.requests == 0
    assert await text_of(utterance) == "what time is it"
    for _ in range(5):
        utterance.feed(sound(0.1))  # the user goes on
    assert await text_of(utterance) == "what time is it over there"
    assert server.received_s == [pytest.approx(2.5, abs=0.01)], "what was torn is sent again, on the same connection"
    assert (engine.remote.requests, engine.remote.failures, engine.remote.fallbacks) == (2, 0, 0)


async def test_silence_after_the_answer_asks_nothing_again(server: Server, begin: Open) -> None:
    utterance, _, engine = begin()
    utterance.feed(sound(1.0))
    utterance.feed(sound(0.2, 0.0), 200.0)
    assert await text_of(utterance, held=False) == "what time is it"
    utterance.feed(sound(0.5, 0.0), 700.0)
    assert await text_of(utterance, held=False) == "what time is it"
    assert engine.remote.requests == 1


async def test_a_connection_serves_one_utterance_after_another_and_never_two_at_once(
    server: Server, begin: Open
) -> None:
    first, _, engine = begin()
    second, _, _ = begin(engine)
    for utterance in (first, second):
        utterance.feed(sound(1.0))
    assert [await text_of(first), await text_of(second)] == ["what time is it"] * 2
    first.feed(sound(0.3, 0.0), 300.0)  # silence behind the question is not sent
    for utterance in (first, second):
        utterance.close()
    await until(lambda: engine.streams == 0)
    third, shown, _ = begin(engine)
    third.feed(sound(0.75))
    assert await text_of(third) == "what time is"
    assert len(server.received_s) == 2
    assert all("IT" not in text for text in shown)


async def test_an_utterance_that_is_given_up_leaves_no_connection_to_others(server: Server, begin: Open) -> None:
    utterance, _, engine = begin()
    utterance.feed(sound(0.5))
    await until(lambda: sum(server.received_s) > 0.49)
    utterance.close()
    async with asyncio.timeout(3):
        await server.idle()
    assert (engine.streams, engine.remote.requests, engine.remote.failures) == (0, 0, 0)


@pytest.mark.parametrize("fault", ["error", "reset-midway", "close", "garbage", "hang-at-question", "error-500"])
async def test_what_fails_in_mid_utterance_loses_not_a_word(server: Server, begin: Open, fault: str) -> None:
    server.fault = fault
    utterance, _, engine = begin(remote={"timeout_s": 0.3 if "hang" in fault else 4.0})
    for _ in range(10):
        utterance.feed(sound(0.1))
    assert await text_of(utterance) == "10", "the local recogniser has heard all of it"
    utterance.feed(sound(0.5))
    assert await text_of(utterance) == "15"
    assert (engine.remote.failures, engine.remote.fallbacks) == (1, 1)
    server.released.set()
    async with asyncio.timeout(3):
        await server.idle()


@pytest.mark.parametrize(
    ("fault", "why"), [("error", "cannot decode|server had an error"), ("garbage", "not an answer")]
)
async def test_an_error_in_mid_stream_is_one_line_without_the_key(
    server: Server, pool: WorkerPool, fault: str, why: str
) -> None:
    server.fault = fault
    settings = settings_of(server)
    engine = engine_of(settings)
    utterance = Recognition(engine, pool, settings).begin()
    utterance.feed(sound(0.5))
    with pytest.raises(RemoteError, match=f"^{engine.name}: .*({why})") as caught:
        await text_of(utterance)
    assert "\n" not in str(caught.value) and server.key not in str(caught.value)
    utterance.close()
    await engine.disconnect()


async def test_a_service_that_is_left_alone_gets_no_connection(server: Server, begin: Open) -> None:
    utterance, _, engine = begin()
    utterance.feed(sound(0.1))
    engine.remote.rest("test")
    again, _, _ = begin(engine)
    again.feed(sound(0.5))
    assert await text_of(again) == "5"
    assert engine.streams == 1, "the first alone, which had begun before"
    utterance.close()


async def test_more_than_may_be_sent_at_once_and_longer_than_it_may_be_is_recognised_here(
    server: Server, begin: Open
) -> None:
    utterance, _, engine = begin(remote={"max_concurrent": 1, "max_audio_s": 2.0})
    above, _, _ = begin(engine)
    utterance.feed(sound(0.1))
    above.feed(sound(0.5))
    assert await text_of(above) == "5"
    utterance.feed(sound(2.9))
    assert await text_of(utterance) == "30"
    assert engine.remote.failures == 0


async def test_a_wrong_key_is_found_before_anybody_speaks(server: Server) -> None:
    good = await remote_recognition(settings_of(server))
    bad = await remote_recognition(settings_of(server, table={"api_key": "wrong-key"}))
    assert good is not None and good.level is Level.OK
    assert bad is not None and "HTTP 401: the key is wrong" in str(bad) and "wrong-key" not in str(bad)
    assert server.received_s in ([], [0.0]), "finding out costs nothing"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_missing_key_is_said_with_where_to_put_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    for name in ("OPENAI_API_KEY", "DEEPGRAM_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    settings = AsrSettings.model_validate({"engine": engine, "fallback": "pocketsphinx"})
    built = build_recognizer(settings, tmp_path, ["what time is it"])
    assert isinstance(built.recognizer, Fallback) and f"asr.{engine}.api_key" in built.hint
    built.recognizer.close()


@pytest.mark.parametrize("fault", ["", "reset-midway"])
async def test_a_turn_is_answered_with_every_word_whatever_the_line_does(
    tmp_path: Path, server: Server, fault: str
) -> None:
    name = "deepgram" if isinstance(server, DeepgramStandIn) else "openai_realtime"
    server.words = ["how", "late", "over", "there"]
    values = {"engine": name, "fallback": "sense-voice", name: {"url": server.ws_url, "api_key": server.key}}
    async with house(tmp_path, asr=values) as home, home.device() as device:
        server.fault = fault
        report = await device.turn(question())
        assert report.answered
        assert report.heard == ("what time is it" if fault else "how late over there")
        if not fault:
            again = await device.turn(question())
            assert again.answered and len(server.received_s) == 1, "the second utterance takes the same connection"


# Deepgram -----------------------------------------------------------------------------------------------------------


async def test_deepgram_is_told_what_is_wanted_and_its_own_endpointing_is_off() -> None:
    async with DeepgramStandIn() as server:
        for model, name in (("nova-3", "keyterm"), ("nova-2", "keywords")):
            settings = settings_of(server, language="zh", table={"model": model, "hotwords": ["小智", "A&B"]})
            engine = engine_of(settings)
            await engine.connect()
            query = server.requests[-1]
            assert query.getall(name) == ["小智", "A&B"]
            assert (query["model"], query["language"], query["endpointing"]) == (model, "zh", "false")
            assert query["interim_results"] == "true"
            await engine.disconnect()


async def test_deepgram_that_has_nothing_left_to_recognise_is_not_waited_for(pool: WorkerPool) -> None:
    async with DeepgramStandIn(final_every_s=1.0) as server:
        engine = engine_of(settings_of(server))
        utterance = Recognition(engine, pool, settings_of(server)).begin()
        utterance.feed(sound(1.0))  # final at once, so that `Finalize` is not answered
        assert await text_of(utterance) == "what time is it"
        utterance.close()
        await engine.disconnect()


async def test_deepgrams_connection_is_kept_open_between_utterances(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xiaozhi.stages.asr.live_socket._KEEP_ALIVE_S", 0.05)
    async with DeepgramStandIn(idle_s=5.0) as server:
        engine = engine_of(settings_of(server))
        await engine.connect()
        await until(lambda: server.controls == ["KeepAlive"] * 3)
        utterance = Recognition(engine, pool, settings_of(server)).begin()
        utterance.feed(sound(1.0))
        assert await text_of(utterance) == "what time is it" and len(server.received_s) == 1
        utterance.close()
        await engine.disconnect()


def results(text: str, start_s: float, duration_s: float, **marks: bool) -> dict[str, Any]:
    channel = {"alternatives": [{"transcript": text}]}
    return {"type": "Results", "start": start_s, "duration": duration_s, "channel": channel, **marks}


def test_an_answer_to_an_older_question_does_not_answer_a_newer_one() -> None:
    dialect, second = DeepgramDialect(), bytes(2 * RATE)
    dialect.sound(second)
    dialect.end(RATE // 2)  # the last half second is silence
    dialect.read(results("One.", 0.0, 0.6, is_final=True))
    assert (dialect.over, dialect.text) == (True, "One."), "all that is voiced is final"
    dialect.begin()
    dialect.sound(second)
    dialect.end(RATE)
    dialect.read(results("", 0.6, 0.4, is_final=True, from_finalize=True))
    assert not dialect.over, "that was the first question's"
    dialect.read(results("two.", 1.0, 1.0, is_final=True, from_finalize=True))
    assert (dialect.over, dialect.text) == (True, "two.")


def test_deepgrams_pieces_keep_their_punctuation() -> None:
    dialect = DeepgramDialect()
    dialect.sound(bytes(6 * RATE))
    dialect.read(results("Hello there.", 0.0, 1.0, is_final=True))
    dialect.read(results("How are.", 1.0, 1.0, is_final=True))
    dialect.read(results("you", 2.0, 1.0))
    assert dialect.text == "Hello there. How are. you"
    dialect.begin()
    dialect.read(results("late", 2.0, 1.0, is_final=True))
    assert dialect.text == "", "of the stream before"


# OpenAI -------------------------------------------------------------------------------------------------------------


async def test_every_event_is_one_that_the_official_library_knows(pool: WorkerPool) -> None:
    async with OpenAIRealtimeStandIn() as server:
        settings = settings_of(server, language="yue", table={"hotwords": ["小智"]})
        engine = engine_of(settings)
        for _ in range(2):
            utterance = Recognition(engine, pool, settings).begin()
            utterance.feed(sound(0.5))
            assert await text_of(utterance) == "what time"
            utterance.close()
            await until(lambda: engine.streams == 0)
        await engine.disconnect()
    known = TypeAdapter[Any](RealtimeClientEvent)
    kinds = [known.validate_python(event) for event in server.events]
    assert [kind.type for kind in kinds] == [
        "session.update",
        "input_audio_buffer.commit",
        "input_audio_buffer.clear",
        "input_audio_buffer.commit",
    ]
    assert all(not kind.model_extra for kind in kinds)
    sound_in = kinds[0].session.audio.input
    assert kinds[0].session.type == "transcription" and not sound_in.model_extra
    assert (sound_in.transcription.languages, sound_in.transcription.keywords) == (["zh"], ["小智"])
    assert sound_in.turn_detection is None and sound_in.format.rate == 24_000


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("gpt-transcribe", {"languages": ["en"], "keywords": ["Bob", "Eve"]}),
        ("gpt-4o-transcribe", {"language": "en", "prompt": "Bob, Eve"}),
        ("gpt-realtime-whisper", {"language": "en", "delay": "low"}),
    ],
)
async def test_each_model_is_told_languages_and_words_in_its_own_way(model: str, expected: dict[str, Any]) -> None:
    async with OpenAIRealtimeStandIn() as server:
        table = {"model": model, "hotwords": ["Bob", "Eve"]}
        engine = engine_of(settings_of(server, language="en", table=table))
        await engine.connect()
        await server.asked()
        assert server.requests[0]["audio"]["input"]["transcription"] == {"model": model, **expected}
        await engine.disconnect()


async def test_a_breath_that_is_too_short_for_a_commit_is_filled_up(pool: WorkerPool) -> None:
    async with OpenAIRealtimeStandIn(live=False) as server:
        engine = engine_of(settings_of(server))
        utterance = Recognition(engine, pool, settings_of(server)).begin()
        utterance.feed(sound(1.0))
        assert await text_of(utterance) == "what time is it"
        utterance.feed(sound(0.04))
        assert await text_of(utterance) == "what time is it"
        assert engine.remote.failures == 0
        utterance.close()
        await engine.disconnect()


async def test_words_of_an_utterance_before_are_nobodys(pool: WorkerPool) -> None:
    async with OpenAIRealtimeStandIn() as server:
        engine = engine_of(settings_of(server))
        for expected in ("what time is it", "what time"):
            utterance = Recognition(engine, pool, settings_of(server)).begin()
            utterance.feed(sound(len(expected.split()) / 4))
            assert await text_of(utterance) == expected
            utterance.close()
            await until(lambda: engine.streams == 0)
            kind = "conversation.item.input_audio_transcription"
            server.late += [{"type": f"{kind}.delta", "item_id": "item_1", "delta": "LATE"}]
            server.late += [{"type": f"{kind}.completed", "item_id": "item_1", "transcript": "late"}]
        assert len(server.received_s) == 1
        await engine.disconnect()


def test_a_text_that_is_there_before_its_sound_is_said_to_be_committed_is_the_last_one() -> None:
    dialect = OpenAIRealtimeDialect("{}")
    dialect.begin()
    dialect.sound(bytes(2 * RATE))
    dialect.end(0)
    kind = "conversation.item.input_audio_transcription.completed"
    dialect.read({"type": kind, "item_id": "a", "transcript": "What."})
    assert (dialect.over, dialect.text) == (False, "What.")
    dialect.read({"type": "input_audio_buffer.committed", "item_id": "a"})
    assert (dialect.over, dialect.text) == (True, "What.")


async def test_no_limit_of_the_remote_settings_is_forgotten() -> None:
    engine = OpenAIRealtime(AsrSettings().openai_realtime, RemoteAsrSettings(max_audio_s=7), "auto")
    assert engine.remote.settings.max_audio_s == 7 and "gpt-live-transcribe" in engine.about
