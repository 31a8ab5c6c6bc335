"""Who is encoded first when encoding cannot keep up: those who are heard, the one whose sound ends first before all."""

import asyncio
import functools
import math
import time
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.sounds import sine
from tests.virtual_loop import in_virtual_time
from xiaozhi.audio.pcm import PcmInt
from xiaozhi.concurrency.channel import Channel
from xiaozhi.concurrency.timing_wheel import TimingWheel
from xiaozhi.concurrency.workers import NEAR_S, Priority, WorkerPool, _Job
from xiaozhi.conversation.device_link import DeviceLink
from xiaozhi.conversation.pacer import Pacer
from xiaozhi.events import Clause, SpeechPacket, SpokenItem
from xiaozhi.settings import Settings
from xiaozhi.stages.tts.clause_speech import ClauseSpeech
from xiaozhi.stages.tts.encoding import encode, workers_for
from xiaozhi.stages.tts.engine import ClauseVoice
from xiaozhi.stages.tts.fallback import VoiceChain
from xiaozhi.stages.tts.stage import run_tts
from xiaozhi.stages.tts.voice_request import ANY_VOICE, VoiceRequest


class SlowPool(WorkerPool):
    """Does its jobs for real, and takes some of the loop's time for each packet of their results."""

    def __init__(self, packet_s: float, workers: int = 1) -> None:
        super().__init__(workers, "slow")
        self.packet_s = packet_s
        self.begun = 0

    def _begin(self, job: _Job) -> None:
        self._running += 1
        self.begun += 1
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Any] = loop.create_future()
        done.add_done_callback(functools.partial(self._finished, job))
        packets = job.call()
        loop.call_later(len(packets) * self.packet_s, done.set_result, packets)


class Tones(ClauseVoice):
    """A second of tone for each character, in pieces of 100 ms, so many times as fast as it is played."""

    name = "tones"

    def __init__(self, times: float = math.inf) -> None:
        self.times = times

    async def speak(
        self, text: str, *, language: str, request: VoiceRequest = ANY_VOICE
    ) -> AsyncGenerator[PcmInt, None]:
        for _ in range(10 * len(text)):
            yield sine(440, 0.1)
            await asyncio.sleep(0.1 / self.times)


class Link:
    def sentence_start(self, text: str) -> None: ...
    def audio(self, packet: bytes, generation: int) -> None: ...


async def spoken(pool: WorkerPool, clauses: list[str], times: float = math.inf) -> tuple[float, float]:
    """Speak clauses as a reply does; returns seconds to its first packet, and milliseconds of silence in it."""
    speech = ClauseSpeech(VoiceChain([Tones(times)], 5.0, 5.0, 30.0, time.monotonic), pool, Settings())
    items: Channel[SpokenItem] = Channel(3000.0, lambda item: 60.0 if isinstance(item, SpeechPacket) else 0.0)
    texts: Channel[Clause] = Channel(100)
    for text in clauses:
        texts.put_nowait(Clause(text, text, "zh"))
    texts.close()
    pacer = Pacer(cast("DeviceLink", Link()), TimingWheel(), 1, 240.0, 600_000.0)
    loop = asyncio.get_running_loop()
    began, first = loop.time(), []

    async def produce() -> None:
        await run_tts(texts, items, speech, Settings(), queued_ms=lambda: items.weight + pacer.unplayed_ms())
        items.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(produce())
        await pacer.play(items, lambda: first.append(loop.time()))
    return first[0] - began, pacer.starved_ms


async def test_voices_that_are_heard_do_not_starve_when_more_begin_than_can_be_encoded() -> None:
    pool = SlowPool(0.06 / 15)  # keeps up with fifteen voices
    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(spoken(pool, ["一二三", "四五六", "七八九"])) for _ in range(10)]
        await asyncio.sleep(1.0)
        new = [tasks.create_task(spoken(pool, ["一二三", "四五六"])) for _ in range(20)]
    pool.close()
    starved_ms = [task.result()[1] for task in (*running, *new)]
    assert max(starved_ms) < 20.0, "nobody stutters, heard before or begun later"
    first_s = [task.result()[0] for task in new]
    assert max(first_s) > 2.0, "what was too much began later"
    assert pool.waiting == 0


async def test_nobody_waits_while_everybody_is_kept_up_with() -> None:
    pool = SlowPool(0.0003)
    async with asyncio.TaskGroup() as tasks:
        replies = [tasks.create_task(spoken(pool, ["一二三", "四五六"])) for _ in range(10)]
    pool.close()
    assert max(first_s for first_s, _ in (task.result() for task in replies)) < 0.15
    assert max(starved_ms for _, starved_ms in (task.result() for task in replies)) == 0.0


