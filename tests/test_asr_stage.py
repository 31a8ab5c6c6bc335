"""The recognition stage: speech and questions in, texts out."""

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import pytest

from tests.recognisers import RATE, Offline, Streaming, sound, until
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.workers import Priority, Rank, WorkerPool
from xiaozhi.events import SpeechAudio, SpeechBegan
from xiaozhi.stages.asr.engine import EngineError, Transcript
from xiaozhi.stages.asr.recogniser import Recognizer
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.stage import Ask, AsrStage, PartialText, Recognised
from xiaozhi.stages.asr.two_pass import TwoPass


@dataclass
class Stage:
    """A stage, and what it says."""

    asr: AsrStage
    tasks: asyncio.TaskGroup
    texts: Channel[Recognised | PartialText]
    pool: WorkerPool
    ears: Recognition
    now_ms: float = 0.0

    def begin(self, seconds: float = 1.0) -> None:
        """Speech is found."""
        start_ms, self.now_ms = self.now_ms, self.now_ms + seconds * 1000
        self.asr.speech(SpeechBegan(1, start_ms, self.now_ms, sound(seconds)))

    def go_on(self, seconds: float, silence_ms: float = 0.0) -> None:
        """It goes on, or falls silent."""
        self.now_ms += seconds * 1000
        self.asr.speech(SpeechAudio(1, self.now_ms, sound(seconds), silence_ms, self.now_ms - silence_ms))

    def ask(self, ticket: int, priority: Priority = Priority.FINAL) -> None:
        """Put a question."""
        self.asr.ask(Ask(ticket, priority), self.tasks)

    def forget(self) -> None:
        """The utterance is over."""
        self.asr.forget()

    async def answer(self) -> Recognised:
        """The next answer."""
        async with asyncio.timeout(10):
            answer = await self.texts.get()
            assert isinstance(answer, Recognised)
            return answer

    async def rest(self) -> list[Recognised | PartialText]:
        """What it still says, once all that was asked is over."""
        asked = [task for task in asyncio.all_tasks() if task.get_name() == "asr-decode"]
        async with asyncio.timeout(10):
            await asyncio.gather(*asked)
        return self.texts.drain()


@asynccontextmanager
async def stage(engine: Recognizer, *, workers: int = 1, timeout_s: float = 10.0) -> AsyncIterator[Stage]:
    pool = WorkerPool(workers, "asr")
    texts: Channel[Recognised | PartialText] = Channel(16)
    ears = Recognition(engine, pool)
    try:
        async with asyncio.TaskGroup() as tasks:
            asr = AsrStage(ears, texts.put_nowait, timeout_s)
            yield Stage(asr, tasks, texts, pool, ears)
            asr.forget()
    finally:
        pool.close()


async def test_every_question_is_answered_with_its_ticket() -> None:
    async with stage(Offline()) as asr:
        asr.begin()
        asr.ask(1)
        first = await asr.answer()
        assert (first.ticket, first.transcript, first.error, first.provisional) == (
            1, Transcript("10", "en", "happy"), "", False,
        )  # fmt: skip
        assert first.took_s >= 0
        asr.go_on(0.5)
        asr.ask(2)
        assert (await asr.answer()).transcript.text == "15"
        assert await asr.rest() == []


async def test_every_utterance_begins_afresh() -> None:
    async with stage(Offline()) as asr:
        asr.begin(1.0)
        asr.ask(1)
        assert (await asr.answer()).transcript.text == "10"
        asr.forget()
        asr.go_on(0.5)  # was on its way when the utterance was closed
        asr.begin(0.3)
        asr.ask(2)
        assert (await asr.answer()).transcript.text == "3"
        asr.begin(0.4)  # even without a Forget between them
        asr.ask(3)
        assert (await asr.answer()).transcript.text == "4"


async def test_a_question_without_an_utterance_has_no_text() -> None:
    async with stage(Offline()) as asr:
        asr.go_on(0.5)
        asr.ask(7)
        assert await asr.answer() == Recognised(7, Transcript(""), 0.0)


async def test_a_newer_question_makes_one_that_waits_stale() -> None:
    engine = Offline()
    engine.free.clear()
    async with stage(engine) as asr:
        asr.begin()
        asr.ask(1)
        await until(lambda: len(engine.decoded) == 1)
        asr.ask(2)
        await until(lambda: asr.pool.waiting == 1)
        asr.ask(3)
        await until(lambda: asr.pool.waiting == 1 and asr.pool.dropped == 1)
        engine.free.set()
        assert [(await asr.answer()).ticket for _ in range(2)] == [1, 3]
        assert await asr.rest() == []
        assert asr.pool.dropped == 1
        assert len(engine.decoded) == 2


async def test_a_forgotten_utterance_is_not_decoded() -> None:
    engine = Offline()
    engine.free.clear()
    async with stage(engine) as asr:
        busy = asyncio.create_task(asr.pool.submit(lambda: engine.decode(sound(0.1)), Priority.FINAL))
        await until(lambda: len(engine.decoded) == 1)
        asr.begin()
        asr.ask(1)
        await until(lambda: asr.pool.waiting == 1)
        asr.forget()
        asr.begin()
        asr.ask(2)
        asr.forget()  # before the question is even looked at
        engine.free.set()
        await busy
        assert await asr.rest() == []
        assert len(engine.decoded) == 1


