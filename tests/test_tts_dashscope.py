"""CosyVoice on DashScope, against a service that checks what it is sent and behaves well and badly."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.standins.dashscope import DashscopeStandIn
from tests.house import brief, house, question
from tests.recognisers import until
from tests.sounds import sine
from tests.test_tts_stage import Fake, by_clause, clauses, packets_out, seconds
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.events import SpokenItem
from xiaozhi.settings import Settings
from xiaozhi.settings.tts import DashscopeVoiceSettings
from xiaozhi.stages.tts.clause_speech import ClauseSpeech
from xiaozhi.stages.tts.dashscope import DashscopeVoice, Places
from xiaozhi.stages.tts.engine import Mark, Voice, VoiceError, VoiceSession
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

ONE, TWO, THREE = "你好，", "今天天气很好。", "我们去公园吧！那里有花。"


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def codec() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "codec")
    yield pool
    pool.close()


def spoken(text: str) -> PcmInt:
    """As long as Mandarin takes; another tone for each length."""
    return sine(200 + 40 * len(text), 0.18 * len(text))


@pytest.fixture
async def service() -> AsyncIterator[DashscopeStandIn]:
    async with DashscopeStandIn(sound=spoken) as server:
        yield server


def at(server: DashscopeStandIn, **values: object) -> DashscopeVoice:
    return DashscopeVoice(
        DashscopeVoiceSettings.model_validate({"url": server.ws_url, "api_key": server.key, **values}), 3
    )


@pytest.fixture
async def voice(service: DashscopeStandIn) -> AsyncIterator[DashscopeVoice]:
    voice = at(service)
    yield voice
    await voice.close()


async def by_text(session: VoiceSession) -> list[PcmInt]:
    """The sound of each text of a session that has ended."""
    texts: list[list[PcmInt]] = [[]]
    async for item in session.sound():
        if isinstance(item, Mark):
            assert item.text == len(texts) - 1
            texts.append([])
        else:
            texts[-1].append(item)
    assert texts.pop() == []
    return [np.concatenate(each) if each else np.empty(0, np.int16) for each in texts]


async def reply(codec: WorkerPool, *voices: Voice, texts: tuple[str, ...] = (ONE, TWO, THREE)) -> list[SpokenItem]:
    out = packets_out()
    chain = VoiceChain(voices, 1.0, 1.0, 30.0, time.monotonic)
    await run_tts(clauses(*texts), out, ClauseSpeech(chain, codec, Settings()), Settings())
    return out.drain()


async def test_a_reply_is_one_task_and_each_text_gets_its_own_sound(
    service: DashscopeStandIn, voice: DashscopeVoice
) -> None:
    session = voice.open(VoiceRequest(rate_percent=20, pitch_semitones=12))
    for text in (ONE, TWO, THREE):
        await session.send(text, "zh")
    await session.end()
    first, second, third = await by_text(session)
    np.testing.assert_array_equal(first, spoken(ONE))
    np.testing.assert_array_equal(second, spoken(TWO))
    np.testing.assert_array_equal(third, np.concatenate([spoken("我们去公园吧！"), spoken("那里有花。")]))
    (task,) = service.requests
    assert [given.get("text") for given in task.inputs if "text" in given] == [ONE, TWO, THREE]
    assert task.finished == [{}]
    assert task.payload == {
        "task_group": "audio",
        "task": "tts",
        "function": "SpeechSynthesizer",
        "model": "cosyvoice-v2",
        "parameters": {
            "text_type": "PlainText",
            "voice": "longxiaochun_v2",
            "format": "pcm",
            "sample_rate": DOWNLINK_RATE_HZ,
            "volume": 50,
            "rate": 1.2,
            "pitch": 2.0,
        },
        "input": {},
    }


async def test_the_first_text_is_heard_before_the_second_is_written(
    service: DashscopeStandIn, voice: DashscopeVoice
) -> None:
    session = voice.open()
    sound = session.sound()
    await session.send(ONE, "zh")
    heard = 0
    while not isinstance(item := await anext(sound), Mark):
        heard += len(item)
    assert heard == len(spoken(ONE))
    await session.send(TWO, "zh")
    assert not isinstance(await anext(sound), Mark)
    await sound.aclose()


@pytest.mark.parametrize("announces", [True, False])
async def test_a_service_that_does_not_flush_leaves_no_text_without_sound(
    service: DashscopeStandIn, voice: DashscopeVoice, announces: bool
) -> None:
    service.flushes, service.announces = False, announces
    session = voice.open()
    for text in (ONE, TWO, THREE):
        await session.send(text, "zh")
    await session.end()
    texts = await by_text(session)
    whole = np.concatenate([spoken(ONE + TWO), spoken("我们去公园吧！"), spoken("那里有花。")])
    np.testing.assert_array_equal(np.concatenate(texts), whole)
    assert len(texts) == 3 and all(len(text) > 0.05 * DOWNLINK_RATE_HZ for text in texts)


async def test_connections_are_kept_from_reply_to_reply_and_warming_costs_nothing(
    service: DashscopeStandIn, voice: DashscopeVoice
) -> None:
    await voice.warm()
    assert (service.connections, service.requests) == (1, [])
    for _ in range(2):
        session = voice.open()
        await session.send(ONE, "zh")
        await session.end()
        await by_text(session)
    assert [task.connection for task in service.requests] == [1, 1]


@pytest.mark.parametrize(("pause_s", "fault"), [(70.0, ""), (5.0, "hang-kept"), (5.0, "")])
async def test_a_kept_connection_that_has_died_is_replaced(
    service: DashscopeStandIn, voice: DashscopeVoice, pause_s: float, fault: str
) -> None:
    for _ in range(2):
        session = voice.open()
        await session.send(TWO, "zh")
        await session.end()
        (heard,) = await by_text(session)
        np.testing.assert_array_equal(heard, spoken(TWO))
        await asyncio.sleep(pause_s)  # of virtual time
        service.fault = fault
    assert service.connections == (1 if (pause_s, fault) == (5.0, "") else 2)


async def test_who_cancels_hears_nothing_more_and_late_sound_is_not_the_next_replys(
    service: DashscopeStandIn, voice: DashscopeVoice
) -> None:
    session = voice.open()
    sound = session.sound()
    await session.send("很长的话" * 50, "zh")
    await anext(sound)
    await session.cancel()
    await sound.aclose()
    await until(lambda: bool(voice.sockets._idle))  # the service has ended the task
    assert service.requests[0].finished == [{"directive": "cancel"}]
    following = voice.open()
    await following.send(TWO, "zh")
    await following.end()
    (heard,) = await by_text(following)
    np.testing.assert_array_equal(heard, spoken(TWO))
    assert [task.connection for task in service.requests] == [1, 1]


async def test_a_pause_that_the_service_does_not_bear_ends_the_task_and_not_the_reply(
    service: DashscopeStandIn, voice: DashscopeVoice
) -> None:
    session = voice.open()
    heard = asyncio.create_task(by_text(session))
    await session.send(ONE, "zh")
    await asyncio.sleep(24.0)  # of virtual time
    await session.send(TWO, "zh")
    await session.end()
    first, second = await heard
    np.testing.assert_array_equal(first, spoken(ONE))
    np.testing.assert_array_equal(second, spoken(TWO))
    assert len(service.requests) == 2


@pytest.mark.parametrize("fault", ["fail-start", "fail-midway", "reset-start", "reset-midway", "refuse"])
async def test_a_failure_is_one_line_without_the_key(
    service: DashscopeStandIn, voice: DashscopeVoice, fault: str
) -> None:
    service.fault = fault
    session = voice.open()
    await session.send(TWO, "zh")
    await session.end()
    with pytest.raises(VoiceError, match=r"^dashscope: ") as caught:
        await by_text(session)
    line = str(caught.value)
    assert "\n" not in line and service.key not in line
    assert ("tts.dashscope.voice" in line) == (fault == "fail-start")
    assert ("tts.dashscope.api_key" in line) == (fault == "refuse")


@pytest.mark.parametrize("fault", ["fail-start", "reset-start", "hang", "silence", "empty", "refuse"])
async def test_the_next_voice_speaks_what_this_one_cannot(
    service: DashscopeStandIn, voice: DashscopeVoice, codec: WorkerPool, fault: str
) -> None:
    service.fault = fault
    other = Fake(seconds(0.6))
    items = await reply(codec, voice, other)
    assert by_clause(items) == [(ONE, 11), (TWO, 11), (THREE, 11)]
    assert sorted(other.begun) == sorted([ONE, TWO, THREE])


async def test_a_connection_cut_in_mid_reply_loses_no_clause(
    service: DashscopeStandIn, voice: DashscopeVoice, codec: WorkerPool
) -> None:
    def cut_at_the_second(text: str) -> PcmInt:
        if text == TWO:
            service.fault = "reset-midway"
        return spoken(text)

    service.sound = cut_at_the_second
    other = Fake(seconds(3.0))
    items = await reply(codec, voice, other)
    assert [text for text, _ in by_clause(items)] == [ONE, TWO, THREE]
    assert set(other.begun) in ({TWO, THREE}, {THREE})


async def test_sound_that_waits_for_its_listener_is_bounded(service: DashscopeStandIn, voice: DashscopeVoice) -> None:
    session = voice.open()
    sound = session.sound()
    await session.send("很长的话" * 500, "zh")  # 360 s of sound, 17 MB
    await anext(sound)
    sent: list[int] = []

    def stands_still() -> bool:
        sent.append(service.requests[0].spoken_bytes)
        return len(sent) > 50 and sent[-50] == sent[-1]

    await until(stands_still)
    assert sent[-1] < 12_000_000, "the rest waits at the service, not here"
    await session.cancel()
    await sound.aclose()


def test_the_voices_of_another_model_are_not_guessed() -> None:
    v3 = DashscopeVoice(DashscopeVoiceSettings(model="cosyvoice-v3-flash", voice="longanyang"), 3)
    v2 = DashscopeVoice(DashscopeVoiceSettings(), 3)

    def named(voice: DashscopeVoice, request: VoiceRequest) -> str:
        return str(voice.payload("zh", request)["parameters"]["voice"])

    assert named(v3, VoiceRequest(gender="female")) == "longanyang"
    assert named(v3, VoiceRequest("dashscope:longanhuan")) == "longanhuan"
    assert named(v2, VoiceRequest(gender="male")) == "longcheng_v2"
    assert named(v2, ANY_VOICE) == "longxiaochun_v2"


@given(
    st.lists(
        st.text("你好a1，。 ", min_size=1, max_size=12).filter(lambda text: any(map(str.isalnum, text))), max_size=6
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["sentence-begin", "sentence-synthesis", "sentence-end", None]),
            st.none() | st.text("你好a1，。", max_size=20),
            st.integers(0, 60_000),
        ),
        max_size=20,
    ),
)
def test_every_text_is_marked_once_and_in_order_whatever_a_service_tells(
    texts: list[str], told: list[tuple[str | None, str | None, int]]
) -> None:
    places = Places()
    marks: list[Mark] = []
    for index, text in enumerate(texts):
        places.sent(text)
        for kind, original, samples in told[index::6]:
            marks += places.told({"type": kind, "original_text": original})
            marks += places.spoken(samples)
    marks += places.all_spoken()
    assert [mark.text for mark in marks] == list(range(len(texts)))


async def test_a_whole_turn_is_spoken(tmp_path: Path) -> None:
    async with DashscopeStandIn(sound=brief) as service:
        tts = {"engines": ["dashscope", "espeak"], "dashscope": {"url": service.ws_url, "api_key": service.key}}
        async with (
            house(tmp_path, "It is ten past nine. Good night to you.", tts=tts) as home,
            home.device() as device,
        ):
            report = await device.turn(question())
            assert (report.answered, report.text) == (True, "It is ten past nine. Good night to you.")
            (task,) = [each for each in service.requests if each.inputs]
            assert "".join(each.get("text", "") for each in task.inputs).count("nine") == 1
