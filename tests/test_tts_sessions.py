"""A voice that takes a whole reply in one session: what it is sent, whose sound is whose, what happens when it ends."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable

import pytest

from tests.sounds import sine
from tests.test_tts_stage import Fake, by_clause, clauses, packets_out, seconds, settle
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.cache.memory import MemoryTier
from xiaozhi.cache.speech import SpeechCache
from xiaozhi.cache.tier import Tiers
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.events import Clause, SpokenItem
from xiaozhi.settings import Settings
from xiaozhi.stages.tts.clause_speech import ClauseSpeech
from xiaozhi.stages.tts.engine import Mark, Spoken, Voice, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest


@pytest.fixture
async def codec() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "codec")
    yield pool
    pool.close()


class Spanning(Voice):
    """Speaks whatever a session is sent; a piece that is an error is raised, and the session is over."""

    name = "spanning"
    spans_clauses = True

    def __init__(self, make: Callable[[str], PcmInt | Exception]) -> None:
        self.make = make
        self.sessions: list[Session] = []

    def open(self, request: VoiceRequest = ANY_VOICE) -> "Session":
        self.sessions.append(Session(self, request))
        return self.sessions[-1]


class Session:
    def __init__(self, voice: Spanning, request: VoiceRequest) -> None:
        self.request = request
        self.sent: list[str] = []
        self.ended = self.cancelled = False
        self._voice = voice
        self._texts: Channel[str] = Channel(100)

    async def send(self, text: str, language: str) -> None:
        self.sent.append(text)
        self._texts.put_nowait(text)

    async def end(self) -> None:
        self.ended = True
        self._texts.close()

    async def sound(self) -> AsyncGenerator[Spoken, None]:
        number = 0
        async for text in self._texts:
            made = self._voice.make(text)
            if isinstance(made, Exception):
                raise made
            for start in range(0, len(made), 2400):
                yield made[start : start + 2400]
            yield Mark(number)
            number += 1

    async def cancel(self) -> None:
        self.cancelled = True
        self._texts.close()


def speech(codec: WorkerPool, *voices: Voice, cache: bool = False) -> ClauseSpeech:
    chain = VoiceChain(voices, 2.0, 2.0, 30.0, time.monotonic)
    kept = SpeechCache(Tiers([MemoryTier(1_000_000, 60.0)], 60.0)) if cache else None
    return ClauseSpeech(chain, codec, Settings(), kept)


async def reply(source: ClauseSpeech, *texts: str, request: VoiceRequest = ANY_VOICE) -> list[SpokenItem]:
    out = packets_out()
    await run_tts(clauses(*texts), out, source, Settings(), request=request)
    return out.drain()


@pytest.mark.parametrize("cache", [False, True])
async def test_a_reply_is_one_session_and_each_clause_gets_its_own_sound(codec: WorkerPool, cache: bool) -> None:
    voice = Spanning(lambda text: sine(440, 0.6 * len(text)))
    request = VoiceRequest(rate_percent=20)
    items = await reply(speech(codec, voice, cache=cache), "一", "二二", "三", "四四四", request=request)
    assert by_clause(items) == [("一", 11), ("二二", 21), ("三", 11), ("四四四", 31)]
    (session,) = voice.sessions
    assert (session.sent, session.ended, session.request) == (["一", "二二", "三", "四四四"], True, request)


async def test_the_next_clause_is_sent_while_this_one_is_still_made(codec: WorkerPool) -> None:
    gate, two = asyncio.Event(), asyncio.Event()

    class Held(Session):
        async def send(self, text: str, language: str) -> None:
            await super().send(text, language)
            if len(self.sent) == 2:
                two.set()

        async def sound(self) -> AsyncGenerator[Spoken, None]:
            await gate.wait()
            async for item in super().sound():
                yield item

    voice = Spanning(seconds(0.6))
    voice.open = lambda request=ANY_VOICE: Held(voice, request)  # type: ignore[method-assign]
    speaking = asyncio.create_task(reply(speech(codec, voice), "一", "二", "三"))
    async with asyncio.timeout(5):
        await two.wait()
    gate.set()
    assert by_clause(await speaking) == [("一", 11), ("二", 11), ("三", 11)]


@pytest.mark.parametrize("count", [1, 2, 3])
async def test_the_end_is_told_behind_the_last_clause_however_soon_the_reply_is_whole(
    codec: WorkerPool, count: int
) -> None:
    class Flushed(Session):
        async def sound(self) -> AsyncGenerator[Spoken, None]:
            texts = [text async for text in self._texts]  # a service may hold back all until it knows that it is all
            for number, text in enumerate(texts):
                yield self._voice.make(text)  # type: ignore[misc]  # sound
                yield Mark(number)

    voice = Spanning(seconds(0.6))

    def opened(request: VoiceRequest = ANY_VOICE) -> Session:
        voice.sessions.append(Flushed(voice, request))
        return voice.sessions[-1]

    voice.open = opened  # type: ignore[method-assign]
    source = speech(codec, voice)
    settings = Settings.model_validate({"tts": {"parallel_clauses": 8}})
    out = packets_out()
    async with asyncio.timeout(10):
        await run_tts(clauses(*"一二三"[:count]), out, source, settings)
    assert [text for text, _ in by_clause(out.drain())] == list("一二三"[:count])
    (session,) = voice.sessions
    assert (session.sent, session.ended) == (list("一二三"[:count]), True)


async def test_a_session_that_breaks_leaves_its_clause_and_those_behind_it_to_the_next_voice(codec: WorkerPool) -> None:
    voice = Spanning(lambda text: VoiceError("spanning: cut") if text == "二" else sine(440, 0.6))
    other = Fake(seconds(1.2))
    items = await reply(speech(codec, voice, other), "一", "二", "三", "四")
    assert by_clause(items) == [("一", 11), ("二", 21), ("三", 21), ("四", 21)]
    assert other.begun == ["二", "三", "四"]
    assert voice.sessions[0].cancelled


async def test_a_mark_beyond_all_texts_is_a_fault_of_the_voice_and_not_of_the_reply(codec: WorkerPool) -> None:
    class Wild(Session):
        async def sound(self) -> AsyncGenerator[Spoken, None]:
            yield Mark(7)
            yield sine(440, 0.6)

    voice = Spanning(seconds(0.6))
    voice.open = lambda request=ANY_VOICE: Wild(voice, request)  # type: ignore[method-assign]
    items = await reply(speech(codec, voice, Fake(seconds(0.6))), "一")
    assert by_clause(items) == [("一", 11)]


async def test_who_gives_up_a_reply_cancels_its_session(codec: WorkerPool) -> None:
    voice = Spanning(seconds(9.0))
    out: Channel[SpokenItem] = Channel(2)  # nobody takes any
    endless: Channel[Clause] = Channel(10)
    for text in "一二三":
        endless.put_nowait(Clause(text, text, "zh"))
    speaking = asyncio.create_task(run_tts(endless, out, speech(codec, voice), Settings()))
    async with asyncio.timeout(5):
        await out.peek()
    speaking.cancel()
    await asyncio.gather(speaking, return_exceptions=True)
    assert voice.sessions[0].cancelled and not voice.sessions[0].ended


async def test_what_a_session_has_said_is_not_kept_and_what_was_made_ahead_is_found(codec: WorkerPool) -> None:
    voice = Spanning(seconds(0.6))
    source = speech(codec, voice, cache=True)
    assert await source.premake([Clause("早", "早", "zh")]) == 1
    await settle()
    await reply(source, "早", "安")
    await reply(source, "安")
    assert [session.sent for session in voice.sessions] == [["早"], ["安"], ["安"]]
