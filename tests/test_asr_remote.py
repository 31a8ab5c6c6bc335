"""Recognition on other machines, against stand-ins that check what they are sent, and what takes over when it fails."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeAlias

import numpy as np
import pytest

from bench.standins.funasr import DIALECTS, Dialect, FunasrStandIn
from bench.standins.transcription import TranscriptionStandIn
from tests.house import house, question
from tests.recognisers import Offline, noting, sound
from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import remote_recognition
from xiaozhi.concurrency.workers import JobDropped, WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import FunasrSettings, OpenAIAsrSettings, RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.funasr import Funasr
from xiaozhi.stages.asr.live import Sound
from xiaozhi.stages.asr.openai_transcription import OpenAITranscription
from xiaozhi.stages.asr.recogniser import Question, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.registry import build_recognizer
from xiaozhi.stages.asr.remote import to_text
from xiaozhi.stages.asr.remote_use import RemoteError

Server: TypeAlias = TranscriptionStandIn | FunasrStandIn
Remote: TypeAlias = OpenAITranscription | Funasr


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
async def transcription() -> AsyncIterator[TranscriptionStandIn]:
    async with TranscriptionStandIn() as server:
        yield server


@pytest.fixture
async def runtime() -> AsyncIterator[FunasrStandIn]:
    async with FunasrStandIn() as server:
        yield server


def openai_at(server: TranscriptionStandIn, limits: RemoteAsrSettings, **values: object) -> OpenAITranscription:
    settings = OpenAIAsrSettings.model_validate({"base_url": server.base_url, "api_key": server.key, **values})
    return OpenAITranscription(settings, limits, "yue")


def funasr_at(server: FunasrStandIn, limits: RemoteAsrSettings, **values: object) -> Funasr:
    return Funasr(FunasrSettings.model_validate({"url": server.ws_url, **values}), limits, "zh", itn=True)


async def recognised(recogniser: Remote, pcm: PcmFloat) -> Transcript:
    """What it hears in one request."""
    if isinstance(recogniser, OpenAITranscription):
        return await recogniser.recognise(pcm)
    whole = Sound(recogniser.piece_bytes)
    whole.put(pcm)
    whole.end(len(pcm))
    return Transcript(await recogniser.converse(whole, lambda _text: None))


@pytest.fixture(params=["openai", "funasr"])
async def remote(
    request: pytest.FixtureRequest, transcription: TranscriptionStandIn, runtime: FunasrStandIn
) -> AsyncIterator[tuple[Server, Remote]]:
    """A stand-in and what recognises through it."""
    limits = RemoteAsrSettings()
    pair: tuple[Server, Remote] = (
        (transcription, openai_at(transcription, limits))
        if request.param == "openai"
        else (runtime, funasr_at(runtime, limits))
    )
    yield pair
    await pair[1].disconnect()


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


# The wire -----------------------------------------------------------------------------------------------------------


async def test_the_whole_sound_is_sent_and_its_text_comes_back(remote: tuple[Server, Remote]) -> None:
    server, recogniser = remote
    assert (await recognised(recogniser, sound(1.23))).text == "what time is it"
    assert server.requests[0].seconds == pytest.approx(1.23)


@pytest.mark.parametrize("fault", ["reset", "error-500", "garbage", "no-text"])
async def test_a_server_that_fails_is_an_error_of_one_line(remote: tuple[Server, Remote], fault: str) -> None:
    server, recogniser = remote
    server.fault = fault
    with pytest.raises(RemoteError, match=f"^{recogniser.name}: ") as caught:
        await recognised(recogniser, sound(0.5))
    assert "\n" not in str(caught.value) and "k-asr" not in str(caught.value)


async def test_giving_up_closes_the_request(remote: tuple[Server, Remote]) -> None:
    server, recogniser = remote
    server.fault = "hang"
    asking = asyncio.create_task(recognised(recogniser, sound(0.5)))
    await server.asked()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(3):
        await server.idle()


async def test_nobody_there_is_an_error(remote: tuple[Server, Remote]) -> None:
    server, recogniser = remote
    await server.close()
    with pytest.raises(RemoteError, match=recogniser.name):
        await recognised(recogniser, sound(0.5))
    with pytest.raises(RemoteError, match="cannot be reached"):
        await recogniser.connect()


async def test_connections_are_kept_and_warming_spends_nothing(transcription: TranscriptionStandIn) -> None:
    recogniser = openai_at(transcription, RemoteAsrSettings(), model="m")
    await recogniser.connect()
    assert (transcription.model_lists, transcription.requests) == (1, [])
    await recognised(recogniser, sound(0.5))
    await recognised(recogniser, sound(0.5))
    first, second = transcription.requests
    assert (first.model, first.language) == ("m", "zh")
    assert first.connection == second.connection
    await recogniser.disconnect()


@pytest.mark.parametrize("fault", ["error-401", "reset-midway", "endless"])
async def test_other_faults_of_a_transcription_server_are_errors(
    transcription: TranscriptionStandIn, fault: str
) -> None:
    transcription.fault = fault
    recogniser = openai_at(transcription, RemoteAsrSettings())
    with pytest.raises(RemoteError, match="openai: "):
        await recognised(recogniser, sound(0.5))
    await recogniser.disconnect()


async def test_a_server_that_wants_to_be_left_alone_says_for_how_long(transcription: TranscriptionStandIn) -> None:
    transcription.fault = "error-429"
    recogniser = openai_at(transcription, RemoteAsrSettings())
    with pytest.raises(RemoteError, match="max_concurrent") as caught:
        await recognised(recogniser, sound(0.5))
    assert caught.value.rest_s == 7.0
    await recogniser.disconnect()


async def test_a_wrong_key_says_where_it_stands(transcription: TranscriptionStandIn) -> None:
    recogniser = openai_at(transcription, RemoteAsrSettings(), api_key="wrong-key")
    for trying in (recognised(recogniser, sound(0.5)), recogniser.connect()):
        with pytest.raises(RemoteError, match=r"the key is wrong: see asr\.openai\.api_key") as caught:
            await trying
        assert "wrong-key" not in str(caught.value)
    await recogniser.disconnect()


@pytest.mark.parametrize("mode", ["offline", "2pass"])
@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize("warmed", [True, False])
async def test_what_any_runtime_cuts_at_pauses_is_heard_whole(mode: str, dialect: Dialect, warmed: bool) -> None:
    pause = np.zeros(8000, np.float32)
    for pcm in (sound(4.0), np.concatenate([sound(1.0), pause, sound(0.6)])):
        async with FunasrStandIn("你好，", "今天天气怎么样？", dialect=dialect) as runtime:
            recogniser = funasr_at(runtime, RemoteAsrSettings(), mode=mode, hotwords={"小智": 20})
            if warmed:
                await recogniser.connect()
            assert (await recognised(recogniser, pcm)).text == "你好，今天天气怎么样？"
            (asked,) = runtime.requests
            assert (asked.config["mode"], asked.config["svs_lang"]) == (mode, "zh")
            assert asked.config["hotwords"] == '{"小智":20}'
            await recogniser.disconnect()


@pytest.mark.parametrize("mode", ["offline", "2pass"])
@pytest.mark.parametrize("dialect", DIALECTS)
async def test_any_runtime_may_understand_nothing(mode: str, dialect: Dialect) -> None:
    async with FunasrStandIn("", dialect=dialect) as runtime:
        recogniser = funasr_at(runtime, RemoteAsrSettings(), mode=mode)
        assert (await recognised(recogniser, sound(0.5))).text == ""
        await recogniser.disconnect()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_warming_asks_a_runtime_for_its_manners_without_sound(dialect: Dialect) -> None:
    async with FunasrStandIn(dialect=dialect) as runtime:
        recogniser = funasr_at(runtime, RemoteAsrSettings())
        await recogniser.connect()
        assert (runtime.probes, runtime.requests) == (1, [])
        assert (await recognised(recogniser, sound(0.5))).text == "what time is it"
        await recogniser.disconnect()


async def test_a_runtime_that_says_why_it_failed_is_quoted(runtime: FunasrStandIn) -> None:
    runtime.fault = "failed"
    recogniser = funasr_at(runtime, RemoteAsrSettings())
    with pytest.raises(RemoteError, match="funasr: offline inference failed"):
        await recognised(recogniser, sound(0.5))
    await recogniser.disconnect()


@pytest.mark.parametrize("fault", ["refuse", "close"])
async def test_other_faults_of_a_runtime_are_errors(runtime: FunasrStandIn, fault: str) -> None:
    runtime.fault = fault
    recogniser = funasr_at(runtime, RemoteAsrSettings())
    with pytest.raises(RemoteError, match="funasr: "):
        await recognised(recogniser, sound(0.5))
    await recogniser.disconnect()


def test_the_text_of_a_service_loads_no_recogniser_of_this_machine() -> None:
    """Loading one takes a quarter of a second, in which every conversation would stand still."""
    program = "import sys; from xiaozhi.stages.asr.remote import to_text; to_text('hello', 'x', 100)"
    check = "print('sherpa_onnx' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", f"{program}; {check}"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_tags_leave_the_text_and_a_text_has_an_end() -> None:
    assert to_text("<|zh|><|HAPPY|><|Laughter|><|withitn|>你好。", "x", 100) == Transcript(
        "你好。", "zh", "happy", ("laughter",)
    )
    assert to_text("a" * 500, "x", 100).text == "a" * 100
    assert to_text("。", "x", 100).text == ""
    with pytest.raises(RemoteError, match="without a text"):
        to_text(None, "x", 100)


async def said(engine: Fallback, pcm: PcmFloat, pool: WorkerPool) -> str:
    """The text of a new utterance."""
    utterance = engine.open(Decoding(pool))
    utterance.feed(pcm)
    return await ask(utterance)


async def ask(utterance: Utterance) -> str:
    return (await utterance.transcribe(Question())).text


# With a fallback ----------------------------------------------------------------------------------------------------


@pytest.fixture
async def with_fallback(transcription: TranscriptionStandIn) -> AsyncIterator[Callable[..., Fallback]]:
    built: list[Fallback] = []

    def build(clock: Clock | None = None, **limits: object) -> Fallback:
        settings = RemoteAsrSettings.model_validate(limits)
        first = openai_at(transcription, settings)
        first.remote.clock = clock or Clock()
        built.append(Fallback(first, first.remote, Offline()))
        return built[-1]

    yield build
    for engine in built:
        await engine.disconnect()


@pytest.mark.parametrize("fault", ["hang", "reset", "reset-midway", "error-401", "error-429", "error-500", "garbage"])
async def test_the_local_recogniser_takes_over_for_the_same_sentence(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool, fault: str
) -> None:
    engine = with_fallback(timeout_s=0.3 if fault == "hang" else 5.0)
    transcription.fault = fault
    assert await said(engine, sound(0.5), pool) == "5"
    assert (engine.use.requests, engine.use.failures, engine.use.fallbacks, engine.use.in_flight) == (1, 1, 1, 0)


async def test_a_dead_server_is_skipped_and_comes_back(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool
) -> None:
    clock = Clock()
    engine = with_fallback(clock)
    transcription.fault = "error-500"
    for _ in range(4):
        await said(engine, sound(0.5), pool)
    assert len(transcription.requests) == 2, "after two failures it rests"
    transcription.fault = ""
    clock.now = 30.0
    assert await said(engine, sound(0.5), pool) == "what time is it"


async def test_what_is_too_long_or_too_much_is_decoded_here(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool
) -> None:
    engine = with_fallback(max_concurrent=1, max_audio_s=2.0)
    assert await said(engine, sound(2.5), pool) == "25"
    assert transcription.requests == []
    transcription.fault = "hang"
    first = asyncio.create_task(said(engine, sound(0.5), pool))
    await transcription.asked()
    assert await said(engine, sound(0.7), pool) == "7"
    transcription.fault = ""
    transcription.released.set()
    assert await first == "what time is it"


async def test_when_both_fail_both_say_why(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool
) -> None:
    engine = with_fallback()
    transcription.fault = "error-500"
    assert isinstance(engine.local, Offline)
    engine.local.failing = EngineError("the model is gone")
    with pytest.raises(EngineError, match=r"openai: HTTP 500.*; the model is gone"):
        await said(engine, sound(0.5), pool)


async def test_a_server_that_cannot_be_warmed_is_not_asked(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool
) -> None:
    engine = with_fallback()
    transcription.fault = "error-401"
    await engine.connect()
    assert await said(engine, sound(0.5), pool) == "5"
    assert transcription.requests == []


async def test_what_has_failed_in_an_utterance_is_not_asked_again_in_it_and_not_a_word_is_lost(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool
) -> None:
    engine = with_fallback(failures=9)
    utterance = engine.open(Decoding(pool))
    utterance.feed(sound(0.5))
    assert await ask(utterance) == "what time is it"
    transcription.fault = "error-500"
    utterance.feed(sound(0.6))
    assert await ask(utterance) == "11", "all of it, also what the service had understood"
    transcription.fault = ""
    utterance.feed(sound(0.4))
    assert await ask(utterance) == "15"
    assert (len(transcription.requests), engine.use.fallbacks) == (2, 1)
    assert await said(engine, sound(0.5), pool) == "what time is it", "the next one is asked about again"


# An utterance -------------------------------------------------------------------------------------------------------


async def test_one_request_answers_until_something_voiced_follows(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool
) -> None:
    hearing = Recognition(with_fallback(), pool, AsrSettings(partials=True)).begin(noting([]))
    hearing.feed(sound(1.0))
    hearing.feed(sound(0.1), 100.0)
    assert transcription.requests == [], "nothing is asked before somebody wants it"
    assert await ask(hearing) == "what time is it"
    hearing.feed(sound(0.2), 300.0)
    await ask(hearing)
    assert len(transcription.requests) == 1
    hearing.feed(sound(0.5))
    await ask(hearing)
    assert [request.seconds for request in transcription.requests] == pytest.approx([1.1, 1.8])


async def test_an_overtaken_request_is_closed(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool
) -> None:
    transcription.fault = "hang"
    hearing = with_fallback().open(Decoding(pool))
    hearing.feed(sound(0.5))
    old = asyncio.create_task(ask(hearing))
    await transcription.asked()
    transcription.fault = ""
    hearing.feed(sound(0.5))
    assert await ask(hearing) == "what time is it"
    with pytest.raises(JobDropped):
        await old
    async with asyncio.timeout(3):
        await transcription.idle()


@pytest.mark.parametrize("way", ["cancel", "close"])
async def test_a_question_that_is_given_up_closes_its_request(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool, way: str
) -> None:
    transcription.fault = "hang"
    engine = with_fallback()
    hearing = engine.open(Decoding(pool))
    hearing.feed(sound(0.5))
    asking = asyncio.create_task(ask(hearing))
    await transcription.asked()
    if way == "cancel":
        asking.cancel()
    else:
        hearing.close()
    await asyncio.gather(asking, return_exceptions=True)
    async with asyncio.timeout(3):
        await transcription.idle()
    assert (engine.use.in_flight, engine.use.failures) == (0, 0)


async def test_where_it_is_wanted_the_request_begins_at_the_first_silence(
    with_fallback: Callable[..., Fallback], transcription: TranscriptionStandIn, pool: WorkerPool
) -> None:
    ears = Recognition(with_fallback(early_decode=True), pool)
    hearing = ears.begin()
    hearing.feed(sound(1.0))
    hearing.feed(sound(0.05), 50.0)
    await transcription.asked()
    hearing.feed(sound(0.05), 100.0)
    await hearing.transcribe(Question())
    assert (len(transcription.requests), ears.early.begun, ears.early.used) == (1, 1, 1)


# Settings and a whole turn ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("engine", ["openai", "funasr"])
def test_the_registry_puts_a_local_recogniser_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    settings = AsrSettings.model_validate({"engine": engine, "fallback": "pocketsphinx"})
    built = build_recognizer(settings, tmp_path, ["what time is it"])
    assert isinstance(built.recognizer, Fallback)
    assert "when it fails: pocketsphinx" in built.why
    assert ("OPENAI_API_KEY" in built.hint) == (engine == "openai")
    built.recognizer.close()


async def test_the_check_says_whether_the_server_takes_the_key(transcription: TranscriptionStandIn) -> None:
    values = {"base_url": transcription.base_url, "api_key": transcription.key}
    good = await remote_recognition(AsrSettings.model_validate({"engine": "openai", "openai": values}))
    bad = await remote_recognition(
        AsrSettings.model_validate({"engine": "openai", "openai": values | {"api_key": "wrong"}})
    )
    assert good is not None and good.level is Level.OK
    assert bad is not None and bad.level is not Level.OK and "asr.openai.api_key" in str(bad)
    assert await remote_recognition(AsrSettings()) is None


@pytest.mark.parametrize("fault", ["", "error-500"])
async def test_a_turn_with_remote_recognition_is_answered(
    tmp_path: Path, transcription: TranscriptionStandIn, fault: str
) -> None:
    transcription.text = "how late is it over there"
    values = {"base_url": transcription.base_url, "api_key": transcription.key}
    remote = {"engine": "openai", "fallback": "sense-voice", "openai": values}
    async with house(tmp_path, asr=remote) as home, home.device() as device:
        transcription.fault = fault
        report = await device.turn(question())
    assert report.answered
    # Otherwise the local recogniser has heard it.
    assert report.heard == ("what time is it" if fault else "how late is it over there")
    assert transcription.requests
