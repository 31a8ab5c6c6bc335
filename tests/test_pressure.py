"""Waiting turns, the loop's lag, memory, and the load_shedder over them."""

import asyncio
import logging
import threading
import time
from pathlib import Path

import pytest

from tests.house import house, question
from tests.recognisers import until
from xiaozhi.client.errors import DeviceError
from xiaozhi.concurrency.workers import Priority, WorkerPool
from xiaozhi.overload import usage
from xiaozhi.overload.admission import TurnAdmission, TurnedAway
from xiaozhi.overload.load_shedder import LoadShedder
from xiaozhi.overload.loop_lag import LoopLag, StallReport
from xiaozhi.overload.steps import Step
from xiaozhi.settings import LoadSettings, LoadStep
from xiaozhi.text.messages import message

# Admission ------------------------------------------------------------------------------------------------------------


async def test_turns_go_through_freely_while_nothing_is_wrong() -> None:
    admission = TurnAdmission(1, 1.0)
    for _ in range(5):
        assert not admission.full
        await admission.enter()
    assert admission.held == 0


async def test_under_load_turns_wait_first_come_first_served() -> None:
    admission, order = TurnAdmission(1, 10.0), []
    admission.open = False
    await admission.enter()

    async def turn(number: int) -> None:
        await admission.enter()
        order.append(number)
        admission.leave()

    async with asyncio.TaskGroup() as tasks:
        for number in range(3):
            tasks.create_task(turn(number))
            await asyncio.sleep(0)
        assert admission.full and admission.waiting == 3
        admission.leave()
    assert order == [0, 1, 2] and admission.held == 3 and not admission.full


async def test_all_that_wait_go_through_when_the_load_is_gone() -> None:
    admission = TurnAdmission(1, 10.0)
    admission.open = False
    await admission.enter()
    waiting = [asyncio.create_task(admission.enter()) for _ in range(4)]
    await asyncio.sleep(0)
    admission.open = True
    await asyncio.gather(*waiting)
    assert admission.waiting == 0


async def test_a_turn_that_waits_in_vain_is_turned_away_and_leaves_no_trace() -> None:
    admission = TurnAdmission(1, 0.001)
    admission.open = False
    await admission.enter()
    with pytest.raises(TurnedAway):
        await admission.enter()
    assert admission.turned_away == 1 and admission.waiting == 0
    admission.leave()
    assert not admission.full


async def test_a_turn_that_is_dropped_while_it_waits_gives_its_place_away() -> None:
    admission = TurnAdmission(1, 10.0)
    admission.open = False
    await admission.enter()
    dropped, next_one = asyncio.create_task(admission.enter()), asyncio.create_task(admission.enter())
    await asyncio.sleep(0)
    admission.leave()  # the place is promised to the first …
    dropped.cancel()  # … who goes before it knows
    await asyncio.gather(dropped, return_exceptions=True)
    await next_one
    admission.leave()
    assert not admission.full


# The loop's lag ---------------------------------------------------------------------------------------------------


def hold_up_the_loop(until: threading.Event) -> None:
    """Block whoever calls it."""
    until.wait(5.0)


@pytest.mark.real_time
async def test_the_code_that_blocks_the_loop_is_named(caplog: pytest.LogCaptureFixture) -> None:
    lag, seen = LoopLag(blame_above_ms=50), threading.Event()

    def wait_until_seen() -> None:
        give_up = time.monotonic() + 4.0
        while lag._offender is None and time.monotonic() < give_up:  # a poll, in a thread
            time.sleep(0.005)
        seen.set()

    lag.start()
    watcher = threading.Thread(target=wait_until_seen)
    watcher.start()
    with caplog.at_level(logging.WARNING):
        hold_up_the_loop(seen)  # returns when the offender has been seen, which the beat has then to report
        await until(lambda: lag.stalls > 0)
    watcher.join()
    lag.stop()
    assert "stood still" in caplog.text and "hold_up_the_loop" in caplog.text
    assert lag.worst_ms >= 50
    assert lag.lag_ms() < lag.worst_ms, "one long call alone is no sign of load"


def test_stalls_are_summed_up_once_a_minute() -> None:
    report, lines = StallReport(), []
    for tick in range(1800):  # three minutes of a loop that is blocked every second
        now_s = tick / 10
        if tick % 10 == 0:
            report.add(100.0 + tick % 600, f"step {tick}")
        if text := report.due(now_s):
            lines.append((now_s, text))
    assert lines == [
        (0.0, "the event loop stood still for 100 ms: step 0"),
        (60.0, "the event loop stood still 60 times in the last minute, at worst for 690 ms: step 590"),
        (120.0, "the event loop stood still 60 times in the last minute, at worst for 690 ms: step 1190"),
    ]
    assert "59 times" in report.due(500.0) and report.due(1000.0) == ""


async def test_a_loop_that_nobody_blocks_shows_no_stall() -> None:
    lag, delays = LoopLag(blame_above_ms=0), asyncio.Queue[float]()
    lag.observe = delays.put_nowait
    lag.start()
    assert await delays.get() < 1.0
    lag.stop()
    assert lag.stalls == 0


