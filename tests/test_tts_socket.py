"""Voices that take a reply as it is written, against stand-ins that check what they are sent and behave badly."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest

from bench.standins.cartesia import CartesiaStandIn
from bench.standins.elevenlabs import ElevenLabsStandIn
from bench.standins.sound import TONE_HZ
from tests.house import brief, house, question
from tests.sounds import loudest_hz, sine
from tests.test_tts_sessions import reply, speech
from tests.test_tts_stage import Fake, by_clause, seconds
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import voice as check_voice
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import TtsSettings
from xiaozhi.settings.tts import CartesiaVoiceSettings, ElevenLabsVoiceSettings
from xiaozhi.stages.tts.cartesia import CartesiaVoice
from xiaozhi.stages.tts.elevenlabs import ElevenLabsVoice
from xiaozhi.stages.tts.engine import Mark, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.reply_voices import ReplyVoices
from xiaozhi.stages.tts.socket_session import SocketVoice
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

Server: TypeAlias = CartesiaStandIn | ElevenLabsStandIn
ENGINES = ("cartesia", "elevenlabs")


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def codec() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "codec")
    yield pool
    pool.close()


def made_of(text: str) -> PcmInt:
    return sine(440, 0.6 * len(text))


@pytest.fixture(params=ENGINES)
async def server(request: pytest.FixtureRequest) -> AsyncIterator[Server]:
    async with CartesiaStandIn() if request.param == "cartesia" else ElevenLabsStandIn() as server:
        yield server


def table(server: Server, **values: Any) -> dict[str, Any]:
    return {"url": server.ws_url, "api_key": server.key, **values}


def voice_of(server: Server, **values: Any) -> SocketVoice:
    if isinstance(server, CartesiaStandIn):
        return CartesiaVoice(CartesiaVoiceSettings.model_validate(table(server, **values)), 5.0)
    return ElevenLabsVoice(ElevenLabsVoiceSettings.model_validate(table(server, **values)), 5.0)


@pytest.fixture
async def voice(server: Server) -> AsyncIterator[SocketVoice]:
    voice = voice_of(server)
    yield voice
    await voice.close()


async def said(voice: SocketVoice, *texts: str, request: VoiceRequest = ANY_VOICE) -> list[PcmInt]:
    """The sound of each text of one session, up to its mark."""
    session = voice.open(request)
    for text in texts:
        await session.send(text, "zh")
    await session.end()
    sounds: list[PcmInt] = []
    pieces: list[PcmInt] = []
    async with aclosing(session.sound()) as spoken:
        async for item in spoken:
            if isinstance(item, Mark):
                assert item.text == len(sounds)
                sounds.append(np.concatenate([np.empty(0, np.int16), *pieces]))
                pieces = []
            else:
                pieces.append(item)
    assert not pieces, "sound behind the last mark"
    await session.cancel()
    return sounds


def texts_of(server: Server) -> list[str]:
    return [asked[0] if isinstance(server, CartesiaStandIn) else asked[1] for asked in server.requests]


async def test_each_text_of_a_session_has_its_own_sound_to_the_sample(server: Server, voice: SocketVoice) -> None:
    first, second = await said(voice, "今天天气很好", "我们去公园。")
    for sound in (first, second):
        assert loudest_hz(sound, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=2)
    assert len(first) + len(second) == int(6 * 0.18 * DOWNLINK_RATE_HZ) * 2
    assert len(first) == pytest.approx(len(second), abs=DOWNLINK_RATE_HZ // 100)
    assert texts_of(server) == ["今天天气很好", "我们去公园。"]


async def test_the_clauses_of_a_reply_are_one_session(server: Server, voice: SocketVoice, codec: WorkerPool) -> None:
    server.sound = made_of
    items = await reply(speech(codec, voice), "一", "二二", "三")
    assert [text for text, _ in by_clause(items)] == ["一", "二二", "三"]
    assert [count for _, count in by_clause(items)] == pytest.approx([11, 21, 11], abs=1)
    if isinstance(server, CartesiaStandIn):
        assert len({asked[1] for asked in server.requests}) == 1 and len(server.done) == 1
    else:
        assert len(server.first) == 1


async def test_the_first_clause_sounds_before_the_next_one_is_written(server: Server, voice: SocketVoice) -> None:
    session = voice.open()
    await session.send("你好，", "zh")
    async with aclosing(session.sound()) as spoken, asyncio.timeout(5):
        heard = 0
        async for item in spoken:
            if isinstance(item, Mark):
                break
            heard += len(item)
        assert heard == pytest.approx(3 * 0.18 * DOWNLINK_RATE_HZ, abs=1000), "the mark does not wait for more text"
        await session.send("再见。", "zh")
        await session.end()
        assert Mark(1) in [item async for item in spoken if isinstance(item, Mark)]
    await session.cancel()


@pytest.mark.parametrize("fault", ["reset", "reset-midway", "error", "garbage", "no-base64", "close", "error-500"])
async def test_a_service_that_fails_is_one_line_and_the_next_voice_speaks_what_is_missing(
    server: Server, voice: SocketVoice, codec: WorkerPool, fault: str
) -> None:
    server.sound, server.fault = made_of, fault
    chain_voice = Fake(seconds(0.6))
    items = await reply(speech(codec, voice, chain_voice), "一", "二", "三")
    clauses = by_clause(items)
    assert [text for text, _ in clauses] == ["一", "二", "三"]
    assert clauses[1:] == [("二", 11), ("三", 11)]
    server.fault = fault
    with pytest.raises(VoiceError, match=f"^{voice.name}: ") as caught:
        await said(voice, "一")
    assert "\n" not in str(caught.value) and server.key not in str(caught.value)


@pytest.mark.parametrize("fault", ["hang", "hang-midway"])
async def test_a_silent_stall_ends_at_the_limit_of_the_chain(server: Server, voice: SocketVoice, fault: str) -> None:
    server.fault = fault
    chain = VoiceChain([voice], 0.3, 0.3, 30.0, time.monotonic)
    began = time.monotonic()
    if fault == "hang":
        with pytest.raises(VoiceError, match="no sound within"):
            async for _ in chain.speak("今天天气很好", language="zh"):
                pass
    else:
        assert [pcm async for pcm in chain.speak("今天天气很好", language="zh")], "what was heard is not said again"
    assert time.monotonic() - began < 5
    await voice.close()
    async with asyncio.timeout(3):
        await server.idle()


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_service_that_takes_connections_and_says_nothing_costs_no_more_than_a_late_first_sound(
    engine: str,
) -> None:
    silent = await asyncio.start_server(lambda _reader, _writer: None, "127.0.0.1", 0)
    table = {"url": f"ws://127.0.0.1:{silent.sockets[0].getsockname()[1]}", "api_key": "k"}
    values = {"engines": [engine, "espeak"], "first_audio_timeout_s": 0.3, "idle_timeout_s": 60, engine: table}
    built = build_voices(TtsSettings.model_validate(values), Path())
    voices = ReplyVoices()
    async with asyncio.timeout(20):
        assert [pcm async for pcm in built.chain.speak("你好。", language="zh", part=voices.part())]
    await voices.close()
    assert "cannot be reached" in built.chain.states[0].last_error
    await built.chain.close()
    silent.close()


async def test_who_leaves_in_the_middle_stops_the_service_and_late_sound_is_nobodys(
    server: Server, voice: SocketVoice
) -> None:
    session = voice.open()
    await session.send("今天天气很好" * 20, "zh")
    async with aclosing(session.sound()) as spoken:
        await anext(spoken)
        await session.cancel()
    with pytest.raises(VoiceError, match="over"):
        await session.send("more", "zh")
    (sound,) = await said(voice, "好")
    assert len(sound) == int(0.18 * DOWNLINK_RATE_HZ), "nothing of the session before"
    if isinstance(server, CartesiaStandIn):
        assert len(server.cancelled) == 1 and server.handshakes == 1, "the connection lives on"


async def test_the_connection_is_there_before_it_is_needed(server: Server, voice: SocketVoice) -> None:
    await voice.warm()
    assert (server.handshakes, server.requests) == (1, []), "warming spends nothing"
    for count in (1, 2, 3):
        await said(voice, "好")
        if isinstance(server, CartesiaStandIn):
            assert server.handshakes == 1
        else:
            async with asyncio.timeout(3):
                while server.handshakes != count + 1 or voice._opening:  # noqa: ASYNC110 - opened in the background
                    await asyncio.sleep(0.001)


async def test_two_replies_at_once_have_their_own_connections(server: Server, voice: SocketVoice) -> None:
    one, two = await asyncio.gather(said(voice, "一二三"), said(voice, "四五", "六"))
    assert [len(sound) for sound in one] == [int(3 * 0.18 * DOWNLINK_RATE_HZ)]
    assert sum(len(sound) for sound in two) == int(2 * 0.18 * DOWNLINK_RATE_HZ) + int(0.18 * DOWNLINK_RATE_HZ)


async def test_a_session_that_was_never_sent_anything_ends_at_once(server: Server, voice: SocketVoice) -> None:
    assert await said(voice) == []
    assert server.handshakes == 0


@pytest.mark.parametrize("engine", ENGINES)
async def test_a_missing_key_is_said_with_where_to_put_it(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CARTESIA_API_KEY", "ELEVENLABS_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    settings = TtsSettings.model_validate({"engines": [engine]})
    found = await check_voice(engine, settings, Path())
    assert found.level is not Level.OK and f"tts.{engine}.api_key or {engine.upper()}_API_KEY" in found.text


async def test_a_wrong_key_is_found_before_anybody_speaks(server: Server) -> None:
    voice = voice_of(server, api_key="wrong-key")
    with pytest.raises(VoiceError, match=rf"HTTP 401: the key is wrong: see tts\.{voice.name}\.api_key") as caught:
        await voice.warm()
    assert "wrong-key" not in str(caught.value)
    await voice.close()


@pytest.mark.parametrize("fault", ["", "reset"])
async def test_a_turn_is_spoken_whatever_the_line_does(tmp_path: Path, server: Server, fault: str) -> None:
    server.sound = brief
    name = "cartesia" if isinstance(server, CartesiaStandIn) else "elevenlabs"
    values = {"engines": [name, "espeak"], name: table(server)}
    answer = "It is ten past nine. The sun is out, and it will stay so."
    async with house(tmp_path, answer, tts=values) as home, home.device() as device:
        server.fault = fault
        report = await device.turn(question())
        assert report.answered and " ".join(one.text for one in report.said) == answer
        assert report.reply_pcm is not None and len(report.reply_pcm) > 16_000
    if not fault:
        assert " ".join(texts_of(server)) == answer


# Cartesia -----------------------------------------------------------------------------------------------------------


async def test_cartesia_is_asked_what_was_meant() -> None:
    async with CartesiaStandIn() as server:
        voice = voice_of(server, voice="my-voice", rate_percent=10)
        await said(voice, "早")
        await said(voice, "早", request=VoiceRequest("cartesia:another", rate_percent=100))
        await said(voice, "早", request=VoiceRequest(gender="male"))
        assert [asked[2:] for asked in server.requests] == [
            ("my-voice", "zh", 1.1),
            ("another", "zh", 1.5),
            ("228fca29-3a0a-435c-8728-5cb483251068", "zh", 1.1),
        ]
        first = server.events[0]
        assert first == {
            "context_id": first["context_id"],
            "model_id": "sonic-3",
            "voice": {"mode": "id", "id": "my-voice"},
            "output_format": {"container": "raw", "encoding": "pcm_s16le", "sample_rate": 24000},
            "max_buffer_delay_ms": 0,
            "generation_config": {"speed": 1.1},
            "language": "zh",
            "transcript": "早 ",
            "continue": True,
        }
        await voice.close()


# ElevenLabs ---------------------------------------------------------------------------------------------------------


async def test_pieces_of_sound_that_go_across_texts_are_cut_where_the_next_one_begins() -> None:
    async with ElevenLabsStandIn(joined=True) as server:
        voice = voice_of(server)
        sounds = await said(voice, "一二三", "四", "五六")
        lengths = [len(sound) / DOWNLINK_RATE_HZ / 0.18 for sound in sounds]
        assert lengths == pytest.approx([3, 1, 2], abs=0.02)
        await voice.close()


async def test_a_connection_that_is_closed_after_the_end_is_the_end() -> None:
    async with ElevenLabsStandIn(says_final=False) as server:
        voice = voice_of(server)
        (sound,) = await said(voice, "一二三")
        assert len(sound) == int(3 * 0.18 * DOWNLINK_RATE_HZ)
        await voice.close()


async def test_where_characters_have_no_times_each_clause_gets_a_session_of_its_own(codec: WorkerPool) -> None:
    async with ElevenLabsStandIn(timed=False, sound=made_of) as server:
        voice = voice_of(server)
        await said(voice, "一")
        source = speech(codec, voice)
        assert by_clause(await reply(source, "一", "二二")) == [("一", 11), ("二二", 21)]
        assert len(server.first) == 3
        await voice.close()


async def test_speed_goes_as_far_as_the_service_lets_it_and_the_voice_stands_in_the_address() -> None:
    async with ElevenLabsStandIn() as server:
        voice = voice_of(server)
        await said(voice, "早", request=VoiceRequest(gender="male", rate_percent=100))
        await said(voice, "早", request=VoiceRequest("elevenlabs:../../evil"))
        assert [asked[0] for asked in server.requests] == ["JBFqnCBsd6RMkjVDRZzb", "EXAVITQu4vr4xnSDxMaL"]
        assert server.first == [{"text": " ", "voice_settings": {"speed": 1.2}}, {"text": " "}]
        await voice.close()
