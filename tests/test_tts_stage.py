"""The speaking stage: clauses in, packets out, in order, and nothing left behind."""

import asyncio
import math
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any, TypeVar

import numpy as np
import pytest

from bench.standins.speech import SpeechStandIn
from tests.sounds import is_speech, loudest_hz, sine
from xiaozhi.audio.opus import OpusDecoder
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmFloat, PcmInt
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.events import Clause, ClauseStart, SpeechPacket, SpokenItem
from xiaozhi.settings import EspeakVoiceSettings, OpenAIVoiceSettings, Settings, TtsSettings
from xiaozhi.stages.tts.clause_speech import ClauseSpeech
from xiaozhi.stages.tts.engine import ClauseVoice, Voice, VoiceError
from xiaozhi.stages.tts.espeak import EspeakVoice
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.openai_speech import OpenAIVoice
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest

R = TypeVar("R")


@pytest.fixture
async def codec() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "codec")
    yield pool
    pool.close()


def clauses(*texts: str) -> Channel[Clause]:
    channel: Channel[Clause] = Channel(100)
    for text in texts:
        channel.put_nowait(Clause(text, text, "zh"))
    channel.close()
    return channel


def packets_out() -> Channel[SpokenItem]:
    return Channel(60_000.0, lambda item: float(item.duration_ms) if isinstance(item, SpeechPacket) else 0.0)


async def speak(
    clauses: Channel[Clause], out: Channel[SpokenItem], voice: Voice, codec: WorkerPool, settings: Settings, **told: Any
) -> None:
    """The stage with one voice and without a cache."""
    chain = VoiceChain([voice], 5.0, 5.0, 30.0, time.monotonic)
    await run_tts(clauses, out, ClauseSpeech(chain, codec, settings), settings, **told)


def settings(parallel: int = 2) -> Settings:
    return Settings(tts=TtsSettings(parallel_clauses=parallel))


def by_clause(items: list[SpokenItem]) -> list[tuple[str, int]]:
    """Each clause with how many packets follow its start."""
    counted: list[tuple[str, int]] = []
    for item in items:
        if isinstance(item, ClauseStart):
            counted.append((item.clause.text, 0))
        else:
            counted[-1] = (counted[-1][0], counted[-1][1] + 1)
    return counted


def sound(items: list[SpokenItem]) -> PcmFloat:
    decoder = OpusDecoder(DOWNLINK_RATE_HZ)
    return np.concatenate([decoder.decode(item.opus) for item in items if isinstance(item, SpeechPacket)])


class Fake(ClauseVoice):
    """A voice whose sound is made by a function of the text; what it raises is raised."""

    name = "fake"

    def __init__(self, make: Callable[[str], PcmInt | VoiceError]) -> None:
        self.make = make
        self.begun: list[str] = []
        self.open_requests = 0
        self.gates: dict[str, asyncio.Event] = {}

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        self.begun.append(text)
        self.open_requests += 1
        try:
            if text in self.gates:
                await self.gates[text].wait()
            made = self.make(text)
            if isinstance(made, VoiceError):
                raise made
            for start in range(0, len(made), 2400):
                yield made[start : start + 2400]
        finally:
            self.open_requests -= 1


def seconds(length_s: float) -> Callable[[str], PcmInt]:
    return lambda text: sine(440, length_s)


async def settle() -> None:
    """Let everything that can run do so; encoding in threads needs real time, so a few turns of the loop are not it."""
    for _ in range(50):
        await asyncio.sleep(0)


async def test_clauses_become_packets_in_order(codec: WorkerPool) -> None:
    out = packets_out()
    await speak(clauses("一", "二", "三"), out, Fake(seconds(0.6)), codec, settings())
    items = out.drain()
    assert by_clause(items) == [("一", 11), ("二", 11), ("三", 11)], "each filled up to whole packets"
    assert not out.closed
    pcm = sound(items)
    assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(440, abs=2)


async def test_a_clause_shorter_than_a_packet_has_one(codec: WorkerPool) -> None:
    out = packets_out()
    await speak(clauses("一", "二", "三"), out, Fake(seconds(0.02)), codec, settings())
    assert by_clause(out.drain()) == [("一", 1), ("二", 1), ("三", 1)]


async def test_the_next_clause_is_synthesised_while_this_one_is_not_even_begun(codec: WorkerPool) -> None:
    voice = Fake(seconds(0.6))
    voice.gates["一"] = asyncio.Event()
    out = packets_out()
    speaking = asyncio.create_task(speak(clauses("一", "二", "三", "四"), out, voice, codec, settings(parallel=2)))
    await settle()
    assert voice.begun == ["一", "二"], "two at once and no more"
    assert len(out) == 0, "the second waits for the first"
    voice.gates["一"].set()
    await speaking
    assert [text for text, _ in by_clause(out.drain())] == ["一", "二", "三", "四"]


async def test_a_full_channel_holds_up_the_voice(codec: WorkerPool) -> None:
    full = asyncio.Event()

    def weigh(item: SpokenItem) -> float:
        if out.weight >= 240.0:
            full.set()
        return 60.0 if isinstance(item, SpeechPacket) else 0.0

    out: Channel[SpokenItem] = Channel(300.0, weigh)
    voice = Fake(seconds(60.0))
    speaking = asyncio.create_task(speak(clauses("一", "二", "三"), out, voice, codec, settings()))
    await full.wait()
    await settle()
    assert voice.begun == ["一", "二"] and voice.open_requests == 2
    assert out.weight == 300.0
    speaking.cancel()
    await asyncio.gather(speaking, return_exceptions=True)
    assert voice.open_requests == 0


