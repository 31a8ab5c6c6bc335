"""The recogniser's memory: the same samples are decoded once."""

from collections.abc import Sequence

import numpy as np
import pytest

from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.settings.cache import CacheSettings
from xiaozhi.stages.asr.cached import CachedBatchRecognizer, CachedRecognizer, remember
from xiaozhi.stages.asr.engine import (
    BatchRecognizer,
    EngineError,
    OfflineRecognizer,
    RecognizerStream,
    StreamingRecognizer,
    Transcript,
)
from xiaozhi.stages.asr.two_pass import TwoPass


class Counting:
    name = "counting"

    def __init__(self) -> None:
        self.decoded: list[int] = []
        self.fails = False
        self.closed = False

    def decode(self, pcm: PcmFloat) -> Transcript:
        if self.fails:
            raise EngineError("counting: no")
        self.decoded.append(len(pcm))
        return Transcript(f"{len(pcm)} samples")

    def close(self) -> None:
        self.closed = True


class Batching(Counting):
    def decode_many(self, pcms: Sequence[PcmFloat]) -> list[Transcript]:
        return [self.decode(pcm) for pcm in pcms]


class Streaming:
    name = "streaming"

    def open(self) -> RecognizerStream:
        raise NotImplementedError

    def close(self) -> None:
        pass


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def audio(samples: int, seed: int = 0) -> PcmFloat:
    return np.random.default_rng(seed).normal(0.0, 0.1, samples).astype(np.float32)


def test_the_same_audio_is_decoded_once_and_other_audio_is_not_taken_for_it() -> None:
    engine = Counting()
    memory = CachedRecognizer(engine, 60.0, 10, Clock())
    assert memory.decode(audio(100)) == memory.decode(audio(100).copy()) == Transcript("100 samples")
    almost = audio(100)
    almost[50] += 1e-6
    memory.decode(almost)
    assert engine.decoded == [100, 100]
    assert (memory.hits, memory.misses, memory.name) == (1, 2, "counting")
    memory.decode(audio(300)[::3])  # samples that do not lie side by side
    memory.close()
    assert engine.closed and len(memory) == 0


def test_it_forgets_in_time_and_number() -> None:
    engine, clock = Counting(), Clock()
    memory = CachedRecognizer(engine, 60.0, 2, clock)
    memory.decode(audio(1))
    clock.now = 61.0
    memory.decode(audio(1))
    memory.decode(audio(2))
    memory.decode(audio(3))
    assert len(memory) == 2
    memory.decode(audio(1))
    assert engine.decoded == [1, 1, 2, 3, 1]


def test_a_failure_is_not_remembered() -> None:
    engine = Counting()
    memory = CachedRecognizer(engine, 60.0, 2, Clock())
    engine.fails = True
    with pytest.raises(EngineError, match="counting: no"):
        memory.decode(audio(5))
    engine.fails = False
    assert memory.decode(audio(5)).text == "5 samples"


def test_a_batch_decodes_only_what_is_unknown_and_keeps_the_order() -> None:
    engine = Batching()
    memory = CachedBatchRecognizer(engine, 60.0, 10, Clock())
    memory.decode(audio(2))
    texts = [transcript.text for transcript in memory.decode_many([audio(1), audio(2), audio(3)])]
    assert texts == ["1 samples", "2 samples", "3 samples"]
    assert engine.decoded == [2, 1, 3]
    assert memory.decode_many([audio(1), audio(3)])[1].text == "3 samples"
    assert engine.decoded == [2, 1, 3]


def test_what_an_engine_can_do_it_can_do_behind_its_memory() -> None:
    settings = CacheSettings()
    plain = remember(Counting(), settings)
    assert isinstance(plain, OfflineRecognizer) and not isinstance(plain, BatchRecognizer | StreamingRecognizer)
    assert isinstance(remember(Batching(), settings), BatchRecognizer)
    streaming = Streaming()
    assert remember(streaming, settings) is streaming
    both = remember(TwoPass(streaming, Counting()), settings)
    assert isinstance(both, TwoPass) and isinstance(both.offline, CachedRecognizer) and both.streaming is streaming
    engine = Counting()
    assert remember(engine, CacheSettings(recognition=False)) is engine
