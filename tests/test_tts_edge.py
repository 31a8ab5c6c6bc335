"""The read-aloud service's voice against a stand-in that speaks its wire format, well and badly."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from edge_tts import communicate
from edge_tts.constants import WSS_URL

from bench.standins.edge import EdgeStandIn
from bench.standins.sound import TONE_HZ, speech
from tests.sounds import heard, is_speech, loudest_hz
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.settings import EdgeVoiceSettings
from xiaozhi.stages.tts.edge import EdgeVoice
from xiaozhi.stages.tts.engine import VoiceError

TEXT = "今天天气很好，我们去公园。"


@pytest.fixture(autouse=True)
def surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(communicate, "WSS_URL", WSS_URL)  # put back afterwards


@pytest.fixture
async def service() -> AsyncIterator[EdgeStandIn]:
    async with EdgeStandIn() as standin:
        yield standin


def voice_at(service: EdgeStandIn, **settings: object) -> EdgeVoice:
    return EdgeVoice(EdgeVoiceSettings.model_validate({"url": service.ws_url} | settings), timeout_s=5)


async def test_a_tone_is_heard_as_it_was_sent(service: EdgeStandIn) -> None:
    pcm = await heard(voice_at(service).speak(TEXT, language="zh"))
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(0.18 * len(TEXT), abs=0.1)
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=1)


async def test_speech_is_heard_as_speech(service: EdgeStandIn) -> None:
    service.sound = speech
    assert is_speech(await heard(voice_at(service).speak(TEXT, language="zh")))


async def test_the_service_is_asked_what_was_meant(service: EdgeStandIn) -> None:
    await heard(voice_at(service, voice="zh-CN-YunxiNeural", rate_percent=-10).speak("<你> & 'me'", language="zh"))
    (asked,) = service.requests
    assert (asked.text, asked.rate) == ("<你> & 'me'", "-10%")
    assert "YunxiNeural" in asked.voice
    assert asked.config == "audio-24khz-48kbitrate-mono-mp3"


async def test_the_first_sound_is_heard_before_the_last_is_sent(service: EdgeStandIn) -> None:
    service.fault = "hang-midway"
    pieces = voice_at(service).speak(TEXT, language="zh")
    assert len(await anext(pieces)) > 0
    assert service.open_requests == 1
    await pieces.aclose()


@pytest.mark.parametrize(
    ("text", "language", "voice", "expected"),
    [
        ("你好", "zh", "zh-CN-XiaoxiaoNeural", "zh-CN-XiaoxiaoNeural"),
        ("Hello", "en", "zh-CN-XiaoxiaoNeural", "en-US-EmmaMultilingualNeural"),
        ("Hello 你好", "en", "zh-CN-XiaoxiaoNeural", "zh-CN-XiaoxiaoNeural"),
        ("Hello", "en", "en-GB-RyanNeural", "en-GB-RyanNeural"),
        ("Bonjour", "fr", "fr-FR-DeniseNeural", "fr-FR-DeniseNeural"),
    ],
)
def test_english_gets_the_english_voice(text: str, language: str, voice: str, expected: str) -> None:
    assert EdgeVoice(EdgeVoiceSettings(voice=voice), 5).voice_for(text, language) == expected


def test_a_voice_that_cannot_exist_is_named_at_once() -> None:
    with pytest.raises(VoiceError, match=r"edge: .*not a voice"):
        EdgeVoice(EdgeVoiceSettings(voice="not a voice"), 5)


def test_without_an_address_the_real_service_is_meant() -> None:
    EdgeVoice(EdgeVoiceSettings(url="ws://127.0.0.1:1/x"), 5)
    assert vars(communicate)["WSS_URL"].startswith("ws://127.0.0.1:1/x?TrustedClientToken=")
    EdgeVoice(EdgeVoiceSettings(), 5)
    assert vars(communicate)["WSS_URL"] == WSS_URL


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("refuse", "HTTP 403"),
        ("html", "HTTP 200"),
        ("reset", "No audio was received|broke off"),
        ("empty", "No audio was received"),
        ("garbage", "holds no sound"),
        ("unknown-path", "Unknown path"),
    ],
)
async def test_a_service_that_fails_is_an_error_of_one_line(service: EdgeStandIn, fault: str, message: str) -> None:
    service.fault = fault
    with pytest.raises(VoiceError, match=message) as caught:
        await heard(voice_at(service).speak(TEXT, language="zh"))
    assert str(caught.value).startswith("edge: ")
    assert "\n" not in str(caught.value)


async def test_a_refusal_is_tried_once_more_with_the_services_clock(service: EdgeStandIn) -> None:
    service.fault = "refuse"
    with pytest.raises(VoiceError):
        await heard(voice_at(service).speak(TEXT, language="zh"))
    assert service.handshakes == 2


async def test_a_long_text_is_spoken_whole(service: EdgeStandIn) -> None:
    service.sound = lambda text: speech("好")
    pcm = await heard(voice_at(service).speak("我们去公园吧。 " * 300, language="zh"))  # more than one request holds
    assert len(service.requests) > 1
    assert "".join(asked.text for asked in service.requests).replace(" ", "") == "我们去公园吧。" * 300
    assert is_speech(pcm)


async def test_a_truncated_answer_is_heard_as_far_as_it_goes(service: EdgeStandIn) -> None:
    service.fault = "truncated"
    pcm = await heard(voice_at(service).speak(TEXT, language="zh"))
    assert 0.2 * 0.18 * len(TEXT) < len(pcm) / DOWNLINK_RATE_HZ < 0.6 * 0.18 * len(TEXT)


async def test_silence_is_passed_on_as_silence(service: EdgeStandIn) -> None:
    service.fault = "silence"
    pcm = await heard(voice_at(service).speak(TEXT, language="zh"))
    assert len(pcm) > DOWNLINK_RATE_HZ and not pcm.any()


async def test_a_connection_that_breaks_midway_ends_the_sound(service: EdgeStandIn) -> None:
    service.fault = "reset-midway"
    pieces = voice_at(service).speak(TEXT, language="zh")
    assert len(await anext(pieces)) > 0
    with pytest.raises(VoiceError, match="ended before the sound"):
        await heard(pieces)


async def test_nobody_there_is_an_error() -> None:
    async with EdgeStandIn() as gone:
        url = gone.ws_url
    voice = EdgeVoice(EdgeVoiceSettings(url=url), 5)
    with pytest.raises(VoiceError, match="edge: broke off: cannot connect"):
        await heard(voice.speak(TEXT, language="zh"))
    with pytest.raises(VoiceError, match="cannot be reached"):
        await voice.warm()


async def test_the_next_text_goes_over_the_connection_that_was_opened_for_it(service: EdgeStandIn) -> None:
    voice = voice_at(service)
    await voice.warm()
    assert service.requests == []
    await heard(voice.speak(TEXT, language="zh"))
    await heard(voice.speak(TEXT, language="zh"))
    opened, first, second = service.ports
    assert first == opened != second
    await voice.close()


async def test_a_connection_that_waited_in_vain_or_was_closed_costs_no_word(service: EdgeStandIn) -> None:
    voice = voice_at(service)
    await voice.warm()
    await voice.warm()
    await voice.close()
    assert not len(voice._spares)
    await voice.warm()
    connection = voice._spares._spare[0][0]
    for protocols in connection._conns.values():
        for protocol, _ in protocols:
            protocol.close()  # as when the service has had enough of it
    assert len(await heard(voice.speak(TEXT, language="zh"))) > 0


@pytest.mark.parametrize("fault", ["hang", "hang-midway"])
async def test_closing_leaves_the_service_at_once(service: EdgeStandIn, fault: str) -> None:
    service.fault = fault
    pieces = voice_at(service).speak(TEXT, language="zh")
    listening = asyncio.create_task(heard(pieces))
    await service.asked()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    await pieces.aclose()
    async with asyncio.timeout(3):  # without closing the connection itself the library waits 10 s for a goodbye
        await service.idle()