@pytest.mark.parametrize(("times", "most"), [(1.2, 55), (4.0, 45), (20.0, 45)])
async def test_small_pieces_are_gathered_while_there_is_enough_to_hear(times: float, most: int) -> None:
    pool = SlowPool(0.0003)
    await spoken(pool, ["一二三", "四五六", "七八九"], times)
    pool.close()
    assert pool.begun <= most, "nine seconds took 93 jobs when each piece was encoded as it came"


async def test_what_a_stalled_voice_has_sent_is_heard_before_the_sound_runs_out() -> None:
    pool, loop = SlowPool(0.0003), asyncio.get_running_loop()
    stalled = asyncio.Event()

    async def sound() -> AsyncGenerator[PcmInt, None]:
        yield sine(440, 0.06 * 3)
        stalled.set()
        await asyncio.sleep(100.0)

    ends_s = loop.time() + 2.0  # what is heard before
    packets = encode(sound(), pool, Settings().audio, ahead_ms=lambda: (ends_s - loop.time()) * 1000.0)
    assert len(await anext(packets)) > 0
    assert stalled.is_set() and 0.4 < ends_s - loop.time() < 0.6
    await packets.aclose()
    pool.close()


@pytest.mark.parametrize(("cores", "workers"), [(1, 1), (2, 2), (4, 4), (64, 4)])
def test_there_are_as_many_encoding_threads_as_cores_and_four_at_most(cores: int, workers: int) -> None:
    assert workers_for(cores) == workers


class Step(NamedTuple):
    """A job: when it comes, what it takes, in how long it is needed (None: no deadline), when its caller goes."""

    at_ms: int
    takes_ms: int
    priority: Priority
    needed_in_ms: int | None
    leaves_after_ms: int | None


STEPS = st.lists(
    st.builds(
        Step,
        st.integers(0, 300),
        st.integers(0, 200),
        st.sampled_from(Priority),
        st.none() | st.integers(0, 2500),
        st.none() | st.integers(0, 300),
    ),
    max_size=12,
)


@dataclass(slots=True)
class Given:
    step: Step
    deadline_s: float
    begun: bool = False
    left: bool = False


@given(steps=STEPS, workers=st.integers(1, 3))
@settings(max_examples=80, deadline=None)
def test_the_earliest_deadline_goes_first_and_who_has_left_is_never_served(steps: list[Step], workers: int) -> None:
    async def play() -> None:
        pool = SlowPool(0.001, workers)
        loop = asyncio.get_running_loop()
        waiting: list[Given] = []

        def begins(job: Given) -> list[int]:
            assert not job.left
            now_s = loop.time()
            job.begun = True
            waiting.remove(job)
            others = [one for one in waiting if not one.left]
            timed = [one.deadline_s for one in others if math.isfinite(one.deadline_s)]
            if math.isfinite(job.deadline_s):
                assert all(job.deadline_s <= other_s for other_s in timed)
                near = job.deadline_s < now_s + NEAR_S
                assert near or len(timed) == len(others), "it can wait, and others cannot"
            else:
                assert all(other_s >= now_s + NEAR_S for other_s in timed), "somebody's sound runs out"
                assert all(job.step.priority <= one.step.priority for one in others if math.isinf(one.deadline_s))
            return [0] * job.step.takes_ms

        async def ask(step: Step) -> None:
            await asyncio.sleep(step.at_ms / 1000.0)
            needed_s = math.inf if step.needed_in_ms is None else loop.time() + step.needed_in_ms / 1000.0
            job = Given(step, needed_s)

            async def submit() -> None:
                waiting.append(job)
                await pool.submit(lambda: begins(job), step.priority, deadline_s=needed_s)

            asked = asyncio.create_task(submit())
            patience_s = None if step.leaves_after_ms is None else step.leaves_after_ms / 1000.0
            await asyncio.wait([asked], timeout=patience_s)
            if not asked.done():
                job.left = not job.begun
                asked.cancel()
                await asyncio.wait([asked])
                assert pool.waiting == sum(not one.left for one in waiting), "it does not count any more"
            else:
                await asked

        async with asyncio.TaskGroup() as tasks:
            for step in steps:
                tasks.create_task(ask(step))
        assert all(job.left for job in waiting), "all others have been done"
        pool.close()

    in_virtual_time(play())


async def test_a_job_waits_only_once_its_deadline_is_near() -> None:
    pool = SlowPool(1.0)
    busy = asyncio.create_task(pool.submit(lambda: [0] * 10, Priority.FINAL))
    await asyncio.sleep(0.0)
    needed_s = asyncio.get_running_loop().time() + NEAR_S + 0.5
    waits = asyncio.create_task(pool.submit(lambda: [0], Priority.PROBE, deadline_s=needed_s))
    await asyncio.sleep(0.4)
    assert (pool.waiting, pool.oldest_wait_s()) == (1, 0.0)
    await asyncio.sleep(0.3)
    assert pool.oldest_wait_s() == pytest.approx(0.2)
    await asyncio.gather(busy, waits)
    assert pool.oldest_wait_s() == 0.0
    pool.close()
