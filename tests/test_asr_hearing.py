"""One utterance on its way to text: prefixes, early decodes, streams, two passes."""

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.sense_voice_model import build_tiny
from tests.bad_models import ZIPFORMERS
from tests.recognisers import RATE, Offline, Streaming, sound, until
from tests.speech import SPEECH_DIR, needs_speech, read_wav
from xiaozhi.concurrency.workers import JobDropped, Priority, WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.stages.asr import two_pass
from xiaozhi.stages.asr.decoding import Decoding, EarlyDecodes
from xiaozhi.stages.asr.engine import EngineError, Transcript, join
from xiaozhi.stages.asr.offline import OfflineUtterance
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.streaming import StreamingUtterance
from xiaozhi.stages.asr.two_pass import TwoPass, TwoPassUtterance


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "asr")
    yield pool
    await close(pool)


async def close(pool: WorkerPool) -> None:
    """Let what is under way come to its end: audio may still be on its way into a stream."""
    await until(lambda: pool.idle_workers == pool.workers and not pool.waiting)
    pool.close()


async def ask(
    hearing: Utterance,
    priority: Priority = Priority.FINAL,
    is_stale: Callable[[], bool] = lambda: False,
    provisional: Callable[[Transcript], None] = lambda _text: None,
) -> str:
    return (await hearing.transcribe(Question(priority, is_stale, provisional))).text


async def hold(pool: WorkerPool, engine: Offline) -> asyncio.Task[Transcript]:
    """Occupy the only worker until `engine` is let go."""
    engine.free.clear()
    task = asyncio.create_task(pool.submit(lambda: engine.decode(sound(0.1)), Priority.FINAL))
    await until(lambda: len(engine.decoded) > 0)
    return task


# Joining ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("first", "second", "whole"),
    [
        ("今天天气。", "怎么样？", "今天天气怎么样？"),
        ("今天天气，", "怎么样", "今天天气怎么样"),
        ("what is.", "the weather", "what is the weather"),
        ("turn on", "灯", "turn on灯"),
        ("打开", "the light", "打开the light"),
        ("really?", "yes", "really? yes"),
        ("", "hello.", "hello."),
        ("hello.", "", "hello."),
        ("", "", ""),
        (" one ", " two ", "one two"),
    ],
)
def test_parts_become_one_text(first: str, second: str, whole: str) -> None:
    assert join(Transcript(first), Transcript(second)).text == whole


def test_a_joined_text_keeps_what_either_part_tells() -> None:
    first = Transcript("ha", "zh", "happy", ("laughter", "music"))
    assert join(first, Transcript("ok", "en", "", ("music", "cough"))) == Transcript(
        "ha ok", "en", "happy", ("laughter", "music", "cough")
    )
    assert join(first, Transcript("ok", "", "sad")) == Transcript("ha ok", "zh", "sad", ("laughter", "music"))


@given(st.text(), st.text())
def test_joining_never_fails_and_never_loses_letters(first: str, second: str) -> None:
    whole = join(Transcript(first), Transcript(second)).text
    letters = [character for character in first + second if character.isalnum()]
    assert [character for character in whole if character.isalnum()] == letters


# Whole utterances -------------------------------------------------------------------------------------------------


async def test_everything_fed_so_far_is_decoded(pool: WorkerPool) -> None:
    engine = Offline()
    hearing = OfflineUtterance(engine, Decoding(pool))
    assert await ask(hearing) == ""
    hearing.feed(sound(0.5, 0.1))
    hearing.feed(sound(0.5, 0.2))
    assert await ask(hearing) == "10"
    hearing.feed(sound(0.3, 0.3))
    assert await ask(hearing) == "13"
    np.testing.assert_array_equal(
        engine.decoded[-1], np.concatenate([sound(0.5, 0.1), sound(0.5, 0.2), sound(0.3, 0.3)])
    )


