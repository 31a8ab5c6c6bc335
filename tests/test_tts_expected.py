"""Connections that are there before the first clause: opened at the soft end, and closed where no clause takes them."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import suppress
from pathlib import Path

import pytest

from bench.standins.edge import EdgeStandIn
from bench.standins.iflytek import IflytekStandIn
from tests.house import House, brief, house, question
from tests.sounds import heard
from tests.test_conversation_lives import AUTO, conversation, run, said_and_answered
from tests.test_tts_clouds import iflytek_at
from tests.virtual_house import use_voices
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.stages.tts.engine import ClauseVoice, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.iflytek import IflytekVoice
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest
from xiaozhi.upstream.connections import Spares

TEXT = "今天天气很好，我们去公园。"


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


# Those that wait ------------------------------------------------------------------------------------------------------


def test_a_connection_that_nobody_takes_is_closed_and_so_is_the_oldest_of_too_many() -> None:
    async def scene() -> None:
        closed: list[str] = []

        async def leave(name: str) -> None:
            closed.append(name)

        spares = Spares[str](8.0, 2, leave)
        for name in ("first", "second", "third"):
            spares.put(name)
            await asyncio.sleep(1.0)
        assert closed == ["first"]
        assert spares.take() == "third", "the newest is the likeliest to be open"
        await asyncio.sleep(7.5)
        assert (closed, spares.take()) == (["first", "second"], None)
        spares.put("fourth")
        await spares.close()
        assert (closed, len(spares)) == (["first", "second", "fourth"], 0)

    run(scene())


# The engines ----------------------------------------------------------------------------------------------------------


@pytest.fixture
async def iflytek() -> AsyncIterator[IflytekStandIn]:
    async with IflytekStandIn() as standin:
        yield standin


async def test_iflytek_speaks_over_the_connection_that_was_opened_for_it(iflytek: IflytekStandIn) -> None:
    voice = IflytekVoice(iflytek_at(iflytek), 5)
    await voice.warm()
    assert (iflytek.handshakes, iflytek.requests) == (1, [])
    assert len(await heard(voice.speak(TEXT, language="zh"))) > 0
    assert iflytek.handshakes == 1
    await heard(voice.speak(TEXT, language="zh"))
    assert iflytek.handshakes == 2
    await voice.close()


async def test_a_connection_that_the_service_has_closed_costs_another_and_no_word(iflytek: IflytekStandIn) -> None:
    voice = IflytekVoice(iflytek_at(iflytek), 5)
    await voice.warm()
    socket = voice._spares._spare[0][0]
    assert socket._response.connection is not None and socket._response.connection.transport is not None
    socket._response.connection.transport.abort()
    assert len(await heard(voice.speak(TEXT, language="zh"))) > 0
    assert iflytek.handshakes == 2
    iflytek.fault = "code-11200"
    await voice.warm()
    with pytest.raises(VoiceError, match="11200"):
        await heard(voice.speak(TEXT, language="zh"))
    await voice.close()
    await iflytek.idle()


# Whole turns ----------------------------------------------------------------------------------------------------------


async def nothing_spare(home: House) -> None:
    """What was opened at the start waits no more, and what a turn opens is there before the model's first word."""
    home.chat.first_token_ms = 300.0
    await asyncio.sleep(15.0)


async def test_the_first_clause_finds_its_connection_open_and_a_server_that_ends_leaves_none(
    tmp_path: Path, iflytek: IflytekStandIn
) -> None:
    tts = {"engines": ["iflytek", "espeak"], "iflytek": iflytek_at(iflytek)}
    async with house(tmp_path, tts=tts) as home, home.device() as device:
        await nothing_spare(home)
        before = iflytek.handshakes
        assert (await device.turn(question())).answered
        assert [len(iflytek.requests), iflytek.handshakes - before] == [1, 1], "and the clause needs no other"
        assert (await device.turn_text("hi")).answered
        assert [len(iflytek.requests), iflytek.handshakes - before] == [2, 2]
    async with asyncio.timeout(5):
        await iflytek.idle()


async def test_edge_answers_a_turn_over_what_was_opened_at_its_soft_end(tmp_path: Path) -> None:
    async with EdgeStandIn() as edge:
        tts = {"engines": ["edge", "espeak"], "edge": {"url": edge.ws_url}}
        async with house(tmp_path, tts=tts) as home, home.device() as device:
            await nothing_spare(home)
            known = set(edge.ports)
            edge.ports.clear()
            assert (await device.turn(question())).answered
            opened, spoken = edge.ports
            assert spoken == opened not in known


class Counted(ClauseVoice):
    """A voice whose connections serve one text each."""

    name = "counted"
    warm_s = 0.0

    def __init__(self, fault: Exception | None = None, takes_s: float = 0.0) -> None:
        self.opened = self.spoken = 0
        self.fault, self.takes_s = fault, takes_s

    async def warm(self) -> None:
        self.opened += 1
        await asyncio.sleep(self.takes_s)
        if self.fault is not None:
            raise self.fault

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        self.spoken += 1
        yield brief(text)


@pytest.mark.parametrize("fault", [None, VoiceError("counted: gone"), ValueError("whatever")])
def test_a_turn_opens_one_however_often_it_pauses_and_a_failure_is_none(fault: Exception | None) -> None:
    async def scene() -> None:
        async with conversation(AUTO, "我想去北京因为", "我想去北京因为", "现在几点了") as (device, services):
            voice = Counted(fault)
            use_voices(services, voice)
            for _ in range(2):
                await device.speak(0.6, 0.3)
            assert voice.opened == 1
            await said_and_answered(device)
            assert voice.opened == 1 and voice.spoken > 0
            await device.speak(0.6, 0.3)
            device.talk.detect("")  # a turn that is given up
            await asyncio.sleep(60.0)
            assert voice.opened == 2
            assert services.background() == []

    run(scene())


def test_what_was_used_lately_is_not_opened_and_not_all_at_once() -> None:
    async def scene() -> None:
        voice = Counted(takes_s=1.0)
        chain = VoiceChain([voice], 5.0, 5.0, 5.0, asyncio.get_running_loop().time)
        await asyncio.gather(*(chain.expect_text() for _ in range(100)))
        assert voice.opened == 8
        voice.warm_s = 50.0
        await heard(chain.speak(TEXT, language="zh"))
        await chain.expect_text()
        await asyncio.sleep(50.0)
        assert voice.opened == 8
        await chain.expect_text()
        await chain.expect_text()
        assert voice.opened == 9
        voice.takes_s = 60.0
        await asyncio.sleep(50.0)
        with suppress(TimeoutError):
            async with asyncio.timeout(6.0):
                await chain.expect_text()
                return
        pytest.fail("a service that does not answer is waited for no longer than its first sound")

    run(scene())
