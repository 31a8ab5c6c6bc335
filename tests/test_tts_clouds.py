"""Azure's and iFlytek's voices, against stand-ins that check what they are sent and behave well and badly."""

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeAlias
from urllib.parse import parse_qs, urlsplit

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.azure import AzureStandIn, _read
from bench.standins.iflytek import IflytekStandIn
from bench.standins.sound import TONE_HZ
from tests.sounds import heard, loudest_hz
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import voice
from xiaozhi.settings import TtsSettings
from xiaozhi.settings.tts import AzureVoiceSettings, IflytekVoiceSettings
from xiaozhi.stages.tts.azure import AzureVoice, service_url
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.errors import NOT_XML
from xiaozhi.stages.tts.iflytek import IflytekVoice
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.reply_voices import ReplyPart, ReplyVoices
from xiaozhi.stages.tts.voice_request import VoiceRequest
from xiaozhi.upstream.signing import iflytek_url

TEXT = "今天天气很好，我们去公园。"
Server: TypeAlias = AzureStandIn | IflytekStandIn
Voice: TypeAlias = AzureVoice | IflytekVoice


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def azure_at(server: AzureStandIn, **values: object) -> AzureVoiceSettings:
    return AzureVoiceSettings.model_validate({"endpoint": server.url, "api_key": server.key, **values})


def iflytek_at(server: IflytekStandIn, **values: object) -> IflytekVoiceSettings:
    keys = {"app_id": server.app_id, "api_key": server.key, "api_secret": server.secret}
    return IflytekVoiceSettings.model_validate({"url": server.ws_url, **keys, **values})


@pytest.fixture
async def azure() -> AsyncIterator[AzureStandIn]:
    async with AzureStandIn() as server:
        yield server


@pytest.fixture
async def iflytek() -> AsyncIterator[IflytekStandIn]:
    async with IflytekStandIn() as server:
        yield server


@pytest.fixture(params=["azure", "iflytek"])
async def cloud(
    request: pytest.FixtureRequest, azure: AzureStandIn, iflytek: IflytekStandIn
) -> AsyncIterator[tuple[Server, Voice]]:
    """A stand-in and a voice that speaks through it."""
    voice: Voice
    if request.param == "azure":
        voice = AzureVoice(azure_at(azure), 5)
        yield azure, voice
    else:
        voice = IflytekVoice(iflytek_at(iflytek), 5)
        yield iflytek, voice
    await voice.close()


async def test_a_tone_is_heard_as_it_was_sent(cloud: tuple[Server, Voice]) -> None:
    server, voice = cloud
    pcm = await heard(voice.speak(TEXT, language="zh"))
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(0.18 * len(TEXT), abs=0.02)
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=1)
    assert [asked.text for asked in server.requests] == [TEXT]


@pytest.mark.parametrize("fault", ["reset", "error-500", "garbage"])
async def test_a_server_that_fails_is_an_error_of_one_line(cloud: tuple[Server, Voice], fault: str) -> None:
    server, voice = cloud
    server.fault = fault
    with pytest.raises(VoiceError, match=f"^{voice.name}: ") as caught:
        await heard(voice.speak(TEXT, language="zh"))
    assert "\n" not in str(caught.value)
    assert server.key not in str(caught.value)


async def test_a_connection_that_breaks_midway_is_an_error_after_what_was_heard(cloud: tuple[Server, Voice]) -> None:
    server, voice = cloud
    server.fault = "reset-midway"
    pieces = voice.speak(TEXT, language="zh")
    assert len(await anext(pieces)) > 0
    with pytest.raises(VoiceError, match=voice.name):
        await heard(pieces)


@pytest.mark.parametrize("fault", ["hang", "hang-midway"])
async def test_closing_leaves_the_server_at_once(cloud: tuple[Server, Voice], fault: str) -> None:
    server, voice = cloud
    server.fault = fault
    listening = asyncio.create_task(heard(voice.speak(TEXT, language="zh")))
    await server.asked()
    listening.cancel()
    await asyncio.gather(listening, return_exceptions=True)
    async with asyncio.timeout(3):
        await server.idle()


async def test_nobody_there_is_an_error_that_names_the_address(cloud: tuple[Server, Voice]) -> None:
    server, voice = cloud
    await server.close()
    with pytest.raises(VoiceError, match=voice.name):
        await heard(voice.speak(TEXT, language="zh"))
    with pytest.raises(VoiceError, match="cannot be reached"):
        await voice.warm()


