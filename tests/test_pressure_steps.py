"""What is given up under load, and when it comes back."""

import asyncio
import logging
import threading
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.house import House, house, question
from tests.recognisers import until
from xiaozhi import console
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.overload.steps import Change, Readings, Step, Steps
from xiaozhi.settings import LoadSettings, LoadStep
from xiaozhi.text.messages import message

CALM = Readings()


def steps(recover_s: float = 5.0, **of: LoadStep) -> Steps:
    """Steps with these thresholds and no others."""
    nothing = {step.value: LoadStep() for step in Step}
    return Steps(LoadSettings(recover_s=recover_s, **{**nothing, **of}))


def test_nothing_is_given_up_while_all_is_calm() -> None:
    assert Steps(LoadSettings()).update(0.0, CALM) == []


@pytest.mark.parametrize("reading", ["asr_wait_ms", "codec_wait_ms", "codec_percent", "loop_lag_ms", "memory_percent"])
def test_each_reading_takes_a_step_at_its_threshold(reading: str) -> None:
    ladder = steps(turns=LoadStep(**{reading: 50}))
    assert ladder.update(0.0, replace(CALM, **{reading: 49.9})) == []
    assert ladder.update(0.1, replace(CALM, **{reading: 50.0})) == [Change(Step.TURNS, True, f"{reading} 50 of 50")]
    assert ladder.taken == {Step.TURNS}


def test_a_threshold_of_zero_is_never_reached() -> None:
    assert steps().update(0.0, Readings(1e9, 1e9, 1e9, 100.0, 1e9)) == []


def test_a_step_comes_back_only_when_it_has_been_calm_for_a_while() -> None:
    ladder = steps(extras=LoadStep(asr_wait_ms=100))
    ladder.update(0.0, Readings(asr_wait_ms=100))
    assert ladder.update(4.0, Readings(asr_wait_ms=71)) == []  # above 70 % of the threshold: still pressed
    assert ladder.update(8.9, CALM) == []
    assert ladder.update(9.0, CALM) == [Change(Step.EXTRAS, False, "calm for 5 s")]
    assert ladder.taken == frozenset()


def test_several_steps_are_taken_at_once_the_least_missed_first() -> None:
    changes = Steps(LoadSettings()).update(0.0, Readings(asr_wait_ms=60_000))
    assert [change.step for change in changes] == [
        Step.EXTRAS,
        Step.SECOND_PASS,
        Step.SPECULATION,
        Step.HEDGING,
        Step.TURNS,
        Step.DEVICES,
    ]


def test_memory_refuses_devices_before_it_makes_turns_wait() -> None:
    assert [change.step for change in Steps(LoadSettings()).update(0.0, Readings(memory_percent=86))] == [Step.DEVICES]


@given(
    st.lists(
        st.tuples(st.floats(0.01, 3.0), st.floats(0, 8000), st.floats(0, 2000), st.floats(0, 1000), st.floats(0, 100)),
        max_size=60,
    )
)
def test_every_step_is_taken_and_taken_back_in_turns(rounds: list[tuple[float, float, float, float, float]]) -> None:
    ladder, taken, now_s = Steps(LoadSettings()), set[Step](), 0.0
    for wait_s, *values in rounds:
        now_s += wait_s
        for change in ladder.update(now_s, Readings(*values)):
            assert change.taken is (change.step not in taken)
            (taken.add if change.taken else taken.remove)(change.step)
        assert ladder.taken == taken
    for _ in range(2):
        now_s += 5.1
        ladder.update(now_s, CALM)
    assert not ladder.taken


def test_the_console_has_words_for_every_step() -> None:
    words = (Path(console.__file__).parent / "static" / "js" / "strings.js").read_text("utf-8")
    assert [step for step in Step if f"'step_given.{step.value}': [" not in words] == []


# Every step, in a whole server ---------------------------------------------------------------------------------------


class Busy:
    """Keeps a server's only recogniser busy, with another utterance waiting for it, until `over` is called."""

    def __init__(self, pool: WorkerPool) -> None:
        self._free, self._let_go = threading.Event(), threading.Event()
        self._jobs = [asyncio.ensure_future(pool.submit(self._hold, Priority.FINAL)) for _ in "ab"]

    def _hold(self) -> None:
        self._free.wait(10.0)
        self._let_go.set()

    async def over(self) -> None:
        """Let them go; no time passes until the first has gone, however late its thread gets a processor."""
        self._free.set()
        self._let_go.wait()
        await asyncio.gather(*self._jobs)


async def degraded(home: House, step: Step) -> tuple[float, float]:
    """What `/metrics` says: whether this is given up now, and how often it was."""
    async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{home.server.port}/metrics") as answer:
        lines = dict(line.rsplit(" ", 1) for line in (await answer.text()).splitlines() if not line.startswith("#"))
    name = f'{{step="{step.value}"}}'
    return float(lines[f"xiaozhi_degraded{name}"]), float(lines[f"xiaozhi_degradations_total{name}"])