async def test_a_long_first_part_is_decoded_once(pool: WorkerPool) -> None:
    engine = Offline()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(3.0, 0.1))
    assert await ask(hearing) == "30"
    assert await ask(hearing) == "30", "nothing new: no decode"
    hearing.feed(sound(0.5, 0.2))
    assert await ask(hearing) == "30 5"
    hearing.feed(sound(2.6, 0.3))
    assert await ask(hearing) == "30 31", "the second part was too short to be fixed"
    hearing.feed(sound(1.0, 0.4))
    assert await ask(hearing) == "30 31 10"
    assert [round(len(pcm) / RATE, 1) for pcm in engine.decoded] == [3.0, 0.5, 3.1, 1.0]
    np.testing.assert_array_equal(engine.decoded[-1], sound(1.0, 0.4))


async def test_only_a_pause_fixes_a_prefix(pool: WorkerPool) -> None:
    engine = Offline()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(4.0))
    assert await ask(hearing, Priority.PROBE) == "40"
    hearing.feed(sound(1.0))
    assert await ask(hearing) == "50", "a probe cuts through a word"


async def test_an_older_decode_does_not_take_a_newer_prefix_back() -> None:
    pool = WorkerPool(2, "asr")
    engine = Offline()
    engine.free.clear()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(3.0))
    older = asyncio.create_task(ask(hearing))
    await until(lambda: len(engine.decoded) == 1)
    hearing.feed(sound(3.0))
    newer = asyncio.create_task(ask(hearing))
    await until(lambda: len(engine.decoded) == 2)
    engine.free.set()
    assert (await older, await newer) == ("30", "60")
    hearing.feed(sound(1.0))
    assert await ask(hearing) == "60 10"
    await close(pool)


async def test_audio_is_taken_while_a_decode_runs(pool: WorkerPool) -> None:
    engine = Offline()
    engine.free.clear()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0))
    first = asyncio.create_task(ask(hearing))
    await until(lambda: len(engine.decoded) == 1)
    hearing.feed(sound(1.0))
    engine.free.set()
    assert await first == "10"
    assert await ask(hearing) == "20"


async def test_a_question_that_is_stale_before_a_worker_is_free_costs_nothing(pool: WorkerPool) -> None:
    engine = Offline()
    held = await hold(pool, engine)
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0))
    overtaken = asyncio.Event()
    question = asyncio.create_task(ask(hearing, is_stale=overtaken.is_set))
    await until(lambda: pool.waiting == 1)
    overtaken.set()
    engine.free.set()
    await held
    with pytest.raises(JobDropped):
        await question
    assert len(engine.decoded) == 1


async def test_a_failing_engine_fails_the_question(pool: WorkerPool) -> None:
    engine = Offline()
    engine.failing = EngineError("broken")
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0))
    with pytest.raises(EngineError, match="broken"):
        await ask(hearing)


# Early decodes ----------------------------------------------------------------------------------------------------


async def test_the_text_is_there_when_the_soft_end_comes(pool: WorkerPool) -> None:
    engine, early = Offline(), EarlyDecodes()
    hearing = OfflineUtterance(engine, Decoding(pool, early))
    hearing.feed(sound(1.0))
    hearing.feed(sound(0.06), silence_ms=20)
    assert early.begun == 0, "too short a silence"
    hearing.feed(sound(0.06), silence_ms=90)
    await until(lambda: hearing.ready)
    hearing.feed(sound(0.06), silence_ms=150)
    assert hearing.ready
    assert await ask(hearing) == "11"
    assert len(engine.decoded) == 1
    assert (early.begun, early.used) == (1, 1)


async def test_a_question_waits_for_an_early_decode_that_runs(pool: WorkerPool) -> None:
    engine, early = Offline(), EarlyDecodes()
    engine.free.clear()
    hearing = OfflineUtterance(engine, Decoding(pool, early))
    hearing.feed(sound(1.0), silence_ms=60)
    question = asyncio.create_task(ask(hearing))
    await until(lambda: len(engine.decoded) == 1)
    assert (hearing.covered, hearing.ready) == (True, False)
    engine.free.set()
    assert await question == "10"
    assert len(engine.decoded) == 1


async def test_a_question_that_gives_up_leaves_the_early_decode_to_the_next(pool: WorkerPool) -> None:
    engine = Offline()
    engine.free.clear()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0), silence_ms=60)
    question = asyncio.create_task(ask(hearing))
    await until(lambda: len(engine.decoded) == 1)
    question.cancel()
    await asyncio.gather(question, return_exceptions=True)
    engine.free.set()
    assert await ask(hearing) == "10"
    assert len(engine.decoded) == 1


