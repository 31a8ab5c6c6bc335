"""What is given up under load, and when it comes back."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xiaozhi.pressure.steps import Change, Readings, Step, Steps
from xiaozhi.settings import LoadSettings, LoadStep

CALM = Readings()


def steps(recover_s: float = 5.0, **of: LoadStep) -> Steps:
    """Steps with these thresholds and no others."""
    nothing = {step.value: LoadStep() for step in Step}
    return Steps(LoadSettings(recover_s=recover_s, **{**nothing, **of}))


def test_nothing_is_given_up_while_all_is_calm() -> None:
    assert Steps(LoadSettings()).update(0.0, CALM) == []


@pytest.mark.parametrize("reading", ["asr_wait_ms", "codec_wait_ms", "loop_lag_ms", "memory_percent"])
def test_each_reading_takes_a_step_at_its_threshold(reading: str) -> None:
    ladder = steps(turns=LoadStep(**{reading: 50}))
    assert ladder.update(0.0, replace(CALM, **{reading: 49.9})) == []
    assert ladder.update(0.1, replace(CALM, **{reading: 50.0})) == [Change(Step.TURNS, True, f"{reading} 50 of 50")]
    assert ladder.taken == {Step.TURNS}


def test_a_threshold_of_zero_is_never_reached() -> None:
    assert steps().update(0.0, Readings(1e9, 1e9, 1e9, 100.0)) == []


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