async def test_silence_lets_the_text_be_ready_before_it_is_asked_for() -> None:
    engine = Offline()
    async with stage(engine) as asr:
        asr.begin()
        asr.go_on(0.1, silence_ms=100)
        await until(lambda: asr.ears.early.begun == 1)
        assert await asr.texts.get() == PartialText(1, "11", Transcript("11", language="en", emotion="happy"))
        asr.go_on(0.06, silence_ms=160)
        asr.ask(1)
        assert (await asr.answer()).transcript.text == "11"
        assert (len(engine.decoded), asr.ears.early.used) == (1, 1)


async def test_recognition_that_takes_too_long_is_given_up(caplog: pytest.LogCaptureFixture) -> None:
    engine = Offline()
    engine.free.clear()
    async with stage(engine, timeout_s=0.0) as asr:
        asr.begin()
        asr.ask(1)
        answer = await asr.answer()
        assert (answer.ticket, answer.transcript, answer.error) == (1, Transcript(""), "recognition took over 0 s")
        assert "recognition took over 0 s" in caplog.text
        engine.free.set()


async def test_an_engine_that_fails_is_said_and_the_next_utterance_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    engine = Offline()
    engine.failing = EngineError("sense-voice failed to decode: broken")
    async with stage(engine) as asr:
        asr.begin()
        asr.ask(1)
        assert (await asr.answer()).error == "sense-voice failed to decode: broken"
        assert "broken" in caplog.text
        engine.failing = None
        asr.ask(2)
        assert (await asr.answer()).transcript.text == "10"


async def test_a_provisional_answer_comes_first_with_the_same_ticket() -> None:
    offline = Offline()
    offline.free.clear()
    async with stage(TwoPass(Streaming(), offline)) as asr:
        asr.begin()
        asr.ask(4)
        first = await asr.answer()
        assert (first.ticket, first.transcript, first.provisional) == (4, Transcript("10"), True)
        assert len(asr.texts) == 0
        offline.free.set()
        second = await asr.answer()
        assert (second.ticket, second.transcript.emotion, second.provisional) == (4, "happy", False)
        assert await asr.rest() == []


@pytest.mark.parametrize("timeout_s", [10.0, 0.05])
async def test_a_provisional_text_stays_the_answer_when_its_confirmation_fails(timeout_s: float) -> None:
    offline = Offline()
    offline.failing = EngineError("broken")
    if timeout_s < 1.0:
        offline.free.clear()
    async with stage(TwoPass(Streaming(), offline), timeout_s=timeout_s) as asr:
        asr.begin()
        asr.ask(1)
        assert (await asr.answer()).provisional
        answer = await asr.answer()
        assert (answer.transcript, answer.provisional) == (Transcript("10"), False)
        assert answer.error in ("broken", "recognition took over 0.05 s")
        offline.free.set()


async def test_decodes_that_are_cancelled_leave_nothing_waiting() -> None:
    engine = Offline()
    engine.free.clear()
    async with stage(engine) as asr:
        asr.begin()
        asr.ask(1)
        await until(lambda: len(engine.decoded) == 1)
        asr.ask(2)
        await until(lambda: asr.pool.waiting == 1)
        for task in asyncio.all_tasks():
            if task.get_name() == "asr-decode":
                task.cancel()
        await until(lambda: asr.pool.waiting == 0)
        engine.free.set()
        await asr.pool.run(lambda: None)
        assert len(engine.decoded) == 1, "what waited was removed"


async def test_a_stream_is_fed_while_the_stage_reads() -> None:
    engine = Streaming()
    async with stage(engine) as asr:
        asr.begin(0.5)
        for _ in range(10):
            asr.go_on(0.05)
        await until(lambda: len(engine.streams) == 1 and round(sum(map(len, engine.streams[0].pieces)) / 1600) == 10)
        asr.ask(1)
        assert (await asr.answer()).transcript.text == "10"


async def test_when_too_much_waits_an_utterance_counts_as_not_understood() -> None:
    async with stage(Offline()) as asr:
        asr.ears._max_waiting = 0
        asr.begin()
        asr.ask(1)
        answer = await asr.answer()
    assert answer.transcript == Transcript("")
    assert "asr.max_concurrent" in answer.error


async def test_an_unforeseen_fault_in_a_decode_ends_neither_the_stage_nor_the_utterance() -> None:
    engine = Offline()
    async with stage(engine) as asr:
        engine.failing = RuntimeError("onnxruntime: something")
        asr.begin()
        asr.ask(1)
        assert (await asr.answer()).error == "recognition failed"
        engine.failing = None
        asr.go_on(0.5)
        asr.ask(2)
        assert (await asr.answer()).transcript.text == "15"


async def test_a_question_waits_for_a_worker_with_the_rank_of_its_user() -> None:
    pool = WorkerPool(1, "asr")
    engine, free = Offline(), threading.Event()
    ears = Recognition(engine, pool)
    busy = asyncio.create_task(pool.run(free.wait, 5.0))
    await asyncio.sleep(0)
    async with asyncio.TaskGroup() as tasks:
        for length, rank in ((1.0, Rank.LOW), (2.0, Rank.NORMAL), (3.0, Rank.HIGH)):
            asr = AsrStage(ears, lambda _said: None, 5.0)
            asr.speech(SpeechBegan(1, 0.0, length * 1000.0, sound(length)))
            asr.ask(Ask(1, Priority.FINAL, rank), tasks)
        await until(lambda: pool.waiting == 3)
        free.set()
    await busy
    assert [len(pcm) for pcm in engine.decoded] == [3 * RATE, 2 * RATE, RATE]
    pool.close()