async def gives_up(home: House, step: Step) -> bool:
    """Whether the server goes without it: what the parts concerned see, and a stranger at the door."""
    services = home.server.services
    match step:
        case Step.EXTRAS:
            assert services.recognition.early.allowed  # it costs no other anything, and saves a decode
            return not services.recognition.partials.allowed
        case Step.SECOND_PASS:
            return not services.recognition.second_pass.allowed
        case Step.SPECULATION:
            return not services.may_speculate
        case Step.QUALITY:
            audio = services.speech_settings().audio
            return (audio.bitrate_bps, audio.complexity) == (16_000, 0)
        case Step.HEDGING:
            return not services.chat.hedging_allowed
        case Step.TURNS:
            return not (services.admission.open or services.recognition.early.allowed)
        case Step.DEVICES:
            status, retry_after = await knock(home)
            assert retry_after == ("7" if status == 503 else None)
            return status == 503


async def knock(home: House) -> tuple[int, str | None]:
    """A device that nobody knows yet asks to be let in: the HTTP status, and when it shall come back."""
    headers = {"Device-Id": "02:00:00:00:00:77", "Protocol-Version": "1"}
    async with aiohttp.ClientSession() as http:
        try:
            async with http.ws_connect(home.url, headers=headers):
                return 101, None
        except aiohttp.WSServerHandshakeError as refused:
            return refused.status, None if refused.headers is None else refused.headers.get("Retry-After")


@pytest.mark.parametrize("step", list(Step))
async def test_under_load_each_step_is_taken_logged_counted_and_taken_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, step: Step
) -> None:
    load: dict[str, object] = {one.value: {"asr_wait_ms": 0, "codec_wait_ms": 0, "loop_lag_ms": 0,
                                           "memory_percent": 0} for one in Step}  # fmt: skip
    load |= {step.value: {"asr_wait_ms": 20, "codec_wait_ms": 0, "loop_lag_ms": 0, "memory_percent": 0}}
    load |= {"shed": True, "check_ms": 20, "recover_s": 8, "retry_after_s": 7, "blame_ms": 0}
    with caplog.at_level(logging.INFO):
        async with house(tmp_path, load=load) as home, home.device() as device:
            load_shedder = home.server.services.load_shedder
            assert not await gives_up(home, step) and await degraded(home, step) == (0.0, 0.0)
            busy = Busy(home.server.services.recognition.pool)
            await until(lambda: step in load_shedder.taken)
            assert await gives_up(home, step) and await degraded(home, step) == (1.0, 1.0)
            assert f"load: {step.value} given up (asr_wait_ms" in caplog.text
            if step is Step.TURNS:
                assert (await device.turn_text("hello")).said[0].text == "It is ten past nine.", "there is room for it"
            await busy.over()
            assert step in load_shedder.taken, "it is not taken back before it has been calm for a while"
            await until(lambda: step not in load_shedder.taken)
            assert f"load: {step.value} back (calm for 8 s)" in caplog.text
            assert not await gives_up(home, step) and await degraded(home, step) == (0.0, 1.0)
            assert (await device.turn(question())).answered


async def test_who_speaks_into_an_overloaded_server_hears_one_moment_and_then_the_answer(tmp_path: Path) -> None:
    """The load is real: the recogniser has more than it can do, and no place is free on the way to the first sound."""
    load = {"shed": True, "check_ms": 20, "recover_s": 0.2, "turns_at_once": 1, "turns": {"asr_wait_ms": 20}}
    async with house(tmp_path, load=load) as home, home.device() as device:
        services = home.server.services
        busy = Busy(services.recognition.pool)
        await until(lambda: not services.admission.open)
        await services.admission.enter()  # somebody else is on the way to an answer
        turn = asyncio.create_task(device.turn_text("what time is it"))
        await until(lambda: services.admission.waiting > 0)
        await until(lambda: device.turn_log.tts_start_ms is not None)
        await busy.over()  # the step is taken back by itself, and all that wait go on
        report = await turn
        assert [said.text for said in report.said] == [message("one_moment", "en"), "It is ten past nine."]
        assert services.admission.open and services.admission.held == 1


async def test_hedging_stays_given_up_when_the_endpoints_are_exchanged_meanwhile(tmp_path: Path) -> None:
    load = {"shed": True, "check_ms": 20, "recover_s": 60.0, "hedging": {"asr_wait_ms": 20}}
    async with house(tmp_path, load=load) as home:
        services = home.server.services
        before, busy = services.chat, Busy(services.recognition.pool)
        await until(lambda: Step.HEDGING in services.load_shedder.taken)
        await busy.over()
        llm = services.settings.llm.model_copy(update={"first_token_timeout_s": 3.0})
        await home.server.reloader.apply(services.settings.model_copy(update={"llm": llm}))
        assert services.chat is not before
        assert await gives_up(home, Step.HEDGING)
