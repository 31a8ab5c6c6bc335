"""Clauses synthesised once: single flight, cancellation, voices, and packets that follow each other cleanly."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.sounds import loudest_hz, sine
from tests.test_tts_stage import Fake, by_clause, clauses, packets_out, seconds, settle, sound
from xiaozhi.audio.pcm import DOWNLINK_RATE_HZ, PcmInt
from xiaozhi.cache.flight import MAX_PACKETS, Flight, TooLong
from xiaozhi.cache.memory import MemoryTier
from xiaozhi.cache.speech import SpeechCache
from xiaozhi.cache.tier import Tiers
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.events import Clause, ClauseStart
from xiaozhi.settings import Settings, TtsSettings
from xiaozhi.settings.audio import AudioSettings
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.stages.tts.clause_speech import ClauseSpeech, voice_fingerprints
from xiaozhi.stages.tts.engine import Voice, VoiceError
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.reply_voices import ReplyPart, ReplyVoices
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest


@pytest.fixture
async def codec() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "codec")
    yield pool
    pool.close()


def speech_cache() -> SpeechCache:
    return SpeechCache(Tiers([MemoryTier(1_000_000, 60.0)], 60.0))


class Named(Fake):
    def __init__(self, name: str, make: Callable[[str], PcmInt | VoiceError]) -> None:
        super().__init__(make)
        self.name = name


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def chain(*voices: Voice, clock: Clock | None = None) -> VoiceChain:
    return VoiceChain(voices, 2.0, 2.0, 30.0, clock or Clock())


@dataclass
class Kept:
    """Speech with a cache, and the cache."""

    speech: ClauseSpeech
    cache: SpeechCache


def kept(codec: WorkerPool, *voices: Voice, max_chars: int = 60, clock: Clock | None = None) -> Kept:
    settings = Settings(cache=CacheSettings(speech_max_chars=max_chars))
    cache = speech_cache()
    return Kept(ClauseSpeech(chain(*voices, clock=clock), codec, settings, cache), cache)


def clause(text: str) -> Clause:
    return Clause(text, text, "zh")


async def collect(
    kept: Kept,
    text: str,
    on_voice: Callable[[str], None] = lambda _voice: None,
    on_hit: Callable[[], None] = lambda: None,
) -> list[bytes]:
    return [packet async for packet in kept.speech.packets(clause(text), on_voice=on_voice, on_hit=on_hit)]


async def test_a_second_time_costs_no_synthesis_and_no_encoding(codec: WorkerPool) -> None:
    voice = Fake(seconds(0.6))
    speech = kept(codec, voice)
    first = await collect(speech, "你好")
    await settle()
    hits: list[str] = []
    codec.close()  # whoever encodes now fails
    second = await collect(speech, "你好", on_hit=lambda: hits.append("hit"))
    assert first == second
    assert voice.begun == ["你好"]
    assert hits == ["hit"]
    assert (speech.cache.hits, speech.cache.misses, speech.cache.hit_rate) == (1, 1, 0.5)


async def test_lesser_sound_is_kept_apart_and_the_best_that_is_kept_is_played(codec: WorkerPool) -> None:
    voice = Fake(lambda text: np.random.default_rng(1).normal(0.0, 3000.0, 24_000).astype(np.int16))
    speech = kept(codec, voice)
    lesser = AudioSettings(bitrate_bps=12_000, complexity=0)

    async def size(audio: AudioSettings | None) -> int:
        packets = [packet async for packet in speech.speech.packets(clause("你好"), audio=audio)]
        await settle()
        return sum(map(len, packets))

    small = await size(lesser)
    assert await size(lesser) == small and len(voice.begun) == 1, "kept under load, too"
    full = await size(None)
    assert small < 0.7 * full and len(voice.begun) == 2, "calm again, what was made under load is not good enough"
    assert await size(lesser) == full and len(voice.begun) == 2, "what is there in full costs nothing"


async def test_ten_who_ask_at_once_are_served_by_one_synthesis(codec: WorkerPool) -> None:
    voice = Fake(seconds(0.6))
    voice.gates["你好"] = asyncio.Event()
    speech = kept(codec, voice)
    asking = [asyncio.create_task(collect(speech, "你好")) for _ in range(10)]
    await settle()
    voice.gates["你好"].set()
    heard = await asyncio.gather(*asking)
    assert voice.begun == ["你好"]
    assert all(packets == heard[0] for packets in heard) and len(heard[0]) == 11
    assert (speech.cache.misses, speech.cache.joined) == (1, 9)


async def test_whoever_leaves_does_not_end_it_for_the_others_and_the_last_one_does(codec: WorkerPool) -> None:
    voice = Fake(seconds(0.6))
    voice.gates["你好"] = asyncio.Event()
    speech = kept(codec, voice)
    leader = asyncio.create_task(collect(speech, "你好"))
    await settle()
    follower = asyncio.create_task(collect(speech, "你好"))
    await settle()
    leader.cancel()
    await settle()
    assert voice.open_requests == 1
    voice.gates["你好"].set()
    assert len(await follower) == 11
    voice.gates["再见"] = asyncio.Event()
    alone = asyncio.create_task(collect(speech, "再见"))
    await settle()
    assert voice.open_requests == 1
    alone.cancel()
    await asyncio.gather(alone, return_exceptions=True)
    await settle()
    assert voice.open_requests == 0, "the upstream request is closed"
    voice.gates["再见"].set()
    await collect(speech, "再见")
    assert voice.begun == ["你好", "再见", "再见"], "what was broken off is not kept"


async def test_followers_get_packets_while_they_are_made() -> None:
    gate = asyncio.Event()

    async def make() -> AsyncGenerator[bytes, None]:
        yield b"1"
        await gate.wait()
        yield b"2"

    cache = speech_cache()
    one = cache.follow(b"key", make, lambda: b"key")
    two = cache.follow(b"key", make, lambda: b"key")
    assert (await anext(one), await anext(two)) == (b"1", b"1")
    gate.set()
    assert (await anext(one), await anext(two)) == (b"2", b"2")
    assert [packet async for packet in one] == [packet async for packet in two] == []
    await cache.close()


async def test_a_failure_reaches_everybody_and_nothing_is_kept(codec: WorkerPool) -> None:
    voice = Fake(lambda text: VoiceError("fake: no"))
    voice.gates["你好"] = asyncio.Event()
    speech = kept(codec, voice)
    asking = [asyncio.create_task(collect(speech, "你好")) for _ in range(3)]
    await settle()
    voice.gates["你好"].set()
    outcomes = await asyncio.gather(*asking, return_exceptions=True)
    assert all(isinstance(outcome, VoiceError) for outcome in outcomes)
    voice.make = seconds(0.6)
    assert len(await collect(speech, "你好")) == 11


async def test_a_stand_in_voice_is_not_kept_as_the_preferred_one(codec: WorkerPool) -> None:
    best = Named("best", lambda text: VoiceError("best: down"))
    plain = Named("plain", seconds(0.6))
    clock = Clock()
    speech = kept(codec, best, plain, clock=clock)
    told: list[str] = []
    await collect(speech, "你好", on_voice=told.append)
    assert told == ["plain"]
    await settle()
    # While the best is skipped, the stand-in's clause serves; it is first in line.
    await collect(speech, "你好", on_voice=told.append)
    assert (plain.begun, told) == (["你好"], ["plain", "plain"])
    # Once the best one is back, its own is made.
    best.make = seconds(0.6)
    clock.now += 31
    await collect(speech, "你好", on_voice=told.append)
    assert told[-1] == "best"
    await settle()
    # And then it is good even while the best is away.
    best.make = lambda text: VoiceError("best: down again")
    await collect(speech, "别的")
    begun = len(best.begun) + len(plain.begun)
    await collect(speech, "你好")
    assert len(best.begun) + len(plain.begun) == begun


async def test_a_sentence_that_was_cut_off_is_not_kept(codec: WorkerPool) -> None:
    class Breaks(Fake):
        async def speak(
            self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
        ) -> AsyncGenerator[PcmInt, None]:
            self.begun.append(text)
            yield sine(440, 0.6)
            raise VoiceError("fake: broke off")

    voice = Breaks(seconds(0.6))
    speech = kept(codec, voice)
    assert len(await collect(speech, "你好")) > 0
    await settle()
    await collect(speech, "你好")
    assert voice.begun == ["你好", "你好"]
    assert speech.cache.unkept == 2


async def test_a_voice_that_never_ends_is_cut() -> None:
    async def make() -> AsyncGenerator[bytes, None]:
        while True:
            yield b"x"

    outcome: list[object] = []
    flight = Flight(make(), outcome.append)
    with pytest.raises(TooLong):
        assert len([packet async for packet in flight.follow()]) == MAX_PACKETS
    assert outcome == [None]


async def test_kept_and_fresh_clauses_follow_each_other_without_a_gap(codec: WorkerPool) -> None:
    voice = Fake(seconds(0.6))
    speech = kept(codec, voice, max_chars=2)
    told: list[str] = []
    for _ in range(2):  # the second time two come from the cache and two are made
        out = packets_out()
        await run_tts(
            clauses("一", "太长的一句", "二", "又一句长的"),
            out,
            speech.speech,
            Settings(tts=TtsSettings(parallel_clauses=2)),
            on_hit=lambda: told.append("hit"),
        )
        items = out.drain()
        assert [text for text, _ in by_clause(items)] == ["一", "太长的一句", "二", "又一句长的"]
        assert sum(isinstance(item, ClauseStart) for item in items) == 4
        pcm = sound(items)
        assert loudest_hz(pcm, DOWNLINK_RATE_HZ) == pytest.approx(440, abs=2)
        quiet = np.abs(pcm) < 0.01
        runs = np.diff(np.flatnonzero(np.concatenate([[True], ~quiet, [True]])))
        assert runs[1:-1].max() / DOWNLINK_RATE_HZ < 0.075, "at most the filling of one packet"
        assert float(np.abs(pcm).max()) < 2.5 * float(np.abs(sine(440, 0.1)).max()) / 32768, "and no crack"
        await settle()
    assert told == ["hit", "hit"]
    assert voice.begun.count("一") == voice.begun.count("二") == 1


async def test_the_end_of_a_clause_is_not_swallowed_by_the_encoder(codec: WorkerPool) -> None:
    speech = kept(codec, Fake(seconds(0.6)))
    from xiaozhi.audio.opus import OpusDecoder

    decoder = OpusDecoder(DOWNLINK_RATE_HZ)
    pcm = np.concatenate([decoder.decode(packet) for packet in await collect(speech, "你好")])
    audible = np.flatnonzero(np.abs(pcm) > 0.01)
    assert (audible[-1] - audible[0]) / DOWNLINK_RATE_HZ == pytest.approx(0.6, abs=0.02)


async def test_clauses_that_fail_in_the_cache_are_left_out_as_others_are(codec: WorkerPool) -> None:
    voice = Fake(lambda text: VoiceError("fake: no") if text == "二" else sine(440, 0.6))
    out = packets_out()
    await run_tts(clauses("一", "二", "三"), out, kept(codec, voice).speech, Settings())
    assert [text for text, _ in by_clause(out.drain())] == ["一", "三"]
    with pytest.raises(VoiceError, match="fake: no"):
        await run_tts(clauses("二"), packets_out(), kept(codec, voice).speech, Settings())


async def test_phrases_are_made_ahead_and_a_mute_chain_ends_that(codec: WorkerPool) -> None:
    voice = Fake(seconds(0.6))
    speech = kept(codec, voice)
    assert await speech.speech.premake([clause("一"), clause("。"), clause("长" * 61), clause("二")]) == 2
    assert voice.begun == ["一", "二"]
    mute = Fake(lambda text: VoiceError("fake: no"))
    assert await kept(codec, mute).speech.premake([clause("一"), clause("二")]) == 0
    assert mute.begun == ["一"]


def test_keys_change_with_whatever_the_sound_depends_on(tmp_path: Path) -> None:
    def prints(**tables: object) -> dict[str, str]:
        return voice_fingerprints(["edge", "openai", "other"], TtsSettings.model_validate(tables), ["edge Xiaoxiao"])

    plain = prints()
    assert "edge Xiaoxiao" in plain["edge"] and "edge Xiaoxiao" not in plain["openai"]
    assert prints(openai={"speed": 1.5})["openai"] != plain["openai"]
    assert prints(openai={"speed": 1.5})["edge"] == plain["edge"]
    secret = prints(openai={"api_key": "sk-very-secret"})["openai"]
    assert "sk-very-secret" not in secret


async def test_a_wish_makes_another_sound_and_has_a_key_of_its_own(codec: WorkerPool) -> None:
    voice = Fake(seconds(0.6))
    speech = kept(codec, voice)
    await collect(speech, "你好")
    await settle()
    async for _ in speech.speech.packets(clause("你好"), ReplyPart(ReplyVoices(VoiceRequest(rate_percent=20)))):
        pass
    assert voice.begun == ["你好", "你好"]