async def test_voice_after_an_early_decode_makes_it_worthless(pool: WorkerPool) -> None:
    engine, early = Offline(), EarlyDecodes()
    hearing = OfflineUtterance(engine, Decoding(pool, early))
    hearing.feed(sound(1.0), silence_ms=60)
    await until(lambda: hearing.ready)
    hearing.feed(sound(0.5))
    assert not hearing.covered
    assert await ask(hearing) == "15"
    hearing.feed(sound(0.5))
    hearing.feed(sound(0.1), silence_ms=100)
    assert await ask(hearing) == "21"
    assert (early.begun, early.used) == (2, 1)


async def test_voice_that_the_vad_finds_late_is_covered_where_it_was_decoded(pool: WorkerPool) -> None:
    """The VAD is a window behind: the last voiced sample may move, but not beyond what was decoded."""
    engine = Offline()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0), silence_ms=60)
    await until(lambda: hearing.ready)
    hearing.feed(sound(0.06), silence_ms=60)
    assert hearing.ready
    hearing.feed(sound(0.02), silence_ms=25)
    assert not hearing.covered


async def test_only_one_early_decode_runs_for_a_user() -> None:
    pool = WorkerPool(4, "asr")
    engine, early = Offline(), EarlyDecodes()
    engine.free.clear()
    hearing = OfflineUtterance(engine, Decoding(pool, early))
    for _ in range(5):
        hearing.feed(sound(0.5))
        hearing.feed(sound(0.1), silence_ms=100)
    await until(lambda: len(engine.decoded) == 1)
    assert early.begun == 1
    engine.free.set()
    await close(pool)


async def test_nothing_is_decoded_early_when_all_workers_are_busy(pool: WorkerPool) -> None:
    engine, early = Offline(), EarlyDecodes()
    held = await hold(pool, engine)
    hearing = OfflineUtterance(engine, Decoding(pool, early))
    hearing.feed(sound(1.0), silence_ms=60)
    assert (early.begun, pool.waiting) == (0, 0)
    engine.free.set()
    await held
    hearing.feed(sound(0.06), silence_ms=120)  # a later step of the same silence
    await until(lambda: hearing.ready)
    assert await ask(hearing) == "11"


async def test_nothing_is_decoded_early_when_that_is_forbidden_or_of_no_use(pool: WorkerPool) -> None:
    engine, early = Offline(), EarlyDecodes(allowed=False)
    hearing = OfflineUtterance(engine, Decoding(pool, early))
    hearing.feed(sound(1.0), silence_ms=60)
    early.allowed = True
    hearing.feed(sound(3.0), silence_ms=60)
    assert await ask(hearing) == "40"  # and is a prefix now
    hearing.feed(sound(0.2), silence_ms=260)
    assert (early.begun, len(engine.decoded)) == (1, 1), "the silence behind a prefix holds nothing"


async def test_silence_behind_the_last_word_is_not_decoded_unless_a_key_is_held(pool: WorkerPool) -> None:
    engine = Offline()
    utterance = engine.open(Decoding(pool, EarlyDecodes(allowed=False)))
    utterance.feed(sound(2.0))
    utterance.feed(sound(1.0, 0.0), silence_ms=1000.0)
    assert (await utterance.transcribe(Question(held=False))).text == "21"
    assert len(engine.decoded[-1]) == round(2.1 * RATE)
    assert (await utterance.transcribe(Question(held=True))).text == "30"
    # Who goes on is heard from where the last decode ended, if that was long enough to be kept.
    utterance.feed(sound(1.5))
    assert (await utterance.transcribe(Question(held=False))).text == "30 15"
    assert (await utterance.transcribe(Question(held=False))).text == "30 15" and len(engine.decoded) == 4


async def test_a_whisper_that_the_vad_misses_is_heard(pool: WorkerPool) -> None:
    """While a key is held the silence grows although somebody may whisper."""
    engine = Offline()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(0.1), silence_ms=90)
    await until(lambda: hearing.ready)
    hearing.feed(sound(2.0), silence_ms=2090)
    assert not hearing.covered
    assert await ask(hearing) == "21"


