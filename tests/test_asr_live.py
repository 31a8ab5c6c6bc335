"""Utterances that are sent while they are spoken: no word is lost, whatever the order of things."""

import asyncio
from typing import TypeAlias

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.recognisers import RATE
from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool
from xiaozhi.settings.asr import RemoteAsrSettings
from xiaozhi.stages.asr.decoding import Decoding, Partials
from xiaozhi.stages.asr.engine import Transcript
from xiaozhi.stages.asr.live import Heard, LiveRecognizer, Sound
from xiaozhi.stages.asr.recogniser import Question, Utterance

_FIRST = 0x4E00
_PIECE = RATE // 10


def word(number: int) -> PcmFloat:
    """A tenth of a second that stands for a word; 0 is silence."""
    return np.full(_PIECE, number / 1000.0, np.float32)


class Words(LiveRecognizer):
    """Hears the words that the samples stand for; its last text comes after some turns of the loop."""

    name = "words"

    def __init__(self, delays: list[int]) -> None:
        super().__init__(RemoteAsrSettings())
        self.delays = delays
        self.sizes: list[int] = []

    async def converse(self, sound: Sound, heard: Heard) -> str:
        data = b""
        async for piece in sound:
            self.sizes.append(len(piece))
            data += piece
            heard(_read(data))
        for _ in range(self.delays.pop() if self.delays else 0):
            await asyncio.sleep(0)
        return _read(data)


def _read(data: bytes) -> str:
    samples = np.frombuffer(data, "<i2")
    numbers = np.round(samples[_PIECE // 2 :: _PIECE] / 32767.0 * 1000.0).astype(int)
    return "".join(chr(_FIRST + int(number)) for number in numbers if number)


Step: TypeAlias = tuple[str, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["talk", "pause", "ask", "ask and go on", "probe", "wait"]), st.integers(1, 7)),
    min_size=1,
    max_size=20,
)


@settings(max_examples=200, deadline=None)
@given(STEPS, st.lists(st.integers(0, 12), max_size=10), st.sampled_from([float("inf"), 0.5]))
def test_every_word_is_in_the_last_text_once_and_in_its_place(
    steps: list[Step], delays: list[int], catch_up: float
) -> None:
    async def run() -> None:
        pool = WorkerPool(1, "test-asr")
        engine = Words(list(delays))
        engine.catch_up = catch_up
        utterance = engine.open(Decoding(pool))
        asked: list[asyncio.Task[Transcript]] = []
        spoken, silence_ms = "", 0.0
        for step, count in steps:
            match step:
                case "talk":
                    for _ in range(count):
                        spoken += chr(_FIRST + len(spoken) + 1)
                        utterance.feed(word(len(spoken)))
                    silence_ms = 0.0
                case "pause":
                    for _ in range(count):
                        silence_ms += 100.0
                        utterance.feed(word(0), silence_ms)
                case "ask":
                    assert await text_of(utterance) == spoken
                case "ask and go on":
                    asked.append(asyncio.create_task(text_of(utterance)))  # type: ignore[arg-type]
                case "probe" if not silence_ms:
                    assert spoken.startswith((await utterance.transcribe(Question(Priority.PROBE))).text)
                case _:
                    for _ in range(count):
                        await asyncio.sleep(0)
        assert await text_of(utterance) == spoken
        await asyncio.gather(*asked)
        assert all(size <= engine.piece_bytes for size in engine.sizes)
        assert engine.remote.failures == 0
        utterance.close()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert engine.streams == 0
        pool.close()

    asyncio.run(run())


async def text_of(utterance: Utterance) -> str:
    try:
        return (await utterance.transcribe(Question())).text
    except JobDropped:
        return ""  # overtaken, as a question may be


async def test_where_a_service_takes_sound_slowly_what_it_has_is_not_sent_again() -> None:
    pool = WorkerPool(1, "test-asr")
    engine = Words([])
    engine.catch_up = 2.0
    utterance = engine.open(Decoding(pool))
    for number in range(1, 31):
        utterance.feed(word(number))
    first = asyncio.create_task(text_of(utterance))
    await asyncio.sleep(0)
    utterance.feed(word(31))  # before the answer
    assert len(await text_of(utterance)) == 31
    assert await first == "".join(chr(_FIRST + number) for number in range(1, 31))
    assert sum(engine.sizes) == 31 * 2 * _PIECE
    utterance.close()
    pool.close()


async def test_with_a_key_held_a_long_silence_is_heard_again_in_case_it_holds_a_whisper() -> None:
    pool = WorkerPool(1, "test-asr")
    engine = Words([])
    utterance = engine.open(Decoding(pool, partials=Partials(wanted=True)))
    utterance.feed(word(1))
    assert await text_of(utterance) == "\u4e01"
    for number in range(1, 10):
        utterance.feed(word(2), 100.0 * number)  # a whisper, which the VAD takes for silence
    assert (await utterance.transcribe(Question(held=False))).text == "\u4e01"
    assert (await utterance.transcribe(Question(held=True))).text == "\u4e01" + 9 * "\u4e02"
    utterance.close()
    pool.close()


@pytest.mark.parametrize("text", ["", "x" * 3000])
async def test_texts_are_bounded(text: str) -> None:
    class Long(Words):
        async def converse(self, sound: Sound, heard: Heard) -> str:
            heard(text)
            return text

    pool = WorkerPool(1, "test-asr")
    utterance = Long([]).open(Decoding(pool))
    utterance.feed(word(1))
    assert len(await text_of(utterance)) == min(len(text), RemoteAsrSettings().max_text_chars)
    utterance.close()
    pool.close()