async def test_the_first_sound_is_told_once_before_its_packet(codec: WorkerPool) -> None:
    out = packets_out()
    told: list[int] = []
    voice = Fake(seconds(0.6))
    await speak(clauses("一", "二"), out, voice, codec, settings(), on_first_speech=lambda: told.append(len(out)))
    assert told == [0]


async def test_the_first_packet_is_encoded_alone_and_first() -> None:
    jobs: list[tuple[Priority, bool]] = []

    class Watched(WorkerPool):
        async def submit(self, call: Callable[[], R], priority: Priority, *more: Any, **named: Any) -> R:
            jobs.append((priority, math.isfinite(named.get("deadline_s", math.inf))))
            return await super().submit(call, priority, *more, **named)

    class Whole(Fake):
        async def speak(
            self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
        ) -> AsyncGenerator[PcmInt, None]:
            yield self.make(text)  # type: ignore[misc]  # never an error here

    watched = Watched(1, "watched")
    out = packets_out()
    await speak(clauses("一"), out, Whole(seconds(1.5)), watched, settings())
    assert by_clause(out.drain()) == [("一", 26)]
    assert jobs == [(Priority.FINAL, False), *[(Priority.PROBE, True)] * 4], "1, 8, 8, 8 frames and what dies away"
    watched.close()


async def test_a_clause_that_cannot_be_spoken_is_left_out(codec: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    voice = Fake(lambda text: VoiceError("fake: no") if text == "二" else sine(440, 0.6))
    out = packets_out()
    await speak(clauses("一", "二", "三"), out, voice, codec, settings())
    assert by_clause(out.drain()) == [("一", 11), ("三", 11)]
    assert "a clause of 1 characters was left out: fake: no" in caplog.text


async def test_a_reply_of_which_nothing_can_be_spoken_is_an_error(codec: WorkerPool) -> None:
    out = packets_out()
    with pytest.raises(VoiceError, match="fake: no"):
        await speak(clauses("一", "二"), out, Fake(lambda text: VoiceError("fake: no")), codec, settings())
    assert len(out) == 0 and not out.closed


@pytest.mark.parametrize("texts", [(), ("。",)])
async def test_nothing_to_say_is_no_error(codec: WorkerPool, texts: tuple[str, ...]) -> None:
    out = packets_out()
    await speak(clauses(*texts), out, Fake(seconds(0.0)), codec, settings())
    assert len(out) == 0


async def test_clauses_that_come_late_are_spoken_when_they_come(codec: WorkerPool) -> None:
    channel: Channel[Clause] = Channel(2)
    out = packets_out()
    speaking = asyncio.create_task(speak(channel, out, Fake(seconds(0.6)), codec, settings()))
    for text in ("一", "二"):
        await channel.put(Clause(text, text, "zh"))
        start = await out.get()
        assert isinstance(start, ClauseStart) and start.clause.text == text
        for _ in range(11):
            assert isinstance(await out.get(), SpeechPacket)
    channel.close()
    await speaking
    assert len(out) == 0


async def test_a_mistake_in_a_voice_costs_its_clause_alone(codec: WorkerPool) -> None:
    class Broken(Fake):
        async def speak(
            self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
        ) -> AsyncGenerator[PcmInt, None]:
            if text == "二":
                raise RuntimeError("a mistake in an engine")
            async for pcm in Fake.speak(self, text, language=language):
                yield pcm

    voice, out = Broken(seconds(0.6)), packets_out()
    await speak(clauses("一", "二", "三"), out, voice, codec, settings())
    assert [text for text, _ in by_clause(out.drain())] == ["一", "三"]
    assert voice.open_requests == 0


async def test_cancelling_closes_every_connection(codec: WorkerPool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    async with SpeechStandIn() as server:
        server.fault = "hang-midway"
        at = OpenAIVoiceSettings.model_validate({"base_url": server.base_url, "api_key": "k"})
        voice: Voice = OpenAIVoice(at, timeout_s=5)
        speaking = asyncio.create_task(
            speak(clauses("今天天气很好", "我们去公园", "好吗"), packets_out(), voice, codec, settings())
        )
        await server.asked(2)
        speaking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await speaking
        async with asyncio.timeout(3):
            await server.idle()
        assert (len(server.requests), server.aborted) == (2, 2)
        await voice.close()


async def test_real_speech_survives_the_way_to_the_device(codec: WorkerPool) -> None:
    out = packets_out()
    voice = EspeakVoice(EspeakVoiceSettings())
    await speak(clauses("你好，", "今天天气很好。", "See you tomorrow!"), out, voice, codec, settings())
    items = out.drain()
    assert [text for text, _ in by_clause(items)] == ["你好，", "今天天气很好。", "See you tomorrow!"]
    pcm = (sound(items) * 32767).astype(np.int16)
    assert 3.0 < len(pcm) / DOWNLINK_RATE_HZ < 7.0
    assert is_speech(pcm)
