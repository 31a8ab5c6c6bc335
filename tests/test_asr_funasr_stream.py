"""FunASR in mode 2pass: sound goes up while somebody speaks, against a runtime in every dialect."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from bench.standins.funasr import DIALECTS, Dialect, FunasrStandIn, Live
from tests.house import house, question
from tests.recognisers import Offline, noting, sound, until
from xiaozhi.concurrency.workers import JobDropped, WorkerPool
from xiaozhi.settings import AsrSettings
from xiaozhi.settings.asr import FunasrSettings, RemoteAsrSettings
from xiaozhi.stages.asr.fallback import Fallback
from xiaozhi.stages.asr.funasr import Funasr
from xiaozhi.stages.asr.recogniser import Question, Recognizer, Utterance
from xiaozhi.stages.asr.recognition import Recognition
from xiaozhi.stages.asr.remote_use import RemoteError


@pytest.fixture(autouse=True)
def without_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
async def pool() -> AsyncIterator[WorkerPool]:
    pool = WorkerPool(1, "asr")
    yield pool
    pool.close()


def funasr_at(server: FunasrStandIn, **limits: object) -> Funasr:
    settings = FunasrSettings.model_validate({"url": server.ws_url, "mode": "2pass"})
    return Funasr(settings, RemoteAsrSettings.model_validate(limits), "zh", itn=True)


class Talk:
    """An utterance, spoken in frames of 60 ms, and what is shown of it."""

    def __init__(self, engine: Recognizer, pool: WorkerPool) -> None:
        self.shown: list[str] = []
        self.utterance: Utterance = Recognition(engine, pool, AsrSettings(partials=True)).begin(noting(self.shown))

    def say(self, seconds: float) -> None:
        """Voiced frames."""
        for _ in range(round(seconds / 0.06)):
            self.utterance.feed(sound(0.06))

    def pause(self, seconds: float) -> None:
        """Frames of silence."""
        for number in range(1, round(seconds / 0.06) + 1):
            self.utterance.feed(np.zeros(960, np.float32), number * 60.0)

    async def text(self) -> str:
        """Ask."""
        return (await self.utterance.transcribe(Question(held=False))).text


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_sound_goes_up_and_texts_come_down_while_somebody_speaks(dialect: Dialect, pool: WorkerPool) -> None:
    live = Live(drafts=("今天天汽怎么样",))
    async with FunasrStandIn("今天天气怎么样？", dialect=dialect, live=live) as runtime:
        engine = funasr_at(runtime)
        talk = Talk(engine, pool)
        talk.say(1.2)
        await until(lambda: talk.shown == ["今天", "今天天汽"])
        assert (runtime.bytes_up, runtime.requests) == ([round(1.2 * 32_000)], []), "nobody has asked yet"
        talk.say(0.63)
        talk.pause(0.24)
        assert await talk.text() == "今天天气怎么样？", "the second pass is the last word"
        assert talk.utterance.ready
        assert runtime.requests[0].seconds == pytest.approx(1.2 + 0.6 + 0.24)
        assert runtime.uneven == 0
        talk.utterance.close()
        await engine.disconnect()


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_parts_that_the_runtime_cuts_replace_what_its_first_pass_has_heard_of_them(
    dialect: Dialect, pool: WorkerPool
) -> None:
    live = Live(drafts=("泥好", "今天天汽怎么样"), cut_s=1.2)
    async with FunasrStandIn("你好，", "今天天气怎么样？", dialect=dialect, live=live) as runtime:
        engine = funasr_at(runtime)
        talk = Talk(engine, pool)
        talk.say(2.4)
        await until(lambda: talk.shown[-1:] == ["你好，今天天汽"])
        assert talk.shown == ["泥好", "你好，", "你好，今天", "你好，今天天汽"]
        assert await talk.text() == "你好，今天天气怎么样？"
        talk.utterance.close()
        await engine.disconnect()


@pytest.mark.parametrize("dialect", ["python", "cpp", "end"])
async def test_the_last_text_is_known_without_waiting_for_another(
    dialect: Dialect, pool: WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xiaozhi.stages.asr.funasr._NEXT_PART_S", 1e6)
    async with FunasrStandIn("你好，", "今天。", dialect=dialect, live=Live(cut_s=1.2)) as runtime:
        engine = funasr_at(runtime)
        await engine.connect()
        talk = Talk(engine, pool)
        talk.say(4.2)
        await until(lambda: talk.shown[-1:] == ["你好，今天。"])
        assert await talk.text() == "你好，今天。"
        talk.utterance.close()
        await engine.disconnect()


@pytest.mark.parametrize("dialect", ["end", "python"])
async def test_a_runtime_that_has_nothing_left_to_say_is_not_waited_for(dialect: Dialect, pool: WorkerPool) -> None:
    async with FunasrStandIn("你好。", dialect=dialect, live=Live(cut_s=1.2, silent_end=True)) as runtime:
        engine = funasr_at(runtime, timeout_s=30)
        talk = Talk(engine, pool)
        talk.say(1.2)
        await until(lambda: talk.shown[-1:] == ["你好。"])
        talk.pause(0.6)
        async with asyncio.timeout(5):
            assert await talk.text() == "你好。"
        talk.utterance.close()
        await engine.disconnect()


async def test_who_goes_on_is_heard_whole_and_silence_costs_no_connection(pool: WorkerPool) -> None:
    async with FunasrStandIn("今天天气。", live=Live()) as runtime:
        engine = funasr_at(runtime)
        talk = Talk(engine, pool)
        talk.say(0.9)
        talk.pause(0.3)
        assert await talk.text() == "今天天气。"
        talk.pause(0.6)
        assert await talk.text() == "今天天气。"
        assert len(runtime.bytes_up) == 1
        runtime.parts = ("怎么样？",)
        talk.say(0.6)
        assert not talk.utterance.ready
        assert await talk.text() == "今天天气怎么样？"
        assert [asked.seconds for asked in runtime.requests] == pytest.approx([1.2, 1.2]), "with the silence between"
        assert (engine.remote.requests, engine.remote.failures) == (2, 0)
        talk.utterance.close()
        await engine.disconnect()


async def test_a_question_that_is_overtaken_loses_no_part(pool: WorkerPool) -> None:
    async with FunasrStandIn("今天天气。", live=Live()) as runtime:
        runtime.fault = "hang"
        engine = funasr_at(runtime)
        talk = Talk(engine, pool)
        talk.say(0.9)
        early = asyncio.create_task(talk.text())
        await runtime.asked()
        early.cancel()
        await asyncio.gather(early, return_exceptions=True)
        runtime.fault = ""
        talk.say(0.6)
        runtime.released.set()
        assert (await talk.text()).startswith("今天天气")
        assert len(runtime.requests) == 2
        talk.utterance.close()
        await engine.disconnect()


async def test_closing_an_utterance_leaves_the_runtime_and_ends_its_question(pool: WorkerPool) -> None:
    async with FunasrStandIn(live=Live()) as runtime:
        runtime.fault = "hang"
        engine = funasr_at(runtime)
        talk = Talk(engine, pool)
        talk.say(0.9)
        asking = asyncio.create_task(talk.text())
        await runtime.asked()
        talk.utterance.close()
        with pytest.raises(JobDropped):
            await asking
        async with asyncio.timeout(3):
            await runtime.idle()
        assert (engine.remote.in_flight, engine.remote.failures) == (0, 0)
        await engine.disconnect()


@pytest.mark.parametrize("fault", ["cut", "stall", "refuse", "error-500", "hang", "reset", "garbage", "close"])
async def test_a_runtime_that_fails_in_mid_utterance_loses_not_a_word(fault: str, pool: WorkerPool) -> None:
    async with FunasrStandIn(live=Live(ends_at_s=0.9)) as runtime:
        runtime.fault = fault
        local = Offline()
        engine = funasr_at(runtime, timeout_s=0.3 if fault in ("stall", "hang") else 5)
        both = Fallback(engine, engine.remote, local)
        talk = Talk(both, pool)
        talk.say(1.2)
        talk.pause(0.3)
        assert await talk.text() == "15", "everything, recognised here"
        assert (engine.remote.failures, engine.remote.fallbacks) == (1, 1)
        talk.utterance.close()
        await both.disconnect()


async def test_a_runtime_that_is_left_alone_gets_no_sound_and_its_trial_gets_all(pool: WorkerPool) -> None:
    async with FunasrStandIn("好。", live=Live()) as runtime:
        engine = funasr_at(runtime, retry_after_s=0)
        engine.remote.clock = lambda: 0.0
        engine.remote.breaker.rest(0.0, 30.0)
        talk = Talk(engine, pool)
        talk.say(0.9)
        with pytest.raises(RemoteError):
            await talk.text()
        assert runtime.bytes_up == []
        engine.remote.clock = lambda: 31.0
        talk.say(0.3)
        assert await talk.text() == "好。"
        assert runtime.bytes_up == [round(1.2 * 32_000)]
        talk.utterance.close()
        await engine.disconnect()


@pytest.mark.parametrize("fault", ["", "cut"])
async def test_a_turn_is_heard_while_it_is_spoken(tmp_path: Path, fault: str) -> None:
    async with FunasrStandIn("how late is it over there", live=Live(ends_at_s=0.3)) as runtime:
        asr = {"engine": "funasr", "fallback": "sense-voice", "partials": True}
        asr |= {"funasr": {"url": runtime.ws_url, "mode": "2pass"}}
        async with house(tmp_path, asr=asr) as home, home.device() as device:
            runtime.fault = fault
            report = await device.turn(question())
        assert report.answered
        assert report.heard == ("what time is it" if fault else "how late is it over there")
        assert runtime.uneven == 0