async def test_an_early_decode_that_fails_is_tried_again(pool: WorkerPool, caplog: pytest.LogCaptureFixture) -> None:
    engine = Offline()
    engine.failing = EngineError("out of memory")
    engine.free.clear()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0), silence_ms=60)
    question = asyncio.create_task(ask(hearing))
    await until(lambda: len(engine.decoded) == 1)

    engine.free.set()
    with pytest.raises(EngineError):  # the second one fails as well, and that is said
        await question
    assert "out of memory" in caplog.text
    engine.failing = None
    assert not hearing.covered
    assert await ask(hearing) == "10"


async def test_a_prefix_may_come_from_an_early_decode(pool: WorkerPool) -> None:
    engine = Offline()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(4.0), silence_ms=60)
    await until(lambda: hearing.ready)
    hearing.feed(sound(0.1), silence_ms=160)
    assert await ask(hearing) == "40"
    hearing.feed(sound(1.0))
    assert await ask(hearing) == "40 11", "from the end of what was decoded"


async def test_a_closed_utterance_forgets_its_audio(pool: WorkerPool) -> None:
    engine = Offline()
    engine.free.clear()
    hearing = OfflineUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0), silence_ms=60)
    hearing.close()
    assert not hearing.covered
    engine.free.set()
    assert await ask(hearing) == ""


async def test_a_closed_pool_begins_nothing(pool: WorkerPool) -> None:
    pool.close()
    assert pool.start_if_idle(lambda: 1) is None
    early = EarlyDecodes()
    OfflineUtterance(Offline(), Decoding(pool, early)).feed(sound(1.0), silence_ms=60)
    assert early.begun == 0


# Streams ----------------------------------------------------------------------------------------------------------


async def test_a_stream_is_fed_while_somebody_speaks(pool: WorkerPool) -> None:
    engine = Streaming()
    hearing = StreamingUtterance(engine, Decoding(pool))
    for _ in range(10):
        hearing.feed(sound(0.06))
    await until(lambda: hearing.partial == "6")
    hearing.feed(sound(0.2))
    assert await ask(hearing) == "8"
    hearing.feed(sound(0.2))
    assert await ask(hearing) == "10"


async def test_a_question_overtakes_audio_that_waits_for_a_worker(pool: WorkerPool) -> None:
    held_by, engine = Offline(), Streaming()
    held = await hold(pool, held_by)
    hearing = StreamingUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0))
    await until(lambda: pool.waiting == 1)
    other = asyncio.create_task(pool.submit(lambda: None, Priority.PROBE))
    question = asyncio.create_task(ask(hearing))
    await until(lambda: pool.waiting == 3)
    held_by.free.set()
    assert await question == "10"
    assert len(engine.streams[0].pieces) == 1, "the audio went in with the question"
    await asyncio.gather(held, other)


async def test_a_stream_says_what_was_said_as_soon_as_it_is_silent_and_is_not_asked_again(pool: WorkerPool) -> None:
    engine, early = Streaming(), EarlyDecodes()
    told: list[tuple[str, Transcript | None]] = []
    hearing = StreamingUtterance(engine, Decoding(pool, early), lambda text, settled=None: told.append((text, settled)))
    hearing.feed(sound(1.0))
    hearing.feed(sound(0.1), silence_ms=20.0)
    hearing.feed(sound(0.1), silence_ms=50.0)
    await until(lambda: hearing.ready)
    assert [(text, settled and settled.text) for text, settled in told] == [("12", "12")]
    hearing.feed(sound(0.1), silence_ms=150.0)
    assert await ask(hearing) == "12", "silence has no words"
    assert (early.begun, early.used) == (1, 1)
    hearing.feed(sound(0.1))
    assert await ask(hearing) == "14"
    await until(lambda: pool.idle_workers == 1)
    hearing.feed(sound(0.1), silence_ms=60.0)
    await until(lambda: hearing.ready)
    hearing.feed(sound(0.7), silence_ms=760.0)
    assert await ask(hearing) == "22", "where a key is held, a long silence may hold a whisper"


