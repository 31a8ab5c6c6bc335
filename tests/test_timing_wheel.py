"""What is due at about the same time is called together, never early, and no more than a slot late."""

import asyncio
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.virtual_loop import VirtualLoop
from xiaozhi.concurrency.timing_wheel import SLOT_S, TimingWheel


@given(st.lists(st.floats(0.0, 1.0), max_size=30), st.integers(0, 5))
def test_every_call_comes_once_never_early_and_up_to_a_slot_late(delays_s: list[float], repeats: int) -> None:
    async def scene() -> None:
        loop, wheel = asyncio.get_running_loop(), TimingWheel()
        came: list[float] = []

        def put(delay_s: float, left: int) -> None:
            due_s = loop.time() + delay_s

            def call() -> None:
                assert -1e-6 <= loop.time() - due_s <= SLOT_S + 1e-6
                came.append(due_s)
                if left:
                    put(0.06, left - 1)

            wheel.at(due_s, call)

        for delay_s in delays_s:
            put(delay_s, repeats)
        await asyncio.sleep(3.0)
        assert len(came) == len(delays_s) * (repeats + 1)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(scene())


async def test_calls_of_one_slot_share_a_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, wheel = asyncio.get_running_loop(), TimingWheel()
    timers: list[float] = []
    called: list[int] = []
    call_at = loop.call_at

    def counted(when: float, *args: Any, **options: Any) -> asyncio.TimerHandle:
        timers.append(when)
        return call_at(when, *args, **options)

    slot_s = (int(loop.time() / SLOT_S) + 5) * SLOT_S
    monkeypatch.setattr(loop, "call_at", counted)
    for number in range(100):
        wheel.at(slot_s - number * SLOT_S / 1000.0, partial(called.append, number))
    assert len(timers) == 1
    await asyncio.sleep(0.1)
    assert called == list(range(100))