# Memory -----------------------------------------------------------------------------------------------------------


def test_the_process_knows_its_memory_and_its_limit() -> None:
    assert 10e6 < usage.used_bytes() < usage.limit_bytes()
    assert 0.0 < usage.used_percent() < 100.0


# The load shedder ------------------------------------------------------------------------------------------------


async def test_waiting_speech_takes_steps_and_they_are_told_and_logged(caplog: pytest.LogCaptureFixture) -> None:
    recognition, codec = WorkerPool(1, "asr"), WorkerPool(1, "codec")
    load_shedder = LoadShedder(
        LoadSettings(extras=LoadStep(asr_wait_ms=0.001), blame_ms=0, recover_s=0.0), recognition, codec
    )
    told: list[tuple[Step, bool]] = []
    load_shedder.tell(lambda step, taken: told.append((step, taken)))
    free = threading.Event()
    jobs = [asyncio.create_task(recognition.submit(lambda: free.wait(5.0), Priority.FINAL)) for _ in range(2)]
    await asyncio.sleep(0.01)
    with caplog.at_level(logging.INFO):
        load_shedder.check()
        assert load_shedder.taken == {Step.EXTRAS}
        free.set()
        await asyncio.gather(*jobs)
        load_shedder.check()
    assert told == [(Step.EXTRAS, True), (Step.EXTRAS, False)] and load_shedder.times_taken[Step.EXTRAS] == 1
    assert "extras given up (asr_wait_ms" in caplog.text and "extras back" in caplog.text
    recognition.close()
    codec.close()


async def test_what_many_voices_will_cost_lowers_their_effort_before_anything_waits(tmp_path: Path) -> None:
    async with house(tmp_path, "一二三四五六七八九十。", load={"shed": True, "recover_s": 0}) as home:
        services = home.server.services
        shedder, full = services.load_shedder, home.server.services.settings.audio
        assert 0.0 < shedder.voice_percent < 10.0, "measured at start"
        shedder.voices = int(20.0 / shedder.voice_percent) - 1
        shedder.check()
        assert services.speech_settings().audio == full
        shedder.voices += 2
        shedder.check()
        assert services.codec.oldest_wait_s() == 0.0
        lesser = services.speech_settings().audio
        assert (lesser.complexity, lesser.bitrate_bps) == (0, 16_000) and shedder.taken == {Step.QUALITY}
        shedder.voices = 0
        shedder.check()
        assert services.speech_settings().audio == full


async def test_replies_count_while_they_are_made(tmp_path: Path) -> None:
    async with house(tmp_path, "一二三四五六七八九十。" * 6, load={"shed": True}) as home, home.device() as device:
        shedder = home.server.services.load_shedder
        seen: set[int] = set()
        shedder.tell(lambda step, taken: seen.add(shedder.voices))
        shedder.voice_percent = 100.0
        await device.turn_text("你好")
        await until(lambda: 1 in seen)
        assert shedder.voices == 0


async def test_shedding_can_be_switched_off() -> None:
    recognition, codec = WorkerPool(1, "asr"), WorkerPool(1, "codec")
    load_shedder = LoadShedder(LoadSettings(shed=False, devices=LoadStep(memory_percent=0.0001)), recognition, codec)
    load_shedder.check()
    assert load_shedder.readings.memory_percent > 0.0 and not load_shedder.taken
    recognition.close()
    codec.close()


# A whole server under load ----------------------------------------------------------------------------------------


async def test_a_server_short_of_memory_refuses_new_devices_and_keeps_the_others(tmp_path: Path) -> None:
    async with house(tmp_path) as home, home.device(1) as early:
        home.server.services.obey(Step.DEVICES, True)
        with pytest.raises(DeviceError, match="503"):
            async with home.device(2):
                pass
        assert (await early.turn(question())).outcome == "answered"
        home.server.services.obey(Step.DEVICES, False)
        async with home.device(2) as late:
            assert (await late.turn(question())).outcome == "answered"


async def test_a_turn_that_has_to_wait_is_asked_for_patience_and_then_answered(tmp_path: Path) -> None:
    async with house(tmp_path, load={"turns_at_once": 1}) as home, home.device() as device:
        admission = home.server.services.admission
        admission.open = False
        await admission.enter()  # somebody else is being answered
        turn = asyncio.create_task(device.turn(question()))
        await until(lambda: admission.waiting > 0)
        admission.leave()
        report = await turn
        assert [said.text for said in report.said] == [message("one_moment", "en"), "It is ten past nine."]


async def test_a_turn_that_waits_in_vain_hears_that_too_many_are_talking(tmp_path: Path) -> None:
    async with house(tmp_path, load={"turns_at_once": 1, "turn_wait_s": 0.5}) as home, home.device() as device:
        home.server.services.admission.open = False
        await home.server.services.admission.enter()
        report = await device.turn(question())
        assert "".join(said.text for said in report.said) == message("one_moment", "en") + message("busy", "en")
        assert not home.asked
