"""The voice of an OpenAI-compatible server, against a stand-in that behaves well and badly."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from bench.standins.sound import TONE_HZ, speech
from bench.standins.speech import SpeechStandIn
from tests.sounds import heard, is_speech, loudest_hz
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.settings import OpenAIVoiceSettings
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.openai_speech import OpenAIVoice

TEXT = "今天天气很好，我们去公园。"
FORMATS = ["pcm", "wav", "mp3", "opus"]


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def server() -> AsyncIterator[SpeechStandIn]:
    async with SpeechStandIn() as standin:
        yield standin


class _At:
    """Voices of a server, closed together."""

    def __init__(self) -> None:
        self.voices: list[OpenAIVoice] = []

    def __call__(self, server: SpeechStandIn, **settings: object) -> OpenAIVoice:
        values = {"base_url": server.base_url, "api_key": "k-1", "model": "m", "voice": "v"} | settings
        self.voices.append(OpenAIVoice(OpenAIVoiceSettings.model_validate(values), timeout_s=5))
        return self.voices[-1]


@pytest.fixture
async def voice_at() -> AsyncIterator[_At]:
    at = _At()
    yield at
    for voice in at.voices:
        await voice.close()


@pytest.mark.parametrize("form", FORMATS)
async def test_a_tone_is_heard_as_it_was_sent(server: SpeechStandIn, voice_at: _At, form: str) -> None:
    pcm = await heard(voice_at(server, format=form).speak(TEXT, language="zh"))
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(0.18 * len(TEXT), abs=0.1)
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=1)


@pytest.mark.parametrize("form", FORMATS)
async def test_speech_is_heard_as_speech(server: SpeechStandIn, voice_at: _At, form: str) -> None:
    server.sound = speech
    assert is_speech(await heard(voice_at(server, format=form).speak(TEXT, language="zh")))


async def test_samples_cut_in_two_are_put_together(server: SpeechStandIn, voice_at: _At) -> None:
    server.fault = "odd"
    pcm = await heard(voice_at(server).speak(TEXT, language="zh"))
    assert (pcm == server.sound(TEXT)).all()


async def test_the_server_is_asked_what_was_meant(server: SpeechStandIn, voice_at: _At) -> None:
    await heard(voice_at(server, format="wav").speak(TEXT, language="zh"))
    (asked,) = server.requests
    assert (asked.text, asked.voice, asked.model, asked.form, asked.key) == (TEXT, "v", "m", "wav", "Bearer k-1")


@pytest.mark.parametrize("form", FORMATS)
async def test_the_first_sound_is_heard_before_the_last_is_sent(
    server: SpeechStandIn, voice_at: _At, form: str
) -> None:
    server.fault = "hang-midway"
    pieces = voice_at(server, format=form).speak(TEXT, language="zh")
    assert len(await anext(pieces)) > 0
    assert server.open_requests == 1
    await pieces.aclose()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("error-500", "HTTP 500: .*stand-in says 500"),
        ("error-429", "HTTP 429"),
        ("error-401", "HTTP 401"),
        ("reset", "openai: "),
        ("html", "answered text/html.* instead of sound: <!DOCTYPE html>"),
        ("json", "text instead of sound"),
        ("empty", "is empty"),
    ],
)
async def test_a_server_that_fails_is_an_error_of_one_line(
    server: SpeechStandIn, voice_at: _At, fault: str, message: str
) -> None:
    server.fault = fault
    with pytest.raises(VoiceError, match=message) as caught:
        await heard(voice_at(server).speak(TEXT, language="zh"))
    assert str(caught.value).startswith("openai: ")
    assert "\n" not in str(caught.value)
    assert len(server.requests) == 1, "another voice is the retry"


async def test_a_connection_that_breaks_midway_is_an_error_after_what_was_heard(
    server: SpeechStandIn, voice_at: _At
) -> None:
    server.fault = "reset-midway"
    pieces = voice_at(server).speak(TEXT, language="zh")
    assert len(await anext(pieces)) > 0
    with pytest.raises(VoiceError, match="broke off"):
        await heard(pieces)


@pytest.mark.parametrize("form", FORMATS)
async def test_a_truncated_answer_is_heard_as_far_as_it_goes(server: SpeechStandIn, voice_at: _At, form: str) -> None:
    server.fault = "truncated"
    pcm = await heard(voice_at(server, format=form).speak(TEXT, language="zh"))
    assert 0.2 * 0.18 * len(TEXT) < len(pcm) / DOWNLINK_RATE_HZ < 0.6 * 0.18 * len(TEXT)


async def test_nobody_there_is_an_error(voice_at: _At) -> None:
    async with SpeechStandIn() as gone:
        voice = voice_at(gone)
    with pytest.raises(VoiceError, match="openai: "):
        await heard(voice.speak(TEXT, language="zh"))
    with pytest.raises(VoiceError, match="cannot be reached"):
        await voice.warm()


async def test_warming_spends_nothing(server: SpeechStandIn, voice_at: _At) -> None:
    await voice_at(server).warm()
    assert (server.model_lists, server.requests) == (1, [])


async def test_warming_takes_a_server_without_a_list_of_models(server: SpeechStandIn, voice_at: _At) -> None:
    await voice_at(server, base_url=f"{server.url}/elsewhere").warm()


async def test_warming_finds_a_refused_key(server: SpeechStandIn, voice_at: _At) -> None:
    server.fault = "error-401"
    with pytest.raises(VoiceError, match="refuses the key"):
        await voice_at(server).warm()


@pytest.mark.parametrize("fault", ["hang", "hang-midway"])
async def test_closing_leaves_the_server_at_once(server: SpeechStandIn, voice_at: _At, fault: str) -> None:
    server.fault = fault
    pieces = voice_at(server).speak(TEXT, language="zh")
    listening = asyncio.create_task(heard(pieces))
    await server.asked()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await pieces.aclose()
    async with asyncio.timeout(3):
        await server.idle()
    assert server.aborted == 1
