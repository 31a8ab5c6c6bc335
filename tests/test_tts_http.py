"""The voice over HTTP and its presets, against stand-ins that are as strict as the services."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from bench.standins.http_voices import SERVICES, HttpVoicesStandIn, Service
from bench.standins.sound import TONE_HZ
from tests.house import house, question
from tests.sounds import heard, loudest_hz
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ
from xiaozhi.console.credentials import strayed
from xiaozhi.settings import Settings, TtsSettings
from xiaozhi.settings.http_voices import filled
from xiaozhi.settings.tts import HttpVoiceSettings
from xiaozhi.stages.tts.engine import VoiceError
from xiaozhi.stages.tts.http import HttpVoice
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.voice_request import VoiceRequest

TEXT = "今天天气很好，我们去公园。"
SECONDS = 0.18 * len(TEXT)
VOICES: dict[Service, str] = {"gpt-sovits": "/sounds/me.wav", "indextts": "jay_klee"}
JSON: dict[str, Any] = {"body": {"text": "{text}", "voice": "{voice}"}, "sound_at": "data.0.audio"}


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


def values_for(server: HttpVoicesStandIn, **values: object) -> dict[str, Any]:
    given = {"preset": server.service, "url": server.service_url, "voice": VOICES.get(server.service, "")}
    return given | {"api_key": server.key} | values


class At:
    """Voices, closed together."""

    def __init__(self) -> None:
        self.voices: list[HttpVoice] = []

    def __call__(self, server: HttpVoicesStandIn, **values: object) -> HttpVoice:
        settings = HttpVoiceSettings.model_validate(values_for(server, **values))
        self.voices.append(HttpVoice(settings, timeout_s=5))
        return self.voices[-1]


@pytest.fixture
async def at() -> AsyncIterator[At]:
    voices = At()
    yield voices
    for voice in voices.voices:
        await voice.close()


async def hears_the_tone(voice: HttpVoice) -> None:
    pcm = await heard(voice.speak(TEXT, language="zh"))
    assert len(pcm) / DOWNLINK_RATE_HZ == pytest.approx(SECONDS, abs=0.03)
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=1)


# The presets --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
async def test_every_preset_is_heard_as_its_server_speaks(at: At, service: Service) -> None:
    async with HttpVoicesStandIn(service, key="k-http-1" if service == "siliconflow" else "") as server:
        await hears_the_tone(at(server))
        (asked,) = server.requests
        assert asked.text == TEXT
        assert ("Authorization" in asked.headers) == (service == "siliconflow")


async def test_a_preset_asks_with_the_fields_of_its_service(at: At) -> None:
    async with HttpVoicesStandIn("gpt-sovits") as server:
        voice = at(server, body={"prompt_text": "你好", "top_k": 5, "prompt_lang": "en"})
        await heard(voice.speak(TEXT, language="ja", request=VoiceRequest("http:/sounds/you.wav", rate_percent=20)))
        assert server.requests[0].fields == {
            "text": TEXT,
            "text_lang": "ja",
            "ref_audio_path": "/sounds/you.wav",
            "prompt_lang": "en",
            "prompt_text": "你好",
            "top_k": 5,
            "speed_factor": 1.2,
            "media_type": "wav",
            "streaming_mode": True,
        }


@pytest.mark.parametrize(("samples", "rate_hz"), [("s16", 22_050), ("f32", 22_050), ("f32", 24_000)])
async def test_either_kind_of_cosyvoice_is_heard_at_its_rate(at: At, samples: Any, rate_hz: int) -> None:
    async with HttpVoicesStandIn("cosyvoice", samples=samples, rate_hz=rate_hz) as server:
        await hears_the_tone(at(server, pcm_rate_hz=rate_hz if samples == "s16" else 0))


async def test_indextts_is_heard_whether_it_sends_a_file_or_bare_samples(at: At) -> None:
    async with HttpVoicesStandIn("indextts", whole=False) as server:
        await hears_the_tone(at(server))


async def test_a_field_without_a_value_is_not_sent(at: At) -> None:
    async with HttpVoicesStandIn("fish-speech") as server:
        await heard(at(server).speak(TEXT, language="zh"))
        await heard(at(server, voice="me").speak(TEXT, language="zh"))
        assert [asked.fields.get("reference_id") for asked in server.requests] == [None, "me"]


@pytest.mark.parametrize("service", ["gpt-sovits", "indextts"])
def test_a_preset_that_needs_a_voice_says_which(service: Service) -> None:
    settings = TtsSettings.model_validate({"engines": ["http", "espeak"], "http": {"preset": service}})
    with pytest.raises(VoiceError, match=rf"http: preset {service} needs tts\.http\.voice: "):
        build_voices(settings, Path())


def test_without_preset_and_address_nobody_can_be_asked() -> None:
    with pytest.raises(VoiceError, match=r"set tts\.http\.preset, or tts\.http\.url"):
        build_voices(TtsSettings(engines=("http",)), Path())


def test_a_key_is_missed_where_the_service_asks_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SILICONFLOW_API_KEY", raising=False)
    cloud = HttpVoiceSettings(preset="siliconflow")
    assert "tts.http.api_key or SILICONFLOW_API_KEY" in cloud.missing("tts.http")
    monkeypatch.setenv("SILICONFLOW_API_KEY", "k-from-outside")
    assert cloud.key() == "k-from-outside" and not cloud.missing("tts.http")
    assert not HttpVoiceSettings(preset="fish-speech").missing("tts.http")


# Any server ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answer", "place"),
    [
        (lambda coded: {"data": [{"audio": coded}]}, "data.0.audio"),
        (lambda coded: {"sound": f"data:audio/wav;base64,{coded}"}, "sound"),
        (lambda coded: {"sound": coded.rstrip("=").replace("+", "-").replace("/", "_")}, "sound"),
        (lambda coded: [coded[:70] + "\n" + coded[70:]], "0"),
    ],
)
async def test_sound_in_json_is_found_where_the_settings_say(at: At, answer: Any, place: str) -> None:
    async with HttpVoicesStandIn(answer=answer) as server:
        await hears_the_tone(at(server, preset="", url=f"{server.url}/json", **JSON | {"sound_at": place}))


@pytest.mark.parametrize("said", ["/files/a.wav", "{url}/files/a.wav"])
async def test_sound_at_an_address_of_the_same_server_is_fetched_with_the_key(at: At, said: str) -> None:
    async with HttpVoicesStandIn(key="k-http-1") as server:
        server.answer = lambda _coded: {"data": [{"audio": said.format(url=server.url)}]}
        await hears_the_tone(at(server, preset="", url=f"{server.url}/json", **JSON))
        assert server.fetched == ["a.wav"]


async def test_an_address_elsewhere_is_not_asked(at: At) -> None:
    async with HttpVoicesStandIn(key="k-http-1") as server, HttpVoicesStandIn() as other:
        here = server.url.removeprefix("http://")
        for address in (
            f"{other.url}/files/a.wav",
            f"//{other.url.removeprefix('http://')}/files/a.wav",
            f"http://{here}\\@{other.url.removeprefix('http://')}/files/a.wav",
            f"http://{here}@{other.url.removeprefix('http://')}/files/a.wav",
            f"https://{here}/files/a.wav",
            "file:///etc/passwd",
            "http://[/x.wav",
        ):
            server.answer = lambda _coded, address=address: {"data": [{"audio": address}]}
            with pytest.raises(VoiceError, match="on another server than") as caught:
                await heard(at(server, preset="", url=f"{server.url}/json", **JSON).speak(TEXT, language="zh"))
            assert "k-http-1" not in str(caught.value)
        assert (server.fetched, other.fetched) == ([], [])


@pytest.mark.parametrize("answer", [{}, {"data": []}, {"data": [{"audio": ""}]}, {"data": [{"audio": 5}]}, [], 7])
async def test_json_without_the_sound_says_what_it_was(at: At, answer: Any) -> None:
    async with HttpVoicesStandIn(answer=lambda _coded: answer) as server:
        with pytest.raises(VoiceError, match=r"no sound at tts\.http\.sound_at = 'data\.0\.audio' of "):
            await heard(at(server, preset="", url=f"{server.url}/json", **JSON).speak(TEXT, language="zh"))


async def test_what_is_no_base64_is_an_error(at: At) -> None:
    async with HttpVoicesStandIn(answer=lambda _coded: {"data": [{"audio": "§§§"}]}) as server:
        with pytest.raises(VoiceError, match="no base64"):
            await heard(at(server, preset="", url=f"{server.url}/json", **JSON).speak(TEXT, language="zh"))


async def test_an_answer_of_json_without_an_end_is_given_up(at: At) -> None:
    async with HttpVoicesStandIn() as server:
        server.fault = "huge"
        with pytest.raises(VoiceError, match="over 16 MB"):
            await heard(at(server, preset="", url=f"{server.url}/json", **JSON).speak(TEXT, language="zh"))


async def test_a_server_may_be_asked_with_get_and_headers_of_its_own(at: At) -> None:
    async with HttpVoicesStandIn(key="k-http-1") as server:
        voice = at(
            server, preset="", url=f"{server.url}/get?x=1", method="GET", headers={"X-Token": "t-{key}", "X-Id": "i"},
            body={"text": "{text}", "loud": True, "rate": "{speed}", "title": "von {voice}"}, voice="me",
        )  # fmt: skip
        await hears_the_tone(voice)
        (asked,) = server.requests
        assert asked.fields == {"x": "1", "text": TEXT, "loud": "true", "rate": "1.0", "title": "von me"}
        assert (asked.headers["X-Token"], asked.headers["X-Id"]) == ("t-k-http-1", "i")


@given(st.text(max_size=40), st.text(max_size=20))
def test_whatever_a_text_holds_it_is_a_value(text: str, voice: str) -> None:
    template = {"a": "{text}", "b": ["{voice}: {text}", {"c": "{text}{text}"}], "d": 5}
    assert filled(template, {"text": text, "voice": voice}) == {
        "a": text,
        "b": [f"{voice}: {text}", {"c": text + text}],
        "d": 5,
    }


async def test_a_text_that_looks_like_a_template_is_spoken_and_gives_nothing_away(at: At) -> None:
    nasty = '{key} {voice} {0.__class__} "},"model":"x" %s \ud800 &x=1'
    for service in SERVICES:
        async with HttpVoicesStandIn(service, key="k-http-1") as server:
            await heard(at(server).speak(nasty, language="zh"))
            assert server.requests[0].text == nasty.replace("\ud800", "?")


# Faults -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("service", SERVICES)
@pytest.mark.parametrize("fault", ["reset", "error-500", "error-401", "garbage", "json", "empty", "redirect", "echo"])
async def test_a_server_that_fails_is_an_error_of_one_line_without_the_key(
    at: At, service: Service, fault: str
) -> None:
    async with HttpVoicesStandIn(service, key="k-http-1") as server:
        server.fault = fault
        with pytest.raises(VoiceError, match=r"^http: ") as caught:
            await heard(at(server).speak(TEXT, language="zh"))
        assert "\n" not in str(caught.value) and "k-http-1" not in str(caught.value)


@pytest.mark.parametrize("fault", ["hang", "hang-midway"])
async def test_closing_leaves_the_server_at_once(at: At, fault: str) -> None:
    async with HttpVoicesStandIn() as server:
        server.fault = fault
        listening = asyncio.create_task(heard(at(server).speak(TEXT, language="zh")))
        await server.asked()
        listening.cancel()
        await asyncio.gather(listening, return_exceptions=True)
        async with asyncio.timeout(3):
            await server.idle()


async def test_the_first_sound_is_heard_before_the_last_is_sent(at: At) -> None:
    async with HttpVoicesStandIn() as server:
        server.fault = "hang-midway"
        pieces = at(server).speak(TEXT, language="zh")
        assert len(await anext(pieces)) > 0
        await pieces.aclose()


async def test_warming_opens_the_connection_and_finds_a_wrong_key_without_a_text(at: At) -> None:
    async with HttpVoicesStandIn(key="k-http-1") as server:
        voice = at(server)
        await voice.warm()
        assert (server.options, server.requests) == (1, [])
        with pytest.raises(VoiceError, match=r"refuses the key.*tts\.http\.api_key"):
            await at(server, api_key="wrong").warm()
        await server.close()
        with pytest.raises(VoiceError, match="cannot be reached"):
            await at(server).warm()


# Settings -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "fault"),
    [
        ({"url": "http://h/x"}, "no place for the text"),
        ({"url": "http://h/x", "body": {"a": "{text}", "b": ["{txt}"]}}, "knows no {txt}"),
        ({"url": "http://h/x", "body": {"a": "{text} {key}"}}, "knows no {key}"),
        ({"url": "http://h/x", "body": {"a": ["{text}"]}, "sent_as": "form"}, "no lists and tables"),
        ({"preset": "siliconflow", "headers": {"Content-Length": "5"}}, "cannot be set"),
        ({"preset": "siliconflow", "headers": {"A\r\nB": "5"}}, "cannot be set"),
        ({"preset": "siliconflow", "headers": {"A": "5\r\nB: 6"}}, "characters that no header has"),
        ({"url": "ftp://h/x"}, "http://"),
        ({"preset": "silicon"}, "siliconflow"),
    ],
)
def test_settings_that_cannot_work_are_refused_by_name(values: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValidationError, match=fault):
        HttpVoiceSettings.model_validate(values)


def test_the_whole_address_is_kept() -> None:
    kept = HttpVoiceSettings.model_validate({"url": " http://h:1/v1/audio/speech ", "body": {"input": "{text}"}})
    assert kept.url == "http://h:1/v1/audio/speech"


def test_the_consoles_preset_takes_no_key_to_another_address() -> None:
    def with_http(**values: object) -> Settings:
        return Settings.model_validate({"tts": {"http": values}})

    mine = with_http(preset="siliconflow", api_key="k-http-1", headers={"X-Token": "t-1"})
    for change in ({"url": "https://evil.example/v1"}, {"preset": "gpt-sovits", "voice": "x"}):
        after = with_http(**{"preset": "siliconflow", "api_key": "k-http-1", "headers": {"X-Token": "t-1"}} | change)
        assert {error.partition(":")[0] for error in strayed(mine, mine, after, ()).errors} == {
            "tts.http.api_key",
            "tts.http.headers",
        }
    assert "t-1" not in repr(mine) and "k-http-1" not in repr(mine)


async def test_a_turn_is_spoken_by_it_and_by_the_embedded_voice_when_it_breaks(tmp_path: Path) -> None:
    async with HttpVoicesStandIn(key="k-http-1") as server:
        tts = {"engines": ["http", "espeak"], "http": values_for(server)}
        async with house(tmp_path, tts=tts) as home, home.device() as device:
            first = await device.turn(question())
            spoken = len(server.requests)
            server.fault = "error-500"
            second = await device.turn(question())
        assert first.answered and second.answered
        assert spoken and len(server.requests) > spoken
