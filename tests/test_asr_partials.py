"""Texts while somebody speaks: when they are made, shown, dropped, and when they are the answer as well."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from bench.sense_voice_model import build_tiny
from tests.bad_models import ZIPFORMERS
from tests.recognisers import RATE, Offline, Streaming, noting, sound, until
from tests.speech import SPEECH_DIR, needs_speech, read_wav
from xiaozhi.audio.pcm import PcmFloat
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.events import SpeechAudio, SpeechBegan
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr.decoding import Decoding, EarlyDecodes, Partials
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.offline import OfflineUtterance
from xiaozhi.stages.asr.recogniser import Question, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.stage import AsrStage, PartialText, Recognised
from xiaozhi.stages.asr.streaming import StreamingUtterance
from xiaozhi.stages.asr.two_pass import TwoPass, TwoPassUtterance


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "asr")
    yield pool
    await until(lambda: pool.idle_workers == pool.workers and not pool.waiting)
    pool.close()


class Listener:
    """An offline utterance with partial texts, and what was shown of it."""

    def __init__(self, pool: WorkerPool, engine: Offline | None = None, *, early: bool = False) -> None:
        self.engine = engine or Offline()
        self.shown: list[str] = []
        self.partials = Partials(wanted=True)
        self.early = EarlyDecodes(wanted=early)
        self.hearing = OfflineUtterance(self.engine, Decoding(pool, self.early, self.partials), noting(self.shown))

    async def speak(self, seconds: float, pool: WorkerPool) -> None:
        """Feed voiced packets of 100 ms, letting what they begin come to its end."""
        for _ in range(round(seconds * 10)):
            self.hearing.feed(sound(0.1))
            await until(lambda: pool.idle_workers == pool.workers)


async def ask(hearing: Utterance) -> str:
    return (await hearing.transcribe(Question())).text


async def test_a_text_is_shown_for_every_600_ms_of_new_speech(pool: WorkerPool) -> None:
    talk = Listener(pool)
    await talk.speak(2.0, pool)
    await until(lambda: len(talk.shown) == 3)
    assert talk.shown == ["6", "12", "18"]
    assert (talk.partials.begun, talk.partials.shown, talk.partials.dropped) == (3, 3, 0)


async def test_long_speech_is_decoded_less_often(pool: WorkerPool) -> None:
    talk = Listener(pool)
    await talk.speak(20.0, pool)
    decoded_s = sum(len(pcm) for pcm in talk.engine.decoded) / RATE
    assert len(talk.engine.decoded) < 20
    assert decoded_s < 6 * 20.0, "every 600 ms it would be 330 s"


async def test_nothing_is_decoded_while_nobody_wants_it(pool: WorkerPool) -> None:
    talk = Listener(pool)
    talk.partials.allowed = False  # load
    await talk.speak(1.0, pool)
    talk.partials.allowed, talk.partials.wanted = True, False  # the settings
    await talk.speak(1.0, pool)
    silent = OfflineUtterance(talk.engine, Decoding(pool, partials=Partials(wanted=True)))
    silent.feed(sound(2.0))  # nobody takes it
    assert (talk.engine.decoded, talk.shown) == ([], [])
    talk.partials.wanted = True
    await talk.speak(0.1, pool)
    await until(lambda: talk.shown == ["21"])


async def test_silence_is_no_new_speech(pool: WorkerPool) -> None:
    talk = Listener(pool)
    await talk.speak(0.6, pool)
    talk.hearing.feed(sound(2.0), silence_ms=2000)
    await until(lambda: talk.shown == ["6"])
    assert talk.partials.begun == 1


async def test_busy_workers_are_left_to_others(pool: WorkerPool) -> None:
    talk = Listener(pool)
    talk.engine.free.clear()
    held = asyncio.create_task(pool.submit(lambda: talk.engine.decode(sound(0.1)), Priority.FINAL))
    await until(lambda: len(talk.engine.decoded) == 1)
    talk.hearing.feed(sound(2.0))
    assert (talk.partials.begun, pool.waiting) == (0, 0)
    talk.engine.free.set()
    await held


async def test_one_of_two_workers_stays_free_for_answers() -> None:
    pool = WorkerPool(2, "asr")
    engine = Offline()
    engine.free.clear()
    one, other = Listener(pool, engine), Listener(pool, engine)
    one.hearing.feed(sound(1.0))
    other.hearing.feed(sound(1.0))
    await until(lambda: len(engine.decoded) == 1)
    assert (one.partials.begun, other.partials.begun, pool.idle_workers) == (1, 0, 1)
    engine.free.set()
    await until(lambda: pool.idle_workers == 2)
    pool.close()


async def test_a_partial_text_that_has_all_that_was_said_is_the_answer(pool: WorkerPool) -> None:
    talk = Listener(pool)
    talk.hearing.feed(sound(1.0), silence_ms=0.0)
    await until(lambda: talk.shown == ["10"])
    talk.hearing.feed(sound(0.1), silence_ms=140.0)  # the VAD finds out that it had ended before the decode began
    assert talk.hearing.ready
    assert await ask(talk.hearing) == "10"
    assert len(talk.engine.decoded) == 1
    assert (talk.partials.used, talk.early.used) == (1, 0)


async def test_a_partial_text_that_ends_with_the_voice_is_not(pool: WorkerPool) -> None:
    """A last sound cut off right at its end is not always heard; a little silence behind it is needed."""
    talk = Listener(pool)
    talk.hearing.feed(sound(1.0))
    await until(lambda: talk.shown == ["10"])
    talk.hearing.feed(sound(0.1), silence_ms=100.0)
    assert not talk.hearing.covered
    assert await ask(talk.hearing) == "11"


async def test_silence_begins_its_own_decode_beside_a_partial_one() -> None:
    pool = WorkerPool(2, "asr")
    talk = Listener(pool, early=True)
    talk.engine.free.clear()
    talk.hearing.feed(sound(1.0))
    await until(lambda: len(talk.engine.decoded) == 1)
    talk.hearing.feed(sound(0.1), silence_ms=60.0)
    await until(lambda: len(talk.engine.decoded) == 2)
    talk.hearing.feed(sound(0.1), silence_ms=160.0)
    assert talk.hearing.covered
    assert (talk.partials.begun, talk.early.begun) == (1, 1)
    talk.engine.free.set()
    assert await ask(talk.hearing) == "11"
    await until(lambda: pool.idle_workers == 2)
    assert talk.early.used == 1
    assert talk.shown in (["10", "11"], ["11"])
    pool.close()


async def test_an_older_text_is_not_shown_after_a_newer_one() -> None:
    pool = WorkerPool(2, "asr")
    slow = Offline()
    talk = Listener(pool, slow)
    slow.free.clear()
    talk.hearing.feed(sound(1.0))
    await until(lambda: len(slow.decoded) == 1)
    talk.hearing.feed(sound(0.5))
    asked = asyncio.create_task(ask(talk.hearing))
    await until(lambda: len(slow.decoded) == 2)
    # The answer is there first: put as the stage would, before the partial one is let go.
    talk.hearing._known_samples = len(sound(1.5))
    slow.free.set()
    assert await asked == "15"
    await until(lambda: pool.idle_workers == 2)
    assert talk.shown == []
    assert talk.partials.dropped == 1
    pool.close()


async def test_what_is_over_is_not_shown(pool: WorkerPool) -> None:
    talk = Listener(pool)
    talk.engine.free.clear()
    talk.hearing.feed(sound(1.0))
    await until(lambda: len(talk.engine.decoded) == 1)
    talk.hearing.close()
    talk.engine.free.set()
    await until(lambda: pool.idle_workers == 1)
    assert (talk.shown, talk.partials.dropped) == ([], 1)


async def test_a_partial_decode_that_fails_is_said_and_the_answer_is_tried(
    pool: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    talk = Listener(pool)
    talk.engine.failing = EngineError("out of memory")
    talk.hearing.feed(sound(1.0))
    await until(lambda: "recognition of a partial text failed: out of memory" in caplog.text)
    talk.engine.failing = None
    talk.hearing.feed(sound(0.1), silence_ms=140.0)
    assert await ask(talk.hearing) == "11"
    assert talk.shown == []


async def test_a_partial_text_holds_the_part_that_was_decoded_before(pool: WorkerPool) -> None:
    talk = Listener(pool)
    talk.partials.allowed = False
    talk.hearing.feed(sound(3.0))
    assert await ask(talk.hearing) == "30"
    talk.partials.allowed = True
    await talk.speak(0.6, pool)
    await until(lambda: talk.shown == ["30 6"])


# Streams and two passes -------------------------------------------------------------------------------------------


async def test_a_stream_shows_its_text_when_it_changes(pool: WorkerPool) -> None:
    shown: list[str] = []
    partials = Partials(wanted=True)
    hearing = StreamingUtterance(Streaming(), Decoding(pool, partials=partials), noting(shown))
    for text in ("1", "2"):
        hearing.feed(sound(0.1))
        await until(lambda text=text: hearing.partial == text)  # type: ignore[misc]  # a default binds the loop's value
    hearing.feed(sound(0.01))  # no new word
    await until(lambda: hearing._feeding is not None and hearing._feeding.done())
    assert shown == ["1", "2"]
    partials.allowed = False
    hearing.feed(sound(0.1))
    await until(lambda: hearing.partial == "3")
    assert (shown, partials.shown, partials.begun) == (["1", "2"], 2, 0)
    partials.allowed = True
    hearing.close()
    hearing.feed(sound(0.1))
    await until(lambda: hearing.partial == "4")
    assert shown == ["1", "2"]


async def test_of_two_passes_the_stream_is_shown(pool: WorkerPool) -> None:
    shown: list[str] = []
    offline = Offline()
    hearing = TwoPassUtterance(
        TwoPass(Streaming(), offline), Decoding(pool, partials=Partials(wanted=True)), noting(shown)
    )
    hearing.feed(sound(1.0))
    await until(lambda: shown == ["10"])
    assert offline.decoded == []


@needs_speech
async def test_a_real_stream_is_shown_growing(pool: WorkerPool) -> None:
    from xiaozhi.stages.asr.model_files import find_transducer
    from xiaozhi.stages.asr.zipformer import Zipformer

    shown: list[str] = []
    ears = Recognition(Zipformer(find_transducer(ZIPFORMERS / "zipformer-en")), pool, AsrSettings(partials=True))
    hearing = ears.begin(noting(shown))
    assert isinstance(hearing, StreamingUtterance)
    pcm = read_wav(SPEECH_DIR / "en" / "goforward.wav")
    for start in range(0, len(pcm), 960):
        hearing.feed(pcm[start : start + 960])
        await until(lambda: hearing._feeding is None or hearing._feeding.done())
    assert len(shown) >= 2
    assert shown[0].startswith("go")
    assert all(len(before) <= len(after) for before, after in pairwise(shown))
    assert await ask(hearing) == "go forward ten meters"
    hearing.close()


# The stage --------------------------------------------------------------------------------------------------------


async def test_the_stage_hands_texts_over_until_the_utterance_is_over(pool: WorkerPool) -> None:
    texts: Channel[Recognised | PartialText] = Channel(16)
    engine = Offline()
    asr = AsrStage(Recognition(engine, pool, AsrSettings(partials=True)), texts.put_nowait, 10.0)
    asr.speech(SpeechBegan(1, 0.0, 300.0, sound(0.3)))
    asr.speech(SpeechAudio(1, 700.0, sound(0.4), 0.0, 700.0))
    assert await texts.get() == PartialText(1, "7")
    engine.free.clear()
    asr.speech(SpeechAudio(1, 1400.0, sound(0.7), 0.0, 1400.0))
    await until(lambda: len(engine.decoded) == 2)
    asr.forget()
    engine.free.set()
    await until(lambda: pool.idle_workers == 1)
    assert len(texts) == 0


# Batches ----------------------------------------------------------------------------------------------------------


class Many(Offline):
    """An `Offline` that takes several at once."""

    batches = True

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    def decode_many(self, pcms: Sequence[PcmFloat]) -> list[Transcript]:
        self.sizes.append(len(pcms))
        return [self.decode(pcm) for pcm in pcms]


async def test_questions_that_wait_together_are_decoded_together(pool: WorkerPool) -> None:
    engine = Many()
    ears = Recognition(engine, pool, AsrSettings(batch_size=4))
    engine.free.clear()
    held = asyncio.create_task(pool.submit(lambda: engine.decode(sound(0.1)), Priority.FINAL))
    await until(lambda: len(engine.decoded) == 1)
    utterances = [ears.begin() for _ in range(5)]
    for number, utterance in enumerate(utterances, 1):
        utterance.feed(sound(0.1 * number))
    questions = [asyncio.create_task(ask(utterance)) for utterance in utterances]
    await until(lambda: pool.waiting == 5)
    engine.free.set()
    assert await asyncio.gather(*questions) == ["1", "2", "3", "4", "5"]
    assert engine.sizes == [4, 1]
    await held


async def test_an_engine_that_takes_one_at_a_time_says_that_batches_have_no_effect(
    pool: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    Recognition(Offline(), pool, AsrSettings(batch_size=8))
    assert "asr.batch_size has no effect: offline recognises one utterance at a time" in caplog.text
    caplog.clear()
    many = Many()
    two = Recognition(TwoPass(Streaming(), many), pool, AsrSettings(batch_size=8, early_decode=False))
    assert not caplog.text
    hearing = two.begin()
    hearing.feed(sound(0.5))
    assert await ask(hearing) == "5"
    assert many.sizes == [1], "as a batch of its own"


def test_a_real_model_hears_the_same_in_a_batch_as_alone(tmp_path: Path) -> None:
    from xiaozhi.stages.asr.model_files import find_sense_voice
    from xiaozhi.stages.asr.sense_voice import SenseVoice

    model = build_tiny(tmp_path / "m", "quiet", loud_text="loud", silent_text="", long_text="long and slow")
    asr = SenseVoice(find_sense_voice(model))
    assert asr.batches
    rng = np.random.default_rng(3)
    pcms = [
        rng.standard_normal(int(seconds * RATE)).astype(np.float32) * np.float32(amplitude)
        for seconds, amplitude in ((1.0, 0.001), (0.01, 0.3), (3.0, 0.3), (1.0, 0.3), (0.0, 0.0))
    ]
    alone = [asr.decode(pcm) for pcm in pcms]
    assert asr.decode_many(pcms[:1]) == alone[:1]
    assert asr.decode_many([pcms[3], pcms[3]]) == [alone[3]] * 2
    assert {transcript.text for transcript in alone} == {"quiet", "loud", "long and slow", ""}
    assert asr.decode_many(pcms) == alone
    assert asr.decode_many([]) == []
