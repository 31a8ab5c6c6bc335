"""MiniMax's voice, against a stand-in that checks what it is sent: one session for a reply, kept for the next."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.minimax import MinimaxStandIn
from bench.standins.sound import TONE_HZ, tone
from tests.house import brief, house, question
from tests.sounds import heard, loudest_hz
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.checks.finding import Level
from xiaozhi.checks.stages import voice as checked
from xiaozhi.settings import TtsSettings
from xiaozhi.settings.tts import MinimaxVoiceSettings
from xiaozhi.stages.tts.engine import Mark, Spoken, TextRefused, VoiceError
from xiaozhi.stages.tts.minimax import MinimaxVoice, event_of, sound_of
from xiaozhi.stages.tts.registry import build_voices
from xiaozhi.stages.tts.reply_voices import ReplyVoices
from xiaozhi.stages.tts.voice_request import VoiceRequest

TEXT = "今天天气很好，我们去公园。"


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def service() -> AsyncIterator[MinimaxStandIn]:
    async with MinimaxStandIn() as server:
        yield server


def settings_at(server: MinimaxStandIn, **values: object) -> MinimaxVoiceSettings:
    return MinimaxVoiceSettings.model_validate({"url": server.ws_url, "api_key": server.key, **values})


@pytest.fixture
async def voice(service: MinimaxStandIn) -> AsyncIterator[MinimaxVoice]:
    voice = MinimaxVoice(settings_at(service), 5)
    yield voice
    await voice.close()


async def reply(voice: MinimaxVoice, *texts: str, request: VoiceRequest | None = None) -> list[Spoken]:
    """All that a session makes of texts that are sent at once."""
    session = voice.open(request or VoiceRequest())
    for text in texts:
        await session.send(text, "zh")
    await session.end()
    async with aclosing(session.sound()) as sound:
        said = [item async for item in sound]
    await session.cancel()
    return said


def pieces(said: list[Spoken]) -> list[PcmInt]:
    """The sound of each text."""
    parts: list[list[PcmInt]] = [[]]
    for item in said:
        if isinstance(item, Mark):
            assert item.text == len(parts) - 1
            parts.append([])
        else:
            parts[-1].append(item)
    assert parts.pop() == []
    return [np.concatenate(part) if part else np.empty(0, np.int16) for part in parts]


# Speaking ------------------------------------------------------------------------------------------------------------


async def test_each_clause_of_a_reply_has_its_sound_and_its_mark_on_one_connection(
    service: MinimaxStandIn, voice: MinimaxVoice
) -> None:
    first, second = pieces(await reply(voice, TEXT, "好的。"))
    np.testing.assert_array_equal(first, tone(TEXT))
    np.testing.assert_array_equal(second, tone("好的。"))
    assert loudest_hz(first, DOWNLINK_RATE_HZ) == pytest.approx(TONE_HZ, abs=1)
    assert [(asked.text, asked.connection) for asked in service.requests] == [(TEXT, 1), ("好的。", 1)]


async def test_the_next_reply_uses_the_same_connection_and_session(
    service: MinimaxStandIn, voice: MinimaxVoice
) -> None:
    await voice.warm()
    assert (service.connections, service.sessions, service.requests) == (1, 1, [])
    for _ in range(3):
        assert len(pieces(await reply(voice, "好的。"))) == 1
    assert (service.connections, service.sessions) == (1, 1)


async def test_a_kept_connection_that_the_service_has_closed_costs_no_word(
    service: MinimaxStandIn, voice: MinimaxVoice
) -> None:
    service.fault = "leaves"
    for _ in range(3):
        (sound,) = pieces(await reply(voice, "好的。"))
        np.testing.assert_array_equal(sound, tone("好的。"))
    assert service.connections == 3


async def test_another_voice_is_another_session_and_a_rate_is_a_speed(
    service: MinimaxStandIn, voice: MinimaxVoice
) -> None:
    await reply(voice, "好的。")
    await reply(voice, "好的。", request=VoiceRequest("minimax:male-qn-jingying", rate_percent=30))
    await reply(voice, "好的。", request=VoiceRequest(gender="male", rate_percent=-80 + 30, pitch_semitones=-3))
    starts = [asked.start["voice_setting"] for asked in service.requests]
    assert [(start["voice_id"], start["speed"]) for start in starts] == [
        ("female-shaonv", 1.0),
        ("male-qn-jingying", 1.3),
        ("male-qn-qingse", 0.5),
    ]
    assert [start["pitch"] for start in starts] == [0, 0, -3]
    assert service.sessions == 3


async def test_a_last_message_that_has_all_sound_once_more_is_not_heard_twice(
    service: MinimaxStandIn, voice: MinimaxVoice
) -> None:
    service.fault = "twice"
    (sound,) = pieces(await reply(voice, TEXT))
    np.testing.assert_array_equal(sound, tone(TEXT))


# Stopping ------------------------------------------------------------------------------------------------------------


async def test_cancelling_leaves_the_connection_at_once_and_opens_another_for_the_next_reply(
    service: MinimaxStandIn, voice: MinimaxVoice
) -> None:
    service.fault = "hang-midway"
    session = voice.open()
    await session.send(TEXT, "zh")
    sound = session.sound()
    assert len(await anext(sound)) > 0  # type: ignore[arg-type]  # sound comes before its mark
    service.fault = ""
    async with asyncio.timeout(0.05):
        await session.cancel()
    assert [item async for item in sound] == [], "it ends, and what comes late is nobody's"
    async with asyncio.timeout(3):
        while service.sessions < 2:  # noqa: ASYNC110 - what another machine does has no event to wait for
            await asyncio.sleep(0.001)
    (heard_next,) = pieces(await reply(voice, "好的。"))
    np.testing.assert_array_equal(heard_next, tone("好的。"))
    assert (service.sessions, service.requests[-1].connection) == (2, 2), "the one that was opened ahead"


async def test_cancelling_between_two_clauses_keeps_the_connection(
    service: MinimaxStandIn, voice: MinimaxVoice
) -> None:
    session = voice.open()
    await session.send("好的。", "zh")
    sound = session.sound()
    while not isinstance(await anext(sound), Mark):
        pass
    waiting = asyncio.ensure_future(anext(sound, None))
    await asyncio.sleep(0)
    await session.cancel()
    assert await waiting is None
    await reply(voice, "好的。")
    assert service.connections == 1


# What goes wrong -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        ("refuse", r"HTTP 401: the key is wrong: see tts\.minimax\.api_key"),
        ("refuse-inside", r"error 1004: the key is wrong: see tts\.minimax\.api_key"),
        ("error-500", "HTTP 500"),
        ("reset", "minimax: "),
        ("reset-midway", "minimax: "),
        ("garbage", "not an answer: <html>"),
        ("no-hex", "not sound"),
        ("code-1000", r"error 1000: no \(trace t1\)"),
        ("code-1002", r"tts\.max_concurrent"),
        ("code-1008", "no balance"),
        ("code-2013", r"tts\.minimax\.voice"),
    ],
)
async def test_a_service_that_fails_is_an_error_of_one_line_with_what_to_do(
    service: MinimaxStandIn, voice: MinimaxVoice, fault: str, line: str
) -> None:
    service.fault = fault
    with pytest.raises(VoiceError, match=line) as caught:
        await reply(voice, TEXT)
    assert "\n" not in str(caught.value) and service.key not in str(caught.value)


async def test_a_text_that_is_refused_says_nothing_of_the_others(service: MinimaxStandIn, voice: MinimaxVoice) -> None:
    service.fault = "code-1042"
    with pytest.raises(TextRefused):
        await reply(voice, TEXT)


async def test_nobody_there_is_an_error_that_names_the_address(service: MinimaxStandIn, voice: MinimaxVoice) -> None:
    await service.close()
    with pytest.raises(VoiceError, match="cannot be reached"):
        await reply(voice, TEXT)
    with pytest.raises(VoiceError, match="cannot be reached"):
        await voice.warm()


async def test_a_missing_key_is_said_with_where_to_put_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MINIMAX_API_KEY", raising=False)
    voice = MinimaxVoice(MinimaxVoiceSettings(), 5)
    with pytest.raises(VoiceError, match=r"tts\.minimax\.api_key or MINIMAX_API_KEY"):
        await voice.warm()
    await voice.close()


@pytest.mark.parametrize("fault", ["hang", "hang-midway", "reset", "refuse", "garbage", "silence", "empty"])
async def test_the_embedded_voice_speaks_the_sentence_when_minimax_does_not(
    service: MinimaxStandIn, fault: str
) -> None:
    settings = TtsSettings(
        engines=("minimax", "espeak"),
        first_audio_timeout_s=0.3 if fault == "hang" else 5.0,
        idle_timeout_s=0.3 if fault == "hang-midway" else 5.0,
        minimax=settings_at(service),
    )
    voices = build_voices(settings, Path()).chain
    service.fault = fault
    told: list[str] = []
    replied = ReplyVoices()

    async def clause(text: str) -> AsyncGenerator[PcmInt, None]:
        async for pcm in voices.speak(text, language="zh", part=replied.part(), on_voice=told.append):
            yield pcm

    assert len(await heard(clause(TEXT))) > 5000
    assert len(await heard(clause("好的。"))) > 5000, "and the next one"
    await replied.close()
    # A sentence that broke off after more than a syllable is not begun again.
    assert told == (["minimax", "espeak"] if fault == "hang-midway" else ["espeak", "espeak"])
    await voices.close()


async def test_the_check_has_two_syllables_spoken(service: MinimaxStandIn) -> None:
    good = await checked("minimax", TtsSettings(minimax=settings_at(service)), Path())
    assert (good.level, [asked.text for asked in service.requests]) == (Level.OK, ["你好。"])
    refused = await checked("minimax", TtsSettings(minimax=settings_at(service, api_key="wrong")), Path())
    assert refused.level is Level.WARN and "tts.minimax.api_key" in refused.text


async def test_two_turns_are_spoken_on_one_connection(tmp_path: Path) -> None:
    async with MinimaxStandIn(sound=brief) as service:
        values = {"url": service.ws_url, "api_key": service.key}
        tts = {"engines": ["minimax", "espeak"], "minimax": values}
        answer = "It is ten past nine. The sun is up. Have a nice day."
        async with house(tmp_path, answer, tts=tts) as home, home.device() as device:
            for _ in range(2):
                report = await device.turn(question())
                assert report.answered
    assert len(service.requests) >= 4
    assert {asked.connection for asked in service.requests} == {1}


_FIELDS = st.sampled_from("event data audio is_final base_resp status_code status_msg trace_id".split())
_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
_SAID = st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_FIELDS, inner, max_size=6))


@given(_SAID)
def test_whatever_the_service_sends_is_sound_or_an_error_of_one_line(said: object) -> None:
    try:
        assert isinstance(sound_of(event_of(json.dumps(said))), bytes)
    except VoiceError as error:
        assert "\n" not in str(error)