async def test_warming_spends_nothing(cloud: tuple[Server, Voice]) -> None:
    server, voice = cloud
    await voice.warm()
    assert server.requests == []


@pytest.mark.parametrize("fault", ["hang", "hang-midway", "reset", "error-500", "garbage", "silence", "empty"])
async def test_the_embedded_voice_speaks_the_sentence_when_a_cloud_does_not(
    azure: AzureStandIn, iflytek: IflytekStandIn, fault: str
) -> None:
    settings = TtsSettings(
        engines=("azure", "iflytek", "espeak"),
        first_audio_timeout_s=0.3 if fault == "hang" else 5.0,
        idle_timeout_s=0.3 if fault == "hang-midway" else 5.0,
        azure=azure_at(azure),
        iflytek=iflytek_at(iflytek),
    )
    voices = build_voices(settings, Path()).chain
    azure.fault = iflytek.fault = fault
    told: list[str] = []
    pcm = await heard(voices.speak(TEXT, language="zh", on_voice=told.append))
    assert len(pcm) > 5000
    # A sentence that broke off after more than a syllable is not begun again.
    assert told == (["azure"] if fault == "hang-midway" else ["espeak"])
    # One text without a sound may be that text's fault.
    first = {"hang-midway": "iflytek", "silence": "azure", "empty": "azure"}.get(fault, "espeak")
    assert voices.first_in_line() == first
    await voices.close()


async def test_another_cloud_speaks_with_the_closest_voice(azure: AzureStandIn, iflytek: IflytekStandIn) -> None:
    settings = TtsSettings(engines=("azure", "iflytek"), azure=azure_at(azure), iflytek=iflytek_at(iflytek))
    voices = build_voices(settings, Path()).chain
    azure.fault = "error-500"
    part = ReplyPart(ReplyVoices(VoiceRequest("azure:zh-CN-YunxiNeural", rate_percent=20)))
    await heard(voices.speak(TEXT, language="zh", part=part))
    (first,), (second,) = azure.requests, iflytek.requests
    assert (first.voice, first.rate) == ("zh-CN-YunxiNeural", "+20%")
    assert (second.voice, second.speed) == ("aisjiuxu", 60), "a man's voice, as much quicker"
    await voices.close()


# Azure --------------------------------------------------------------------------------------------------------------


async def test_azure_is_asked_what_was_meant_over_one_connection(azure: AzureStandIn) -> None:
    voice = AzureVoice(azure_at(azure, style="cheerful", rate_percent=-10), 5)
    await voice.warm()
    for text, language in ((TEXT, "zh"), ("Good morning.", "en")):
        await heard(voice.speak(text, language=language))
    first, second = azure.requests
    assert (first.voice, first.style, first.rate) == ("zh-CN-XiaoxiaoNeural", "cheerful", "-10%")
    assert (second.voice, second.style) == ("en-US-EmmaMultilingualNeural", "")
    assert first.connection == second.connection
    await voice.close()


@given(st.text(max_size=60))
def test_whatever_a_text_holds_azure_reads_it_as_text(text: str) -> None:
    voice = AzureVoice(AzureVoiceSettings(), 5)
    ssml = voice.ssml(text, "zh").encode("utf-8", "replace").decode()
    expected = NOT_XML.sub(" ", text).replace("\r\n", "\n").replace("\r", "\n")
    assert _read(ssml, 0).text == expected


@pytest.mark.parametrize(
    ("given", "url"),
    [
        ({"region": "westeurope"}, "https://westeurope.tts.speech.microsoft.com/cognitiveservices/v1"),
        ({"region": "chinaeast2"}, "https://chinaeast2.tts.speech.azure.cn/cognitiveservices/v1"),
        ({"region": "usgovvirginia"}, "https://usgovvirginia.tts.speech.azure.us/cognitiveservices/v1"),
        (
            {"endpoint": "https://toys.cognitiveservices.azure.com/"},
            "https://toys.cognitiveservices.azure.com/tts/cognitiveservices/v1",
        ),
        (
            {"endpoint": "https://toys.cognitiveservices.azure.com/tts"},
            "https://toys.cognitiveservices.azure.com/tts/cognitiveservices/v1",
        ),
        ({"endpoint": "https://relay.example/cognitiveservices/v1"}, "https://relay.example/cognitiveservices/v1"),
        ({"endpoint": "https://relay.example"}, "https://relay.example/cognitiveservices/v1"),
    ],
)
def test_azure_is_found_in_every_cloud(given: dict[str, str], url: str) -> None:
    assert service_url(AzureVoiceSettings.model_validate(given)) == url