async def test_nothing_is_flushed_early_under_load_or_where_nobody_has_time(pool: WorkerPool) -> None:
    early, held_by = EarlyDecodes(), Offline()
    hearing = StreamingUtterance(Streaming(), Decoding(pool, early))
    early.allowed = False
    hearing.feed(sound(1.0), silence_ms=60.0)
    early.allowed = True
    await until(lambda: pool.idle_workers == 1)
    held = await hold(pool, held_by)
    hearing.feed(sound(0.1), silence_ms=160.0)
    assert (early.begun, hearing.ready) == (0, False)
    held_by.free.set()
    await held


async def test_calls_on_one_stream_never_overlap() -> None:
    pool = WorkerPool(4, "asr")
    engine = Streaming()
    hearing = StreamingUtterance(engine, Decoding(pool))
    questions = []
    for number in range(200):
        hearing.feed(sound(0.01))
        if number % 10 == 0:
            questions.append(asyncio.create_task(ask(hearing)))
        await asyncio.sleep(0)
    await asyncio.gather(*questions)
    assert await ask(hearing) == "20"
    await close(pool)


async def test_a_stale_question_to_a_stream_loses_no_audio(pool: WorkerPool) -> None:
    held_by = Offline()
    held = await hold(pool, held_by)
    hearing = StreamingUtterance(Streaming(), Decoding(pool))
    hearing.feed(sound(1.0))
    overtaken = asyncio.Event()
    question = asyncio.create_task(ask(hearing, is_stale=overtaken.is_set))
    await until(lambda: pool.waiting == 2)
    overtaken.set()
    held_by.free.set()
    await held
    with pytest.raises(JobDropped):
        await question
    assert await ask(hearing) == "10"


async def test_a_stream_that_fails_while_it_is_fed_says_so_when_asked(pool: WorkerPool) -> None:
    engine = Streaming()
    engine.failing = EngineError("zipformer failed")
    hearing = StreamingUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0))
    await until(lambda: pool.idle_workers == 1 and hearing._failure is not None)
    hearing.feed(sound(1.0))
    with pytest.raises(EngineError, match="zipformer failed"):
        await ask(hearing)


async def test_closing_drops_what_waits_for_a_worker(pool: WorkerPool) -> None:
    held_by, engine = Offline(), Streaming()
    held = await hold(pool, held_by)
    hearing = StreamingUtterance(engine, Decoding(pool))
    hearing.feed(sound(1.0))
    await until(lambda: pool.waiting == 1)
    hearing.close()
    held_by.free.set()
    await held
    await pool.run(lambda: None)
    assert engine.streams[0].pieces == []


async def test_a_closing_pool_ends_the_feeding_quietly(pool: WorkerPool) -> None:
    hearing = StreamingUtterance(Streaming(), Decoding(pool))
    pool.close()
    hearing.feed(sound(1.0))
    with pytest.raises(JobDropped):
        await ask(hearing)


# Two passes -------------------------------------------------------------------------------------------------------


async def test_a_provisional_text_comes_before_the_one_that_counts(pool: WorkerPool) -> None:
    streaming, offline = Streaming(), Offline()
    hearing = TwoPassUtterance(TwoPass(streaming, offline), Decoding(pool))
    offline.free.clear()
    heard: list[Transcript] = []
    hearing.feed(sound(1.0))
    question = asyncio.create_task(hearing.transcribe(Question(provisional=heard.append)))
    await until(lambda: len(heard) == 1)
    assert heard == [Transcript("10")]
    assert not question.done()
    offline.free.set()
    assert await question == Transcript("10", "en", "happy")


async def test_a_text_that_is_known_already_is_not_asked_of_the_stream(pool: WorkerPool) -> None:
    streaming, offline = Streaming(), Offline()
    hearing = TwoPassUtterance(TwoPass(streaming, offline), Decoding(pool))
    heard: list[Transcript] = []
    hearing.feed(sound(1.0), silence_ms=60)
    await until(lambda: hearing._streaming.ready)  # whose text costs little goes first where there is one worker
    hearing.feed(sound(0.06), silence_ms=120)
    await until(lambda: hearing._offline.ready)
    assert (await hearing.transcribe(Question(provisional=heard.append))).emotion == "happy"
    assert heard == []


async def test_a_probe_is_answered_by_the_stream(pool: WorkerPool) -> None:
    offline = Offline()
    hearing = TwoPassUtterance(TwoPass(Streaming(), offline), Decoding(pool))
    hearing.feed(sound(1.0))
    assert await ask(hearing, Priority.PROBE) == "10"
    assert offline.decoded == []


