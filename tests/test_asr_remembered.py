"""Transcripts of sound that is known: the same samples are decoded once."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from tests.recognisers import Offline, Streaming
from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.stages.asr.decoding import TranscriptCache
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.recogniser import Question, Recognizer
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.two_pass import TwoPass


class Counting:
    """Decodes, and remembers how much."""

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.fails = False

    def decode(self, pcm: PcmFloat) -> Transcript:
        if self.fails:
            raise EngineError("counting: no")
        self.decoded.append(len(pcm))
        return Transcript(f"{len(pcm)} samples")

    def decode_many(self, pcms: Sequence[PcmFloat]) -> list[Transcript]:
        return [self.decode(pcm) for pcm in pcms]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def audio(samples: int, seed: int = 0) -> PcmFloat:
    return np.random.default_rng(seed).normal(0.0, 0.1, samples).astype(np.float32)


def test_the_same_audio_is_decoded_once_and_other_audio_is_not_taken_for_it() -> None:
    engine = Counting()
    memory = TranscriptCache(60.0, 10, Clock())
    assert (
        memory.decode(audio(100), engine.decode)
        == memory.decode(audio(100).copy(), engine.decode)
        == Transcript("100 samples")
    )
    almost = audio(100)
    almost[50] += 1e-6
    memory.decode(almost, engine.decode)
    assert engine.decoded == [100, 100]
    assert (memory.hits, memory.misses) == (1, 2)
    memory.decode(audio(300)[::3], engine.decode)  # samples that do not lie side by side


def test_it_forgets_in_time_and_number() -> None:
    engine, clock = Counting(), Clock()
    memory = TranscriptCache(60.0, 2, clock)
    memory.decode(audio(1), engine.decode)
    clock.now = 61.0
    memory.decode(audio(1), engine.decode)
    memory.decode(audio(2), engine.decode)
    memory.decode(audio(3), engine.decode)
    assert len(memory) == 2
    memory.decode(audio(1), engine.decode)
    assert engine.decoded == [1, 1, 2, 3, 1]


def test_a_failure_is_not_remembered() -> None:
    engine = Counting()
    memory = TranscriptCache(60.0, 2, Clock())
    engine.fails = True
    with pytest.raises(EngineError, match="counting: no"):
        memory.decode(audio(5), engine.decode)
    engine.fails = False
    assert memory.decode(audio(5), engine.decode).text == "5 samples"


def test_a_batch_decodes_only_what_is_unknown_and_keeps_the_order() -> None:
    engine = Counting()
    memory = TranscriptCache(60.0, 10, Clock())
    memory.decode(audio(2), engine.decode)
    texts = [transcript.text for transcript in memory.decode_many([audio(1), audio(2), audio(3)], engine.decode_many)]
    assert texts == ["1 samples", "2 samples", "3 samples"]
    assert engine.decoded == [2, 1, 3]
    assert memory.decode_many([audio(1), audio(3)], engine.decode_many)[1].text == "3 samples"
    assert engine.decoded == [2, 1, 3]


def first(engine: Offline) -> Recognizer:
    return engine


def second(engine: Offline) -> Recognizer:
    return TwoPass(Streaming(), engine)


@pytest.mark.parametrize("kind", [first, second])
async def test_an_utterance_is_known_again_whatever_stands_around_the_recogniser(
    kind: Callable[..., Recognizer],
) -> None:
    pool, engine = WorkerPool(1, "asr"), Offline()
    recognition = Recognition(kind(engine), pool, AsrSettings(early_decode=False), CacheSettings())

    async def said(seed: int) -> str:
        utterance = recognition.begin()
        utterance.feed(audio(16_000, seed))
        return (await utterance.transcribe(Question())).text

    assert [await said(1), await said(1), await said(2)] == ["10", "10", "10"]
    assert len(engine.decoded) == 2
    other = Offline()
    recognition.exchange(kind(other), AsrSettings(early_decode=False), CacheSettings())
    await said(1)
    assert len(other.decoded) == 1, "another recogniser may hear other words"
    pool.close()


def test_nothing_is_kept_where_the_settings_say_so() -> None:
    pool = WorkerPool(1, "asr")
    assert Recognition(Offline(), pool, AsrSettings(), CacheSettings(recognition=False)).cache is None
    assert Recognition(Offline(), pool).cache is None
    pool.close()