async def test_azure_says_what_to_do_about_a_wrong_key(azure: AzureStandIn) -> None:
    voice = AzureVoice(azure_at(azure, api_key="wrong-key"), 5)
    for trying in (heard(voice.speak(TEXT, language="zh")), voice.warm()):
        with pytest.raises(VoiceError, match=r"azure: HTTP 401: the key is wrong .*tts\.azure\.region.*Access denied"):
            await trying
    assert "wrong-key" not in repr(azure_at(azure, api_key="wrong-key"))
    await voice.close()


@pytest.mark.parametrize(("fault", "advice"), [("error-429", "tts.max_concurrent"), ("error-400", "tts.azure.voice")])
async def test_azure_says_what_to_do_about_a_refusal(azure: AzureStandIn, fault: str, advice: str) -> None:
    azure.fault = fault
    voice = AzureVoice(azure_at(azure), 5)
    with pytest.raises(VoiceError, match=advice):
        await heard(voice.speak(TEXT, language="zh"))
    await voice.close()


# iFlytek ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "advice"), [(10005, "app_id"), (10313, "api_key"), (11200, "console"), (10700, "no")])
async def test_iflytek_says_what_to_do_about_a_code(iflytek: IflytekStandIn, code: int, advice: str) -> None:
    iflytek.fault = f"code-{code}"
    voice = IflytekVoice(iflytek_at(iflytek), 5)
    with pytest.raises(VoiceError, match=rf"iflytek: error {code}: .*{advice}.*sid tts1"):
        await heard(voice.speak(TEXT, language="zh"))
    await voice.close()


@pytest.mark.parametrize("name", ["api_key", "api_secret"])
async def test_iflytek_finds_a_wrong_key_before_anybody_speaks(iflytek: IflytekStandIn, name: str) -> None:
    voice = IflytekVoice(iflytek_at(iflytek, **{name: "wrong"}), 5)
    with pytest.raises(VoiceError, match="HTTP 401: the key or the secret is wrong"):
        await voice.warm()
    await voice.close()


async def test_iflytek_of_another_application_is_refused(iflytek: IflytekStandIn) -> None:
    voice = IflytekVoice(iflytek_at(iflytek, app_id="another"), 5)
    with pytest.raises(VoiceError, match="10313"):
        await heard(voice.speak(TEXT, language="zh"))
    await voice.close()


@pytest.mark.parametrize("fault", ["refuse", "no-base64"])
async def test_iflytek_that_answers_nonsense_is_an_error(iflytek: IflytekStandIn, fault: str) -> None:
    iflytek.fault = fault
    voice = IflytekVoice(iflytek_at(iflytek), 5)
    with pytest.raises(VoiceError, match="iflytek: "):
        await heard(voice.speak(TEXT, language="zh"))
    await voice.close()


async def test_a_signature_of_an_hour_ago_is_refused(iflytek: IflytekStandIn) -> None:
    old = iflytek_url(iflytek.ws_url, iflytek.key, iflytek.secret, datetime.now(UTC) - timedelta(hours=1))
    assert set(parse_qs(urlsplit(old).query)) == {"authorization", "date", "host"}
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.WSServerHandshakeError, match="403"):
            await session.ws_connect(old)


async def test_missing_keys_are_said_with_where_to_put_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("IFLYTEK_APP_ID", "IFLYTEK_API_KEY", "IFLYTEK_API_SECRET", "AZURE_SPEECH_KEY"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(VoiceError, match=r"tts\.iflytek\.api_secret or IFLYTEK_API_SECRET"):
        await heard(IflytekVoice(IflytekVoiceSettings(), 5).speak(TEXT, language="zh"))
    with pytest.raises(VoiceError, match="AZURE_SPEECH_KEY"):
        await AzureVoice(AzureVoiceSettings(), 5).warm()
    built = build_voices(TtsSettings(engines=("azure", "iflytek")), Path())
    assert "no key" in built.why[0] and "api_secret" in built.why[1]
    await built.chain.close()


async def test_the_check_has_two_syllables_spoken(azure: AzureStandIn) -> None:
    good = await voice("azure", TtsSettings(azure=azure_at(azure)), Path())
    assert (good.level, [asked.text for asked in azure.requests]) == (Level.OK, ["你好。"])
    refused = await voice("azure", TtsSettings(azure=azure_at(azure, api_key="wrong")), Path())
    assert refused.level is Level.WARN and "tts.azure.api_key" in refused.text