async def test_a_stream_that_fails_or_hears_nothing_leaves_the_answer_to_the_other(
    pool: WorkerPool, caplog: pytest.LogCaptureFixture
) -> None:
    streaming = Streaming()
    streaming.failing = EngineError("zipformer failed")
    hearing = TwoPassUtterance(TwoPass(streaming, Offline()), Decoding(pool))
    heard: list[Transcript] = []
    hearing.feed(sound(1.0))
    assert await ask(hearing, provisional=heard.append) == "10"
    assert heard == []
    assert "no provisional text: zipformer failed" in caplog.text


async def test_a_confirmation_that_fails_is_said(pool: WorkerPool) -> None:
    offline = Offline()
    offline.failing = EngineError("broken")
    hearing = TwoPassUtterance(TwoPass(Streaming(), offline), Decoding(pool))
    heard: list[Transcript] = []
    hearing.feed(sound(1.0))
    with pytest.raises(EngineError, match="broken"):
        await ask(hearing, provisional=heard.append)
    assert heard == [Transcript("10")]


async def test_a_confirmation_is_not_waited_for_for_ever(
    pool: WorkerPool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(two_pass, "MAX_CONFIRM_S", 0.0)
    offline = Offline()
    offline.free.clear()
    hearing = TwoPassUtterance(TwoPass(Streaming(), offline), Decoding(pool))
    hearing.feed(sound(1.0))
    assert await hearing.transcribe(Question()) == Transcript("10")
    assert "going on with the provisional text" in caplog.text
    offline.free.set()


async def test_a_stale_question_is_dropped_by_both(pool: WorkerPool) -> None:
    held_by, offline = Offline(), Offline()
    held = await hold(pool, held_by)
    hearing = TwoPassUtterance(TwoPass(Streaming(), offline), Decoding(pool))
    hearing.feed(sound(1.0))
    overtaken = asyncio.Event()
    question = asyncio.create_task(ask(hearing, is_stale=overtaken.is_set))
    await until(lambda: pool.waiting == 3)
    overtaken.set()
    held_by.free.set()
    with pytest.raises(JobDropped):
        await question
    await held
    hearing.close()
    assert offline.decoded == []


@pytest.mark.parametrize(
    ("engine", "kind"),
    [
        (Offline(), OfflineUtterance),
        (Streaming(), StreamingUtterance),
        (TwoPass(Streaming(), Offline()), TwoPassUtterance),
    ],
)
async def test_ears_open_what_suits_the_engine(pool: WorkerPool, engine: Recognizer, kind: type) -> None:
    ears = Recognition(engine, pool, AsrSettings(early_decode=False))
    assert type(ears.begin()) is kind
    assert not ears.early.on
    assert ears.early.allowed, "load may forbid it, and its end does not turn on what nobody wants"


def test_two_recognisers_are_closed_together() -> None:
    streaming, offline = Streaming(), Offline()
    TwoPass(streaming, offline).close()
    assert streaming.closed and offline.closed


@needs_speech
async def test_a_real_stream_is_first_and_a_real_whole_decode_confirms(tmp_path: Path) -> None:
    from xiaozhi.stages.asr.model_files import find_sense_voice, find_transducer
    from xiaozhi.stages.asr.sense_voice import SenseVoice
    from xiaozhi.stages.asr.zipformer import Zipformer

    pool = WorkerPool(1, "asr")
    engine = TwoPass(
        Zipformer(find_transducer(ZIPFORMERS / "zipformer-en")),
        SenseVoice(find_sense_voice(build_tiny(tmp_path / "s", "Go forward, ten meters.", emotion="HAPPY"))),
    )
    pcm = read_wav(SPEECH_DIR / "en" / "goforward.wav")
    hearing = Recognition(engine, pool, AsrSettings(early_decode=False)).begin()
    for start in range(0, len(pcm), 960):
        hearing.feed(pcm[start : start + 960])
    heard: list[Transcript] = []
    whole = await hearing.transcribe(Question(provisional=heard.append))
    assert heard == [Transcript("go forward ten meters", "en")]
    assert (whole.language, whole.emotion) == ("en", "happy")
    hearing.close()
    await close(pool)
    engine.close()
